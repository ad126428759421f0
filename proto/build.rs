//! Compiles the descriptors that are needed at run time: those that server reflection tells tools (`src/reflection.rs`),
//! and the table of Envoy's messages and their rules (`src/describe`).

use std::{env, error::Error, fs, path::Path};

use prost::Message as _;

#[path = "build/descriptor.rs"]
mod descriptor;
#[path = "build/locate.rs"]
mod locate;
#[path = "build/missing.rs"]
mod missing;
#[path = "build/pack.rs"]
mod pack;
#[path = "src/describe/table.rs"]
#[allow(dead_code, reason = "the reading half is for run time")]
mod table;

const ROOT: &str = "reflection";
const FILES: [&str; 2] = ["envoy/service/ratelimit/v3/rls.proto", "envoy/service/rate_limit_quota/v3/rlqs.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={ROOT}");
    for source in ["build.rs", "build", "src/describe/table.rs"] {
        println!("cargo::rerun-if-changed={source}");
    }
    let out = env::var("OUT_DIR")?;
    let descriptors = protox::compile(FILES, [ROOT])?.encode_to_vec();
    fs::write(Path::new(&out).join("reflection.bin"), descriptors)?;

    let envoy = locate::envoy_descriptors()?;
    println!("cargo::rerun-if-changed={}", envoy.display());
    let mut files = descriptor::FileSet::decode(fs::read(&envoy)?.as_slice())
        .map_err(|error| format!("{}: {error}", envoy.display()))?;
    files.files.push(missing::cel_matchers());
    fs::write(Path::new(&out).join("described.bin"), pack::pack(&files)?)?;
    Ok(())
}
