//! Compiles the descriptors that server reflection tells tools: see `src/reflection.rs`.

use std::{env, error::Error, fs, path::Path};

use prost::Message as _;

const ROOT: &str = "reflection";
const FILES: [&str; 2] = ["envoy/service/ratelimit/v3/rls.proto", "envoy/service/rate_limit_quota/v3/rlqs.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={ROOT}");
    println!("cargo::rerun-if-changed=build.rs");
    let descriptors = protox::compile(FILES, [ROOT])?.encode_to_vec();
    fs::write(Path::new(&env::var("OUT_DIR")?).join("reflection.bin"), descriptors)?;
    Ok(())
}
