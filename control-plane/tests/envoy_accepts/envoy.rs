//! Envoy as a judge: what it says of a bootstrap, without serving it.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use chancery_proto::{Message, envoy::bootstrap::Bootstrap};

/// The Envoy that judges.
pub(crate) struct Envoy(PathBuf);

impl Envoy {
    pub(crate) fn find() -> Option<Self> {
        let named = std::env::var_os("CHANCERY_ENVOY").map(PathBuf::from);
        let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.dev/envoy/bin/envoy");
        let path = std::env::var_os("PATH").unwrap_or_default();
        let installed = std::env::split_paths(&path).map(|directory| directory.join("envoy"));
        let found = named.into_iter().chain([fetched]).chain(installed).find(|candidate| candidate.is_file());
        if found.is_none() {
            assert!(std::env::var_os("CI").is_none(), "no Envoy in CI");
            eprintln!("SKIPPED: no Envoy found; set CHANCERY_ENVOY to run this test");
        }
        found.map(Self)
    }

    /// What Envoy says against the bootstrap in `file`.
    pub(crate) fn validate(&self, file: &Path) -> Result<(), String> {
        let output = Command::new(&self.0)
            .args(["--mode", "validate", "--log-level", "warning", "-c"])
            .arg(file)
            .output()
            .expect("Envoy runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        // What is deprecated today is refused by a later Envoy.
        if output.status.success() && !said.contains("eprecated") { Ok(()) } else { Err(said) }
    }

    pub(crate) fn validate_binary(&self, directory: &Path, bootstrap: &Bootstrap) {
        let file = directory.join("bootstrap.pb");
        std::fs::write(&file, bootstrap.encode_to_vec()).expect("a written bootstrap");
        self.validate(&file).unwrap_or_else(|said| panic!("{said}"));
    }

    pub(crate) fn refusal(&self, directory: &Path, bootstrap: &Bootstrap) -> String {
        let file = directory.join("bootstrap.pb");
        std::fs::write(&file, bootstrap.encode_to_vec()).expect("a written bootstrap");
        self.validate(&file).expect_err("Envoy refuses it")
    }
}
