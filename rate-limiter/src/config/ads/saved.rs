//! What is in force, in a file: a limiter that starts while its control plane is away begins with that.
//!
//! Not a cache: the server is told the versions, so what changed meanwhile is sent, and what is gone is taken away.

use std::path::{Path, PathBuf};

use chancery_runtime::file;
use tokio::sync::watch;

use super::held::Held;
use crate::model::limit::Algorithm;

/// What was saved, if it is there and can be read.
pub(super) async fn read(path: &Path, algorithm: Algorithm) -> Option<Held> {
    let bytes = match tokio::fs::read(path).await {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "saved limits cannot be read");
            return None;
        }
    };
    match Held::restore(&bytes, algorithm) {
        Ok(held) => {
            tracing::info!(path = %path.display(), "limits restored");
            Some(held)
        }
        Err(reason) => {
            tracing::warn!(path = %path.display(), reason, "saved limits cannot be used");
            None
        }
    }
}

/// Saves what comes, the newest if several come at once, until nothing more can come.
pub(super) async fn keep(path: Option<PathBuf>, mut changes: watch::Receiver<Vec<u8>>) {
    let Some(path) = path else { return };
    let mut written = Vec::new();
    loop {
        let more = changes.changed().await.is_ok();
        let bytes = changes.borrow_and_update().clone();
        // Nothing came at all, or nothing new.
        if !bytes.is_empty() && bytes != written {
            let target = path.clone();
            let copy = bytes.clone();
            // Limits are nobody else's business.
            let write = tokio::task::spawn_blocking(move || file::replace(&target, &copy, file::PRIVATE));
            match write.await {
                Ok(Ok(())) => written = bytes,
                Ok(Err(error)) => tracing::warn!(path = %path.display(), %error, "limits cannot be saved"),
                Err(error) => tracing::error!(%error, "limits cannot be saved"),
            }
        }
        if !more {
            return;
        }
    }
}
