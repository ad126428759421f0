//! What a service's spec says of TLS towards its endpoints.
//!
//! Every way that is let through holds an endpoint to something, but for the one that says in words that it does not. What
//! would have no effect, or could be taken for more than it is, is refused.

use std::net::IpAddr;

use x509_parser::pem::Pem;

use crate::model::{
    listener::TlsFiles,
    parse::{host, text},
    problem::{Problems, Quoted},
    service::tls::{Authorities, ClientCertificate, Peer, ProxyId, ServiceTls, TlsVersion, Verification},
    wire::{ClientCertificateSpec, MeshSpec, ServiceTlsSpec, SubjectAltNameSpec, TlsVersionSpec, TrustedCaSpec},
};

/// The longest PEM of authorities, in bytes: more belongs in a file.
const MAX_PEM: usize = 64 * 1024;

/// The longest URI, in bytes (SPIFFE-ID, section 2.3).
const MAX_URI: usize = 2048;

/// `named`: each endpoint has a name of its own, which its certificate can be held to.
pub(super) fn tls(spec: &ServiceTlsSpec, named: bool, problems: &mut Problems) -> Option<ServiceTls> {
    let ServiceTlsSpec {
        mesh,
        sni,
        trusted_ca,
        subject_alt_names: names,
        client_certificate,
        min_version,
        insecure_skip_verify,
    } = spec;
    let skipped = *insecure_skip_verify == Some(true);
    let min_version = match min_version {
        None | Some(TlsVersionSpec::V1_2) => TlsVersion::V1_2,
        Some(TlsVersionSpec::V1_3) => TlsVersion::V1_3,
    };
    let proxies = mesh.as_ref().map(|mesh| self::proxies(mesh, &mut problems.at("mesh")));
    let sni = sni.as_ref().map(|sni| problems.at("sni").ok(dns_name(sni)));
    let authorities = trusted_ca.as_ref().map(|spec| authorities(spec, &mut problems.at("trustedCa")));
    let peers = names.as_ref().map(|names| problems.at("subjectAltNames").each(names, peer));
    let certificate =
        client_certificate.as_ref().map(|spec| self::client_certificate(spec, &mut problems.at("clientCertificate")));
    let verifying = [("trustedCa", authorities.is_some()), ("subjectAltNames", peers.is_some())];
    let others =
        [("sni", sni.is_some()), ("clientCertificate", certificate.is_some()), ("insecureSkipVerify", skipped)];
    let (useless, why) = match mesh {
        Some(_) => ([&verifying[..], &others].concat(), "does not go together with mesh, which says all of that"),
        None if skipped => (verifying.to_vec(), "has no effect with insecureSkipVerify: true"),
        None => (Vec::new(), ""),
    };
    for (field, _) in useless.iter().filter(|(_, given)| *given) {
        problems.at(field).report(why);
    }
    if mesh.is_none() && !skipped && sni.is_none() && peers.is_none() && !named {
        problems.report("needs mesh, sni or subjectAltNames: only the certificate of an endpoint with dns: true can be held to its name");
    }
    if let Some(proxies) = proxies {
        return Some(ServiceTls {
            sni: None,
            verification: Verification::Required { authorities: Authorities::Mesh, peers: proxies? },
            client_certificate: Some(ClientCertificate::Mesh),
            min_version,
        });
    }
    let verification = if skipped {
        Verification::Skipped
    } else {
        Verification::Required {
            authorities: authorities.unwrap_or(Some(Authorities::System))?,
            peers: peers.unwrap_or(Some(Vec::new()))?,
        }
    };
    Some(ServiceTls { sni: super::all(sni)?, verification, client_certificate: super::all(certificate)?, min_version })
}

fn proxies(spec: &MeshSpec, problems: &mut Problems) -> Option<Vec<Peer>> {
    let MeshSpec { fleet, proxies } = spec;
    let fleet = problems.at("fleet").ok(text::name(fleet));
    let ids = match proxies {
        None => Some(vec![ProxyId::Any]),
        Some(ids) => problems.at("proxies").each(ids, |id, problems| problems.ok(proxy_id(id))),
    };
    let fleet = fleet?;
    Some(ids?.into_iter().map(|id| Peer::Proxy { fleet: fleet.clone(), id }).collect())
}

fn proxy_id(text: &str) -> Result<ProxyId, String> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    match text.strip_suffix('*') {
        None => text
            .parse()
            .map(ProxyId::Exact)
            .map_err(|error| format!("{} is not the id of a proxy: it {error}", Quoted(text))),
        Some("") => Err("would be any proxy; leave out proxies".to_owned()),
        Some(beginning) if beginning.bytes().all(allowed) => Ok(ProxyId::Prefix(beginning.to_owned())),
        Some(_) => Err(format!(
            "{} is not how the id of a proxy begins: it must consist of a-z, 0-9 and '-', and one star at its end",
            Quoted(text)
        )),
    }
}

pub(in crate::model::parse) fn authorities(spec: &TrustedCaSpec, problems: &mut Problems) -> Option<Authorities> {
    let TrustedCaSpec { file, pem, mesh } = spec;
    let mut given = Vec::new();
    if let Some(file) = file {
        given.push(problems.at("file").ok(text::file_path(file)).map(Authorities::File));
    }
    if let Some(pem) = pem {
        given.push(problems.at("pem").ok(certificates(pem)).map(Authorities::Pem));
    }
    if let Some(mesh) = mesh {
        given.push(text::only_true(*mesh, &mut problems.at("mesh")).map(|()| Authorities::Mesh));
    }
    problems.only_one(given, "file, pem and mesh")
}

/// PEM in which nothing but certificates is: whoever may read resources reads it.
fn certificates(text: &str) -> Result<String, String> {
    if text.len() > MAX_PEM {
        return Err(format!("must have at most {MAX_PEM} bytes, not {}; put it into a file", text.len()));
    }
    let mut number = 0;
    for (index, block) in Pem::iter_from_buffer(text.as_bytes()).enumerate() {
        let block = block.map_err(|_| format!("block {index} is not PEM"))?;
        match block.label.as_str() {
            label if label.ends_with("PRIVATE KEY") => {
                return Err("holds a private key; take it out, and replace it if others have seen this".to_owned());
            }
            "CERTIFICATE" => {}
            label => return Err(format!("block {index} is a {}, not a CERTIFICATE", Quoted(label))),
        }
        block.parse_x509().map_err(|_| format!("block {index} is not a certificate"))?;
        number += 1;
    }
    if number == 0 {
        return Err("holds no certificate in PEM".to_owned());
    }
    Ok(text.to_owned())
}

pub(in crate::model::parse) fn peer(spec: &SubjectAltNameSpec, problems: &mut Problems) -> Option<Peer> {
    let SubjectAltNameSpec { uri: whole, uri_prefix: beginning, dns, ip } = spec;
    let mut given = Vec::new();
    if let Some(text) = whole {
        given.push(problems.at("uri").ok(uri(text)).map(Peer::Uri));
    }
    if let Some(text) = beginning {
        given.push(problems.at("uriPrefix").ok(uri_prefix(text)).map(Peer::UriPrefix));
    }
    if let Some(text) = dns {
        given.push(problems.at("dns").ok(dns_name(text)).map(Peer::Dns));
    }
    if let Some(text) = ip {
        let address = text.parse().map_err(|_| format!("{} is not an IP address", Quoted(text)));
        given.push(problems.at("ip").ok(address).map(Peer::Ip));
    }
    problems.only_one(given, "uri, uriPrefix, dns and ip")
}

fn uri(text: &str) -> Result<String, String> {
    let scheme = |scheme: &str| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"+-.".contains(&b);
        scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.bytes().all(allowed)
    };
    let is_uri = text.split_once(':').is_some_and(|(before, after)| scheme(before) && !after.is_empty());
    if !is_uri || text.len() > MAX_URI || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!("{} is not a URI such as spiffe://example.com/billing", Quoted(text)));
    }
    Ok(text.to_owned())
}

/// How a URI begins, up to the end of a segment of its path: `…/shop` would also be how `…/shopkeeper` begins.
fn uri_prefix(text: &str) -> Result<String, String> {
    let text = uri(text)?;
    let has_authority = text.split_once("://").is_some_and(|(_, after)| after.find('/').is_some_and(|at| at > 0));
    if !has_authority || !text.ends_with('/') {
        return Err(format!("{} must name a host, as in spiffe://example.com/, and end with a slash", Quoted(&text)));
    }
    Ok(text)
}

fn dns_name(text: &str) -> Result<String, String> {
    match text.parse::<IpAddr>() {
        Ok(address) => Err(format!("{address} is an IP address; write it as ip in subjectAltNames")),
        Err(_) => host::dns_name(text),
    }
}

fn client_certificate(spec: &ClientCertificateSpec, problems: &mut Problems) -> Option<ClientCertificate> {
    let ClientCertificateSpec { certificate_file, private_key_file, mesh } = spec;
    let mut file =
        |field: &str, path: &Option<String>| path.as_ref().map(|path| problems.at(field).ok(text::file_path(path)));
    let chain = file("certificateFile", certificate_file);
    let key = file("privateKeyFile", private_key_file);
    match (chain, key, mesh) {
        (Some(chain), Some(key), None) => {
            Some(ClientCertificate::Files(TlsFiles { certificate_file: chain?, private_key_file: key? }))
        }
        (None, None, Some(mesh)) => text::only_true(*mesh, &mut problems.at("mesh")).map(|()| ClientCertificate::Mesh),
        _ => {
            problems.report("needs certificateFile and privateKeyFile, or mesh");
            None
        }
    }
}
