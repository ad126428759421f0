//! Ports: free before the programs are there, answered afterwards.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use super::{
    check::{Check, Found, Group, When},
    site::{Program, Site, reachable},
};

/// How long a connection may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);

pub(super) const GROUP: Group = Group {
    name: "Ports",
    checks: &[
        Check { name: "control plane", when: When::Always, probe: |site| Box::pin(control_plane(site)) },
        Check { name: "rate limiter", when: When::Always, probe: |site| Box::pin(rate_limiter(site)) },
        Check { name: "sidecar", when: When::Always, probe: |site| Box::pin(sidecar(site)) },
    ],
};

async fn control_plane(site: &Site) -> Found {
    let ports =
        site.control_plane.as_ref().and_then(Program::ok).map(|settings| {
            vec![("API", settings.api_addr), ("xDS", settings.xds_addr), ("admin", settings.admin_addr)]
        });
    look(site, ports, "chancery-control-plane").await
}

async fn rate_limiter(site: &Site) -> Found {
    let ports = site.rate_limiter.as_ref().and_then(Program::ok);
    let ports = ports.map(|settings| vec![("gRPC", settings.grpc_addr), ("HTTP", settings.http_addr)]);
    look(site, ports, "chancery-rate-limiter").await
}

async fn sidecar(site: &Site) -> Found {
    let ports = site.sidecar.as_ref().and_then(Program::ok).map(|settings| {
        vec![("inbound", settings.inbound_addr), ("outbound", settings.outbound_addr), ("admin", settings.admin_addr)]
    });
    look(site, ports, "chancery-sidecar").await
}

async fn look(site: &Site, ports: Option<Vec<(&'static str, SocketAddr)>>, unit: &str) -> Found {
    let Some(ports) = ports else { return Found::skipped("none here") };
    let mut seen = Vec::new();
    // One after the other: each answers or refuses at once, or the deadline of the check is for all of them.
    for (name, address) in ports.into_iter().filter(|(_, address)| address.port() != 0) {
        let result = if site.before_install { free(address) } else { answers(address).await };
        seen.push((name, address, result));
    }
    verdict(&seen, site.before_install, unit)
}

fn free(address: SocketAddr) -> io::Result<()> {
    TcpListener::bind(address).map(drop)
}

async fn answers(address: SocketAddr) -> io::Result<()> {
    let connecting = tokio::net::TcpStream::connect(reachable(address));
    tokio::time::timeout(CONNECT_WITHIN, connecting)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
        .map(drop)
}

fn verdict(seen: &[(&str, SocketAddr, io::Result<()>)], before_install: bool, unit: &str) -> Found {
    let list = |ok: bool| {
        let some = seen.iter().filter(move |(_, _, result)| result.is_ok() == ok);
        some.map(|(name, address, result)| match result {
            Ok(()) => format!("{name} {address}"),
            Err(error) => format!("{name} {address}: {error}"),
        })
    };
    let wrong: Vec<_> = list(false).collect();
    match (wrong.is_empty(), before_install) {
        (true, true) => Found::passed(format!("free: {}", list(true).collect::<Vec<_>>().join(", "))),
        (true, false) => Found::passed(list(true).collect::<Vec<_>>().join(", ")),
        (false, true) => {
            let ports: Vec<_> =
                seen.iter().filter(|(_, _, result)| result.is_err()).map(|(_, address, _)| address.port()).collect();
            let next = format!("stop what listens there (`ss -ltnp 'sport = :{}'`), or set another address", ports[0]);
            Found::failed(wrong.join("; "), next)
        }
        (false, false) => Found::failed(
            wrong.join("; "),
            format!("start it (`systemctl start {unit}`); its log says why it is not there (`journalctl -u {unit}`)"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::check::Outcome;

    #[tokio::test]
    async fn a_port_is_free_or_answers() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = listener.local_addr().unwrap();
        assert!(free(taken).is_err() && answers(taken).await.is_ok());
        drop(listener);
        assert!(free(taken).is_ok() && answers(taken).await.is_err());
    }

    #[test]
    fn what_to_do_depends_on_what_was_expected() {
        let at: SocketAddr = "127.0.0.1:8080".parse().unwrap();
        let mixed = || [("API", at, Err(io::ErrorKind::AddrInUse.into())), ("xDS", at, Ok(()))];
        let before = verdict(&mixed(), true, "chancery-control-plane");
        assert!(before.said.contains("API 127.0.0.1:8080: ") && !before.said.contains("xDS"), "{before:?}");
        assert!(before.next.unwrap().contains("sport = :8080"));
        let after = verdict(&mixed(), false, "chancery-control-plane");
        assert!(after.next.unwrap().contains("systemctl start chancery-control-plane"));
        assert_eq!(verdict(&[("API", at, Ok(()))], false, "x").outcome, Outcome::Passed);
    }
}
