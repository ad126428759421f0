//! `chancery health`: whether a program is ready, as an exit code, for images that have neither a shell nor curl.
//!
//! One command for all programs, since they share one image and answer alike at `/readyz`. It needs no token: the admin port
//! asks for none.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Result, bail};
use clap::Args;
use http::{Method, StatusCode};
use serde::Deserialize;

use crate::{
    ask::{Answer, ask, reason},
    failure::Failure,
    output,
};

/// More than any answer of `/readyz`.
const MOST_BYTES: usize = 64 << 10;

/// `chancery health`
#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    /// The program's admin port, or the URL to ask: 9900 of a control plane, 6070 of a rate limiter, 15020 of a sidecar
    #[arg(value_name = "ADDR|URL", default_value = "127.0.0.1:9900", value_parser = target)]
    target: String,
    /// How long an answer may take
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ready {
    #[serde(default)]
    waiting_for: Vec<String>,
}

/// Asks, and fails if the answer is anything but yes.
pub(crate) async fn health(args: HealthArgs) -> Result<(), Failure> {
    ready(&args.target, args.timeout).await?;
    output::print("ready\n")
}

/// Whether the program with this `/readyz` is ready, or why it is not.
///
/// # Errors
/// It is not.
pub(crate) async fn ready(url: &str, within: Duration) -> Result<()> {
    match ask(Method::GET, url, within, MOST_BYTES).await {
        Ok(Answer { status: StatusCode::OK, .. }) => Ok(()),
        Ok(Answer { status, body, .. }) => match serde_json::from_slice(&body) {
            Ok(Ready { waiting_for }) if !waiting_for.is_empty() => bail!("not ready: {}", waiting_for.join(", ")),
            _ => bail!("not ready: {url} answers {status}"),
        },
        Err(error) => bail!("no answer from {url}: {}", reason(&error)),
    }
}

/// The URL to ask: as it is said, or `/readyz` of the port that is.
fn target(text: &str) -> Result<String, String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(readyz(address));
    }
    let rest =
        text.strip_prefix("http://").ok_or("write an address, as 127.0.0.1:9900, or a URL, as http://host:9900")?;
    Ok(if rest.trim_end_matches('/').contains('/') {
        text.to_owned()
    } else {
        format!("{}/readyz", text.trim_end_matches('/'))
    })
}

/// Where the program with this admin port says whether it is ready.
pub(crate) fn readyz(address: SocketAddr) -> String {
    format!("http://{address}/readyz")
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    /// Answers once with `text`, or never.
    async fn one_answer(text: Option<&'static str>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).await;
            match text {
                Some(text) => stream.write_all(text.as_bytes()).await.unwrap(),
                None => std::future::pending().await,
            }
        });
        readyz(address)
    }

    #[tokio::test]
    async fn only_a_ready_program_is_healthy() {
        let second = Duration::from_secs(20);
        let yes = one_answer(Some("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")).await;
        ready(&yes, second).await.unwrap();
        let body = r#"{"ready":false,"waitingFor":["catalog loaded"]}"#;
        let no = format!("HTTP/1.1 503 x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let no = one_answer(Some(no.leak())).await;
        assert_eq!(ready(&no, second).await.unwrap_err().to_string(), "not ready: catalog loaded");
        let silent = one_answer(None).await;
        assert!(ready(&silent, Duration::from_millis(50)).await.unwrap_err().to_string().contains("no answer"));
        assert!(ready("http://127.0.0.1:1/readyz", second).await.is_err());
    }

    #[test]
    fn a_port_or_a_url_is_asked() {
        assert_eq!(target("127.0.0.1:6070").unwrap(), "http://127.0.0.1:6070/readyz");
        assert_eq!(target("[::1]:6070").unwrap(), "http://[::1]:6070/readyz");
        assert_eq!(target("http://limiter:6070/").unwrap(), "http://limiter:6070/readyz");
        assert_eq!(target("http://limiter:6070/livez").unwrap(), "http://limiter:6070/livez");
        assert!(target("https://limiter").is_err() && target("limiter").is_err());
    }
}
