//! Disk and descriptors: what programs run out of without a word of warning.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    check::{Check, Found, Group, When},
    site::{Program, Site},
};

/// Free space that is left for a database that grows, logs, and files that are replaced whole.
const LEAST_FREE: u64 = 256 << 20;

/// The same, as a share of the file system: one of fifty.
const LEAST_SHARE: u64 = 50;

/// Open files that a program needs: one for each proxy, caller and connection.
const LEAST_FILES: u64 = 4096;

pub(super) const GROUP: Group = Group {
    name: "Disk and files",
    checks: &[
        Check { name: "free space", when: When::Always, probe: |site| Box::pin(async { space(&folders(site)) }) },
        Check { name: "open files", when: When::Always, probe: |site| Box::pin(async { open_files(site) }) },
    ],
};

/// Where the programs keep data.
fn folders(site: &Site) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    if let Some(settings) = site.control_plane.as_ref().and_then(Program::ok) {
        folders.push(settings.data_dir.clone());
        let url = settings.database_url();
        folders.extend(url.strip_prefix("sqlite://").and_then(|path| Path::new(path).parent()).map(Path::to_owned));
    }
    let saved = [
        site.rate_limiter.as_ref().and_then(Program::ok).map(|settings| &settings.saved_rules),
        site.sidecar.as_ref().and_then(Program::ok).map(|settings| &settings.saved_config),
    ];
    folders.extend(saved.into_iter().flatten().filter_map(|file| file.parent()).map(Path::to_owned));
    folders.retain(|folder| !folder.as_os_str().is_empty());
    folders.dedup();
    folders
}

fn space(folders: &[PathBuf]) -> Found {
    let mut seen = Vec::new();
    for folder in folders {
        match existing(folder).map(free) {
            Some(Ok((free, all))) => seen.push((folder.as_path(), free, all)),
            Some(Err(error)) => {
                return Found::failed(format!("{}: {error}", folder.display()), "see that the folder can be used");
            }
            None => {}
        }
    }
    enough(&seen)
}

/// The folder, or what it will be made in.
fn existing(folder: &Path) -> Option<&Path> {
    folder.ancestors().find(|one| one.is_dir())
}

fn enough(seen: &[(&Path, u64, u64)]) -> Found {
    let shown = |(folder, free, _): &(&Path, u64, u64)| {
        let gib = *free as f64 / f64::from(1 << 30);
        let size = if gib < 1.0 { format!("{:.0} MiB", gib * 1024.0) } else { format!("{gib:.1} GiB") };
        format!("{size} free in {}", folder.display())
    };
    let full: Vec<_> =
        seen.iter().filter(|(_, free, all)| *free < LEAST_FREE || free.saturating_mul(LEAST_SHARE) < *all).collect();
    if seen.is_empty() {
        return Found::skipped("no program here keeps data");
    }
    if full.is_empty() {
        return Found::passed(seen.iter().map(shown).collect::<Vec<_>>().join("; "));
    }
    Found::failed(
        full.into_iter().map(shown).collect::<Vec<_>>().join("; "),
        "make room, or move the data: without it edits fail, and nothing is kept for a start without the control plane",
    )
}

fn open_files(site: &Site) -> Found {
    if site.before_install {
        let limit = limit_of("self");
        return files(&limit.map(|limit| vec![("this shell".to_owned(), limit)]).unwrap_or_default());
    }
    let programs = ["chancery-control-plane", "chancery-rate-limiter", "chancery-sidecar"];
    let known = site.processes.iter().filter(|(name, _)| *name == "chancery").map(|(name, pid)| (name.clone(), *pid));
    let processes: Vec<_> = if site.processes.is_empty() { running(&programs) } else { known.collect() };
    let limits = processes.into_iter().filter_map(|(name, pid)| Some((name, limit_of(&pid.to_string())?)));
    files(&limits.collect::<Vec<_>>())
}

fn files(limits: &[(String, u64)]) -> Found {
    let Some((name, least)) = limits.iter().min_by_key(|(_, limit)| *limit) else {
        return Found::skipped("the limits of no program can be seen");
    };
    let amount = if *least == u64::MAX { "any number".to_owned() } else { least.to_string() };
    if *least >= LEAST_FILES {
        return Found::passed(format!("{amount} at least ({name})"));
    }
    Found::failed(
        format!("{name} may open {amount}, less than {LEAST_FILES}"),
        "raise it with LimitNOFILE= in the unit, or ulimit -n: each proxy and each connection is one",
    )
}

/// Processes whose program has one of these names, where the system has /proc.
fn running(names: &[&str]) -> Vec<(String, u32)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let process = |entry: fs::DirEntry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let program = String::from_utf8_lossy(line.split(|byte| *byte == 0).next()?).into_owned();
        let name = Path::new(&program).file_name()?.to_str()?.to_owned();
        names.contains(&name.as_str()).then_some((name, pid))
    };
    entries.filter_map(process).collect()
}

/// How many files a process may open.
fn limit_of(pid: &str) -> Option<u64> {
    soft_limit(&fs::read_to_string(format!("/proc/{pid}/limits")).ok()?)
}

fn soft_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

/// Bytes that are free where `folder` lies, and all that there are.
#[allow(unsafe_code, reason = "the standard library does not tell of file systems")]
fn free(folder: &Path) -> io::Result<(u64, u64)> {
    use std::os::unix::ffi::OsStrExt as _;
    let path = std::ffi::CString::new(folder.as_os_str().as_bytes())?;
    let mut told = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the path ends with a zero byte, and the struct is only read after the call has filled it.
    let told = unsafe {
        if libc::statvfs(path.as_ptr(), told.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        told.assume_init()
    };
    #[allow(clippy::useless_conversion, clippy::unnecessary_cast, reason = "the widths are the system's")]
    let bytes = |blocks| (blocks as u64).saturating_mul(told.f_frsize as u64);
    Ok((bytes(told.f_bavail), bytes(told.f_blocks)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::check::Outcome;

    #[test]
    fn a_disk_is_full_before_it_is() {
        let (data, gib) = (Path::new("/data"), 1 << 30);
        let outcome = |free, all| enough(&[(data, free, all)]).outcome;
        assert_eq!(outcome(gib, 40 * gib), Outcome::Passed);
        assert_eq!(outcome(gib, 51 * gib), Outcome::Failed, "less than one of fifty");
        assert_eq!(outcome(255 << 20, gib), Outcome::Failed);
        assert_eq!(enough(&[(data, 10 << 20, gib)]).said, "10 MiB free in /data");
        assert_eq!(enough(&[]).outcome, Outcome::Skipped);
        let (free, all) = free(Path::new("/")).unwrap();
        assert!(free <= all && all > 0);
    }

    #[test]
    fn few_files_are_too_few() {
        let text = "Limit                     Soft Limit           Hard Limit           Units\nMax open files            1024                 524288               files\n";
        assert_eq!(soft_limit(text), Some(1024));
        assert_eq!(soft_limit(&text.replace("1024  ", "unlimited  ")), Some(u64::MAX));
        let of = |limit| vec![("chancery".to_owned(), limit)];
        assert_eq!((files(&of(1024)).outcome, files(&of(4096)).outcome), (Outcome::Failed, Outcome::Passed));
        assert_eq!(files(&[]).outcome, Outcome::Skipped);
    }
}
