//! The image: which programs are in it, of what it is built, and what it says of itself.

use std::{collections::BTreeSet, fs};

use anyhow::{Context, Result, ensure};

use crate::{deploy, repository, started::PORTS};

/// The image has every program, is built of every package, and says of itself what is true.
#[test]
fn the_image_is_of_all_programs() -> Result<()> {
    let dockerfile = fs::read_to_string(deploy("docker/Dockerfile"))?;
    let programs: BTreeSet<&str> = PORTS.iter().map(|(program, ..)| *program).chain(["chancery"]).collect();
    let built: BTreeSet<&str> = dockerfile
        .split_whitespace()
        .zip(dockerfile.split_whitespace().skip(1))
        .filter_map(|(flag, name)| (flag == "--bin").then_some(name))
        .collect();
    assert_eq!(built, programs);
    for program in programs {
        ensure!(dockerfile.contains(&format!("target/release/{program} ")), "{program} is not copied");
    }
    let exposed: BTreeSet<u16> = dockerfile
        .lines()
        .find_map(|line| line.strip_prefix("EXPOSE "))
        .context("nothing is exposed")?
        .split(' ')
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    assert_eq!(exposed, PORTS.iter().map(|(.., port)| *port).collect());
    ensure!(dockerfile.contains("[\"chancery\", \"health\", \"http://127.0.0.1:9900/readyz\"]"), "its health");
    // The builder is sent each member of the workspace.
    let manifest = fs::read_to_string(repository().join("Cargo.toml"))?;
    let members = manifest.lines().find_map(|line| line.strip_prefix("members = ")).context("no members")?;
    let sent = fs::read_to_string(repository().join(".dockerignore"))?;
    for member in
        serde_json::from_str::<Vec<String>>(members)?.iter().map(String::as_str).chain(["Cargo.lock", "LICENSE"])
    {
        ensure!(sent.lines().any(|line| line.strip_prefix('!') == Some(member)), "{member} is not sent");
    }
    Ok(())
}
