//! Where clients misbehave: a control plane of its own, and proxies that behave, of which each has to be given every edit.
//!
//! An edit sets what one route answers to a text that was not there before. A proxy has it when the virtual host with that
//! text has arrived.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tokio::runtime::Handle;

use super::{Culprits, Fault, Misbehaving};
use crate::{
    api::Api,
    certificates::Authority,
    control_plane::ControlPlane,
    document::route_saying,
    scripted::{
        Fleet, fill,
        fleet::Running,
        script::{Envelope, Script, edit_text},
    },
    usage,
    wait::{PATIENCE, until},
};

/// How long a fleet may take to be served at all.
const SERVED: Duration = Duration::from_secs(120);

/// The route that is edited.
const EDITED: &str = "edited";

/// A control plane with its proxies.
pub struct Stage {
    /// The control plane.
    pub control_plane: ControlPlane,
    api: Api,
    fleet: Arc<Fleet>,
    proxies: usize,
    fault: Fault,
    culprits: Arc<Culprits>,
    edits: u64,
    script: Script,
    running: Option<Running>,
    // Last, so that it outlives whoever has files in it.
    _folder: TempDir,
}

impl Stage {
    /// So many proxies that behave, `services` with as many routes, and those who are to misbehave by `fault`.
    pub async fn set(proxies: usize, services: usize, fault: Fault) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let authority = Authority::create(folder.path(), "authority")?;
        let control_plane = ControlPlane::start_alone(folder.path(), &authority).await?;
        let api = control_plane.caller();
        fill(&api, services, services).await?;
        api.put(&edited(0)).await?;
        let fleet = Arc::new(Fleet::new(&authority, proxies)?);
        let catalog = fleet.explore(control_plane.xds).await?;
        let culprits = Culprits::new(folder.path(), &authority, fault.identities(), &catalog)?;
        let script = Script::cold(&catalog, Envelope::edit);
        let running = fleet.start_all(control_plane.xds, &script);
        fleet.tally.all_synced(proxies, SERVED).await?;
        let running = Some(running);
        Ok(Self { control_plane, api, fleet, proxies, fault, culprits, edits: 0, script, running, _folder: folder })
    }

    /// Lets clients misbehave, each at most once in `pause`, for as long as what is returned lives.
    pub fn misbehave(&self, pause: Option<Duration>) -> Misbehaving {
        self.misbehave_on(&Handle::current(), pause)
    }

    /// The same, as tasks of another runtime.
    pub fn misbehave_on(&self, runtime: &Handle, pause: Option<Duration>) -> Misbehaving {
        self.culprits.start(self.fault, pause, self.control_plane.xds, runtime)
    }

    /// Makes an edit. Returns how long after that was begun each proxy that behaves had it, when all have it.
    pub async fn edit(&mut self) -> Result<Vec<Duration>> {
        self.edits += 1;
        self.fleet.tally.begin_change(self.edits);
        self.api.put(&edited(self.edits)).await?;
        self.fleet.tally.change_reached(self.proxies, PATIENCE).await.with_context(|| format!("edit {}", self.edits))
    }

    /// Waits until every proxy that behaves holds the last edit and nothing is kept from the fleet.
    pub async fn settled(&self) -> Result<()> {
        until("nothing is quarantined", PATIENCE, async || {
            let listed = self.api.read("/api/v1/quarantine?fleet=edge").await?;
            ensure!(listed["items"].as_array().is_some_and(Vec::is_empty), "{listed}");
            Ok(())
        })
        .await?;
        self.fleet.tally.all_hold(self.edits, self.proxies, PATIENCE).await
    }

    /// Waits until nobody has a stream but the proxies that behave: as metrics say, and as the API does.
    pub async fn left_alone(&self, within: Duration) -> Result<()> {
        let wanted = if self.running.is_some() { self.proxies } else { 0 };
        until(&format!("{wanted} proxies have a stream"), within, async || {
            let streams = self.streams().await?;
            let items = self.api.list("/api/v1/proxies").await?;
            let connected = items.iter().filter(|proxy| proxy["connected"] == true).count();
            #[expect(clippy::cast_precision_loss, reason = "there are not so many")]
            let both = (streams, connected) == (wanted as f64, wanted);
            ensure!(both, "{streams} streams are open, and {connected} proxies are connected");
            Ok(())
        })
        .await
    }

    /// Streams of resources that are open.
    pub async fn streams(&self) -> Result<f64> {
        self.control_plane.metric("chancery_xds_streams").await
    }

    /// The proxies that behave go.
    pub fn proxies_leave(&mut self) {
        self.running = None;
    }

    /// The same proxies come once more with nothing, a second stream each. Returns how often one was put off before all
    /// were served.
    pub async fn newcomers(&self) -> Result<usize> {
        let again = Arc::new(self.fleet.renewed());
        let _running = again.start_all(self.control_plane.xds, &self.script);
        again.tally.all_synced(self.proxies, SERVED).await?;
        Ok(again.tally.put_off.load(Ordering::Relaxed))
    }

    /// Resident memory of the control plane, in bytes.
    pub fn memory(&self) -> Result<u64> {
        usage::memory(self.control_plane.pid())
    }

    /// CPU time of the control plane.
    pub fn cpu(&self) -> Result<Duration> {
        usage::cpu(self.control_plane.pid())
    }
}

fn edited(number: u64) -> serde_json::Value {
    route_saying(EDITED, "edited.example.com", &edit_text(number))
}
