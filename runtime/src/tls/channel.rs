//! A gRPC channel over our own TLS.

use std::{error::Error, io};

use http::uri::Authority;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use super::{ClientTls, ClientTlsFiles};

/// Connects to `server` by what is in `files`. They are read every time: certificates live for hours.
///
/// The certificate of the server must be of `name`, or of its host if none is given. The URI of `endpoint` must be of the scheme
/// `http`: with `https` the channel would want to speak TLS itself.
///
/// # Errors
/// The files cannot be used, the name is none, or the server cannot be reached or does not prove who it is.
pub async fn connect(
    endpoint: Endpoint,
    server: &Authority,
    name: Option<&str>,
    files: &ClientTlsFiles,
) -> Result<Channel, Box<dyn Error + Send + Sync>> {
    let connector = TlsConnector::from(ClientTls::load(files)?.config());
    let host = host_of(server).to_owned();
    let port = server.port_u16().unwrap_or_default();
    let name = ServerName::try_from(name.unwrap_or(&host).to_owned())?;
    let connect = tower::service_fn(move |_| {
        let (connector, name, host) = (connector.clone(), name.clone(), host.clone());
        async move {
            let stream = TcpStream::connect((host.as_str(), port)).await?;
            stream.set_nodelay(true)?;
            Ok::<_, io::Error>(TokioIo::new(connector.connect(name, stream).await?))
        }
    });
    Ok(endpoint.connect_with_connector(connect).await?)
}

/// The host or address, without the brackets around one of IPv6.
fn host_of(server: &Authority) -> &str {
    server.host().trim_start_matches('[').trim_end_matches(']')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_no_brackets() {
        for (text, host) in [("cp.example.com:18000", "cp.example.com"), ("10.0.0.1:1", "10.0.0.1"), ("[::1]:2", "::1")]
        {
            assert_eq!(host_of(&text.parse().unwrap()), host);
        }
    }
}
