//! A page of a list that is at hand whole.
//!
//! A cursor is the place of the last item in the list's order, not a number of items: whatever comes or goes between two
//! pages, no item that stays is left out or told twice.

use serde::Deserialize;
use utoipa::IntoParams;

use super::{error::ApiError, params::Limit};
use crate::model::Name;

/// Which page of a list.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct PageParams {
    /// At most so many, 1 to 1000; 1000 by default.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    limit: Option<Limit>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
}

/// Which page of a list is wanted.
#[derive(Clone, Debug)]
pub(super) struct Page {
    limit: usize,
    cursor: Option<String>,
}

impl From<PageParams> for Page {
    fn from(PageParams { limit, cursor }: PageParams) -> Self {
        Self::new(limit, cursor)
    }
}

/// Where an item stands in the order of its list, told in a cursor as texts with `/` between them.
pub(super) trait Place: Ord + Sized {
    /// As a cursor.
    fn cursor(&self) -> String;
    /// From a cursor; none, if it is not one of this list.
    fn read(cursor: &str) -> Option<Self>;
}

impl Page {
    /// That of these parameters.
    pub(super) fn new(limit: Option<Limit>, cursor: Option<String>) -> Self {
        let Limit(limit) = limit.unwrap_or(Limit(Limit::MOST));
        Self { limit: limit as usize, cursor }
    }

    /// After which place it begins.
    ///
    /// # Errors
    /// A cursor that is not one of this list.
    pub(super) fn after<P: Place>(&self) -> Result<Option<P>, ApiError> {
        let read = |cursor: &str| {
            let reason =
                || ApiError::Malformed("query: cursor is not the nextCursor of a page of this list".to_owned());
            P::read(cursor).ok_or_else(reason)
        };
        self.cursor.as_deref().map(read).transpose()
    }

    /// How many items from there on have to be at hand: those of the page, and one that says that there is another.
    pub(super) fn reach(&self) -> u32 {
        u32::try_from(self.limit).unwrap_or(u32::MAX).saturating_add(1)
    }

    /// The page of `items`, which stand at `place`, in the order of their places; and the cursor of the next one, if there is one.
    ///
    /// # Errors
    /// A cursor that is not one of this list.
    pub(super) fn of<T, P: Place>(
        &self,
        items: impl IntoIterator<Item = T>,
        place: impl Fn(&T) -> P,
    ) -> Result<(Vec<T>, Option<String>), ApiError> {
        let after = self.after()?;
        let placed = items.into_iter().map(|item| (place(&item), item));
        let mut placed: Vec<_> = placed.filter(|(place, _)| after.as_ref().is_none_or(|after| place > after)).collect();
        placed.sort_by(|(one, _), (other, _)| one.cmp(other));
        let more = placed.len() > self.limit;
        placed.truncate(self.limit);
        let next = placed.last().filter(|_| more).map(|(place, _)| place.cursor());
        Ok((placed.into_iter().map(|(_, item)| item).collect(), next))
    }
}

/// A plain name or id.
impl Place for String {
    fn cursor(&self) -> String {
        self.clone()
    }

    fn read(cursor: &str) -> Option<Self> {
        let plain = |c: char| !c.is_control() && c != '/';
        (!cursor.is_empty() && cursor.chars().all(plain)).then(|| cursor.to_owned())
    }
}

/// In a fleet, which may be none.
impl Place for (String, String) {
    fn cursor(&self) -> String {
        format!("{}/{}", self.0, self.1)
    }

    fn read(cursor: &str) -> Option<Self> {
        let (fleet, id) = cursor.split_once('/')?;
        let known = fleet.is_empty() || fleet.parse::<Name>().is_ok();
        (known && !id.is_empty()).then(|| (fleet.to_owned(), id.to_owned()))
    }
}

/// In a fleet and a type; the name may have any form.
impl Place for (String, String, String) {
    fn cursor(&self) -> String {
        format!("{}/{}/{}", self.0, self.1, self.2)
    }

    fn read(cursor: &str) -> Option<Self> {
        let (fleet, rest) = cursor.split_once('/')?;
        let (of_type, name) = rest.split_once('/')?;
        let known = fleet.parse::<Name>().is_ok() && !of_type.is_empty();
        known.then(|| (fleet.to_owned(), of_type.to_owned(), name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use super::*;

    fn page(limit: u32, cursor: Option<&str>) -> Page {
        Page::new(Some(Limit(limit)), cursor.map(str::to_owned))
    }

    #[test]
    fn pages_hold_what_stays_once_whatever_comes_and_goes() {
        let place = |item: &&str| (*item).to_owned();
        let (first, next) = page(2, None).of(["d", "b", "a"], place).unwrap();
        assert_eq!((first, next.as_deref()), (vec!["a", "b"], Some("b")));
        // Now `b` is gone, and there are `a1`, which is before the cursor, and `c`.
        let (second, next) = page(2, next.as_deref()).of(["d", "a", "a1", "c"], place).unwrap();
        assert_eq!((second, next), (vec!["c", "d"], None));
        let (all, next) = Page::from(PageParams::default()).of(["x"; 3], place).unwrap();
        assert_eq!((all.len(), next), (3, None));
    }

    #[test]
    fn a_cursor_is_one_of_its_list() {
        let read = |cursor: &str| (String::read(cursor), <(String, String)>::read(cursor));
        assert_eq!(read("a"), (Some("a".to_owned()), None));
        assert_eq!(read("edge/a"), (None, Some(("edge".to_owned(), "a".to_owned()))));
        assert_eq!(read("/limiter"), (None, Some((String::new(), "limiter".to_owned()))));
        for bad in ["", "../a", "edge/", "\u{0}"] {
            assert_eq!(read(bad), (None, None), "{bad:?}");
        }
        let three = ("edge".to_owned(), "route".to_owned(), "web/a".to_owned());
        assert_eq!(<(String, String, String)>::read(&three.cursor()), Some(three));
        let error = page(1, Some("..")).of(["a"], |item| (item.to_string(), String::new())).unwrap_err();
        assert_eq!(axum::response::IntoResponse::into_response(error).status(), StatusCode::BAD_REQUEST);
    }
}
