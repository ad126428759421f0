//! The messages in `src/chancery/` are what the `.proto` files say.
//!
//! They are generated here and not by a build script: whoever builds Chancery needs no compiler of protobuf, and what
//! changed in the generated code is seen in review. `CHANCERY_REWRITE=1 cargo test -p chancery-proto --test generated`
//! writes them anew.
#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

use std::{fs, path::Path};

use prost_build::Module;
use protox::prost_reflect::prost_types::FileDescriptorProto;

/// Our own packages, by the file of one of them, and where the messages go.
const PACKAGES: [(&str, &str); 2] = [
    ("chancery/config/v1/rate_limit.proto", "src/chancery/config_v1.rs"),
    ("chancery/identity/v1/renewal.proto", "src/chancery/identity_v1.rs"),
];

#[test]
fn the_generated_messages_are_those_of_the_proto_files() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (proto, target) in PACKAGES {
        let generated = generate(&root.join("proto"), proto);
        let target = root.join(target);
        if std::env::var_os("CHANCERY_REWRITE").is_some() {
            fs::write(&target, &generated).unwrap();
        }
        let committed = fs::read_to_string(&target).unwrap_or_default();
        assert!(committed == generated, "{} is not what {proto} says: see tests/generated.rs", target.display());
    }
}

fn generate(include: &Path, proto: &str) -> String {
    let descriptors = protox::compile([proto], [include]).unwrap();
    let mut config = prost_build::Config::new();
    // Envoy's messages and ours share one `Duration`.
    config.compile_well_known_types().extern_path(".google.protobuf", "crate::google::protobuf");
    config.enable_type_names().type_name_domain(["."], "type.googleapis.com");
    let module_of = |file: &FileDescriptorProto| Module::from_protobuf_package_name(file.package());
    let module = descriptors.file.iter().find(|file| file.name() == proto).map(module_of).unwrap();
    // What it imports has to be known, but is not wanted.
    let requests = descriptors.file.into_iter().map(|file| (module_of(&file), file)).collect();
    let generated = config.generate(requests).unwrap().remove(&module).unwrap();
    format!("//! Generated from `{proto}` by `tests/generated.rs`: change these.\n\n{generated}")
}
