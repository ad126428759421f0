//! What a listener's spec means.

use std::net::{IpAddr, Ipv4Addr};

use super::text;
use crate::model::{
    Name,
    listener::{Listener, ListenerProtocol, RouteDelivery, TlsFiles},
    problem::{Problems, Quoted},
    wire::{ListenerProtocolSpec, ListenerSpec, RouteDeliverySpec, TlsFilesSpec},
};

pub(super) fn listener(name: Name, spec: &ListenerSpec, problems: &mut Problems) -> Option<Listener> {
    let ListenerSpec { fleet, address, port, protocol, proxy_protocol, tls, route_delivery } = spec;
    let fleet = problems.at("fleet").ok(text::name(fleet));
    let address = match address {
        None => Some(Ipv4Addr::UNSPECIFIED.into()),
        Some(address) => problems.at("address").ok(bind_address(address)),
    };
    let files = tls.as_ref().map(|tls| tls_files(tls, &mut problems.at("tls")));
    let protocol = match (protocol, files) {
        (ListenerProtocolSpec::Http, None) => Some(ListenerProtocol::Http),
        (ListenerProtocolSpec::Https, Some(files)) => files.map(ListenerProtocol::Https),
        (ListenerProtocolSpec::Http, Some(_)) => {
            problems.at("tls").report("goes with protocol https only");
            None
        }
        (ListenerProtocolSpec::Https, None) => {
            problems.at("tls").report("is required with protocol https");
            None
        }
        (ListenerProtocolSpec::Tcp, _) => {
            problems.at("protocol").report("tcp is not supported yet");
            None
        }
    };
    let route_delivery = match route_delivery {
        Some(RouteDeliverySpec::Whole) => RouteDelivery::Whole,
        Some(RouteDeliverySpec::PerHost) | None => RouteDelivery::PerHost,
    };
    Some(Listener {
        name,
        fleet: fleet?,
        address: address?,
        port: *port,
        proxy_protocol: proxy_protocol.unwrap_or(false),
        protocol: protocol?,
        route_delivery,
    })
}

fn bind_address(text: &str) -> Result<IpAddr, String> {
    let address: IpAddr = text.parse().map_err(|_| format!("{} is not an IP address", Quoted(text)))?;
    if address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return Err(format!("{address} is not the address of one machine"));
    }
    Ok(address)
}

fn tls_files(spec: &TlsFilesSpec, problems: &mut Problems) -> Option<TlsFiles> {
    let TlsFilesSpec { certificate_file, private_key_file } = spec;
    let certificate_file = problems.at("certificateFile").ok(text::file_path(certificate_file));
    let private_key_file = problems.at("privateKeyFile").ok(text::file_path(private_key_file));
    Some(TlsFiles { certificate_file: certificate_file?, private_key_file: private_key_file? })
}
