//! Where the database is: the hosts of a URL, and which of them takes writes.
//!
//! `postgres://u:p@a:5432,b:5432/db?target_session_attrs=read-write`, as libpq takes it: a primary and its replicas, of which another
//! may be the primary tomorrow. The driver knows one host only, so the URL is split into one for each, and they are asked.
//!
//! - All hosts are asked at once, so that one that is silent costs the others no time, and the first in the order of the URL counts:
//!   programs with one URL agree, even if two hosts take writes.
//! - A single host is used as it is, unless the URL says `target_session_attrs=read-write`: whoever makes a backup may read from a replica.

use std::{fmt, io, str::FromStr as _, time::Duration};

use futures_util::{StreamExt as _, stream::FuturesOrdered};
use sqlx::{ConnectOptions as _, Connection as _, PgConnection, Row as _, postgres::PgConnectOptions, raw_sql};
use tokio::time::timeout;

use super::CONNECT_WITHIN;
use crate::store::{
    StoreError,
    failure::{bounded, failure, is_outage},
};

/// How long one of several hosts may take to say whether it takes writes; what follows has to fit into the deadline of a write.
const ASK_WITHIN: Duration = Duration::from_secs(2);

/// More are no installation but a mistake.
const MOST: usize = 16;

const ATTRIBUTES: &str = "target_session_attrs";

/// The hosts of a database. At least one.
#[derive(Clone, Debug)]
pub(super) struct Hosts {
    hosts: Vec<PgConnectOptions>,
    /// Whether a host is asked if it takes writes before it is used.
    asks: bool,
}

impl Hosts {
    /// The hosts of `url`; connections to them are named `application`, unless the URL says otherwise.
    pub(super) fn parse(url: &str, application: &str) -> Result<Self, StoreError> {
        // What is said of a URL repeats nothing of it but the value of this parameter: there may be a password in any other part.
        let (urls, writes) = split(url).map_err(StoreError::Url)?;
        let count = urls.len();
        let parse = |(index, url): (usize, &String)| {
            let options = PgConnectOptions::from_str(url).map_err(|error| match count {
                1 => StoreError::Url(error.to_string()),
                _ => StoreError::Url(format!("with host {} of {count}: {error}", index + 1)),
            })?;
            Ok(match options.get_application_name() {
                Some(_) => options,
                None => options.application_name(application),
            })
        };
        let hosts = urls.iter().enumerate().map(parse).collect::<Result<Vec<_>, StoreError>>()?;
        Ok(Self { hosts, asks: writes || count > 1 })
    }

    /// Whether hosts are asked, so that the one to use may be another than it was.
    pub(super) fn may_move(&self) -> bool {
        self.asks
    }

    /// The first host, whether it answers or not.
    pub(super) fn first(&self) -> PgConnectOptions {
        self.hosts[0].clone()
    }

    /// The host to use now: the first one that takes writes, where that is asked.
    pub(super) async fn primary(&self) -> Result<PgConnectOptions, sqlx::Error> {
        if !self.asks {
            return Ok(self.first());
        }
        let mut answers: FuturesOrdered<_> = self.hosts.iter().map(takes_writes).collect();
        let mut refusals = Vec::new();
        for host in &self.hosts {
            match answers.next().await {
                Some(Ok(true)) => return Ok(host.clone()),
                Some(Ok(false)) => refusals.push((host, None)),
                Some(Err(error)) => refusals.push((host, Some(error))),
                None => {}
            }
        }
        Err(none_of(refusals))
    }

    /// A connection to it.
    pub(super) async fn connect(&self) -> Result<PgConnection, StoreError> {
        let primary = self.primary().await.map_err(|error| failure("connecting", error))?;
        bounded("connecting", CONNECT_WITHIN, primary.connect()).await
    }
}

/// One URL for each host, and whether it has to take writes.
fn split(url: &str) -> Result<(Vec<String>, bool), String> {
    let (scheme, rest) = url.split_once("://").ok_or("it has no \"://\" after its scheme")?;
    let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut writes = false;
    let mut parameters = Vec::new();
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        match parameter.split_once('=') {
            Some((ATTRIBUTES, "read-write" | "primary")) => writes = true,
            // Of several hosts one that takes writes is needed all the same.
            Some((ATTRIBUTES, "any")) => {}
            Some((ATTRIBUTES, other)) => {
                return Err(format!("{ATTRIBUTES} is {other:?}; Chancery writes, so use \"read-write\""));
            }
            Some(("host" | "hostaddr" | "port", value)) if value.contains(',') || value.contains("%2C") => {
                return Err(
                    "several hosts stand before the database's name: postgres://USER:PASSWORD@A:5432,B:5432/DATABASE"
                        .into(),
                );
            }
            _ => parameters.push(parameter),
        }
    }
    let query = if parameters.is_empty() { String::new() } else { format!("?{}", parameters.join("&")) };
    let (user, hosts) = match authority.rsplit_once('@') {
        Some((user, hosts)) => (format!("{user}@"), hosts),
        None => (String::new(), authority),
    };
    let hosts: Vec<&str> = hosts.split(',').collect();
    let count = hosts.len();
    if count > MOST {
        return Err(format!("it names {count} hosts; there may be {MOST}"));
    }
    if let Some(index) = hosts.iter().position(|host| count > 1 && (host.is_empty() || host.starts_with(':'))) {
        return Err(format!("host {} of {count} has no name", index + 1));
    }
    Ok((hosts.iter().map(|host| format!("{scheme}://{user}{host}{path}{query}")).collect(), writes))
}

/// Whether `host` takes writes: a replica, and a primary that is set to refuse them, says that it does not.
async fn takes_writes(host: &PgConnectOptions) -> Result<bool, sqlx::Error> {
    let asked = async {
        let mut connection = host.connect().await?;
        let row = raw_sql("SHOW transaction_read_only").fetch_one(&mut connection).await?;
        let read_only: String = row.try_get(0)?;
        // Best effort: dropping the connection closes it as well.
        let _ = connection.close().await;
        Ok(read_only == "off")
    };
    timeout(ASK_WITHIN, asked).await.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
}

/// No host takes writes.
#[derive(Debug, thiserror::Error)]
#[error("no host of the database takes writes: {0}")]
struct NoPrimary(String);

/// What it means that none of them does. If no host is away and none is a replica, it is no outage: as the first says.
fn none_of(refusals: Vec<(&PgConnectOptions, Option<sqlx::Error>)>) -> sqlx::Error {
    if refusals.iter().any(|(_, error)| error.as_ref().is_none_or(is_outage)) {
        let say = |(host, error): &(&PgConnectOptions, Option<sqlx::Error>)| Refusal(host, error.as_ref()).to_string();
        let all = refusals.iter().map(say).collect::<Vec<_>>().join("; ");
        return io::Error::new(io::ErrorKind::NotConnected, NoPrimary(all)).into();
    }
    let first = refusals.into_iter().find_map(|(_, error)| error);
    first.unwrap_or(sqlx::Error::PoolTimedOut)
}

struct Refusal<'a>(&'a PgConnectOptions, Option<&'a sqlx::Error>);

impl fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} ", self.0.get_host(), self.0.get_port())?;
        match self.1 {
            Some(error) => write!(f, "says {}", chancery_runtime::telemetry::chain(error)),
            None => f.write_str("is read-only"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> String {
        match Hosts::parse(url, "test") {
            Err(StoreError::Url(said)) => said,
            other => panic!("{url}: {other:?}"),
        }
    }

    #[test]
    fn each_host_has_the_rest_of_the_url() {
        let url =
            "postgres://u:p%2C@a:5433,[::1],c/db?sslmode=require&target_session_attrs=read-write&application_name=x";
        let hosts = Hosts::parse(url, "test").unwrap();
        assert!(hosts.may_move());
        let places: Vec<_> = hosts.hosts.iter().map(|host| (host.get_host(), host.get_port())).collect();
        assert_eq!((places[0], places[1].0, places[2].0), (("a", 5433), "[::1]", "c"));
        for host in &hosts.hosts {
            let said = (host.get_username(), host.get_database(), host.get_application_name());
            assert_eq!(said, ("u", Some("db"), Some("x")));
            assert!(matches!(host.get_ssl_mode(), sqlx::postgres::PgSslMode::Require));
        }
    }

    #[test]
    fn a_single_host_is_asked_only_if_the_url_says_so() {
        for (url, asks) in [
            ("postgres://a/db", false),
            ("postgresql:///db?host=/run/postgresql", false),
            ("postgres://a/db?target_session_attrs=any", false),
            ("postgres://a/db?target_session_attrs=primary", true),
        ] {
            assert_eq!(Hosts::parse(url, "test").unwrap().may_move(), asks, "{url}");
        }
    }

    #[test]
    fn what_is_malformed_is_named_without_a_password() {
        for (url, expected) in [
            ("postgres://u:hunter2@a,b:many/db", "host 2 of 2: error with configuration: invalid port number"),
            ("postgres://u:hunter2@a,,b/db", "host 2 of 3 has no name"),
            ("postgres://u:hunter2@a,:5432/db", "host 2 of 2 has no name"),
            ("postgres://u:hunter2@/db?host=a,b", "several hosts stand before the database's name"),
            ("postgres://u:hunter2@a,b/db?target_session_attrs=standby", "\"standby\"; Chancery writes"),
            ("postgres:a,b", "no \"://\""),
        ] {
            let said = refused(url);
            assert!(said.contains(expected) && !said.contains("hunter2"), "{url}: {said}");
        }
        assert!(refused(&format!("postgres://{}/db", ["a"; 17].join(","))).contains("17 hosts; there may be 16"));
    }

    #[tokio::test]
    async fn that_no_host_answers_is_an_outage_that_names_each() {
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (one, two) = (free(), free());
        let hosts = Hosts::parse(&format!("postgres://u:hunter2@{one},{two}/db"), "test").unwrap();
        let error = hosts.connect().await.unwrap_err();
        let StoreError::Unavailable(source) = error else { panic!("{error:?}") };
        let said = chancery_runtime::telemetry::chain(&*source);
        assert!(said.contains(&one.to_string()) && said.contains(&two.to_string()), "{said}");
        assert!(said.contains("takes writes") && !said.contains("hunter2"), "{said}");
    }
}
