//! Settings: whether each program would start with what it is given, and everything that speaks against it.

use chancery_control_plane::settings as control_plane;
use chancery_rate_limiter::{app as limiter_app, settings as rate_limiter};
use chancery_runtime::telemetry::chain;
use chancery_sidecar::{config::bootstrap::Bootstrap, settings as sidecar};

use super::{
    check::{Check, Found, Group, When},
    site::{Program, Site},
};

pub(super) const GROUP: Group = Group {
    name: "Settings",
    checks: &[
        Check { name: "control plane", when: When::Always, probe: |site| Box::pin(async { control_plane(site) }) },
        Check { name: "rate limiter", when: When::Always, probe: |site| Box::pin(async { rate_limiter(site) }) },
        Check { name: "sidecar", when: When::Always, probe: |site| Box::pin(async { sidecar(site) }) },
    ],
};

fn control_plane(site: &Site) -> Found {
    if site.is_empty() {
        return Found::failed(
            "no settings were found on this host",
            "say where they are, with --control-plane-config, --rate-limiter-config, --sidecar-config, or --data-dir of a `chancery dev`",
        );
    }
    judged(site.control_plane.as_ref(), control_plane::Settings::problems)
}

fn rate_limiter(site: &Site) -> Found {
    judged(site.rate_limiter.as_ref(), |settings| {
        let problems = [
            settings.tls_files().err().map(|error| chain(&error)),
            settings.redis().err().map(|error| chain(&error)),
            // Without certificates this says the same once more.
            settings.tls_files().ok().and_then(|_| settings.ads().err()).map(|error| chain(&error)),
        ];
        let rules = rules(settings);
        problems.into_iter().flatten().chain(rules).collect()
    })
}

fn rules(settings: &rate_limiter::Settings) -> Vec<String> {
    if settings.config.as_os_str().is_empty() {
        return Vec::new();
    }
    limiter_app::check(settings).err().into_iter().flatten().map(|problem| problem.to_string()).collect()
}

fn sidecar(site: &Site) -> Found {
    judged(site.sidecar.as_ref(), |settings| bootstrap(settings).err().into_iter().collect())
}

/// What the sidecar starts with.
pub(super) fn bootstrap(settings: &sidecar::Settings) -> Result<Bootstrap, String> {
    let path = settings.bootstrap.display();
    if settings.bootstrap.as_os_str().is_empty() {
        return Err("bootstrap is not set".to_owned());
    }
    let text = std::fs::read_to_string(&settings.bootstrap).map_err(|error| format!("bootstrap {path}: {error}"))?;
    text.parse().map_err(|error| format!("bootstrap {path}: {}", chain(&error)))
}

fn judged<S>(program: Option<&Program<S>>, problems: impl FnOnce(&S) -> Vec<String>) -> Found {
    let Some(Program { source, settings }) = program else { return Found::skipped("none here") };
    verdict(source, settings.as_ref().map(problems).map_err(String::as_str))
}

fn verdict(source: &str, problems: Result<Vec<String>, &str>) -> Found {
    const NEXT: &str = "correct it; docs/reference/settings.md has every setting, and --print-settings shows what a program makes of them";
    match problems {
        Err(unreadable) => Found::failed(unreadable, NEXT),
        Ok(problems) if problems.is_empty() => Found::passed(source),
        Ok(problems) => Found::failed(format!("{source}: {}", problems.join("; ")), NEXT),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn everything_that_is_wrong_is_said() {
        let settings = control_plane::Settings {
            xds_connection_age: Duration::ZERO,
            load_report_interval: Duration::ZERO,
            ..control_plane::Settings::default()
        };
        let mut site = Site::nothing();
        site.control_plane = Some(Program { source: "a.toml".to_owned(), settings: Ok(settings) });
        let said = control_plane(&site).said;
        assert!(said.contains("xds_connection_age") && said.contains("load_report_interval"), "{said}");
        assert_eq!(rate_limiter(&site), Found::skipped("none here"));
    }

    #[test]
    fn a_limiter_without_certificates_and_with_another_store_has_two_problems() {
        let settings =
            rate_limiter::Settings { store: Some("mysql://:hunter2@h".to_owned().into()), ..Default::default() };
        let mut site = Site::nothing();
        site.rate_limiter = Some(Program { source: "a.toml".to_owned(), settings: Ok(settings) });
        let said = rate_limiter(&site).said;
        assert!(said.contains("--tls-cert") && said.contains("--store") && !said.contains("hunter2"), "{said}");
    }

    #[test]
    fn nothing_at_all_is_a_failure() {
        assert!(control_plane(&Site::nothing()).next.is_some());
    }
}
