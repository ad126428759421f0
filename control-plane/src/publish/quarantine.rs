//! What fleets are not served because a proxy has rejected it: looked at over all of them.
//!
//! What canaries have rejected is theirs, and gone with the revision that is tried.

use std::{sync::Arc, time::Instant};

use chancery_xds::Resource;
use tokio::sync::Notify;

use super::{Cause, Fleet, Id, Publisher, Quarantined, RouteForm, Shelf};
use crate::model::Name;

/// Whose resource it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The fleet.
    pub fleet: Name,
    /// Of those of its proxies that get their routes in this form.
    pub form: RouteForm,
    /// Type and name.
    pub id: Id,
}

impl RouteForm {
    /// As it is called in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ByHost => "byHost",
            Self::Whole => "whole",
        }
    }

    /// What [`RouteForm::as_str`] calls so.
    pub fn called(name: &str) -> Option<Self> {
        [Self::ByHost, Self::Whole].into_iter().find(|form| form.as_str() == name)
    }
}

impl Publisher {
    /// Told when something is quarantined, or is no more.
    pub fn quarantine_changed(&self) -> Arc<Notify> {
        self.quarantine_changed.clone()
    }

    /// What is quarantined.
    pub fn quarantined(&self) -> Vec<(Place, Quarantined)> {
        let mut found: Vec<_> = self
            .shelves()
            .into_iter()
            .flat_map(|(fleet, form, shelf)| {
                let place = move |id| Place { fleet: fleet.clone(), form, id };
                shelf.quarantined().into_iter().map(move |(id, quarantined)| (place(id), quarantined))
            })
            .collect();
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        found
    }

    /// Takes over what was quarantined elsewhere, or before; see [`Shelf::quarantine`]. None if there is no such fleet, or nobody has
    /// asked for that form yet.
    pub fn quarantine(&self, place: &Place, version: &str, good: Option<&[u8]>, cause: Cause) -> Option<bool> {
        let good = good.map(|body| Resource::new(&place.id.0, place.id.1.clone(), body));
        Some(self.shelf(place)?.quarantine(place.id.clone(), version, good, cause))
    }

    /// Serves what was quarantined, on trial again. Returns whether it was.
    pub fn release(&self, place: &Place) -> bool {
        self.shelf(place).is_some_and(|shelf| shelf.release(&place.id))
    }

    /// Lets every shelf go on; see [`Shelf::tick`].
    pub fn tick(&self, now: Instant) {
        let canaries: Vec<_> = {
            let fleets = self.fleets.lock();
            let staged = fleets.values().filter_map(|fleet| fleet.staged.as_ref());
            staged.flat_map(|staged| staged.canary.shelves()).map(|(_, shelf)| shelf.clone()).collect()
        };
        for shelf in canaries.into_iter().chain(self.shelves().into_iter().map(|(_, _, shelf)| shelf)) {
            shelf.tick(now);
        }
    }

    fn shelf(&self, place: &Place) -> Option<Arc<Shelf>> {
        let fleets = self.fleets.lock();
        let found = fleets.get(&place.fleet)?.main.shelves().find(|(form, _)| *form == place.form);
        found.map(|(_, shelf)| shelf.clone())
    }

    fn shelves(&self) -> Vec<(Name, RouteForm, Arc<Shelf>)> {
        let fleets = self.fleets.lock();
        let shelves = |(name, fleet): (&Name, &Fleet)| {
            let name = name.clone();
            fleet.main.shelves().map(move |(form, shelf)| (name.clone(), form, shelf.clone())).collect::<Vec<_>>()
        };
        fleets.iter().flat_map(shelves).collect()
    }
}
