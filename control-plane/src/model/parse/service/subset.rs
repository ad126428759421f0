//! By which labels rules choose among the endpoints of a service.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{
    parse::document::check_labels,
    problem::{Problems, Quoted},
    service::{Labels, SubsetFallback, Subsets},
    wire::{SubsetFallbackSpec, SubsetsSpec},
};

pub(super) fn subsets(specs: &[SubsetsSpec], default: Option<&Labels>, problems: &mut Problems) -> Subsets {
    let mut selectors = BTreeMap::new();
    {
        let mut problems = problems.at("subsets");
        for (index, SubsetsSpec { by, fallback }) in specs.iter().enumerate() {
            let mut problems = problems.index(index);
            let fallback = match fallback {
                None | Some(SubsetFallbackSpec::None) => SubsetFallback::None,
                Some(SubsetFallbackSpec::Any) => SubsetFallback::Any,
                Some(SubsetFallbackSpec::Default) => SubsetFallback::Default,
            };
            let mut problems = problems.at("by");
            problems.each_once(by);
            check_labels(&by.iter().map(|name| (name.clone(), String::new())).collect(), &mut problems);
            if selectors.insert(by.iter().cloned().collect::<BTreeSet<_>>(), fallback).is_some() {
                problems.report("has the same names as another");
            }
        }
    }
    let falls_back = selectors.values().any(|fallback| *fallback == SubsetFallback::Default);
    let mut problems = problems.at("defaultSubset");
    let default = match default {
        Some(default) => labels(default, &mut problems),
        None => Labels::new(),
    };
    match (falls_back, default.is_empty()) {
        (true, true) => problems.report("is required with fallback: default"),
        (false, false) => problems.report("goes with fallback: default only"),
        _ => {}
    }
    Subsets { selectors, default }
}

/// Labels of an endpoint, or of a subset.
pub(in crate::model::parse) fn labels(spec: &Labels, problems: &mut Problems) -> Labels {
    check_labels(spec, problems);
    for (name, _) in spec.iter().filter(|(_, value)| value.is_empty()) {
        problems.report(format!("{} has no value", Quoted(name)));
    }
    spec.clone()
}
