//! Where Redis is: a URL, parsed once.
//!
//! | form | is |
//! |---|---|
//! | `redis://[user:password@]host[:port][/db]` | a server; a cluster if it says that it is part of one |
//! | `redis+cluster://[user:password@]host[:port],host…` | a cluster |
//! | `redis+sentinel://[user:password@]host[:26379],host…/master[/db]` | what sentinels say is the master |
//!
//! `rediss` instead of `redis` is TLS, with sentinels too. Neither `Debug` nor `Display` shows user or password, and no
//! error quotes more than the part it is about.

use std::{fmt, str::FromStr};

use chancery_runtime::SecretString;

/// Where Redis is.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    pub(crate) topology: Topology,
    pub(crate) hosts: Vec<(String, u16)>,
    pub(crate) tls: bool,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<SecretString>,
    pub(crate) database: i64,
}

/// How the servers are to be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Topology {
    /// The host itself; or the cluster that it is part of.
    Server,
    /// The hosts are nodes of a cluster.
    Cluster,
    /// The hosts are sentinels, which know the master of this name.
    Sentinel(String),
}

/// Why a URL is not an address of Redis.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAddress {
    /// Another scheme, or none.
    #[error("the URL must begin with redis://, rediss://, redis+cluster://, redis+sentinel:// or their rediss forms")]
    Scheme,
    /// No host.
    #[error("the URL names no host")]
    NoHost,
    /// A host that cannot be one.
    #[error("{host:?} is not a host with a port")]
    Host {
        /// As written.
        host: String,
    },
    /// Several hosts for one server.
    #[error("several hosts need redis+cluster:// or redis+sentinel://")]
    SeveralHosts,
    /// What follows the hosts.
    #[error("after the hosts, {expected} is expected, not {path:?}")]
    Path {
        /// As written.
        path: String,
        /// What may stand there.
        expected: &'static str,
    },
    /// A `%` without two hexadecimal digits.
    #[error("user or password has a % that is not followed by two hexadecimal digits")]
    Escape,
    /// Parameters.
    #[error("the URL must have no ? or #; in a password write them %3F and %23")]
    Parameters,
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(url: &str) -> Result<Self, InvalidAddress> {
        let (scheme, rest) = url.split_once("://").ok_or(InvalidAddress::Scheme)?;
        let (tls, kind) = match scheme.strip_prefix("rediss") {
            Some(kind) => (true, kind),
            None => (false, scheme.strip_prefix("redis").ok_or(InvalidAddress::Scheme)?),
        };
        if rest.contains(['?', '#']) {
            return Err(InvalidAddress::Parameters);
        }
        let (authority, path) = rest.split_once('/').map_or((rest, ""), |(authority, path)| (authority, path));
        let (credentials, hosts) =
            authority.rsplit_once('@').map_or((None, authority), |(some, hosts)| (Some(some), hosts));
        let (topology, database, port) = match kind {
            "" => (Topology::Server, number(path, "the number of a database")?, 6379),
            "+cluster" if path.is_empty() => (Topology::Cluster, 0, 6379),
            "+cluster" => return Err(InvalidAddress::Path { path: path.to_owned(), expected: "nothing" }),
            "+sentinel" => {
                let expected = "/MASTER or /MASTER/DATABASE";
                let (master, database) = path.split_once('/').unwrap_or((path, ""));
                if master.is_empty() {
                    return Err(InvalidAddress::Path { path: path.to_owned(), expected });
                }
                (Topology::Sentinel(master.to_owned()), number(database, expected)?, 26379)
            }
            _ => return Err(InvalidAddress::Scheme),
        };
        let hosts = hosts.split(',').map(|text| host(text, port)).collect::<Result<Vec<_>, _>>()?;
        if topology == Topology::Server && hosts.len() > 1 {
            return Err(InvalidAddress::SeveralHosts);
        }
        let (user, password) = credentials.map_or(Ok((None, None)), user_and_password)?;
        Ok(Self { topology, hosts, tls, user, password: password.map(SecretString::new), database })
    }
}

fn number(text: &str, expected: &'static str) -> Result<i64, InvalidAddress> {
    match text {
        "" => Ok(0),
        text => {
            text.parse::<u16>().map(i64::from).map_err(|_| InvalidAddress::Path { path: text.to_owned(), expected })
        }
    }
}

fn host(text: &str, default_port: u16) -> Result<(String, u16), InvalidAddress> {
    let invalid = || InvalidAddress::Host { host: text.to_owned() };
    if text.is_empty() {
        return Err(InvalidAddress::NoHost);
    }
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (name, port) = rest.split_once(']').ok_or_else(invalid)?;
            (name, if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or_else(invalid)?) })
        }
        None => text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port))),
    };
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err(invalid());
    }
    let port = port.map_or(Ok(default_port), |port| port.parse().map_err(|_| invalid()))?;
    Ok((name.to_owned(), port))
}

/// `user:password`, `:password` or `user`, each escaped as in every URL.
fn user_and_password(text: &str) -> Result<(Option<String>, Option<String>), InvalidAddress> {
    let (user, password) = text.split_once(':').map_or((text, None), |(user, password)| (user, Some(password)));
    let some = |text: String| (!text.is_empty()).then_some(text);
    Ok((some(unescape(user)?), password.map(unescape).transpose()?.and_then(some)))
}

fn unescape(text: &str) -> Result<String, InvalidAddress> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        bytes.push(digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).ok_or(InvalidAddress::Escape)?);
        rest = &after[2..];
    }
    String::from_utf8(bytes).map_err(|_| InvalidAddress::Escape)
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tls { "rediss" } else { "redis" })?;
        f.write_str(match self.topology {
            Topology::Server => "://",
            Topology::Cluster => "+cluster://",
            Topology::Sentinel(_) => "+sentinel://",
        })?;
        for (place, (host, port)) in self.hosts.iter().enumerate() {
            let comma = if place > 0 { "," } else { "" };
            let (open, close) = if host.contains(':') { ("[", "]") } else { ("", "") };
            write!(f, "{comma}{open}{host}{close}:{port}")?;
        }
        if let Topology::Sentinel(master) = &self.topology {
            write!(f, "/{master}")?;
        }
        if self.database != 0 {
            write!(f, "/{}", self.database)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Address {
        url.parse().unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    #[test]
    fn every_form_is_read() {
        for (url, shown) in [
            ("redis://cache", "redis://cache:6379"),
            ("redis://10.0.0.1:7000/3", "redis://10.0.0.1:7000/3"),
            ("rediss://[::1]:7000", "rediss://[::1]:7000"),
            ("redis+cluster://a,b:7001", "redis+cluster://a:6379,b:7001"),
            ("rediss+cluster://a", "rediss+cluster://a:6379"),
            ("redis+sentinel://a,b:7001/main", "redis+sentinel://a:26379,b:7001/main"),
            ("redis+sentinel://a/main/2", "redis+sentinel://a:26379/main/2"),
        ] {
            assert_eq!(parse(url).to_string(), shown);
        }
        assert!(parse("rediss://a").tls && !parse("redis://a").tls);
    }

    #[test]
    fn credentials_are_unescaped_and_never_shown() {
        let address = parse("redis://limiter:p%40ss%2Fw:ord@cache/1");
        assert_eq!(address.user.as_deref(), Some("limiter"));
        assert_eq!(address.password.as_ref().unwrap().expose(), "p@ss/w:ord");
        let shown = format!("{address} {address:?}");
        assert!(!shown.contains("limiter") && !shown.contains("p@ss"), "{shown}");
        let only_password = parse("redis://:secret@cache");
        assert_eq!((only_password.user, only_password.password.unwrap().expose().as_str()), (None, "secret"));
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        use InvalidAddress::*;
        let host = |text: &str| Host { host: text.to_owned() };
        let path = |text: &str, expected| Path { path: text.to_owned(), expected };
        for (url, error) in [
            ("cache:6379", Scheme),
            ("http://cache", Scheme),
            ("redis+ring://cache", Scheme),
            ("redis://", NoHost),
            ("redis://u:hush@", NoHost),
            ("redis://u:hush@a:70000", host("a:70000")),
            ("redis://a:", host("a:")),
            ("redis://[::1", host("[::1")),
            ("redis://a,b", SeveralHosts),
            ("redis://u:hush@a/one", path("one", "the number of a database")),
            ("redis+cluster://a/1", path("1", "nothing")),
            ("redis+sentinel://a", path("", "/MASTER or /MASTER/DATABASE")),
            ("redis://u:hu%sh@a", Escape),
            ("redis://u:hush@a?db=1", Parameters),
        ] {
            let found = url.parse::<Address>().unwrap_err();
            assert_eq!(found, error, "{url}");
            assert!(!found.to_string().contains("hush"), "{found}");
        }
    }
}
