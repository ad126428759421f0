//! The guides of `docs/operations`: what they tell people to type works as it is written.
//!
//! Every block in `sh` is run, page by page and in order, in one shell that ends at the first failure, beside a running
//! `chancery dev` on a real Redis. Folders of the system stand in a folder of the test, and programs that change the system (`systemctl`,
//! `kubectl` …) are stand-ins that check no more than that what they are given is there. What is no command in a block is held to the
//! reference: commands and flags within a line, and the names of metrics.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    dev::{Dev, free_offset},
    document::{fleet, route_saying},
    guide::blocks_in,
    process::own_program,
    redis::Redis,
    required,
};

/// What a page's commands may find of the system, by the place that guides name.
const SYSTEM: [&str; 5] = ["/usr/local/bin", "/usr/lib/sysusers.d", "/etc/systemd/system", "/etc/chancery", "/var/lib"];

/// A public key of `age` whose other half nobody has.
const RECIPIENT: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

/// Programs that would change this machine, or need another one.
const STAND_INS: [(&str, &str); 5] = [
    // A unit that is named has to be installed.
    (
        "systemctl",
        r#"for unit in "$@"; do case $unit in enable|--now|restart|start|stop|daemon-reload|status) ;; *.timer|*.service) test -f "$ROOT/etc/systemd/system/$unit" ;; *) test -f "$ROOT/etc/systemd/system/$unit.service" ;; esac || { echo "there is no unit $unit" >&2; exit 1; }; done"#,
    ),
    ("systemd-sysusers", r#"test -f "$ROOT/usr/lib/sysusers.d/chancery.conf""#),
    ("chown", r#"for last; do :; done; test -e "$last""#),
    // The owner is one that this machine does not have.
    (
        "install",
        r#"arguments=(); while (($#)); do case $1 in -o|-g) shift 2 ;; *) arguments+=("$1"); shift ;; esac; done; exec /usr/bin/install "${arguments[@]}""#,
    ),
    ("journalctl", "exit 0"),
];

/// What needs an engine of containers, a cluster, a cloud or a Postgres on another host. `manifests.rs` holds these commands to the
/// files and charts that they name, `point_in_time.rs` does what the guide says of Postgres.
const ELSEWHERE: [&str; 5] = ["docker ", "kubectl ", "terraform ", "kind.sh", "pg_basebackup "];

fn pages() -> Result<Vec<PathBuf>> {
    let folder = repository().join("docs/operations");
    let pages = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<BTreeSet<PathBuf>>>()?;
    ensure!(pages.len() > 5, "the guides are gone: {pages:?}");
    Ok(pages.into_iter().collect())
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_guides_say_to_type_works() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (Some(_), Some(redis)) = (required::envoy(), Redis::start(folder.path()).await?) else { return Ok(()) };
    let dev = Dev::start(folder.path(), free_offset()?, &["--redis", &redis.url()]).await?;
    let api = dev.api()?;
    api.apply(&[fleet("mesh"), route_saying("hello", "hello.example.com", "hello")]).await?;
    let mut failures = Vec::new();
    let mut run = 0;
    for page in pages()? {
        let name = page.file_stem().and_then(|name| name.to_str()).context("a page without a name")?.to_owned();
        let mut blocks = blocks_in("sh", &fs::read_to_string(&page)?);
        blocks.retain(|block| !ELSEWHERE.iter().any(|word| block.contains(word)));
        if blocks.is_empty() {
            continue;
        }
        run += blocks.len();
        let scene = Scene::build(&folder.path().join(&name), &name, &dev, redis.address.port())?;
        if let Err(error) = scene.run(&blocks) {
            failures.push(format!("docs/operations/{name}.md: {error:#}"));
        }
    }
    ensure!(run > 10, "only {run} blocks were found");
    ensure!(failures.is_empty(), "{}", failures.join("\n\n"));
    Ok(())
}

/// A folder in which a page's commands are run.
struct Scene {
    root: PathBuf,
    environment: Vec<(&'static str, String)>,
    /// What stands in a guide, and what it is here.
    here: Vec<(String, String)>,
}

impl Scene {
    fn build(root: &Path, page: &str, dev: &Dev, redis: u16) -> Result<Self> {
        let bin = root.join("stand-ins");
        let programs = own_program("chancery")?.parent().context("a program without a folder")?.to_owned();
        for folder in SYSTEM.iter().map(|path| root.join(&path[1..])).chain([bin.clone(), root.join("target")]) {
            fs::create_dir_all(folder)?;
        }
        symlink(repository().canonicalize()?.join("deploy"), root.join("deploy"))?;
        symlink(&programs, root.join("target/release"))?;
        for (name, script) in STAND_INS {
            let file = bin.join(name);
            fs::write(&file, format!("#!/usr/bin/env bash\nset -u\n{script}\n"))?;
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
        }
        // Who reads another page has deployed by the first one.
        if page != "deploy" {
            for unit in fs::read_dir(root.join("deploy/systemd"))? {
                let unit = unit?;
                fs::copy(unit.path(), root.join("etc/systemd/system").join(unit.file_name()))?;
            }
        }
        // As a guide before has made it.
        if page == "upgrade" {
            fs::write(root.join("recipients.txt"), format!("{RECIPIENT}\n"))?;
        }
        let state = root.join("var/lib/chancery-control-plane");
        fs::create_dir_all(&state)?;
        fs::write(state.join("admin-token"), dev.text("adminToken")?)?;
        let api = dev.text("apiUrl")?.to_owned();
        let path = std::env::var("PATH").unwrap_or_default();
        let environment = vec![
            ("ROOT", root.display().to_string()),
            ("PATH", format!("{}:{}:{path}", bin.display(), programs.display())),
            ("CHANCERY_SERVER", api.clone()),
            ("CHANCERY_TOKEN", dev.text("adminToken")?.to_owned()),
            ("CHANCERY_ADMIN", dev.text("adminUrl")?.to_owned()),
            ("CHANCERY_DATABASE", format!("sqlite://{}", dev.data().join("chancery.db").display())),
            ("CHANCERY_DATA_DIR", dev.data().display().to_string()),
            ("REDIS_PORT", redis.to_string()),
        ];
        let mut here: Vec<(String, String)> =
            SYSTEM.iter().map(|path| ((*path).to_owned(), format!("{}{path}", root.display()))).collect();
        here.push(("http://127.0.0.1:8080".to_owned(), api));
        for (port, field) in [(9900, "adminUrl"), (6070, "rateLimiterHttp"), (15020, "sidecarAdmin")] {
            here.push((format!("http://127.0.0.1:{port}"), format!("http://{}", dev.address(field)?)));
        }
        // Nobody here is asked meanwhile.
        here.push(("sleep 20".to_owned(), "sleep 0".to_owned()));
        Ok(Self { root: root.to_owned(), environment, here })
    }

    /// All blocks in one shell, as somebody would type them one after the other.
    fn run(&self, blocks: &[String]) -> Result<()> {
        let mut script = "set -euo pipefail\n".to_owned();
        for (number, block) in blocks.iter().enumerate() {
            let here = self.here.iter().fold(block.clone(), |text, (there, here)| text.replace(there, here));
            script.push_str(&format!("echo \"# block {}\" >&2\n{here}\n", number + 1));
        }
        let output = Command::new("bash")
            .args(["-c", &script])
            .current_dir(&self.root)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.rfind("# block ").map_or(&*said, |at| &said[at..]);
        ensure!(output.status.success(), "{}\n{last}", String::from_utf8_lossy(&output.stdout));
        Ok(())
    }
}

#[test]
fn commands_within_lines_are_there() -> Result<()> {
    let program = own_program("chancery")?;
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for page in pages()? {
        for command in inline(&fs::read_to_string(&page)?) {
            let Some(arguments) = command.strip_prefix("chancery ") else { continue };
            let words: Vec<&str> = arguments.split_whitespace().collect();
            let flags =
                words.iter().filter(|word| word.starts_with("--")).map(|word| word.split('=').next().unwrap_or(word));
            // Subcommands are in small letters, and before all that is not.
            let path: Vec<&str> = words
                .iter()
                .take_while(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == '-'))
                .copied()
                .take_while(|word| !word.starts_with('-'))
                .collect();
            let help = deepest_help(&program, &path)?;
            for flag in flags {
                if !help.contains(flag) {
                    wrong.push(format!("{}: `{command}`: no {flag}", page.display()));
                }
            }
            if help.starts_with("error") {
                wrong.push(format!("{}: `{command}`: {}", page.display(), help.lines().next().unwrap_or_default()));
            }
            seen.insert(command);
        }
    }
    ensure!(seen.len() > 10, "only {seen:?} were found");
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// What the command says of itself; of the words, the last may be a name such as that of a resource.
fn deepest_help(program: &Path, path: &[&str]) -> Result<String> {
    let mut said = String::new();
    for length in (0..=path.len()).rev() {
        let output = Command::new(program).args(&path[..length]).arg("--help").output()?;
        if output.status.success() {
            ensure!(length > 0, "`chancery {}` is no command", path.join(" "));
            return Ok(String::from_utf8(output.stdout)?);
        }
        said = String::from_utf8(output.stderr)?;
    }
    Ok(said)
}

#[test]
fn metrics_that_guides_name_are_exported() -> Result<()> {
    let reference = fs::read_to_string(repository().join("docs/reference/metrics.md"))?;
    let known: BTreeSet<&str> = inline_names(&reference).collect();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for page in pages()? {
        let text = fs::read_to_string(&page)?;
        for name in inline(&text).iter().flat_map(|code| metric_names(code)) {
            seen += 1;
            let family =
                ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(&name);
            if !known.contains(family) && !known.contains(name.as_str()) {
                wrong.push(format!("{}: {name}", page.display()));
            }
        }
    }
    ensure!(seen > 5, "only {seen} metrics were found");
    ensure!(wrong.is_empty(), "not in docs/reference/metrics.md:\n{}", wrong.join("\n"));
    Ok(())
}

/// The first cells of a table of metrics.
fn inline_names(reference: &str) -> impl Iterator<Item = &str> {
    reference.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next())
}

fn metric_names(code: &str) -> Vec<String> {
    let words = code.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("chancery_") && word.matches('_').count() > 1).map(str::to_owned).collect()
}

/// Code within lines, outside blocks.
fn inline(markdown: &str) -> Vec<String> {
    let mut outside = String::new();
    let mut within = false;
    for line in markdown.lines() {
        if line.trim_start().starts_with("```") {
            within = !within;
        } else if !within {
            outside.push_str(line);
            outside.push(' ');
        }
    }
    outside.split('`').skip(1).step_by(2).map(|code| code.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn code_and_metrics_are_found_within_lines() {
    let page = "a `chancery get` b\n\n   ```sh\n   chancery a `b`\n   ```\n";
    assert_eq!(inline(page), ["chancery get"]);
    assert_eq!(metric_names("rate(chancery_api_requests_total[5m]) of chancery_rate"), ["chancery_api_requests_total"]);
}
