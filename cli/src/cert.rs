//! `chancery cert issue`: an identity as files, for a proxy, a rate limiter, an operator or a control plane.
//!
//! Works on files only, so it needs neither a running control plane nor a token; whoever can read
//! the CA's key can issue.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use chancery_control_plane::{
    identity::{
        DEFAULT_TRUST_DOMAIN,
        authority::AuthorityError,
        issue::{self, CaSource, Holder, IdentityFiles, IssueError, Request},
    },
    model::Name,
};
use clap::{Args, Subcommand};
use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::output::OutputArgs;

/// `chancery cert`
#[derive(Debug, Args)]
pub struct CertArgs {
    #[command(subcommand)]
    command: CertCommand,
}

#[derive(Debug, Subcommand)]
enum CertCommand {
    /// Issue a certificate for a proxy (--fleet, --id), a rate limiter (--rate-limiter), an operator (--operator) or a control
    /// plane (--control-plane)
    Issue(Box<IssueArgs>),
}

/// `chancery cert issue`
#[derive(Debug, Args)]
struct IssueArgs {
    /// Fleet of the proxy
    #[arg(long, value_name = "FLEET", required_unless_present_any = ["control_plane", "rate_limiter", "operator"], requires = "id")]
    fleet: Option<Name>,
    /// Id of the proxy
    #[arg(long, value_name = "ID", requires = "fleet")]
    id: Option<Name>,
    /// Issue the certificate of a rate limiter instead, which is server to proxies and client of the control plane
    #[arg(long, value_name = "ID", conflicts_with_all = ["fleet", "id"])]
    rate_limiter: Option<Name>,
    /// Issue the certificate of an operator instead, who may ask the control plane what all its clients have (CSDS)
    #[arg(long, value_name = "ID", conflicts_with_all = ["fleet", "id", "rate_limiter", "dns", "ip"])]
    operator: Option<Name>,
    /// Issue the server certificate of a control plane instead
    #[arg(long, conflicts_with_all = ["fleet", "id", "rate_limiter", "operator"])]
    control_plane: bool,
    /// DNS name under which the control plane or rate limiter is reached; may be repeated
    #[arg(long, value_name = "NAME", conflicts_with = "fleet")]
    dns: Vec<String>,
    /// IP address under which the control plane or rate limiter is reached; may be repeated
    #[arg(long, value_name = "ADDRESS", conflicts_with = "fleet")]
    ip: Vec<IpAddr>,
    /// Folder for tls.crt, tls.key and ca.crt
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// How long the certificate is valid
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration)]
    ttl: Duration,
    /// Trust domain of the identity
    #[arg(long, value_name = "DOMAIN", default_value = DEFAULT_TRUST_DOMAIN, env = "CHANCERY_TRUST_DOMAIN")]
    trust_domain: String,
    /// Data folder of `chancery dev`, whose CA is used
    #[arg(long, value_name = "DIR", default_value = crate::dev::DEFAULT_DATA_DIR, env = "CHANCERY_DATA_DIR")]
    data_dir: PathBuf,
    /// Folder of another CA (ca.crt, ca.key)
    #[arg(long, value_name = "DIR", conflicts_with_all = ["ca_cert", "ca_key"])]
    ca_dir: Option<PathBuf>,
    /// Make the CA if the folder holds none
    #[arg(long, conflicts_with_all = ["ca_cert", "ca_key"])]
    create_ca: bool,
    /// Certificate of a CA that you bring, PEM; may go on with the CAs above it
    #[arg(long, value_name = "FILE", requires = "ca_key")]
    ca_cert: Option<PathBuf>,
    /// Private key of that CA, PEM
    #[arg(long, value_name = "FILE", requires = "ca_cert")]
    ca_key: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs `chancery cert …`.
///
/// # Errors
/// The CA cannot be used, or a file cannot be written.
pub fn run(args: CertArgs) -> anyhow::Result<()> {
    let CertCommand::Issue(args) = args.command;
    let output = args.output;
    let request = request(*args)?;
    let (issued, files) = issue::issue(&request, OffsetDateTime::now_utc()).map_err(|error| match error {
        IssueError::Authority(AuthorityError::NoCa { .. }) => {
            anyhow::Error::new(error).context("nothing was issued (--create-ca makes a CA, `chancery dev` too)")
        }
        error => anyhow::Error::new(error).context("nothing was issued"),
    })?;
    let told = Told { identity: &issued.uri, not_after: issued.not_after.format(&Rfc3339)?, files: &files };
    Ok(output.print(&told, Told::for_people)?)
}

fn request(args: IssueArgs) -> anyhow::Result<Request> {
    let IssueArgs {
        fleet,
        id,
        rate_limiter,
        operator,
        control_plane,
        dns,
        ip,
        out,
        ttl,
        trust_domain,
        data_dir,
        ca_dir,
        create_ca,
        ca_cert,
        ca_key,
        output: _,
    } = args;
    let ca = match (ca_cert, ca_key) {
        (Some(certificate), Some(key)) => CaSource::Brought { certificate, key },
        _ => {
            let dir = ca_dir.unwrap_or_else(|| data_dir.join(crate::dev::CA_DIR));
            if create_ca { CaSource::ExistingOrNew(dir) } else { CaSource::Existing(dir) }
        }
    };
    let holder = match (fleet, id, operator, rate_limiter) {
        (Some(fleet), Some(id), ..) => Holder::Proxy { fleet, id },
        (_, _, Some(id), _) => Holder::Operator { id },
        (.., limiter) => {
            anyhow::ensure!(
                (control_plane || limiter.is_some()) && !(dns.is_empty() && ip.is_empty()),
                "the certificate of a control plane or rate limiter needs at least one --dns or --ip"
            );
            match limiter {
                Some(id) => Holder::RateLimiter { id, dns_names: dns, addresses: ip },
                None => Holder::ControlPlane { dns_names: dns, addresses: ip },
            }
        }
    };
    Ok(Request { ca, trust_domain, holder, life: ttl, out })
}

fn duration(text: &str) -> Result<Duration, humantime::DurationError> {
    humantime::parse_duration(text)
}

/// What is said of what was issued.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Told<'a> {
    identity: &'a str,
    not_after: String,
    #[serde(flatten)]
    files: &'a IdentityFiles,
}

impl Told<'_> {
    fn for_people(&self) -> String {
        let IdentityFiles { certificate, private_key, ca } = self.files;
        let mut text = format!("{}\nvalid until {}\n", self.identity, self.not_after);
        for (what, file) in [("certificate", certificate), ("private key", private_key), ("CA", ca)] {
            text += &format!("  {what:<13}{}\n", file.display());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: CertArgs,
    }

    fn parse(arguments: &str) -> Result<Request, String> {
        let arguments = std::iter::once("cert").chain(arguments.split_whitespace());
        let CertCommand::Issue(args) = Cli::try_parse_from(arguments).map_err(|error| error.to_string())?.args.command;
        request(*args).map_err(|error| error.to_string())
    }

    #[test]
    fn a_proxy_is_issued_from_the_development_ca() {
        let request = parse("issue --fleet edge --id edge-1 --out /tmp/out").unwrap();
        assert_eq!(request.ca, CaSource::Existing("./.chancery/ca".into()));
        assert_eq!(request.life, Duration::from_secs(24 * 60 * 60));
        assert_eq!(request.trust_domain, "chancery.local");
    }

    #[test]
    fn a_control_plane_is_issued_from_a_ca_that_was_brought() {
        let request =
            parse("issue --control-plane --dns cp.example.com --ip 10.0.0.1 --out o --ca-cert c --ca-key k").unwrap();
        assert_eq!(request.ca, CaSource::Brought { certificate: "c".into(), key: "k".into() });
        let addresses = vec![IpAddr::from([10, 0, 0, 1])];
        assert_eq!(request.holder, Holder::ControlPlane { dns_names: vec!["cp.example.com".to_owned()], addresses });
    }

    #[test]
    fn a_rate_limiter_is_issued_under_its_names() {
        let request = parse("issue --rate-limiter limiter-1 --dns limiter.example.com --out o").unwrap();
        let (id, dns_names) = ("limiter-1".parse().unwrap(), vec!["limiter.example.com".to_owned()]);
        assert_eq!(request.holder, Holder::RateLimiter { id, dns_names, addresses: Vec::new() });
    }

    #[test]
    fn an_operator_has_an_id_and_no_address() {
        let request = parse("issue --operator ops --out o").unwrap();
        assert_eq!(request.holder, Holder::Operator { id: "ops".parse().unwrap() });
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for arguments in [
            "issue --out o",
            "issue --fleet edge --out o",
            "issue --fleet edge --id ../etc --out o",
            "issue --fleet edge --id edge-1 --control-plane --out o",
            "issue --control-plane --out o",
            "issue --rate-limiter limiter-1 --out o",
            "issue --rate-limiter ../etc --ip 10.0.0.1 --out o",
            "issue --rate-limiter limiter-1 --control-plane --ip 10.0.0.1 --out o",
            "issue --rate-limiter limiter-1 --fleet edge --id edge-1 --ip 10.0.0.1 --out o",
            "issue --fleet edge --id edge-1 --ip 10.0.0.1 --out o",
            "issue --operator ops --fleet edge --id edge-1 --out o",
            "issue --operator ops --control-plane --out o",
            "issue --operator ops --ip 10.0.0.1 --out o",
            "issue --fleet edge --id edge-1 --out o --ca-cert c",
            "issue --fleet edge --id edge-1 --out o --ca-dir d --ca-cert c --ca-key k",
            "issue --fleet edge --id edge-1 --out o --ttl soon",
        ] {
            assert!(parse(arguments).is_err(), "{arguments}");
        }
    }
}
