use std::{os::unix::fs::PermissionsExt as _, sync::Arc};

use chancery_proto::{Message as _, envoy::cluster::Cluster};
use tempfile::TempDir;

use super::*;
use crate::{
    model::{Catalog, Key, Kind},
    translate::{snapshot::ResourceId, testing::name as named},
};

/// A stand-in for Envoy: a shell script, which is told the file with the question as `$file`.
struct Script {
    folder: TempDir,
}

impl Script {
    fn new(body: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("envoy");
        let version = r#"[ "$1" = --version ] && { echo "envoy  version: x/1.40.0/Clean/RELEASE/BoringSSL"; exit 0; }"#;
        let text = format!(
            "#!/bin/sh\nPATH=/usr/bin:/bin\n{version}\nfor file; do :; done\necho x >> {}\n{body}\n",
            folder.path().join("runs").display()
        );
        std::fs::write(&program, text).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { folder }
    }

    async fn asked(&self) -> SecondVerdict {
        SecondVerdict::by(&self.folder.path().join("envoy"), self.folder.path().join("questions")).await.unwrap()
    }

    fn runs(&self) -> usize {
        std::fs::read_to_string(self.folder.path().join("runs")).unwrap_or_default().lines().count()
    }

    /// What is left in the folder of questions.
    fn left(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path().join("questions")).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

/// About new clusters of these names.
fn about(clusters: &[&str]) -> [Question; 1] {
    let put = clusters.iter().map(|cluster| {
        let message = Cluster { name: (*cluster).to_owned(), ..Cluster::default() };
        (ResourceId::Cluster(named(cluster)), message.encode_to_vec().into())
    });
    let changed: Vec<Key> = clusters.iter().map(|cluster| Key::new(Kind::Service, named(cluster))).collect();
    [Question::about(&Catalog::default(), &named("edge"), &put.collect(), &changed)]
}

fn hearing(patience: Duration) -> Hearing {
    Hearing { until: Instant::now() + patience, ..Hearing::begin() }
}

async fn problems(envoy: &SecondVerdict, clusters: &[&str]) -> Vec<String> {
    match envoy.hear(&mut Hearing::begin(), &about(clusters)).await {
        Ok(()) => Vec::new(),
        Err(Unheard::Refused(problems)) => problems.iter().map(ToString::to_string).collect(),
        Err(error) => panic!("{error}"),
    }
}

const REFUSES_BAD: &str = r#"grep -q bad "$file" || exit 0
echo "[critical][main] error initializing configuration '$file': it is bad" >&2
exit 1"#;

#[tokio::test]
async fn who_is_refused_is_named_and_the_same_is_asked_once() {
    let script = Script::new(REFUSES_BAD);
    let envoy = script.asked().await;
    assert_eq!(problems(&envoy, &["one", "two"]).await, [""; 0]);
    let runs = script.runs();
    assert_eq!(problems(&envoy, &["one", "two"]).await, [""; 0]);
    assert_eq!((runs, script.runs()), (1, 1), "the second time it is remembered");
    let fleets = [about(&["shared"]), about(&["shared"])].concat();
    envoy.hear(&mut Hearing::begin(), &fleets).await.unwrap();
    assert_eq!(script.runs(), 2, "what fleets share is asked once");
    let said = |name: &str| format!("Service/{name}: spec: makes a cluster {name} that Envoy refuses: it is bad");
    let many = ["a", "bad-1", "b", "c", "d", "e", "bad-2", "f"];
    assert_eq!(problems(&envoy, &many).await, [said("bad-1"), said("bad-2")]);
    assert_eq!(script.left(), ["certificate.pem", "key.pem"]);
}

#[tokio::test]
async fn what_has_been_heard_is_covered_and_nothing_else() {
    let script = Script::new("exit 0");
    let envoy = script.asked().await;
    let mut hearing = Hearing::begin();
    envoy.hear(&mut hearing, &about(&["one"])).await.unwrap();
    assert!(hearing.covers(&about(&["one"])) && hearing.covers(&about(&[])));
    assert!(!hearing.covers(&about(&["two"])) && !hearing.covers(&about(&["one", "two"])));
}

#[tokio::test]
async fn a_crash_is_a_verdict_unless_everything_crashes() {
    let script = Script::new(r#"grep -q bad "$file" || exit 0; kill -SEGV $$"#);
    let envoy = script.asked().await;
    let crashed = "Service/bad: spec: makes a cluster bad that Envoy refuses: it crashes (signal 11)";
    assert_eq!(problems(&envoy, &["good", "bad"]).await, [crashed]);

    let broken = Script::new("kill -SEGV $$");
    assert_eq!(problems(&broken.asked().await, &["good"]).await, [""; 0]);
    let other = Script::new("echo no such library >&2; exit 127");
    assert_eq!(problems(&other.asked().await, &["good"]).await, [""; 0]);
}

#[tokio::test]
async fn one_that_hangs_is_killed_in_time_and_is_in_nobodys_way() {
    let script = Script::new(r#"grep -q slow "$file" || exit 0; echo $$ > "$0.pid"; exec sleep 1000"#);
    let envoy = Arc::new(script.asked().await);
    let slow = tokio::spawn({
        let envoy = envoy.clone();
        async move { envoy.hear(&mut hearing(Duration::from_secs(3)), &about(&["slow"])).await }
    });
    assert_eq!(problems(&envoy, &["quick"]).await, [""; 0]);
    assert!(!slow.is_finished());
    let answer = slow.await.unwrap();
    assert!(matches!(answer, Err(Unheard::NoVerdict(NoVerdict::TooSlow))), "{answer:?}");
    let pid = std::fs::read_to_string(script.folder.path().join("envoy.pid")).unwrap();
    let stat = format!("/proc/{}/stat", pid.trim());
    let ended = async {
        // Killed it may still wait to be reaped.
        while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), ended).await.expect("it is killed");
    assert_eq!(script.left(), ["certificate.pem", "key.pem"]);
}

#[tokio::test]
async fn output_without_end_is_cut() {
    let noise = r#"head -c 3000000 /dev/zero | tr '\0' 'x' >&2"#;
    let script = Script::new(&format!("{REFUSES_BAD}\n{noise}").replace("exit 1", &format!("{noise}\nexit 1")));
    let found = problems(&script.asked().await, &["bad"]).await;
    assert!(found.len() == 1 && found[0].len() < 2000, "{} bytes", found.concat().len());
}

#[tokio::test]
async fn what_it_reads_is_read_by_nobody_else() {
    let script =
        Script::new(r#"stat -c %a "$file" . "certificate.pem" "key.pem" > "$0.modes"; env > "$0.env"; exit 0"#);
    assert_eq!(problems(&script.asked().await, &["one"]).await, [""; 0]);
    let read = |name: &str| std::fs::read_to_string(script.folder.path().join(name)).unwrap();
    assert_eq!(read("envoy.modes"), "600\n700\n600\n600\n");
    assert!(!read("envoy.env").contains("HOME"), "{}", read("envoy.env"));
}

#[tokio::test]
async fn what_is_no_envoy_is_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let by = async |program: &str| {
        let questions = folder.path().join("questions");
        let error = SecondVerdict::by(Path::new(program), questions).await.unwrap_err();
        error.to_string()
    };
    assert_eq!(by("/nonexistent/envoy").await, "envoy_validate names /nonexistent/envoy, where there is no file");
    assert!(by("/bin/true").await.contains("does not answer as an Envoy"));
    assert!(by("/dev/null").await.contains("cannot be started"));
}
