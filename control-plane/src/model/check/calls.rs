//! What a listener calls by itself, such as for logs, exists, and speaks gRPC where it is called so.

use std::collections::BTreeSet;

use super::{is_missing, list, missing};
use crate::model::{
    Catalog, Key, Kind, Name, Problems,
    listener::{Call, Listener},
    service::{Service, ServiceProtocol},
};

pub(super) fn put_listener(next: &Catalog, unread: &BTreeSet<Key>, listener: &Listener, problems: &mut Problems) {
    for Call { path, service: name, grpc } in listener.calls() {
        let mut problems = problems.at_path(&path);
        let key = Key::new(Kind::Service, name.clone());
        if is_missing(next, unread, &key) {
            problems.report(missing(&key));
        } else if next.service(name).is_some_and(|service| grpc && !speaks_grpc(service)) {
            problems.report(format!("is {key}, whose protocol is not http2, as gRPC needs it"));
        }
    }
}

/// Listeners that are part of the change report it themselves.
pub(super) fn put_service(next: &Catalog, changed: &BTreeSet<Key>, service: &Service, problems: &mut Problems) {
    if speaks_grpc(service) {
        return;
    }
    let over_grpc = |name: &&Name| {
        let listener = next.listener(name);
        listener.is_some_and(|listener| listener.calls().any(|call| call.grpc && *call.service == service.name))
    };
    let listeners = next.indexes().listeners_calling.of(&service.name).filter(over_grpc);
    let listeners = listeners.map(|name| Key::new(Kind::Listener, name.clone()));
    let listeners: Vec<Key> = listeners.filter(|key| !changed.contains(key)).collect();
    if !listeners.is_empty() {
        problems.at("protocol").report(format!("must be http2, for {} speaks gRPC to it", list(&listeners)));
    }
}

fn speaks_grpc(service: &Service) -> bool {
    service.protocol == ServiceProtocol::Http2
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{
        Name, Resource,
        access_log::{AccessLog, Filter, LogService, Sink},
        catalog::tests::{entry, fleet, listener, service},
    };

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn logging() -> Resource {
        let Resource::Listener(mut web) = listener("web", "edge", "0.0.0.0", 80) else { panic!("a listener") };
        let to = Sink::Service(LogService {
            service: name("collector"),
            log_name: "web".into(),
            request_headers: Vec::new(),
            response_headers: Vec::new(),
            flush_interval: std::time::Duration::from_secs(1),
            buffer: 1,
        });
        Arc::make_mut(&mut web).access_logs = vec![AccessLog { to, filter: Filter::default() }];
        Resource::Listener(web)
    }

    fn collector(protocol: ServiceProtocol) -> Resource {
        let Resource::Service(mut collector) = service("collector") else { panic!("a service") };
        Arc::make_mut(&mut collector).protocol = protocol;
        Resource::Service(collector)
    }

    #[test]
    fn logs_go_to_services_that_are_there_and_speak_grpc() {
        let put = |resource: Resource| vec![(resource.key(), Some(entry(resource)))];
        let said = |problems: Vec<crate::model::Problem>| problems.iter().map(ToString::to_string).collect::<Vec<_>>();
        let empty = Catalog::load([entry(fleet("edge"))]).unwrap();
        assert_eq!(
            said(empty.apply(put(logging())).unwrap_err()),
            ["Listener/web: spec.accessLogs[0].to.service.name: Service/collector does not exist"]
        );
        let plain = empty.apply(put(collector(ServiceProtocol::Http1))).unwrap();
        let refused = "Listener/web: spec.accessLogs[0].to.service.name: is Service/collector, whose protocol is not http2, as gRPC needs it";
        assert_eq!(said(plain.apply(put(logging())).unwrap_err()), [refused]);
        let both = plain.apply([put(collector(ServiceProtocol::Http2)), put(logging())].concat()).unwrap();
        assert!(both.fleet_uses(&name("edge"), &name("collector")));
        assert_eq!(
            said(both.apply(put(collector(ServiceProtocol::Http1))).unwrap_err()),
            ["Service/collector: spec.protocol: must be http2, for Listener/web speaks gRPC to it"]
        );
        let key = collector(ServiceProtocol::Http1).key();
        assert_eq!(
            said(both.apply(vec![(key.clone(), None)]).unwrap_err()),
            ["Service/collector: is deleted, but used by Listener/web"]
        );
        let web = both.apply([put(listener("web", "edge", "0.0.0.0", 80)), vec![(key, None)]].concat()).unwrap();
        assert!(!web.fleet_uses(&name("edge"), &name("collector")));
    }
}
