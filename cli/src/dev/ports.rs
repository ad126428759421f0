//! Which port is whose, and what to say when one is taken.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Result, bail};

/// How far above an endpoint of `--chaos` is the port at which its faults are switched.
const CONTROL_AFTER: u16 = 10;

/// The largest offset: the highest port still exists.
pub(super) const MAX_OFFSET: u16 = u16::MAX - 18000;

/// How far apart the offsets are that are tried for a suggestion.
const STEP: u16 = 100;

/// The parts that are not always there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Optional {
    pub(super) envoy: bool,
    pub(super) chaos: bool,
}

/// The addresses of an endpoint of `--chaos`.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChaosPorts {
    pub(super) address: SocketAddr,
    pub(super) control: SocketAddr,
}

/// The addresses of all parts.
#[derive(Clone, Debug)]
pub(super) struct Ports {
    pub(super) api: SocketAddr,
    pub(super) xds: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) limiter_grpc: SocketAddr,
    pub(super) limiter_http: SocketAddr,
    pub(super) upstreams: [SocketAddr; 2],
    pub(super) chaos: [ChaosPorts; 3],
    pub(super) sidecar_inbound: SocketAddr,
    pub(super) sidecar_outbound: SocketAddr,
    pub(super) sidecar_admin: SocketAddr,
    pub(super) listener: SocketAddr,
    pub(super) envoy_admin: SocketAddr,
}

impl Ports {
    pub(super) fn with_offset(offset: u16) -> Self {
        let local = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port + offset));
        Self {
            api: local(8080),
            xds: local(18000),
            admin: local(9900),
            limiter_grpc: local(8081),
            limiter_http: local(6070),
            upstreams: [local(10081), local(10082)],
            chaos: [10083, 10084, 10085]
                .map(|port| ChaosPorts { address: local(port), control: local(port + CONTROL_AFTER) }),
            sidecar_inbound: local(15006),
            sidecar_outbound: local(15001),
            sidecar_admin: local(15020),
            listener: local(10000),
            envoy_admin: local(9901),
        }
    }

    /// Looks whether every port can be had, before anything is started.
    pub(super) fn check_free(&self, with: Optional) -> Result<()> {
        let taken: Vec<String> = self
            .owners(with)
            .into_iter()
            .filter_map(|(address, owner)| {
                let error = TcpListener::bind(address).err()?;
                Some(format!("port {} for {owner}: {error}", address.port()))
            })
            .collect();
        if taken.is_empty() {
            return Ok(());
        }
        let offsets = (STEP..MAX_OFFSET).step_by(usize::from(STEP));
        let free = offsets.into_iter().find(|offset| Self::with_offset(*offset).are_free(with));
        let advice = free.map_or_else(String::new, |offset| format!(", for example --port-offset {offset}"));
        bail!("cannot use {}\nstop what uses them, or move every port{advice}", taken.join("; "));
    }

    fn are_free(&self, with: Optional) -> bool {
        self.owners(with).iter().all(|(address, _)| TcpListener::bind(address).is_ok())
    }

    fn owners(&self, with: Optional) -> Vec<(SocketAddr, &'static str)> {
        let mut owners = vec![
            (self.api, "the API"),
            (self.xds, "xDS"),
            (self.admin, "health and metrics"),
            (self.limiter_grpc, "the rate limiter"),
            (self.limiter_http, "the rate limiter's health and metrics"),
            (self.upstreams[0], "the upstream demo-a"),
            (self.upstreams[1], "the upstream demo-b"),
            (self.sidecar_inbound, "the sidecar's way in"),
            (self.sidecar_outbound, "the sidecar's way out"),
            (self.sidecar_admin, "the sidecar's health and metrics"),
        ];
        if with.envoy {
            owners.push((self.listener, "Envoy's listener"));
            owners.push((self.envoy_admin, "Envoy's admin interface"));
        }
        if with.chaos {
            owners.extend(self.chaos.iter().flat_map(|ports| {
                [(ports.address, "an endpoint of --chaos"), (ports.control, "the faults of an endpoint of --chaos")]
            }));
        }
        owners
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_moves_every_port() {
        let (zero, moved) = (Ports::with_offset(0), Ports::with_offset(1000));
        let all = Optional { envoy: true, chaos: true };
        for ((before, owner), (after, _)) in zero.owners(all).into_iter().zip(moved.owners(all)) {
            assert_eq!(before.port() + 1000, after.port(), "{owner}");
        }
        Ports::with_offset(MAX_OFFSET);
    }

    #[test]
    fn a_port_that_is_taken_is_named_with_its_owner_and_a_way_out() {
        let mut ports = Ports::with_offset(0);
        let taken = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let free = |_| TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let _holder = TcpListener::bind(taken).unwrap();
        ports.api = free(());
        ports.xds = taken;
        ports.admin = free(());
        ports.limiter_grpc = free(());
        ports.limiter_http = free(());
        ports.upstreams = [free(()), free(())];
        ports.sidecar_inbound = free(());
        ports.sidecar_outbound = free(());
        ports.sidecar_admin = free(());
        let error = ports.check_free(Optional { envoy: false, chaos: false }).unwrap_err().to_string();
        assert!(error.contains(&format!("port {} for xDS", taken.port())), "{error}");
        assert!(error.contains("--port-offset "), "{error}");
        assert!(!error.contains("the API"), "{error}");
    }
}
