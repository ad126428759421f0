use std::io::Write as _;

use serde::Deserialize;

use super::*;
use crate::{SecretString, telemetry};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct Settings {
    api_addr: String,
    workers: u16,
    ratio: f64,
    insecure: bool,
    names: Vec<String>,
    password: Option<SecretString>,
    tls: Tls,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct Tls {
    private_key: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            api_addr: "127.0.0.1:8080".into(),
            workers: 2,
            ratio: 0.5,
            insecure: false,
            names: Vec::new(),
            password: None,
            tls: Tls::default(),
        }
    }
}

#[derive(Default, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Flags {
    api_addr: Option<String>,
    workers: Option<u16>,
    tls: TlsFlags,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "kebab-case")]
struct TlsFlags {
    private_key: Option<String>,
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn the_nearer_source_wins_key_by_key() {
    let file = file("api-addr = 'file:1'\nworkers = 3\nratio = 0.75\n[tls]\nprivate-key = 'file.key'\n");
    let environment =
        env(&[("CHANCERY_API_ADDR", "env:1"), ("CHANCERY_WORKERS", "4"), ("CHANCERY_TLS_PRIVATE_KEY", "env.key")]);
    let flags = Flags { api_addr: Some("flag:1".into()), ..Flags::default() };

    let settings: Settings = load(&flags, environment, Some(file.path())).unwrap();

    assert_eq!(settings.api_addr, "flag:1");
    assert_eq!(settings.workers, 4);
    assert_eq!(settings.ratio, 0.75);
    assert_eq!(settings.tls.private_key.as_deref(), Some("env.key"));
    assert!(!settings.insecure);
}

#[test]
fn the_environment_is_read_by_the_type_of_the_setting() {
    let environment = env(&[
        ("CHANCERY_INSECURE", "true"),
        ("CHANCERY_NAMES", "a, b"),
        ("CHANCERY_PASSWORD", "007"),
        ("CHANCERY_ENVOY", "/opt/envoy"),
    ]);

    let settings: Settings = load(&Flags::default(), environment, None).unwrap();

    assert!(settings.insecure);
    assert_eq!(settings.names, ["a", "b"]);
    assert_eq!(settings.password.unwrap().expose(), "007");
}

#[test]
fn every_unknown_key_is_named_with_the_file() {
    let file = file("api-adr = 'x'\n[tls]\nprivate_key = 'y'\n");
    let error = load::<Settings, _>(&Flags::default(), None, Some(file.path())).unwrap_err().to_string();
    assert!(error.contains("api-adr, tls.private_key"), "{error}");
    assert!(error.contains(&file.path().display().to_string()), "{error}");
    assert!(error.contains("tls.private-key"), "{error}");
}

#[test]
fn a_wrong_value_is_named_with_its_key_and_source() {
    let file = file("workers = 'many'\n");
    let error = telemetry::chain(&load::<Settings, _>(&Flags::default(), None, Some(file.path())).unwrap_err());
    assert!(error.contains("workers") && error.contains("settings file"), "{error}");

    let environment = env(&[("CHANCERY_WORKERS", "many")]);
    let error = telemetry::chain(&load::<Settings, _>(&Flags::default(), environment, None).unwrap_err());
    assert!(error.contains("CHANCERY_WORKERS"), "{error}");

    let environment = env(&[("CHANCERY_WORKERS", "70000")]);
    let error = telemetry::chain(&load::<Settings, _>(&Flags::default(), environment, None).unwrap_err());
    assert!(error.contains("CHANCERY_WORKERS"), "{error}");
}

#[test]
fn a_file_that_is_missing_or_not_toml_is_named() {
    let missing = std::path::Path::new("/nonexistent/chancery.toml");
    let error = telemetry::chain(&load::<Settings, _>(&Flags::default(), None, Some(missing)).unwrap_err());
    assert!(error.contains("/nonexistent/chancery.toml"), "{error}");

    let file = file("api-addr = \n");
    let error = telemetry::chain(&load::<Settings, _>(&Flags::default(), None, Some(file.path())).unwrap_err());
    assert!(error.contains("not valid TOML") && error.contains("line 1"), "{error}");
}

#[test]
fn printed_settings_hide_secrets_and_can_be_read_again() {
    let settings = Settings { password: Some("hunter2".to_owned().into()), ..Settings::default() };
    let printed = print(&settings).unwrap();
    assert!(printed.contains("password = \"***\"") && !printed.contains("hunter2"), "{printed}");

    let again = file(&print(&Settings::default()).unwrap());
    assert_eq!(load::<Settings, _>(&Flags::default(), None, Some(again.path())).unwrap(), Settings::default());
}
