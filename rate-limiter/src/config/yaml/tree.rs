//! YAML text into a small tree that knows where each of its nodes stands.
//!
//! Built from the parser's events rather than through serde, because a problem has to be reported with its line however
//! deep it lies, and all of them at once. An alias shares its anchor's node, yet is charged as the copy it stands for:
//! nested aliases are how a few lines of YAML become gigabytes.

use std::{collections::HashMap, rc::Rc};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, StrInput, Tag};

use super::words::quoted;

/// How deep a file may nest, aliases followed.
pub(super) const MAX_DEPTH: usize = 64;

/// How many values a file may hold, aliases counted as what they stand for, and long texts as several.
pub(super) const MAX_NODES: usize = 500_000;

/// Bytes of a text that count as one more value.
const TEXT_PER_NODE: usize = 32;

/// How many keys one mapping may have; rules know a dozen.
const MAX_KEYS: usize = 100;

/// The key under which YAML 1.1 merges other mappings into this one.
const MERGE: &str = "<<";

/// A line and a column, both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// A value and where it begins.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) at: Position,
    pub(super) content: Content,
    /// Values within, this one included, as [`MAX_NODES`] counts them.
    weight: usize,
    /// Levels within, this one included, aliases followed.
    height: usize,
}

/// What a value is.
#[derive(Debug)]
pub(super) enum Content {
    /// `plain`: written without quotes, so that it may stand for a number, a truth value or nothing.
    Scalar { text: String, plain: bool },
    /// A list.
    Sequence(Vec<Rc<Node>>),
    /// Keys and values; no key twice.
    Mapping(Vec<Entry>),
}

/// A key, where it stands, and its value.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) at: Position,
    pub(super) value: Rc<Node>,
}

/// What is wrong with the text itself.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) at: Position,
    pub(super) reason: String,
}

/// Every document up to the first place that cannot be read, and everything wrong on the way.
pub(super) fn read(text: &str) -> (Vec<Rc<Node>>, Vec<Fault>) {
    let mut builder = Builder {
        parser: Parser::new_from_str(text),
        nodes_left: MAX_NODES,
        anchors: HashMap::new(),
        faults: Vec::new(),
    };
    let mut documents = Vec::new();
    if let Err(fault) = builder.documents(&mut documents) {
        builder.faults.push(fault);
    }
    (documents, builder.faults)
}

impl Node {
    /// Whether nothing is said here.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.content, Content::Scalar { text, plain: true } if is_null(text))
    }

    /// Where `path` (such as `descriptors[0].rate_limit.unit`) stands below this node, or the deepest part of it that is there.
    pub(super) fn locate(&self, path: &str) -> Position {
        let mut node = self;
        for step in path.split(['.', '[']).filter(|step| !step.is_empty()) {
            let below = match &node.content {
                Content::Mapping(entries) => entries.iter().find(|entry| entry.key == step).map(|entry| &entry.value),
                Content::Sequence(nodes) => step.trim_end_matches(']').parse().ok().and_then(|at: usize| nodes.get(at)),
                Content::Scalar { .. } => None,
            };
            match below {
                Some(below) => node = below,
                None => break,
            }
        }
        node.at
    }
}

/// The core schema's ways to say nothing.
fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

struct Builder<'text> {
    parser: Parser<'text, StrInput<'text>>,
    nodes_left: usize,
    /// What each anchor of the document stands for.
    anchors: HashMap<usize, Rc<Node>>,
    faults: Vec<Fault>,
}

impl<'text> Builder<'text> {
    fn documents(&mut self, documents: &mut Vec<Rc<Node>>) -> Result<(), Fault> {
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(()),
                (Event::DocumentStart(_), _) => {
                    self.anchors.clear();
                    let (event, at) = self.next()?;
                    documents.push(self.node(event, at, MAX_DEPTH)?);
                }
                _ => {}
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'text>, Position), Fault> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, position(span.start))),
            Some(Err(error)) => Err(Fault { at: position(*error.marker()), reason: error.info().to_owned() }),
            None => Ok((Event::StreamEnd, Position { line: 1, column: 1 })),
        }
    }

    /// The value that begins with `event`. `room` is how many levels it may have.
    fn node(&mut self, event: Event<'text>, at: Position, room: usize) -> Result<Rc<Node>, Fault> {
        if room == 0 {
            return Err(Fault { at, reason: format!("nested deeper than {MAX_DEPTH} levels") });
        }
        let (anchor, content) = match event {
            Event::Alias(anchor) => return self.alias(anchor, at, room),
            Event::Scalar(text, style, anchor, tag) => {
                self.take(1 + text.len() / TEXT_PER_NODE, at)?;
                let plain = self.is_plain(style, tag.as_deref(), at);
                (anchor, Content::Scalar { text: text.into_owned(), plain })
            }
            Event::SequenceStart(anchor, tag) => {
                self.take(1, at)?;
                self.check_tag(tag.as_deref(), &["seq"], at);
                (anchor, Content::Sequence(self.sequence(room - 1)?))
            }
            Event::MappingStart(anchor, tag) => {
                self.take(1, at)?;
                self.check_tag(tag.as_deref(), &["map"], at);
                (anchor, Content::Mapping(self.mapping(room - 1)?))
            }
            _ => return Err(Fault { at, reason: "a value is expected here".to_owned() }),
        };
        let node = Rc::new(Node::new(at, content));
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn alias(&mut self, anchor: usize, at: Position, room: usize) -> Result<Rc<Node>, Fault> {
        let Some(node) = self.anchors.get(&anchor).cloned() else {
            return Err(Fault { at, reason: "the alias stands inside of its own anchor".to_owned() });
        };
        if node.height > room {
            return Err(Fault { at, reason: format!("nested deeper than {MAX_DEPTH} levels") });
        }
        self.take(node.weight, at)?;
        Ok(node)
    }

    fn sequence(&mut self, room: usize) -> Result<Vec<Rc<Node>>, Fault> {
        let mut nodes = Vec::new();
        loop {
            let (event, at) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok(nodes);
            }
            nodes.push(self.node(event, at, room)?);
        }
    }

    fn mapping(&mut self, room: usize) -> Result<Vec<Entry>, Fault> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut merged = Vec::new();
        loop {
            let (event, at) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let key = self.node(event, at, room)?;
            let (event, value_at) = self.next()?;
            let value = self.node(event, value_at, room)?;
            let Content::Scalar { text, plain } = &key.content else {
                self.fault(at, "a key must be a text");
                continue;
            };
            if *plain && text == MERGE {
                merged.push(value);
            } else if entries.iter().any(|entry| entry.key == *text) {
                self.fault(at, format!("key {} is given twice", quoted(text)));
            } else if entries.len() == MAX_KEYS {
                return Err(too_many_keys(at));
            } else {
                entries.push(Entry { key: text.clone(), at, value });
            }
        }
        for value in merged {
            self.merge(&mut entries, &value)?;
        }
        Ok(entries)
    }

    /// Adds what is not there yet: keys of the mapping itself win, and of several sources the first.
    fn merge(&mut self, entries: &mut Vec<Entry>, source: &Rc<Node>) -> Result<(), Fault> {
        let sources = match &source.content {
            Content::Sequence(sources) => sources.as_slice(),
            _ => std::slice::from_ref(source),
        };
        for source in sources {
            let Content::Mapping(others) = &source.content else {
                self.fault(source.at, "<< takes a mapping, or a list of mappings");
                continue;
            };
            for other in others {
                if entries.iter().any(|entry| entry.key == other.key) {
                    continue;
                }
                if entries.len() == MAX_KEYS {
                    return Err(too_many_keys(other.at));
                }
                entries.push(other.clone());
            }
        }
        Ok(())
    }

    /// Whether a scalar may stand for something else than its text.
    fn is_plain(&mut self, style: ScalarStyle, tag: Option<&Tag>, at: Position) -> bool {
        match tag {
            None => style == ScalarStyle::Plain,
            Some(tag) if tag.handle.is_empty() && tag.suffix == "!" => false,
            Some(tag) => {
                self.check_tag(Some(tag), &["str", "int", "float", "bool", "null"], at);
                tag.suffix != "str"
            }
        }
    }

    fn check_tag(&mut self, tag: Option<&Tag>, known: &[&str], at: Position) {
        if let Some(tag) = tag.filter(|tag| !(tag.is_yaml_core_schema() && known.contains(&tag.suffix.as_str()))) {
            let name = tag.to_string();
            self.fault(at, format!("tag {name:?} has no meaning here"));
        }
    }

    fn take(&mut self, nodes: usize, at: Position) -> Result<(), Fault> {
        self.nodes_left = self
            .nodes_left
            .checked_sub(nodes)
            .ok_or_else(|| Fault { at, reason: format!("more than {MAX_NODES} values, aliases counted in full") })?;
        Ok(())
    }

    /// Something wrong that reading can go on after.
    fn fault(&mut self, at: Position, reason: impl Into<String>) {
        if self.faults.len() < MAX_NODES / 100 {
            self.faults.push(Fault { at, reason: reason.into() });
        }
    }
}

impl Node {
    fn new(at: Position, content: Content) -> Self {
        let measure = |nodes: &mut dyn Iterator<Item = &Rc<Self>>| {
            nodes.fold((1, 1), |(weight, height), node| (weight + node.weight, height.max(node.height + 1)))
        };
        let (weight, height) = match &content {
            Content::Scalar { text, .. } => (1 + text.len() / TEXT_PER_NODE, 1),
            Content::Sequence(nodes) => measure(&mut nodes.iter()),
            Content::Mapping(entries) => measure(&mut entries.iter().map(|entry| &entry.value)),
        };
        Self { at, content, weight, height }
    }
}

fn too_many_keys(at: Position) -> Fault {
    Fault { at, reason: format!("more than {MAX_KEYS} keys in one mapping") }
}

fn position(marker: Marker) -> Position {
    Position { line: marker.line().max(1), column: marker.col() + 1 }
}
