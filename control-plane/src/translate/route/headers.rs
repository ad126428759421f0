//! Changes to headers as Envoy's lists. Envoy removes first, then goes through what is to be added in order.

use chancery_proto::envoy::core::{HeaderValue, HeaderValueOption, header_value_option::HeaderAppendAction};

use crate::model::route::HeaderChanges;

/// What is set, then what is added.
pub(super) fn to_add(changes: &HeaderChanges) -> Vec<HeaderValueOption> {
    let set = changes.set.iter().map(|header| option(header, HeaderAppendAction::OverwriteIfExistsOrAdd));
    let add = changes.add.iter().map(|header| option(header, HeaderAppendAction::AppendIfExistsOrAdd));
    set.chain(add).collect()
}

fn option((name, value): &(String, String), action: HeaderAppendAction) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue { key: name.clone(), value: literal(value), raw_value: Vec::new() }),
        append_action: action.into(),
        // Envoy drops a header with an empty value unless it is told that this is meant.
        keep_empty_value: value.is_empty(),
        ..HeaderValueOption::default()
    }
}

/// Envoy expands `%COMMANDS%` in values; ours are literal.
fn literal(value: &str) -> String {
    value.replace('%', "%%")
}
