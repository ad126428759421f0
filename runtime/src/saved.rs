//! What is in force, in a file: a program that starts while its control plane is away begins with that.
//!
//! Not a cache: the server is told the versions, so what changed meanwhile is sent, and what is gone is taken away. Nothing here fails:
//! a file that cannot be used is as good as none, and the log says so. `what` is how the content is called there.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use tokio::sync::watch;

use crate::file;

/// What was saved, if it is there and `restore` can use it.
pub async fn read<T, E: fmt::Display>(
    path: &Path,
    what: &str,
    restore: impl FnOnce(&[u8]) -> Result<T, E>,
) -> Option<T> {
    let bytes = match tokio::fs::read(path).await {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(path = %path.display(), what, %error, "saved state cannot be read");
            return None;
        }
    };
    match restore(&bytes) {
        Ok(restored) => {
            tracing::info!(path = %path.display(), what, "saved state is in use");
            Some(restored)
        }
        Err(error) => {
            tracing::warn!(path = %path.display(), what, %error, "saved state cannot be used");
            None
        }
    }
}

/// Saves what comes, the newest if several come at once, until nothing more can come. Only the owner may read it.
pub async fn keep(path: Option<PathBuf>, what: &str, mut changes: watch::Receiver<Vec<u8>>) {
    let Some(path) = path else { return };
    let mut written = Vec::new();
    loop {
        let more = changes.changed().await.is_ok();
        let bytes = changes.borrow_and_update().clone();
        // Nothing came at all, or nothing new.
        if !bytes.is_empty() && bytes != written {
            let (target, copy) = (path.clone(), bytes.clone());
            let write = tokio::task::spawn_blocking(move || file::replace(&target, &copy, file::PRIVATE));
            match write.await {
                Ok(Ok(())) => written = bytes,
                Ok(Err(error)) => tracing::warn!(path = %path.display(), what, %error, "state cannot be saved"),
                Err(error) => {
                    tracing::error!(path = %path.display(), what, %error, "the task that saves state panicked");
                }
            }
        }
        if !more {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8]) -> Result<String, std::string::FromUtf8Error> {
        String::from_utf8(bytes.to_vec())
    }

    #[tokio::test]
    async fn what_was_kept_last_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("saved");
        assert_eq!(read(&path, "texts", text).await, None);
        let (sender, changes) = watch::channel(Vec::new());
        let keeping = tokio::spawn(keep(Some(path.clone()), "texts", changes));
        for text in ["one", "two"] {
            sender.send_replace(text.into());
        }
        drop(sender);
        keeping.await.unwrap();
        assert_eq!(read(&path, "texts", text).await.as_deref(), Some("two"));
        tokio::fs::write(&path, b"\xff").await.unwrap();
        assert_eq!(read(&path, "texts", text).await, None);
    }

    #[tokio::test]
    async fn nothing_is_written_where_nothing_came() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("saved");
        let (sender, changes) = watch::channel(Vec::new());
        drop(sender);
        keep(Some(path.clone()), "texts", changes).await;
        assert!(!path.exists());
    }
}
