//! A wall clock that jumps, for some processes only. What they measure time passed by goes on as ever.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;

use crate::required::required;

/// The clock of those who are started with its [`environment`](Clock::environment).
#[derive(Debug)]
pub struct Clock {
    library: String,
    file: PathBuf,
}

impl Clock {
    /// One that is right. `None` where libfaketime is not installed and that may be (see [`required`]).
    pub fn right(folder: &Path) -> Result<Option<Self>> {
        let Some(library) = library() else { return Ok(None) };
        let clock = Self { library, file: folder.join("clock") };
        clock.jump("+0")?;
        Ok(Some(clock))
    }

    /// Sets it off from the right time from now on: `+1h`, `-10m`.
    pub fn jump(&self, to: &str) -> Result<()> {
        // Whole or not at all: it is read all the time.
        let new = self.file.with_extension("new");
        fs::write(&new, format!("{to}\n"))?;
        Ok(fs::rename(new, &self.file)?)
    }

    /// What a program has to be started with.
    pub fn environment(&self) -> Vec<(String, String)> {
        let file = self.file.display().to_string();
        [
            ("LD_PRELOAD", self.library.as_str()),
            ("FAKETIME_TIMESTAMP_FILE", file.as_str()),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }
}

/// Where libfaketime is.
pub fn library() -> Option<String> {
    let places = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib"];
    let mut library = places.iter().map(|place| format!("{place}/faketime/libfaketimeMT.so.1"));
    required("libfaketime", library.find(|path| Path::new(path).exists()))
}
