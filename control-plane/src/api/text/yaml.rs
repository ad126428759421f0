//! YAML into values, event by event.
//!
//! Plain scalars follow the core schema of YAML 1.2 (so `no` and `on` are texts); tags other than
//! the core schema's are refused, and so are numbers that JSON cannot hold. An alias is a copy of its anchor and is
//! charged as one.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, StrInput, Tag};
use serde_json::{Map, Value};

use super::{Budget, MAX_DEPTH, NODE_SIZE, TextDocument, TextError};

/// Reads every document of `text` that is not empty.
pub(super) fn documents(text: &str) -> Result<Vec<TextDocument>, TextError> {
    let mut reader =
        Reader { parser: Parser::new_from_str(text), budget: Budget::new(), anchors: HashMap::new(), depth: 0 };
    let mut documents = Vec::new();
    loop {
        match reader.next()? {
            (Event::StreamEnd, _) => return Ok(documents),
            (Event::DocumentStart(_), _) => {
                reader.anchors.clear();
                let (event, at) = reader.next()?;
                let value = reader.value(event, at)?;
                if value != Value::Null {
                    documents.push(TextDocument { line: at.line(), value });
                }
            }
            _ => {}
        }
    }
}

struct Reader<'text> {
    parser: Parser<'text, StrInput<'text>>,
    budget: Budget,
    /// What each anchor of the document stands for, and its size.
    anchors: HashMap<usize, (Value, usize)>,
    depth: usize,
}

impl<'text> Reader<'text> {
    fn next(&mut self) -> Result<(Event<'text>, Marker), TextError> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, span.start)),
            Some(Err(error)) => Err(scan_error(&error)),
            None => Ok((Event::StreamEnd, Marker::default())),
        }
    }

    fn value(&mut self, event: Event<'text>, at: Marker) -> Result<Value, TextError> {
        let left = self.budget.0;
        let (anchor, value) = match event {
            Event::Alias(anchor) => return self.alias(anchor, at),
            Event::Scalar(text, style, anchor, tag) => {
                self.take(NODE_SIZE + text.len(), at)?;
                (anchor, scalar(&text, style, tag.as_deref()).map_err(|reason| error(at, reason))?)
            }
            Event::SequenceStart(anchor, tag) => {
                self.enter("seq", tag.as_deref(), at)?;
                (anchor, self.sequence()?)
            }
            Event::MappingStart(anchor, tag) => {
                self.enter("map", tag.as_deref(), at)?;
                (anchor, self.mapping()?)
            }
            _ => return Err(error(at, "expected a value")),
        };
        if anchor != 0 {
            let size = left - self.budget.0;
            self.take(size, at)?;
            self.anchors.insert(anchor, (value.clone(), size));
        }
        Ok(value)
    }

    fn sequence(&mut self) -> Result<Value, TextError> {
        let mut values = Vec::new();
        loop {
            let (event, at) = self.next()?;
            if event == Event::SequenceEnd {
                self.depth -= 1;
                return Ok(Value::Array(values));
            }
            values.push(self.value(event, at)?);
        }
    }

    fn mapping(&mut self) -> Result<Value, TextError> {
        let mut map = Map::new();
        loop {
            let (event, at) = self.next()?;
            if event == Event::MappingEnd {
                self.depth -= 1;
                return Ok(Value::Object(map));
            }
            let Event::Scalar(key, _, 0, None) = event else {
                return Err(error(at, "a key must be a text without anchor and tag"));
            };
            self.take(key.len(), at)?;
            if map.contains_key(key.as_ref()) {
                return Err(error(at, format!("key {key:?} is given twice")));
            }
            let (event, at) = self.next()?;
            let value = self.value(event, at)?;
            map.insert(key.into_owned(), value);
        }
    }

    fn alias(&mut self, anchor: usize, at: Marker) -> Result<Value, TextError> {
        let Some((value, size)) = self.anchors.get(&anchor) else {
            return Err(error(at, "the alias stands inside of its own anchor"));
        };
        let (value, size) = (value.clone(), *size);
        self.take(size, at)?;
        Ok(value)
    }

    fn enter(&mut self, core: &str, tag: Option<&Tag>, at: Marker) -> Result<(), TextError> {
        if let Some(tag) = tag.filter(|tag| !(tag.is_yaml_core_schema() && tag.suffix == core)) {
            return Err(error(at, format!("tag {tag} is not supported")));
        }
        if self.depth == MAX_DEPTH {
            return Err(error(at, format!("nested deeper than {MAX_DEPTH}")));
        }
        self.depth += 1;
        self.take(NODE_SIZE, at)
    }

    fn take(&mut self, size: usize, at: Marker) -> Result<(), TextError> {
        self.budget.take(size).map_err(|too_large| error(at, too_large.to_string()))
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, String> {
    let tag = match tag {
        None => None,
        Some(tag) if tag.is_yaml_core_schema() => Some(tag.suffix.as_str()),
        Some(tag) if tag.handle.is_empty() && tag.suffix == "!" => Some("str"),
        Some(tag) => return Err(format!("tag {tag} is not supported")),
    };
    match tag {
        None if style != ScalarStyle::Plain => Ok(text.into()),
        Some("str") => Ok(text.into()),
        None | Some("null" | "bool" | "int" | "float") => plain(text),
        Some(other) => Err(format!("tag !!{other} is not supported")),
    }
}

/// The core schema (YAML 1.2.2, section 10.3.2).
fn plain(text: &str) -> Result<Value, String> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Value::Null),
        "true" | "True" | "TRUE" => return Ok(true.into()),
        "false" | "False" | "FALSE" => return Ok(false.into()),
        _ => {}
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return Err(format!("{text} is not a number that JSON can hold"));
    }
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Ok(text.into());
    }
    for (prefix, radix) in [("0x", 16), ("0o", 8)] {
        if let Some(digits) = text.strip_prefix(prefix)
            && !digits.is_empty()
            && digits.chars().all(|c| c.is_digit(radix))
        {
            let number = u64::from_str_radix(digits, radix);
            return number.map(Value::from).map_err(|_| format!("{text} is too large a number"));
        }
    }
    if unsigned.bytes().all(|b| b.is_ascii_digit()) {
        if let Ok(number) = text.parse::<i64>() {
            return Ok(number.into());
        }
        if let Ok(number) = text.parse::<u64>() {
            return Ok(number.into());
        }
    }
    if is_float(unsigned)
        && let Ok(number) = text.parse::<f64>()
    {
        let number = serde_json::Number::from_f64(number);
        return number.map(Value::Number).ok_or_else(|| format!("{text} is too large a number"));
    }
    Ok(text.into())
}

/// `( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?`
fn is_float(unsigned: &str) -> bool {
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent = exponent.map(|exponent| exponent.strip_prefix(['+', '-']).unwrap_or(exponent));
    digits(whole)
        && digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|exponent| !exponent.is_empty() && digits(exponent))
}

fn error(at: Marker, reason: impl Into<String>) -> TextError {
    TextError { line: at.line().max(1), column: at.col() + 1, reason: reason.into() }
}

fn scan_error(error: &ScanError) -> TextError {
    self::error(*error.marker(), error.info())
}
