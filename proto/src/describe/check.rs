//! What Envoy would refuse in a message, found in its encoded form.
//!
//! Envoy checks a message when it takes it, and what an `Any` holds when the extension unpacks it. Here both
//! happens at once, down to the last message whose type is known, and everything that is wrong is found, where Envoy
//! stops at the first. A field or a type that the descriptors do not know is wrong too: it cannot be checked, and Envoy has no
//! extension that takes it.

use std::{borrow::Cow, collections::HashSet};

use super::{
    findings::{Findings, Step, Violation},
    rules::{Rule, Rules},
    types::{Field, Kind, Type, WellKnown},
    wire::{self, Malformed, Scalar, Wire},
};

/// How deep messages may be nested; protobuf refuses to read what is deeper.
const DEEPEST: usize = 100;

/// Of these `Any`s Envoy takes what it knows, and leaves the rest to others: the entries of `typed_filter_metadata`.
const FREE: [&str; 1] = ["envoy.config.core.v3.Metadata.TypedFilterMetadataEntry"];

static NONE: Rules = Rules { required: false, skip: false, rule: None, misread: None };

/// All that Envoy would refuse in a message of the type that `type_url` names; nothing if it would take it.
pub fn check(type_url: &str, message: &[u8]) -> Vec<Violation> {
    let mut check = Check { findings: Findings::default() };
    match Type::of_url(type_url) {
        Some(found) => check.message(found, message, true),
        None => check.report(unknown_type(type_url)),
    }
    check.findings.into_found()
}

/// What is said of a type URL that leads nowhere.
pub(super) fn unknown_type(type_url: &str) -> String {
    format!("{type_url:?} is not a type that Envoy knows")
}

struct Check {
    findings: Findings,
}

impl Check {
    fn report(&mut self, reason: impl Into<String>) {
        self.findings.report(reason);
    }

    fn at<T>(&mut self, step: Step, look: impl FnOnce(&mut Self) -> T) -> T {
        self.findings.enter(step);
        let result = look(self);
        self.findings.leave();
        result
    }

    /// `ruled` is whether rules hold here: those of a message that is skipped do not.
    fn message(&mut self, of: &'static Type, bytes: &[u8], ruled: bool) {
        if self.findings.depth() > DEEPEST {
            self.report("is nested too deeply");
            return;
        }
        let Ok(fields) = wire::fields(bytes) else {
            self.report("is malformed");
            return;
        };
        let ruled = ruled && !of.unchecked;
        let mut oneofs = vec![false; of.oneofs.len()];
        let mut rest = fields.as_slice();
        for field in &of.fields {
            while let Some(((number, _), after)) = rest.split_first()
                && *number < field.number
            {
                self.report(format!("has an unknown field {number}"));
                rest = after;
            }
            let many = rest.iter().take_while(|(number, _)| *number == field.number).count();
            let (occurrences, after) = rest.split_at(many);
            rest = after;
            if let (Some(oneof), false) = (field.oneof, occurrences.is_empty()) {
                oneofs[oneof] = true;
            }
            if field.disallowed && !occurrences.is_empty() {
                self.at(Step::Known(&field.name), |check| {
                    check.report("is deprecated, and refused unless the runtime allows it");
                });
            }
            if self.field(of, field, occurrences, ruled).is_err() {
                self.at(Step::Known(&field.name), |check| check.report("is malformed"));
            }
        }
        for (number, _) in rest {
            self.report(format!("has an unknown field {number}"));
        }
        for (oneof, given) in of.oneofs.iter().zip(oneofs) {
            if ruled && oneof.required && !given {
                self.at(Step::Known(&oneof.name), |check| check.report("is required"));
            }
        }
    }

    fn field(
        &mut self,
        of: &'static Type,
        field: &'static Field,
        occurrences: &[(u32, Wire<'_>)],
        ruled: bool,
    ) -> Result<(), Malformed> {
        let rules = if ruled { &field.rules } else { &NONE };
        if occurrences.is_empty() && rules.rule.is_none() && !rules.required {
            return Ok(());
        }
        let step = Step::Known(&field.name);
        if let Some(entry) = field.of().filter(|of| of.is_map_entry) {
            return self.at(step, |check| check.map(rules, entry, occurrences, ruled));
        }
        if field.repeated {
            return self.at(step, |check| check.repeated(rules, of, field, occurrences, ruled));
        }
        if field.kind == Kind::Message {
            let Some(bytes) = merged(occurrences)? else {
                // Of a choice, only what is chosen has to be anything.
                if rules.required && field.oneof.is_none() {
                    self.at(step, |check| check.report("value is required"));
                }
                return Ok(());
            };
            return self.at(step, |check| check.singular(rules, of, field, &bytes, ruled));
        }
        let value = match occurrences.last() {
            Some((_, wire)) => wire::scalar(field.kind, *wire)?,
            None if field.presence => return Ok(()),
            None => wire::default(field.kind),
        };
        self.at(step, |check| check.scalar(rules, field, value));
        Ok(())
    }

    fn scalar(&mut self, rules: &Rules, field: &Field, value: Scalar<'_>) {
        let values = field.of().map_or(&[][..], |of| &of.values);
        rules.scalar(value, values, &mut |reason| self.report(reason));
        if let Scalar::Integer(number) = value
            && values.iter().any(|known| known.disallowed && i128::from(known.number) == number)
        {
            self.report("is deprecated, and refused unless the runtime allows it");
        }
    }

    /// A message that is there.
    fn singular(
        &mut self,
        rules: &Rules,
        of: &'static Type,
        field: &Field,
        bytes: &[u8],
        ruled: bool,
    ) -> Result<(), Malformed> {
        let Some(inner) = field.of() else { return Err(Malformed) };
        match inner.well_known {
            Some(WellKnown::Any) => return self.any(rules, bytes, FREE.contains(&of.name)),
            Some(WellKnown::Duration | WellKnown::Timestamp) => {
                let (seconds, nanos) = time(bytes)?;
                rules.time(seconds, nanos, &mut |reason| self.report(reason));
            }
            Some(WellKnown::Wrapper) => {
                if let Some(value) = inner.field(1) {
                    let fields = wire::fields(bytes)?;
                    let found = fields.iter().rfind(|(number, _)| *number == value.number);
                    let found =
                        found.map_or(Ok(wire::default(value.kind)), |(_, wire)| wire::scalar(value.kind, *wire))?;
                    rules.scalar(found, &[], &mut |reason| self.report(reason));
                }
            }
            _ => {}
        }
        self.message(inner, bytes, ruled && !rules.skip);
        Ok(())
    }

    /// What an `Any` holds is checked by the extension that takes it, whatever holds around it.
    fn any(&mut self, rules: &Rules, bytes: &[u8], free: bool) -> Result<(), Malformed> {
        let (type_url, value) = any(bytes)?;
        rules.any(type_url, &mut |reason| self.report(reason));
        match Type::of_url(type_url) {
            Some(inner) => self.message(inner, value, true),
            // Nothing at all, which only the rules can mind.
            None if bytes.is_empty() || free => {}
            None => self.report(unknown_type(type_url)),
        }
        Ok(())
    }

    fn repeated(
        &mut self,
        rules: &Rules,
        of: &'static Type,
        field: &'static Field,
        occurrences: &[(u32, Wire<'_>)],
        ruled: bool,
    ) -> Result<(), Malformed> {
        let rule = if let Some(Rule::Repeated(rule)) = &rules.rule { Some(rule) } else { None };
        let items = rule.map_or(&NONE, |rule| &rule.items);
        if field.kind == Kind::Message {
            for (index, (_, wire)) in occurrences.iter().enumerate() {
                let Wire::Bytes(bytes) = wire else { return Err(Malformed) };
                self.at(Step::Index(index), |check| check.singular(items, of, field, bytes, ruled))?;
            }
            if let Some(rule) = rule {
                rule.size.check(occurrences.len(), "item", &mut |reason| self.report(reason));
            }
            return Ok(());
        }
        let mut values = Vec::with_capacity(occurrences.len());
        for (_, wire) in occurrences {
            values.extend(wire::scalars(field.kind, *wire)?);
        }
        for (index, value) in values.iter().enumerate() {
            self.at(Step::Index(index), |check| check.scalar(items, field, *value));
        }
        if let Some(rule) = rule {
            rule.size.check(values.len(), "item", &mut |reason| self.report(reason));
            let mut seen = HashSet::new();
            if rule.unique && !values.iter().all(|value| seen.insert(format!("{value:?}"))) {
                self.report("repeated value must contain unique items");
            }
        }
        Ok(())
    }

    fn map(
        &mut self,
        rules: &Rules,
        entry: &'static Type,
        occurrences: &[(u32, Wire<'_>)],
        ruled: bool,
    ) -> Result<(), Malformed> {
        let (Some(key), Some(value)) = (entry.field(1), entry.field(2)) else { return Err(Malformed) };
        let rule = if let Some(Rule::Map(rule)) = &rules.rule { Some(rule) } else { None };
        let (keys, values) = rule.map_or((&NONE, &NONE), |rule| (&rule.keys, &rule.values));
        let mut seen = HashSet::new();
        for (_, wire) in occurrences {
            let Wire::Bytes(bytes) = wire else { return Err(Malformed) };
            let parts = wire::fields(bytes)?;
            let of = |number: u32| parts.iter().filter(move |(found, _)| *found == number).copied().collect::<Vec<_>>();
            let name = of(1).last().map_or(Ok(wire::default(key.kind)), |(_, wire)| wire::scalar(key.kind, *wire))?;
            let shown = match name {
                Scalar::Text(text) => text.to_owned(),
                Scalar::Integer(number) => number.to_string(),
                other => format!("{other:?}"),
            };
            seen.insert(shown.clone());
            self.at(Step::Key(shown), |check| {
                check.scalar(keys, key, name);
                let found = of(2);
                if value.kind == Kind::Message {
                    let bytes = merged(&found)?.unwrap_or_default();
                    check.singular(values, entry, value, &bytes, ruled)
                } else {
                    let found = found
                        .last()
                        .map_or(Ok(wire::default(value.kind)), |(_, wire)| wire::scalar(value.kind, *wire))?;
                    check.scalar(values, value, found);
                    Ok(())
                }
            })?;
        }
        if let Some(rule) = rule {
            rule.size.check(seen.len(), "pair", &mut |reason| self.report(reason));
        }
        Ok(())
    }
}

/// The bytes of a message that is not repeated: several of them are one, merged, and bytes behind bytes are that.
pub(super) fn merged<'a>(occurrences: &[(u32, Wire<'a>)]) -> Result<Option<Cow<'a, [u8]>>, Malformed> {
    let mut all: Option<Cow<'a, [u8]>> = None;
    for (_, wire) in occurrences {
        let Wire::Bytes(bytes) = wire else { return Err(Malformed) };
        match &mut all {
            None => all = Some(Cow::Borrowed(bytes)),
            Some(before) => before.to_mut().extend_from_slice(bytes),
        }
    }
    Ok(all)
}

/// Seconds and nanoseconds.
pub(super) fn time(bytes: &[u8]) -> Result<(i128, i128), Malformed> {
    let mut parts = (0, 0);
    for (number, wire) in wire::fields(bytes)? {
        match (number, wire::scalar(Kind::Int64, wire)?) {
            (1, Scalar::Integer(seconds)) => parts.0 = seconds,
            (2, Scalar::Integer(nanos)) => parts.1 = nanos,
            _ => return Err(Malformed),
        }
    }
    Ok(parts)
}

/// Type URL and message.
pub(super) fn any(bytes: &[u8]) -> Result<(&str, &[u8]), Malformed> {
    let mut parts = ("", &[][..]);
    for (number, wire) in wire::fields(bytes)? {
        match (number, wire) {
            (1, Wire::Bytes(url)) => parts.0 = std::str::from_utf8(url).map_err(|_| Malformed)?,
            (2, Wire::Bytes(value)) => parts.1 = value,
            _ => return Err(Malformed),
        }
    }
    Ok(parts)
}

#[cfg(test)]
mod tests;
