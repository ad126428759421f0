//! Whether somebody may make a change: of every resource that it touches, what it is and what it becomes.

use super::{Area, Grant, Missing, Principal, Verb, owner};
use crate::model::{Catalog, Document, Key, Name, Problem};

/// A resource that may not be changed so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which one; none: one that may not be named.
    pub key: Option<Key>,
    /// What is missing.
    pub missing: Missing,
}

impl From<&Refusal> for Problem {
    fn from(refusal: &Refusal) -> Self {
        let resource = refusal.key.as_ref().map(Key::to_string).unwrap_or_default();
        Self { resource, path: String::new(), reason: format!("needs {}", refusal.missing) }
    }
}

/// Why a change may not be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// What is to be deleted is not there, as far as its author may know.
    Hidden(Key),
    /// These resources may not be changed so, or not at all.
    Refused(Vec<Refusal>),
}

/// Whether `principal` may turn what is in the `catalog` into `edits`: every key and what it becomes, none if it is deleted. What
/// stands already as it is wanted needs no more than to be seen.
///
/// An owner writes only for teams that there are: without a `Team`, nothing would say which hosts it may claim.
///
/// # Errors
/// Every resource that may not be changed.
pub fn allowed<'a>(
    principal: &Principal,
    catalog: &Catalog,
    edits: impl IntoIterator<Item = (Key, Option<&'a Document>)>,
) -> Result<(), Denied> {
    let mut refused = Vec::new();
    for (key, after) in edits {
        let before = catalog.entry(&key).map(|entry| entry.document.as_ref());
        let hidden = before.is_some_and(|before| !principal.sees(owner(before)));
        if hidden && after.is_none() {
            return Err(Denied::Hidden(key));
        }
        if before.is_some() && before == after && !hidden {
            continue;
        }
        let may = principal.may(|grant| {
            grant.may(Verb::Write, Area::Resources(key.kind))?;
            if hidden {
                return Err(Missing::FreeName);
            }
            [before, after].into_iter().flatten().try_for_each(|document| writes(grant, catalog, owner(document)))
        });
        refused.extend(may.err().map(|missing| Refusal { key: Some(key), missing }));
    }
    if refused.is_empty() { Ok(()) } else { Err(Denied::Refused(refused)) }
}

fn writes(grant: &Grant, catalog: &Catalog, team: Option<&Name>) -> Result<(), Missing> {
    grant.writes_of(team)?;
    let bound = team.is_none_or(|team| grant.sees_all() || catalog.team(team).is_some());
    if bound { Ok(()) } else { Err(Missing::Team(team.cloned())) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use time::OffsetDateTime;

    use super::*;
    use crate::{
        access::principal::tests::principal,
        model::{Entry, Problems, parse},
    };

    /// `Service x a`: kind, name and team, `-` for none.
    fn document(text: &str) -> Document {
        let [kind, name, team] = text.split(' ').collect::<Vec<_>>()[..] else { panic!("{text}") };
        let team = (team != "-").then_some(team);
        let spec = if kind == "Team" { json!({ "hosts": ["*"] }) } else { json!({ "endpoints": [] }) };
        serde_json::from_value(json!({ "kind": kind, "name": name, "team": team, "spec": spec })).unwrap()
    }

    /// A team `a`, and a service for each of `a`, `b`, a team that is none, and nobody.
    fn catalog() -> Catalog {
        let entry = |text: &&str| {
            let document = document(text);
            let resource = parse(&document, &mut Problems::default()).unwrap();
            let (updated_at, updated_by) = (OffsetDateTime::UNIX_EPOCH, String::new());
            Entry { document: document.into(), resource, revision: 1, updated_at, updated_by }
        };
        let texts =
            ["Team a -", "Team b -", "Service ours a", "Service theirs b", "Service old label", "Service all -"];
        Catalog::load(texts.iter().map(entry)).unwrap()
    }

    const NO_TEAM: &str = "needs a team (what belongs to none is written by operators)";

    #[test]
    fn what_it_is_and_what_it_becomes_must_both_be_ones_own() {
        for (who, edit, expected) in [
            ("owner a", "Service new a", ""),
            ("owner a", "-Service ours a", ""),
            ("owner a", "Service new b", "needs team b"),
            ("owner a,label", "Service new label", "needs team label"),
            ("owner a", "Service new -", NO_TEAM),
            ("owner a", "Service ours b", "needs team b"),
            ("owner a", "Service ours -", NO_TEAM),
            ("owner a", "Service all a", NO_TEAM),
            ("owner a", "-Service all -", NO_TEAM),
            ("owner a", "Service all -", ""),
            ("owner a", "Service theirs a", "needs another name (this one is taken by a resource of another team)"),
            ("owner a", "-Service theirs b", "hidden"),
            ("owner a", "-Service none a", ""),
            ("owner a", "Fleet new a", "needs role operator"),
            ("owner a routes:write", "Service new a", "needs scope services:write"),
            ("owner a services:write", "Service new a", ""),
            ("viewer a", "Service new a", "needs role owner"),
            ("viewer a", "-Service none a", "needs role owner"),
            ("owner a + owner b", "Service ours b", ""),
            ("owner a services:write + owner b", "Service ours b", "needs team b"),
            ("owner a routes:write + owner b services:write", "-Service ours a", "needs scope services:write"),
            ("viewer + owner a", "Service theirs a", "needs team b"),
            ("viewer + owner a", "-Service theirs b", "needs team b"),
            ("operator", "Service theirs -", ""),
            ("operator", "Service new label", ""),
            ("operator", "Team new -", "needs role admin"),
            ("admin", "Team new -", ""),
            ("admin - routes:write", "Team new -", "needs scope teams:write"),
        ] {
            let (deleted, document) = (edit.starts_with('-'), document(edit.trim_start_matches('-')));
            let found =
                match allowed(&principal(who), &catalog(), [(document.key(), Some(&document).filter(|_| !deleted))]) {
                    Ok(()) => String::new(),
                    Err(Denied::Hidden(_)) => "hidden".to_owned(),
                    Err(Denied::Refused(refused)) => Problem::from(&refused[0]).reason,
                };
            assert_eq!(found, expected, "{who}: {edit}");
        }
    }

    #[test]
    fn everything_that_is_refused_is_named() {
        let documents = ["Service new b", "Service fine a", "Fleet edge -", "Service theirs a"].map(document);
        let edits = documents.iter().map(|document| (document.key(), Some(document)));
        let Err(Denied::Refused(refused)) = allowed(&principal("owner a"), &catalog(), edits) else {
            panic!("allowed")
        };
        let named: Vec<_> = refused.iter().map(|refusal| Problem::from(refusal).resource).collect();
        assert_eq!(named, ["Service/new", "Fleet/edge", "Service/theirs"]);
    }
}
