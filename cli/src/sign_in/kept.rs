//! Where the sign-in at a control plane is kept: one file for each, which nobody but its owner can read.

use std::{
    fmt, fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use chancery_control_plane::oidc;
use chancery_runtime::file;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};

use crate::{client::encoded, failure::Failure};

/// How long before its end a token is taken for expired: it has to reach the control plane.
const MARGIN: time::Duration = time::Duration::seconds(30);

/// How long another process may take to renew the same sign-in, and how often it is seen whether it has.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(50);

/// A sign-in.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Kept {
    pub(crate) issuer: String,
    pub(crate) client_id: String,
    /// Authorities of the issuer, if it needs any of its own.
    pub(crate) ca_file: Option<PathBuf>,
    /// What is shown to the control plane.
    pub(crate) id_token: String,
    /// What another one is got for, if the issuer gave it.
    pub(crate) refresh_token: Option<String>,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { issuer, client_id, .. } = self;
        f.debug_struct("Kept").field("issuer", issuer).field("client_id", client_id).finish_non_exhaustive()
    }
}

impl Kept {
    /// Whether it can be shown at `now`.
    pub(crate) fn is_good(&self, now: OffsetDateTime) -> bool {
        oidc::claimed_end(&self.id_token).is_ok_and(|end| now + MARGIN < end)
    }
}

/// The file of one control plane.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    file: PathBuf,
}

impl Place {
    /// That of `server`; none if nothing says where this user has their files.
    pub(crate) fn of(server: &str) -> Option<Self> {
        let said = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let base = said("XDG_CONFIG_HOME").or_else(|| Some(said("HOME")?.join(".config")))?;
        Some(Self::in_folder(&base.join("chancery").join("sign-ins"), server))
    }

    fn in_folder(folder: &Path, server: &str) -> Self {
        Self { file: folder.join(format!("{}.json", encoded(server.trim_end_matches('/')))) }
    }

    /// What is kept there, if anything is.
    pub(crate) fn read(&self) -> Result<Option<Kept>, Failure> {
        let bytes = match fs::read(&self.file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(self.failed(source)),
        };
        let kept = serde_json::from_slice(&bytes);
        kept.map(Some).map_err(|_| {
            let file = self.file.display();
            Failure::Usage(format!("{file} is no sign-in that this version can read; sign in again: chancery login"))
        })
    }

    /// Keeps it there.
    pub(crate) fn write(&self, kept: &Kept) -> Result<(), Failure> {
        self.make_folder()?;
        let bytes = serde_json::to_vec_pretty(kept).unwrap_or_default();
        file::replace(&self.file, &bytes, file::PRIVATE).map_err(|source| self.failed(source))
    }

    /// Forgets it; says whether there was one.
    pub(crate) fn forget(&self) -> Result<bool, Failure> {
        match fs::remove_file(&self.file) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(self.failed(source)),
        }
    }

    /// Keeps other processes of this user from renewing it, until what is returned is dropped: an issuer may take the same
    /// refresh token only once.
    pub(crate) async fn lock(&self) -> Result<fs::File, Failure> {
        self.make_folder()?;
        let lock = fs::File::options().create(true).truncate(false).write(true).open(self.file.with_extension("lock"));
        let lock = lock.map_err(|source| self.failed(source))?;
        let until = Instant::now() + PATIENCE;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(lock),
                Err(fs::TryLockError::WouldBlock) if Instant::now() < until => sleep(LOOK).await,
                Err(fs::TryLockError::WouldBlock) => {
                    return Err(self.failed(io::Error::new(io::ErrorKind::TimedOut, "another process holds it")));
                }
                Err(fs::TryLockError::Error(source)) => return Err(self.failed(source)),
            }
        }
    }

    fn make_folder(&self) -> Result<(), Failure> {
        let folder = self.file.parent().unwrap_or(Path::new("."));
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|source| Failure::Io { what: folder.display().to_string(), source })
    }

    fn failed(&self, source: io::Error) -> Failure {
        Failure::Io { what: self.file.display().to_string(), source }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn kept(id_token: &str) -> Kept {
        Kept {
            issuer: "https://login.example.com".to_owned(),
            client_id: "chancery".to_owned(),
            ca_file: None,
            id_token: id_token.to_owned(),
            refresh_token: Some("secret".to_owned()),
        }
    }

    #[test]
    fn a_sign_in_is_kept_for_its_owner_and_one_control_plane() {
        let folder = tempfile::tempdir().unwrap();
        let at = |server: &str| Place::in_folder(&folder.path().join("sign-ins"), server);
        let (one, other) = (at("http://127.0.0.1:8080"), at("http://127.0.0.1:8081"));
        assert_eq!(one.read().unwrap(), None);
        assert!(!one.forget().unwrap());
        one.write(&kept("a.b.c")).unwrap();
        assert_eq!(at("http://127.0.0.1:8080/").read().unwrap(), Some(kept("a.b.c")));
        assert_eq!(other.read().unwrap(), None);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&one.file), mode(one.file.parent().unwrap())), (0o600, 0o700));
        assert!(one.forget().unwrap());
        assert_eq!(one.read().unwrap(), None);
        fs::write(&one.file, "{}").unwrap();
        assert!(one.read().unwrap_err().to_string().contains("chancery login"));
        assert!(!format!("{:?}", kept("a.b.c")).contains("secret"));
    }

    #[tokio::test]
    async fn one_process_renews_it_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::in_folder(folder.path(), "http://a");
        let held = place.lock().await.unwrap();
        assert!(tokio::time::timeout(4 * LOOK, place.lock()).await.is_err(), "it is held");
        drop(held);
        place.lock().await.unwrap();
    }

    #[test]
    fn what_cannot_be_read_is_not_good() {
        assert!(!kept("a.b.c").is_good(OffsetDateTime::UNIX_EPOCH));
    }
}
