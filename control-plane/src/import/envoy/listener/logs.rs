//! Access logs of a connection manager. What is not one of ours is found missing afterwards.

use serde_json::{Value, json};

use super::super::message::{items, text};

/// `accessLogs` of the listener.
pub(super) fn access_logs(manager: &Value) -> Option<Vec<Value>> {
    let logs: Vec<Value> = items(manager, "/access_log").iter().filter_map(access_log).collect();
    (!logs.is_empty()).then_some(logs)
}

fn access_log(log: &Value) -> Option<Value> {
    let config = log.get("typed_config")?;
    let to = match text(config, "/@type")?.rsplit('.').next()? {
        "StdoutAccessLog" => json!({ "stdout": true }),
        "StderrAccessLog" => json!({ "stderr": true }),
        "FileAccessLog" => json!({ "file": config["path"] }),
        _ => return None,
    };
    // Ours are lines, and end as such.
    let line = text(config, "/log_format/text_format_source/inline_string").and_then(|text| text.strip_suffix('\n'));
    Some(json!({ "to": to, "text": line, "json": config.pointer("/log_format/json_format") }))
}
