//! Certificates: whether the files of each program can be used together, by whom they can be read, until when they hold, and whom they
//! name.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use chancery_runtime::{
    telemetry::chain,
    tls::{
        inspect::{Inspection, inspect},
        spiffe::SpiffeId,
    },
};
use time::{Duration, OffsetDateTime};

use super::{
    check::{Check, Found, Group, When},
    settings,
    site::{Program, Site},
};

/// How long before its end a certificate is to be replaced; one that lives shorter, once two thirds of its life are over.
const RENEW_BEFORE: Duration = Duration::days(7);

/// What a key's mode may not allow: others to read it, or anyone else to write it.
const TOO_OPEN: u32 = 0o027;

pub(super) const GROUP: Group = Group {
    name: "Certificates",
    checks: &[
        Check { name: "files", when: When::Always, probe: |site| Box::pin(async { files(&identities(site)) }) },
        Check {
            name: "permissions",
            when: When::Always,
            probe: |site| Box::pin(async { permissions(&identities(site)) }),
        },
        Check {
            name: "key",
            when: When::Always,
            probe: |site| {
                Box::pin(async { of(site, Some("keys, each that of its certificate"), |_, found| key(found)) })
            },
        },
        Check {
            name: "chain",
            when: When::Always,
            probe: |site| {
                Box::pin(async {
                    of(site, Some("chains, each to an authority that is known"), |_, found| trust(found))
                })
            },
        },
        Check {
            name: "validity",
            when: When::Always,
            probe: |site| Box::pin(async { of(site, None, |_, found| validity(found, OffsetDateTime::now_utc())) }),
        },
        Check {
            name: "names",
            when: When::Always,
            probe: |site| Box::pin(async { of(site, None, |one, found| names(&one.expects, found)) }),
        },
    ],
};

/// The TLS files of a program.
struct Identity {
    whose: &'static str,
    certificate: PathBuf,
    key: PathBuf,
    authority: PathBuf,
    expects: Expects,
}

/// Whom a certificate has to name.
enum Expects {
    /// A host that proxies connect to.
    Host,
    /// Also somebody of the trust domain, whose path starts so.
    HostAnd { trust_domain: String, path: &'static str },
    /// This proxy; the trust domain is the control plane's to check.
    Proxy { path: String },
}

/// What is said of one identity: good, or what is wrong and what to do.
type Judged = Result<String, (String, &'static str)>;

fn identities(site: &Site) -> Vec<Identity> {
    let mut all = Vec::new();
    if let Some(settings) = site.control_plane.as_ref().and_then(Program::ok) {
        let files = settings.tls_files();
        all.push(Identity {
            whose: "control plane",
            certificate: files.certificate,
            key: files.private_key,
            authority: files.client_ca,
            expects: Expects::Host,
        });
    }
    if let Some(settings) = site.rate_limiter.as_ref().and_then(Program::ok)
        && let Ok(Some(files)) = settings.tls_files()
    {
        all.push(Identity {
            whose: "rate limiter",
            certificate: files.certificate,
            key: files.private_key,
            authority: files.client_ca,
            expects: if settings.xds.is_empty() {
                Expects::Host
            } else {
                Expects::HostAnd { trust_domain: settings.trust_domain.clone(), path: "rate-limiter/" }
            },
        });
    }
    if let Some(settings) = site.sidecar.as_ref().and_then(Program::ok)
        && let Ok(bootstrap) = settings::bootstrap(settings)
        && let Some(tls) = bootstrap.tls
        && let Some((certificate, key)) = tls.identity
    {
        let path = format!("fleet/{}/proxy/{}", bootstrap.cluster, bootstrap.id);
        all.push(Identity { whose: "sidecar", certificate, key, authority: tls.ca, expects: Expects::Proxy { path } });
    }
    all
}

fn files(identities: &[Identity]) -> Found {
    let judged = identities.iter().map(|one| {
        let read = inspect(&one.certificate, &one.key, &one.authority);
        let next = "issue them with `chancery cert issue`, and let the program's user read them";
        (one.whose, read.map(|_| String::new()).map_err(|error| (chain(&error), next)))
    });
    summary(judged.collect(), |count| format!("{count} certificates with key and authority can be read"))
}

fn permissions(identities: &[Identity]) -> Found {
    let judged = identities.iter().filter_map(|one| {
        let mode = fs::metadata(&one.key).ok()?.permissions().mode();
        Some((one.whose, mode_of(&one.key, mode)))
    });
    summary(judged.collect(), |count| format!("{count} keys are for their owner only"))
}

fn mode_of(key: &Path, mode: u32) -> Judged {
    let mode = mode & 0o777;
    if mode & TOO_OPEN == 0 {
        return Ok(String::new());
    }
    let reader = if mode & 0o007 == 0 { "its group may write it" } else { "others may read it" };
    Err((
        format!("{} has mode {mode:04o}: {reader}", key.display()),
        "chmod 0600 it, and issue another certificate if others use this host",
    ))
}

fn key(found: &Inspection) -> Judged {
    let next = "put the two files of one `chancery cert issue` there; both are replaced together";
    found.pair.as_ref().map(|()| "key and certificate are a pair".to_owned()).map_err(|error| (chain(error), next))
}

fn trust(found: &Inspection) -> Judged {
    let next =
        "put the authority's certificate that issued it into the CA file, and intermediates after the leaf, in order";
    found.chain.as_ref().map(|()| "leads to its authority".to_owned()).map_err(|error| (error.to_string(), next))
}

fn validity(found: &Inspection, now: OffsetDateTime) -> Judged {
    let Inspection { not_before, not_after, .. } = found;
    let next =
        "issue another with `chancery cert issue` and replace the files; a program reads them again within a second";
    let day = |at: &OffsetDateTime| format!("{} {:02}:{:02} UTC", at.date(), at.hour(), at.minute());
    if now < *not_before {
        return Err((
            format!("not valid before {}", day(not_before)),
            "look at the clocks of this host and of the one that issued it",
        ));
    }
    if now >= *not_after {
        return Err((format!("expired {}", day(not_after)), next));
    }
    let (life, left) = (*not_after - *not_before, *not_after - now);
    if left < RENEW_BEFORE.min(life / 3) {
        return Err((format!("expires {}", day(not_after)), next));
    }
    Ok(format!("until {}", not_after.date()))
}

fn names(expects: &Expects, found: &Inspection) -> Judged {
    let host = || match found.names.as_slice() {
        [] => Err((
            "it names no host and no address".to_owned(),
            "issue it with --dns or --ip: clients compare that with where they connect",
        )),
        names => Ok(names.join(", ")),
    };
    let identity = |found: &Inspection| {
        found.identity.clone().map_err(|error| {
            (chain(&error), "issue it with `chancery cert issue`: identity is spiffe://TRUST-DOMAIN/PATH, one URI")
        })
    };
    match expects {
        Expects::Host => host(),
        Expects::HostAnd { trust_domain, path } => {
            let host = host()?;
            let id = identity(found)?;
            belongs(&id, trust_domain, path).map(|id| format!("{host}, {id}"))
        }
        Expects::Proxy { path } => {
            let id = identity(found)?;
            if id.path == *path {
                return Ok(id.to_string());
            }
            Err((
                format!("it names {id}, the bootstrap file {path}"),
                "issue one for the proxy of the bootstrap file, or write that anew",
            ))
        }
    }
}

fn belongs(id: &SpiffeId, trust_domain: &str, path: &str) -> Judged {
    if id.trust_domain != trust_domain {
        let said = format!("it names {id}, of another trust domain than {trust_domain}");
        return Err((said, "set trust_domain alike everywhere, or issue the certificate with --trust-domain"));
    }
    if !id.path.starts_with(path) {
        return Err((format!("it names {id}, no {path}…"), "issue it with `chancery cert issue --rate-limiter NAME`"));
    }
    Ok(id.to_string())
}

/// What is said of the identities whose files can be read; of `all` that are right if that is one thing.
fn of(site: &Site, all: Option<&str>, judge: impl Fn(&Identity, &Inspection) -> Judged) -> Found {
    let identities = identities(site);
    let read = identities.iter().filter_map(|one| {
        let found = inspect(&one.certificate, &one.key, &one.authority).ok()?;
        Some((one.whose, judge(one, &found)))
    });
    let judged: Vec<_> = read.collect();
    let said: Vec<_> =
        judged.iter().filter_map(|(whose, judged)| Some(format!("{whose}: {}", judged.as_ref().ok()?))).collect();
    summary(judged, |count| all.map_or_else(|| said.join("; "), |all| format!("{count} {all}")))
}

/// One finding of all: what is wrong with some, or what is right with all.
fn summary(judged: Vec<(&'static str, Judged)>, right: impl FnOnce(usize) -> String) -> Found {
    let count = judged.len();
    let wrong: Vec<_> = judged.into_iter().filter_map(|(whose, judged)| Some((whose, judged.err()?))).collect();
    let Some((_, (_, next))) = wrong.first() else {
        return if count == 0 { Found::skipped("no files to look at") } else { Found::passed(right(count)) };
    };
    let next = *next;
    let said: Vec<_> = wrong.into_iter().map(|(whose, (said, _))| format!("{whose}: {said}")).collect();
    Found::failed(said.join("; "), next)
}

#[cfg(test)]
mod tests {
    use chancery_runtime::tls::{inspect::BrokenChain, spiffe::InvalidSpiffeId};
    use time::macros::datetime;

    use super::*;
    use crate::doctor::check::Outcome;

    fn inspection() -> Inspection {
        Inspection {
            not_before: datetime!(2026-01-01 0:00 UTC),
            not_after: datetime!(2026-04-01 0:00 UTC),
            names: vec!["limiter.internal".to_owned()],
            identity: SpiffeId::parse("spiffe://chancery.local/rate-limiter/a"),
            pair: Ok(()),
            chain: Ok(()),
        }
    }

    #[test]
    fn a_certificate_is_replaced_before_it_ends() {
        let at = |now| validity(&inspection(), now).map_err(|(said, _)| said);
        assert_eq!(at(datetime!(2026-03-24 23:59 UTC)).unwrap(), "until 2026-04-01");
        assert_eq!(at(datetime!(2026-03-25 0:01 UTC)).unwrap_err(), "expires 2026-04-01 00:00 UTC");
        assert_eq!(at(datetime!(2026-04-01 0:00 UTC)).unwrap_err(), "expired 2026-04-01 00:00 UTC");
        assert!(at(datetime!(2025-12-31 23:59 UTC)).unwrap_err().starts_with("not valid before"));
        let short = Inspection { not_after: datetime!(2026-01-01 3:00 UTC), ..inspection() };
        assert!(validity(&short, datetime!(2026-01-01 1:59 UTC)).is_ok());
        assert!(validity(&short, datetime!(2026-01-01 2:01 UTC)).is_err());
    }

    #[test]
    fn keys_are_not_for_others() {
        let fine = |mode| mode_of(Path::new("tls.key"), mode).is_ok();
        assert!(fine(0o100_600) && fine(0o400) && fine(0o640));
        assert!(!fine(0o100_644) && !fine(0o604) && !fine(0o660));
        let (said, next) = mode_of(Path::new("tls.key"), 0o100_644).unwrap_err();
        assert!(said.contains("0644") && said.contains("others may read") && next.contains("0600"), "{said}");
    }

    #[test]
    fn who_is_named_has_to_be_who_it_is_for() {
        let of = |domain: &str| Expects::HostAnd { trust_domain: domain.to_owned(), path: "rate-limiter/" };
        let here = of("chancery.local");
        assert!(names(&here, &inspection()).unwrap().contains("spiffe://chancery.local/rate-limiter/a"));
        assert!(names(&of("other"), &inspection()).unwrap_err().0.contains("other"));
        let nameless = Inspection { names: Vec::new(), ..inspection() };
        assert!(names(&Expects::Host, &nameless).is_err() && names(&here, &nameless).is_err());
        let nobody = Inspection { identity: Err(InvalidSpiffeId::NoUri), ..inspection() };
        assert!(names(&here, &nobody).is_err() && names(&Expects::Host, &nobody).is_ok());
        let proxy = Expects::Proxy { path: "fleet/mesh/proxy/shop-1".to_owned() };
        assert!(names(&proxy, &inspection()).unwrap_err().0.contains("shop-1"));
    }

    #[test]
    fn one_bad_certificate_among_good_ones_is_told_alone() {
        let broken = Inspection { chain: Err(BrokenChain::Link { at: 1 }), ..inspection() };
        let judged = vec![("control plane", trust(&inspection())), ("rate limiter", trust(&broken))];
        let found = summary(judged, |_| String::new());
        assert_eq!(found.outcome, Outcome::Failed);
        assert!(found.said.starts_with("rate limiter: certificate 1"), "{found:?}");
        assert_eq!(summary(Vec::new(), |_| String::new()).outcome, Outcome::Skipped);
    }
}
