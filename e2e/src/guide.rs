//! Fenced blocks of a page in Markdown: what it shows to be typed, or to be put into a file.

/// A block between two fences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// What stands behind the fence that opens it: `sh`, `yaml`, or nothing.
    pub language: String,
    /// The line of the page that is its first, from one.
    pub line: usize,
    /// Its lines, without the indentation of the fence.
    pub text: String,
}

/// The blocks of a page, in order. One that nothing closes is none.
pub fn blocks(markdown: &str) -> Vec<Block> {
    let (mut found, mut open) = (Vec::new(), None::<(usize, Block)>);
    for (number, line) in markdown.lines().enumerate() {
        let text = line.trim();
        match (&mut open, text.strip_prefix("```")) {
            (None, Some(language)) => {
                let indent = line.len() - line.trim_start().len();
                open = Some((indent, Block { language: language.to_owned(), line: number + 2, text: String::new() }));
            }
            (None, None) => {}
            (Some(_), Some("")) => found.extend(open.take().map(|(_, block)| block)),
            (Some((indent, block)), _) => {
                block.text.push_str(line.get(*indent..).unwrap_or_default());
                block.text.push('\n');
            }
        }
    }
    found
}

/// The text of the blocks in `language`, in order.
pub fn blocks_in(language: &str, markdown: &str) -> Vec<String> {
    blocks(markdown).into_iter().filter(|block| block.language == language).map(|block| block.text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_with_their_indentation_taken_off() {
        let page = "a `chancery get` b\n\n   ```sh\n   chancery a \\\n     --b\n   ```\n```text\nno\n```\n```sh\nc\n```\n```sh\nd\n";
        assert_eq!(blocks_in("sh", page), ["chancery a \\\n  --b\n", "c\n"]);
        let text = Block { language: "text".to_owned(), line: 8, text: "no\n".to_owned() };
        assert_eq!(blocks(page)[1], text);
    }
}
