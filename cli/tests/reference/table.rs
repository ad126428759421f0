//! Tables in Markdown.

/// A row of a table.
pub(crate) fn row<const N: usize>(cells: [String; N]) -> String {
    let cells = cells.map(|cell| cell.replace('|', "\\|").split_whitespace().collect::<Vec<_>>().join(" "));
    format!("| {} |\n", cells.join(" | "))
}

/// The head of a table.
pub(crate) fn head<const N: usize>(names: [&str; N]) -> String {
    format!("| {} |\n|{}\n", names.join(" | "), "---|".repeat(N))
}

/// `text` as code, or nothing.
pub(crate) fn code(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("`{text}`") }
}
