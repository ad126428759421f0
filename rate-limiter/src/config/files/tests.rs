use std::{
    os::unix::fs::symlink,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::*;

fn rule(domain: &str, requests: u32) -> String {
    format!("domain: {domain}\ndescriptors:\n- key: k\n  rate_limit: {{unit: day, requests_per_unit: {requests}}}\n")
}

fn names(specs: &[DomainSpec]) -> Vec<&str> {
    specs.iter().map(|spec| spec.name.as_str()).collect()
}

fn told(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn a_folder_is_one_set() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("b.yaml"), rule("b", 1)).unwrap();
    fs::write(dir.path().join("a.yml"), rule("a", 1)).unwrap();
    fs::write(dir.path().join(".hidden.yaml"), "nonsense: [").unwrap();
    fs::write(dir.path().join("notes.txt"), "nonsense: [").unwrap();
    fs::create_dir(dir.path().join("c.yaml")).unwrap();
    let specs = load(dir.path(), Algorithm::TokenBucket).unwrap();
    assert_eq!(names(&specs), ["a", "b"]);
    let summary = check(dir.path(), Algorithm::TokenBucket).unwrap();
    assert_eq!(summary.to_string(), "2 domains, 2 limits");
}

#[test]
fn problems_of_all_files_are_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a.yaml"), dir.path().join("b.yaml"));
    fs::write(&a, "domain: a\nnope: 1\n").unwrap();
    fs::write(&b, "domain: b\ndescriptors: 3\n").unwrap();
    let (a, b) = (a.display(), b.display());
    assert_eq!(
        told(&check(dir.path(), Algorithm::TokenBucket).unwrap_err()),
        [
            format!("{a}:2:1: unknown key \"nope\": known here are domain, descriptors"),
            format!("{b}:2:14: descriptors: expected a list, found a scalar"),
        ]
    );
}

#[test]
fn what_is_not_there_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().display();
    assert_eq!(
        told(&load(dir.path(), Algorithm::TokenBucket).unwrap_err()),
        [format!("{path}: holds no *.yaml and no *.yml")]
    );
    let gone = dir.path().join("gone");
    let told = told(&load(&gone, Algorithm::TokenBucket).unwrap_err());
    assert!(told[0].starts_with(&format!("{path}/gone: cannot be read: No such file")), "{told:?}");
    symlink(dir.path().join("nowhere"), dir.path().join("link.yaml")).unwrap();
    assert!(load(dir.path(), Algorithm::TokenBucket).is_err());
}

/// Looks until there is something to tell. A change is told once it has been seen twice.
fn next(files: &mut Files) -> Result<Vec<DomainSpec>, Vec<Problem>> {
    (0..10).find_map(|_| files.look()).expect("a change is noticed within ten looks")
}

fn nothing_new(files: &mut Files) {
    assert!((0..5).all(|_| files.look().is_none()));
}

#[test]
fn good_bad_good() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("limits.yaml");
    fs::write(&path, rule("one", 1)).unwrap();
    let (mut files, specs) = Files::load(&path, Algorithm::TokenBucket).unwrap();
    assert_eq!(names(&specs), ["one"]);
    nothing_new(&mut files);

    fs::write(&path, "domain: two\ndescriptors: [{key: k, rate_limit: {unit: daily}}]\n").unwrap();
    let told = told(&next(&mut files).unwrap_err());
    assert!(told[0].contains("limits.yaml:2:43: descriptors[0].rate_limit.unit: \"daily\" is not a unit"), "{told:?}");
    nothing_new(&mut files);

    fs::write(&path, rule("two", 2)).unwrap();
    assert_eq!(names(&next(&mut files).unwrap()), ["two"]);
    // Touched, but the same.
    fs::write(&path, rule("two", 2)).unwrap();
    nothing_new(&mut files);

    fs::remove_file(&path).unwrap();
    assert!(next(&mut files).is_err());
    nothing_new(&mut files);
    fs::write(&path, rule("two", 2)).unwrap();
    assert_eq!(names(&next(&mut files).unwrap()), ["two"]);
}

#[test]
fn an_edit_right_after_the_start_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("limits.yaml");
    fs::write(&path, rule("one", 1)).unwrap();
    let (mut files, _) = Files::load(&path, Algorithm::TokenBucket).unwrap();
    fs::write(&path, rule("two", 1)).unwrap();
    assert_eq!(names(&next(&mut files).unwrap()), ["two"]);
}

#[test]
fn a_file_that_is_still_being_written_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("limits.yaml");
    fs::write(&path, rule("one", 1)).unwrap();
    let (mut files, _) = Files::load(&path, Algorithm::TokenBucket).unwrap();
    nothing_new(&mut files);
    for length in 1..20 {
        fs::write(&path, &rule("two", 1)[..length]).unwrap();
        assert!(files.look().is_none(), "{length}");
    }
    fs::write(&path, rule("two", 1)).unwrap();
    assert_eq!(names(&next(&mut files).unwrap()), ["two"]);
}

/// As a ConfigMap is mounted: `limits.yaml -> ..data/limits.yaml`, `..data -> ..version`.
#[test]
fn a_swapped_link_is_a_change() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for (version, domain) in [("..1", "one"), ("..2", "two")] {
        fs::create_dir(root.join(version)).unwrap();
        fs::write(root.join(version).join("limits.yaml"), rule(domain, 1)).unwrap();
    }
    symlink("..1", root.join("..data")).unwrap();
    symlink("..data/limits.yaml", root.join("limits.yaml")).unwrap();
    let (mut files, specs) = Files::load(root, Algorithm::TokenBucket).unwrap();
    assert_eq!(names(&specs), ["one"]);
    symlink("..2", root.join("..next")).unwrap();
    fs::rename(root.join("..next"), root.join("..data")).unwrap();
    assert_eq!(names(&next(&mut files).unwrap()), ["two"]);
}

#[tokio::test]
async fn the_watch_hands_over_what_is_good_and_ends_when_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("limits.yaml");
    fs::write(&path, rule("one", 1)).unwrap();
    let (files, specs) = Files::load(dir.path(), Algorithm::TokenBucket).unwrap();
    let current = Arc::new(Mutex::new(names(&specs).join(",")));
    let stop = CancellationToken::new();
    let shown = current.clone();
    let watch = tokio::spawn(files.watch(stop.clone(), move |specs| {
        *shown.lock() = names(&specs).join(",");
        Ok(())
    }));
    fs::write(dir.path().join("second.yaml"), rule("two", 1)).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while *current.lock() != "one,two" {
        assert!(Instant::now() < deadline, "still {}", current.lock());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.cancel();
    watch.await.unwrap();
}
