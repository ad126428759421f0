//! Resources of a control plane: whatever they are, each is in force as it came, or refused with a reason.
#![no_main]

use chancery_proto::type_url::{CLUSTER, ENDPOINT, LISTENER, ROUTE, SECRET};
use chancery_sidecar::config::held::Held;
use chancery_xds::client::{Batch, Received};
use libfuzzer_sys::fuzz_target;

const TYPES: [&str; 5] = [CLUSTER, ENDPOINT, LISTENER, ROUTE, SECRET];

fuzz_target!(|resources: Vec<(u8, &str, &[u8])>| {
    let mut held = Held::new(true);
    for (kind, name, body) in resources {
        let received = Received { name: name.into(), version: "1".to_owned(), body: body.to_vec().into() };
        let type_url = TYPES[usize::from(kind) % TYPES.len()].into();
        let taken = held.take(&Batch { type_url, upserts: vec![received], removed: Vec::new() });
        for refused in taken.err().into_iter().flatten() {
            assert!(!refused.reason.is_empty(), "{refused:?}");
        }
    }
    held.snapshot();
    let saved = held.save();
    let restored = Held::restore(&saved, true).expect("what was in force can be restored");
    assert_eq!(restored.versions(), held.versions());
    assert_eq!(restored.save(), saved);
});
