//! Who the sidecar is to the endpoints of others: its certificate, as it is in the files now and then.

use std::{io, sync::Arc, time::Duration};

use chancery_runtime::tls::{ClientTls, ClientTlsFiles};
use parking_lot::Mutex;
use rustls::ClientConfig;
use tokio::time::Instant;

use crate::proxy::connect::Identity;

/// How long what was read is used. Certificates are renewed long before they end.
const KEPT: Duration = Duration::from_secs(10);

/// The identity in these files. One that cannot be read for a while is the one that was read last.
pub(super) fn of(files: ClientTlsFiles) -> Identity {
    let last: Mutex<Option<(Instant, Arc<ClientConfig>)>> = Mutex::default();
    Arc::new(move || {
        let mut last = last.lock();
        if let Some((_, config)) = last.as_ref().filter(|(read, _)| read.elapsed() < KEPT) {
            return Ok(config.clone());
        }
        match (ClientTls::load(&files), &*last) {
            (Ok(tls), _) => {
                let config = tls.config();
                *last = Some((Instant::now(), config.clone()));
                Ok(config)
            }
            (Err(_), Some((_, before))) => Ok(before.clone()),
            (Err(error), None) => Err(io::Error::other(error)),
        }
    })
}
