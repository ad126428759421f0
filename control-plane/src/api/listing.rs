//! A page of the resources of one kind, selected by team and labels.

use std::sync::Arc;

use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    error::ApiError,
    params::Limit,
    view::{ResourceList, ResourceView},
};
use crate::{
    access::{Principal, owner},
    model::{Catalog, Entry, Kind, Name, Selector},
};

/// Which resources to list.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// At most so many, 1 to 1000; 100 by default.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    limit: Limit,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
    /// Only those of this team.
    team: Option<String>,
    /// Only those with all of these labels.
    #[param(example = "tier=web,stage=prod")]
    label: Option<String>,
}

/// Which resources are wanted, parsed.
#[derive(Debug)]
pub(super) struct Selection {
    limit: usize,
    after: Option<Name>,
    selector: Selector,
}

impl TryFrom<ListParams> for Selection {
    type Error = ApiError;

    fn try_from(params: ListParams) -> Result<Self, ApiError> {
        let ListParams { limit: Limit(limit), cursor, team, label } = params;
        let name = |param: &str, text: Option<String>| match text.map(Name::try_from).transpose() {
            Ok(name) => Ok(name),
            Err(error) => Err(ApiError::Malformed(format!("query: {param} {error}"))),
        };
        let labels = label.iter().flat_map(|label| label.split(',')).map(|label| match label.split_once('=') {
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => Err(ApiError::Malformed(format!("query: label must be key=value, not {label:?}"))),
        });
        Ok(Self {
            limit: limit as usize,
            after: name("cursor", cursor)?,
            selector: Selector { team: name("team", team)?, labels: labels.collect::<Result<_, _>>()? },
        })
    }
}

/// The first page of what is selected, and seen by `reader`.
pub(super) fn page(catalog: &Catalog, kind: Kind, selection: &Selection, reader: &Principal) -> ResourceList {
    match &selection.after {
        Some(after) => first(catalog.entries_after(kind, after), selection, reader),
        None => first(catalog.entries(kind), selection, reader),
    }
}

fn first<'a>(entries: impl Iterator<Item = &'a Arc<Entry>>, selection: &Selection, reader: &Principal) -> ResourceList {
    let seen = entries.filter(|entry| reader.sees(owner(&entry.document)));
    let mut wanted = seen.filter(|entry| selection.selector.selects(&entry.document)).peekable();
    let items: Vec<_> = wanted.by_ref().take(selection.limit).map(|entry| ResourceView::from(entry.as_ref())).collect();
    let more = wanted.peek().is_some();
    let next_cursor = items.last().filter(|_| more).map(|last| last.name.to_string());
    ResourceList { items, next_cursor }
}
