//! Tunnels that clients ask for with CONNECT over HTTP/1.1.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::wait::PATIENCE;

/// What stands before an empty line, and nothing of what follows.
///
/// # Errors
/// The connection ends before it.
pub async fn head(stream: &mut TcpStream) -> Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.with_context(|| String::from_utf8_lossy(&head).into_owned())?);
    }
    Ok(String::from_utf8(head)?)
}

/// Asks for a tunnel to `authority`: the status, and the connection.
///
/// # Errors
/// No answer comes, or not in time.
pub async fn connect(at: SocketAddr, authority: &str, headers: &[(&str, &str)]) -> Result<(u16, TcpStream)> {
    let ask = async {
        let mut stream = TcpStream::connect(at).await?;
        let more: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let request = format!("CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n{more}\r\n");
        stream.write_all(request.as_bytes()).await?;
        let head = head(&mut stream).await?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        Ok((status.with_context(|| head.clone())?, stream))
    };
    timeout(PATIENCE, ask).await.context("no answer to a CONNECT in time")?
}

/// Whether all that is said comes back, in order.
///
/// # Errors
/// It does not, or not in time.
pub async fn says_back(stream: &mut TcpStream, said: &[u8]) -> Result<()> {
    let exchange = async {
        let (mut reader, mut writer) = stream.split();
        let mut heard = vec![0; said.len()];
        tokio::try_join!(writer.write_all(said), reader.read_exact(&mut heard))?;
        ensure!(heard == said, "something else comes back");
        Ok(())
    };
    timeout(PATIENCE, exchange).await.context("nothing comes back")?
}
