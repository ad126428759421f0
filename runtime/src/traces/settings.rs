//! Which collector is told of traces, as whom, and of how many.
//!
//! A program's own settings come first, then the variables that OpenTelemetry has for the same, so that what a whole host is given
//! reaches our programs too. Spans go out over gRPC, whatever `OTEL_EXPORTER_OTLP_PROTOCOL` says: it may be meant for the application.

use std::{io, path::PathBuf, time::Duration};

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

/// How long connecting to a collector may take.
const CONNECT: Duration = Duration::from_secs(5);

/// Where a collector is, in the order in which they are asked.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
/// Whom to believe that it is the collector, for `https`.
const CERTIFICATES: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"];

/// What a program's own settings say.
#[derive(Clone, Copy, Debug)]
pub struct Said<'a> {
    /// URL of a collector; empty: nothing is said.
    pub endpoint: &'a str,
    /// Share of the traces that begin here and are recorded, from 0.0 to 1.0.
    pub ratio: f64,
    /// Under which name its spans are shown, unless `OTEL_SERVICE_NAME` gives another.
    pub service: &'a str,
    /// Which of those with that name it is; empty: nothing is said.
    pub instance: &'a str,
}

/// A collector, and who tells it of how many traces.
#[derive(Clone, Debug)]
pub struct Settings {
    pub(super) collector: Endpoint,
    pub(super) resource: Resource,
    /// Share of the traces that begin here and are recorded.
    pub ratio: f64,
}

/// Why traces cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum InvalidTraces {
    /// The URL of the collector is none.
    #[error("{url:?} is no URL of a collector: it has to begin with http:// or https://")]
    Endpoint {
        /// What was said.
        url: String,
    },
    /// The share is none.
    #[error("the share of traces to record has to be from 0.0 to 1.0, not {0}")]
    Ratio(f64),
    /// Nobody says whom to believe that it is the collector.
    #[error("a collector at https needs OTEL_EXPORTER_OTLP_CERTIFICATE, a file with the authorities that are believed")]
    NoAuthorities,
    /// Who is to be believed cannot be read.
    #[error("cannot read {}", path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// TLS cannot be set up.
    #[error("cannot speak TLS with the collector")]
    Tls(#[source] tonic::transport::Error),
}

impl Settings {
    /// What the program and its environment say together; `None`: nothing of a collector.
    ///
    /// # Errors
    /// What they say cannot be used.
    pub fn new(said: Said<'_>, variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, InvalidTraces> {
        let variable = |name: &str| variable(name).filter(|text| !text.trim().is_empty());
        if !(0.0..=1.0).contains(&said.ratio) {
            return Err(InvalidTraces::Ratio(said.ratio));
        }
        let own = Some(said.endpoint.to_owned()).filter(|text| !text.is_empty());
        let disabled = variable("OTEL_SDK_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true"));
        let general = || ENDPOINTS.iter().find_map(|name| variable(name)).filter(|_| !disabled);
        let Some(url) = own.or_else(general) else { return Ok(None) };
        let authorities = CERTIFICATES.iter().find_map(|name| variable(name)).map(PathBuf::from);
        let service = variable("OTEL_SERVICE_NAME").unwrap_or_else(|| said.service.to_owned());
        let mut resource = Resource::builder().with_service_name(service);
        if !said.instance.is_empty() {
            resource = resource.with_attribute(KeyValue::new("service.instance.id", said.instance.to_owned()));
        }
        let collector = collector(url, authorities)?;
        Ok(Some(Self { collector, resource: resource.build(), ratio: said.ratio }))
    }
}

fn collector(url: String, authorities: Option<PathBuf>) -> Result<Endpoint, InvalidTraces> {
    let endpoint = Endpoint::from_shared(url.clone()).ok();
    let endpoint = endpoint.filter(|endpoint| endpoint.uri().host().is_some_and(|host| !host.is_empty()));
    let Some(endpoint) = endpoint.map(|endpoint| endpoint.connect_timeout(CONNECT)) else {
        return Err(InvalidTraces::Endpoint { url });
    };
    match endpoint.uri().scheme_str() {
        Some("http") => Ok(endpoint),
        Some("https") => {
            let path = authorities.ok_or(InvalidTraces::NoAuthorities)?;
            let pem = std::fs::read(&path).map_err(|source| InvalidTraces::Authorities { path, source })?;
            let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
            endpoint.tls_config(tls).map_err(InvalidTraces::Tls)
        }
        _ => Err(InvalidTraces::Endpoint { url }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(endpoint: &str, variables: &[(&str, &str)]) -> Result<Option<Settings>, InvalidTraces> {
        let said = Said { endpoint, ratio: 0.5, service: "shop", instance: "shop-1" };
        let value =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Settings::new(said, value)
    }

    fn url(settings: &Settings) -> String {
        settings.collector.uri().to_string()
    }

    fn attribute(settings: &Settings, name: &'static str) -> String {
        settings.resource.get(&name.into()).unwrap().to_string()
    }

    #[test]
    fn what_the_program_says_comes_first_then_what_is_said_of_traces() {
        assert!(settings("", &[]).unwrap().is_none());
        assert!(settings("", &[(ENDPOINTS[1], " ")]).unwrap().is_none());
        let general = [(ENDPOINTS[1], "http://all:4317"), ("OTEL_SERVICE_NAME", "other")];
        let found = settings("", &general).unwrap().unwrap();
        assert_eq!((url(&found).as_str(), attribute(&found, "service.name").as_str()), ("http://all:4317/", "other"));
        let found =
            settings("", &[(ENDPOINTS[1], "http://all:4317"), (ENDPOINTS[0], "http://one:1")]).unwrap().unwrap();
        assert_eq!((url(&found).as_str(), attribute(&found, "service.name").as_str()), ("http://one:1/", "shop"));
        assert_eq!(attribute(&found, "service.instance.id"), "shop-1");
        let found = settings("http://own:2", &[(ENDPOINTS[0], "http://one:1")]).unwrap().unwrap();
        assert_eq!(url(&found), "http://own:2/");
    }

    #[test]
    fn what_is_disabled_for_the_host_is_enabled_by_the_program_alone() {
        let disabled = [(ENDPOINTS[1], "http://all:4317"), ("OTEL_SDK_DISABLED", "True")];
        assert!(settings("", &disabled).unwrap().is_none());
        assert!(settings("http://own:2", &disabled).unwrap().is_some());
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for wrong in ["collector:4317", "collector", "ftp://collector", "http://", "/path", "http://a b"] {
            let error = settings(wrong, &[]).unwrap_err().to_string();
            assert!(error.contains(&format!("{wrong:?}")), "{error}");
        }
        let secure = "https://collector:4317";
        assert!(settings(secure, &[]).unwrap_err().to_string().contains(CERTIFICATES[1]));
        let error = settings(secure, &[(CERTIFICATES[1], "/nowhere/ca.pem")]).unwrap_err().to_string();
        assert!(error.contains("/nowhere/ca.pem"), "{error}");
        for ratio in [-0.1, 1.1, f64::NAN] {
            let said = Said { endpoint: "", ratio, service: "", instance: "" };
            assert!(matches!(Settings::new(said, |_| None), Err(InvalidTraces::Ratio(_))), "{ratio}");
        }
    }

    #[test]
    fn a_collector_at_https_is_believed_by_the_authorities_of_a_file() {
        crate::tls::install_crypto_provider();
        let own = rcgen::generate_simple_self_signed(["collector".to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        std::fs::write(&file, own.cert.pem()).unwrap();
        assert!(settings("https://collector:4317", &[(CERTIFICATES[1], file.to_str().unwrap())]).unwrap().is_some());
    }
}
