//! The caches, over edits.

use chancery_proto::{
    Message as _,
    envoy::route::{RouteConfiguration, VirtualHost},
};
use chancery_xds::cache::Tables;

use super::*;
use crate::{model::route::HostPattern, translate::snapshot::ResourceId};

const WHOLE: &str = "chancery.whole.web";

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// A fleet `edge`, edited.
struct Desk {
    publisher: Publisher,
    revision: u64,
}

impl Desk {
    /// With a listener `web` that has the host `a`.
    fn new() -> Self {
        let mut desk = Self { publisher: Publisher::new(), revision: 0 };
        let web = ResourceId::RouteConfiguration(name("web"));
        let changes = FleetChanges { fleet: FleetChange::Created, ..FleetChanges::default() };
        desk.apply(FleetChanges { put: [(web, "by host".into()), host("a", "1")].into(), ..changes });
        desk
    }

    fn apply(&mut self, changes: FleetChanges) {
        self.revision += 1;
        let fleets = [(name("edge"), changes)].into();
        self.publisher.publish(self.revision, Changes { fleets, ..Changes::default() });
    }

    fn put(&mut self, id: ResourceId, bytes: Bytes) {
        self.apply(FleetChanges { put: [(id, bytes)].into(), ..FleetChanges::default() });
    }

    fn remove(&mut self, ids: &[ResourceId]) {
        self.apply(FleetChanges { removed: ids.iter().cloned().collect(), ..FleetChanges::default() });
    }

    fn tables(&self, form: RouteForm) -> Arc<Tables> {
        self.publisher.serve_anybody(&name("edge"), form).unwrap().cache.snapshot()
    }

    /// The hosts in a route configuration, with their first domain; none if there is no such configuration.
    fn hosts_in(&self, form: RouteForm, configuration: &str) -> Option<Vec<String>> {
        let tables = self.tables(form);
        let resource = tables.table(type_url::ROUTE).resource(configuration)?;
        let any = chancery_proto::google::protobuf::Any::decode(resource.any_bytes()).unwrap();
        let routes = RouteConfiguration::decode(any.value.as_slice()).unwrap();
        assert_eq!(routes.name, configuration);
        Some(routes.virtual_hosts.into_iter().map(|host| host.name + "=" + &host.domains[0]).collect())
    }
}

fn host(text: &str, content: &str) -> (ResourceId, Bytes) {
    let host = VirtualHost { name: format!("web/{text}"), domains: vec![content.into()], ..VirtualHost::default() };
    (ResourceId::VirtualHost(name("web"), HostPattern::Exact(text.into())), host.encode_to_vec().into())
}

fn frame() -> ResourceId {
    ResourceId::WholeRoutes(name("web"))
}

#[test]
fn routes_that_are_wanted_whole_are_there_in_both_forms_and_stay_current() {
    let mut desk = Desk::new();
    assert_eq!(desk.hosts_in(RouteForm::ByHost, WHOLE), None);
    let before = desk.tables(RouteForm::ByHost);
    desk.put(frame(), Bytes::new());
    let after = desk.tables(RouteForm::ByHost);
    let by_host = |tables: &Tables| tables.table(type_url::VIRTUAL_HOST).resources().cloned().collect::<Vec<_>>();
    assert_eq!(by_host(&before), by_host(&after), "connections that have them by host go on with these");
    for form in [RouteForm::ByHost, RouteForm::Whole] {
        assert_eq!(desk.hosts_in(form, WHOLE).unwrap(), ["web/a=1"]);
    }

    let (id, bytes) = host("b", "2");
    desk.put(id, bytes);
    for form in [RouteForm::ByHost, RouteForm::Whole] {
        assert_eq!(desk.hosts_in(form, WHOLE).unwrap(), ["web/a=1", "web/b=2"]);
    }
    // And for those who still have it whole when it is wanted so no more.
    desk.remove(&[frame()]);
    let (id, bytes) = host("b", "3");
    desk.put(id, bytes);
    desk.remove(&[host("a", "").0]);
    for form in [RouteForm::ByHost, RouteForm::Whole] {
        assert_eq!(desk.hosts_in(form, WHOLE).unwrap(), ["web/b=3"]);
    }
    assert_eq!(desk.hosts_in(RouteForm::Whole, "web").unwrap(), ["web/b=3"]);

    desk.remove(&[host("b", "").0, ResourceId::RouteConfiguration(name("web"))]);
    for form in [RouteForm::ByHost, RouteForm::Whole] {
        assert_eq!((desk.hosts_in(form, WHOLE), desk.hosts_in(form, "web")), (None, None));
    }
}

#[test]
fn a_cache_that_is_filled_late_has_them_too() {
    let mut desk = Desk::new();
    desk.put(frame(), Bytes::new());
    assert_eq!(desk.hosts_in(RouteForm::Whole, WHOLE).unwrap(), ["web/a=1"]);
    assert_eq!(desk.hosts_in(RouteForm::Whole, "web").unwrap(), ["web/a=1"]);
}
