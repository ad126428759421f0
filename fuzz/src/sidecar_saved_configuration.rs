//! A saved configuration that somebody has written to: it is read as a whole, or refused.
#![no_main]

use chancery_sidecar::config::held::Held;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|saved: &[u8]| {
    if let Ok(held) = Held::restore(saved, false) {
        held.snapshot();
        let again = Held::restore(&held.save(), false).expect("what was restored can be saved");
        assert_eq!(again.versions(), held.versions());
    }
});
