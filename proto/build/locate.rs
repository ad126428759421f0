//! Where the descriptors of Envoy's messages are: in the sources of `envoy-types`, which ships them as a file
//! but gives no access to them.
//!
//! Cargo knows where it put the sources of a dependency (registry, vendored, replaced), so it is asked. Without the
//! network first: whoever has run `cargo fetch`, or has vendored the dependencies, is offline on purpose.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// The crate that ships the descriptors.
const CRATE: &str = "envoy-types";

/// Where in its sources they are.
const FILE: &str = "src/generated/types.bin";

/// Names the file, for builds without cargo.
const OVERRIDE: &str = "CHANCERY_ENVOY_DESCRIPTORS";

pub(crate) fn envoy_descriptors() -> Result<PathBuf, String> {
    println!("cargo::rerun-if-env-changed={OVERRIDE}");
    if let Some(file) = env::var_os(OVERRIDE) {
        return Ok(file.into());
    }
    let sources = sources(&["--offline"]).or_else(|offline| {
        sources(&[]).map_err(|online| {
            format!("cannot find the sources of {CRATE}; name its {FILE} by {OVERRIDE}\n{offline}\n{online}")
        })
    })?;
    Ok(sources.join(FILE))
}

/// The folder of the crate, by `cargo metadata`.
fn sources(network: &[&str]) -> Result<PathBuf, String> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked"])
        .args(network)
        // What is set for this build script is not meant for another run of cargo.
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .current_dir(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| ".".into()))
        .output()
        .map_err(|error| format!("cargo metadata: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo metadata {}: {}", network.join(" "), String::from_utf8_lossy(&output.stderr)));
    }
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).map_err(|error| format!("cargo metadata: {error}"))?;
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let package = packages.iter().find(|package| package["name"] == CRATE);
    let manifest = package.and_then(|package| package["manifest_path"].as_str()).map(Path::new);
    let folder = manifest.and_then(Path::parent).ok_or_else(|| format!("cargo metadata knows no {CRATE}"))?;
    Ok(folder.to_owned())
}
