//! How an answer is printed: a table on a terminal, JSON elsewhere, YAML when asked for.

use std::io::{self, IsTerminal as _, Write as _};

use chancery_control_plane::api::text;
use clap::{Args, ValueEnum};
use comfy_table::{Table, presets};
use serde::Serialize;

use crate::failure::Failure;

/// How to print.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct OutputArgs {
    /// How to print [default: table on a terminal, json elsewhere]
    #[arg(short = 'o', long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
}

/// A form of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
    /// For files.
    Yaml,
}

impl OutputArgs {
    /// The form that was asked for, or fits where the output goes.
    pub(crate) fn format(self) -> Format {
        self.output.unwrap_or(if io::stdout().is_terminal() { Format::Table } else { Format::Json })
    }

    /// The form that was asked for, or this one.
    pub(crate) fn format_or(self, usual: Format) -> Format {
        self.output.unwrap_or(usual)
    }

    /// Prints `value`, or for people what `table` makes of it.
    pub(crate) fn print<T: Serialize>(self, value: &T, table: impl FnOnce(&T) -> String) -> Result<(), Failure> {
        print(&match self.format() {
            Format::Table => table(value),
            Format::Json => json(value),
            Format::Yaml => yaml(value),
        })
    }
}

/// `value` as JSON.
pub(crate) fn json(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

/// `value` as a YAML document.
pub(crate) fn yaml(value: &impl Serialize) -> String {
    text::yaml(value)
}

/// `text` to stdout. Whoever reads may stop reading.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    print_bytes(text.as_bytes())
}

/// `bytes` to stdout, as [`print()`] has it.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Io { what: "stdout".to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

/// Columns under `header`, without lines.
pub(crate) fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    for row in rows {
        table.add_row(row.map(printable));
    }
    let columns = table.column_count();
    if let Some(first) = table.column_mut(0) {
        first.set_padding((0, 1));
    }
    for index in 1..columns {
        if let Some(column) = table.column_mut(index) {
            column.set_padding((1, 1));
        }
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// Text of others must not move the cursor.
pub(crate) fn printable(text: String) -> String {
    if text.contains(char::is_control) { text.replace(char::is_control, " ") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_does_not_put_spaces_into_a_text() {
        assert_eq!(yaml(&["a b"]), "- a b\n");
        assert_eq!(yaml(&["a\u{2028}b"]), "[\n  \"a\u{2028}b\"\n]\n");
    }

    #[test]
    fn a_table_is_columns_without_lines() {
        let rows = [["a".to_owned(), "x\u{1b}[31m\ny".to_owned()], ["longer".to_owned(), String::new()]];
        insta::assert_snapshot!(table(["NAME", "TEXT"], rows), @r"
        NAME    TEXT
        a       x [31m y
        longer
        ");
    }
}
