//! `chancery bootstrap`: the file that an Envoy starts with. Needs no control plane.

use std::{net::SocketAddr, path::PathBuf};

use chancery_control_plane::{
    bootstrap::{Bootstrap, DEFAULT_MAX_CONNECTIONS, Protocol},
    identity::issue::IdentityFiles,
    model::{Name, service::Zone},
};
use clap::Args;

use crate::{failure::Failure, output};

/// `chancery bootstrap`
#[derive(Debug, Args)]
pub(crate) struct BootstrapArgs {
    /// Fleet of the proxy, as in its certificate
    #[arg(long)]
    fleet: Name,
    /// Id of the proxy, as in its certificate
    #[arg(long)]
    id: Name,
    /// Where the control plane serves xDS, as the proxy reaches it
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:18000", value_parser = xds_address)]
    xds_address: (String, u16),
    /// Name or address in the control plane's certificate, if it is not the host of --xds-address
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
    /// Folder with tls.crt, tls.key and ca.crt, as the proxy sees it [default: the folder that Envoy is started in]
    #[arg(long, value_name = "DIR")]
    identity_dir: Option<PathBuf>,
    /// The certificate is renewed while Envoy runs: have it follow the files. --identity-dir has to be what `chancery agent` or
    /// `chancery cert issue` wrote
    #[arg(long, requires = "identity_dir")]
    renewed: bool,
    /// Speak state-of-the-world xDS instead of delta
    #[arg(long)]
    sotw: bool,
    /// What the proxy says of itself, as a rollout can choose canaries by; may be given more than once
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Zone of the proxy, as endpoints have it; services with zoneAware prefer those [default: none]
    #[arg(long)]
    zone: Option<String>,
    /// Region of the zone
    #[arg(long, requires = "zone")]
    region: Option<String>,
    /// Address of Envoy's admin interface; whoever reaches it owns the proxy [default: none]
    #[arg(long, value_name = "ADDR")]
    admin: Option<SocketAddr>,
    /// Client connections that the proxy takes at most
    #[arg(long, value_name = "N", default_value_t = DEFAULT_MAX_CONNECTIONS)]
    max_connections: u64,
    /// Memory that the proxy's heap may take, in bytes [default: without bound]
    #[arg(long, value_name = "BYTES")]
    max_heap_bytes: Option<u64>,
}

/// Prints the file.
pub(crate) fn bootstrap(args: BootstrapArgs) -> Result<(), Failure> {
    output::print(&output::json(&Bootstrap::try_from(args)?.to_json()))
}

impl TryFrom<BootstrapArgs> for Bootstrap {
    type Error = Failure;

    fn try_from(args: BootstrapArgs) -> Result<Self, Failure> {
        let identity_dir = args.identity_dir.unwrap_or_default();
        let files = IdentityFiles::within(&identity_dir);
        let text = |path: PathBuf| {
            path.into_os_string().into_string().map_err(|_| Failure::Usage("--identity-dir is not a text".to_owned()))
        };
        let (xds_host, xds_port) = args.xds_address;
        Ok(Self {
            fleet: args.fleet,
            id: args.id,
            xds_host,
            xds_port,
            server_name: args.server_name,
            ca_file: text(files.ca)?,
            certificate_file: text(files.certificate)?,
            private_key_file: text(files.private_key)?,
            secrets_dir: args.renewed.then_some(identity_dir),
            labels: args.labels.into_iter().collect(),
            zone: args.zone.map(|zone| Zone { region: args.region.unwrap_or_default(), zone }),
            admin: args.admin,
            protocol: if args.sotw { Protocol::StateOfTheWorld } else { Protocol::Delta },
            max_connections: args.max_connections,
            max_heap_bytes: args.max_heap_bytes,
        })
    }
}

/// `track=canary`.
pub(crate) fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("must be NAME=VALUE".to_owned()),
    }
}

/// `cp.example.com:18000`, `10.0.0.1:18000` or `[::1]:18000`.
pub(crate) fn xds_address(text: &str) -> Result<(String, u16), String> {
    let malformed = || "must be HOST:PORT".to_owned();
    let (host, port) = text.rsplit_once(':').ok_or_else(malformed)?;
    let port = port.parse().ok().filter(|port| *port != 0).ok_or("must have a port of 1 to 65535")?;
    let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address,
        None if host.contains(':') => return Err("must have an IPv6 address in brackets".to_owned()),
        None => host,
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-.:_".contains(c);
    if host.is_empty() || !host.chars().all(plain) { Err(malformed()) } else { Ok((host.to_owned(), port)) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: BootstrapArgs,
    }

    fn parsed(line: &str) -> Bootstrap {
        let arguments = std::iter::once("bootstrap").chain(line.split_whitespace());
        Line::try_parse_from(arguments).unwrap().args.try_into().unwrap()
    }

    #[test]
    fn identity_files_lie_where_envoy_is_started() {
        let bootstrap = parsed("--fleet edge --id edge-1");
        assert_eq!((bootstrap.certificate_file.as_str(), bootstrap.ca_file.as_str()), ("tls.crt", "ca.crt"));
        assert_eq!((bootstrap.xds_host.as_str(), bootstrap.xds_port), ("127.0.0.1", 18000));
        let elsewhere = parsed("--fleet edge --id edge-1 --identity-dir /etc/envoy/id --sotw");
        assert_eq!(elsewhere.private_key_file, "/etc/envoy/id/tls.key");
        assert_eq!(elsewhere.protocol, Protocol::StateOfTheWorld);
    }

    #[test]
    fn an_address_has_host_and_port() {
        assert_eq!(xds_address("cp.example.com:1"), Ok(("cp.example.com".to_owned(), 1)));
        assert_eq!(xds_address("[::1]:18000"), Ok(("::1".to_owned(), 18000)));
        for text in ["", "a", ":1", "a:", "a:0", "a:65536", "::1:1", "[]:1", "http://a:1", "a b:1"] {
            assert!(xds_address(text).is_err(), "{text}");
        }
    }
}
