//! Which regular expressions a proxy accepts.
//!
//! Envoy compiles patterns with RE2, one character per byte (Latin-1), and refuses a pattern whose compiled program
//! has more than 100 instructions (`re2.max_program_size.error_level`, the default of its runtime). A refused
//! pattern would take the whole route configuration with it, so all of this is decided before it is stored.
//!
//! A pattern is accepted if Rust's `regex-syntax` and RE2 read it alike: what only one of them knows, or what they
//! read differently, is refused, as are Unicode classes, which mean little where characters are bytes. The size
//! of the program is estimated, never too low as far as thousands of random patterns compiled by Envoy can tell:
//! exact for sequences, and some instructions too high for loops within alternatives or other loops, for
//! repetitions of what may match nothing, and for case-insensitive classes. RE2's own limits on repetition (1000, also
//! multiplied over nested ones) lie far above it, because no part is of size zero.

use regex_syntax::ast::{
    AssertionKind, Ast, ClassAsciiKind, ClassPerlKind, ClassSet, ClassSetItem, Flag, Flags, FlagsItemKind, Group,
    GroupKind, HexLiteralKind, Literal, LiteralKind, RepetitionKind, RepetitionRange, Span, parse::ParserBuilder,
};

/// The longest pattern, in bytes.
pub const MAX_LENGTH: usize = 1024;

/// The largest program, in RE2's instructions: the default of Envoy's `re2.max_program_size.error_level`.
pub const MAX_PROGRAM_SIZE: u32 = 100;

/// How deep groups may nest.
const MAX_DEPTH: u32 = 50;

/// Why a pattern is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPattern {
    /// There is nothing to match.
    #[error("must not be empty")]
    Empty,
    /// It has more than [`MAX_LENGTH`] bytes.
    #[error("must have at most {MAX_LENGTH} characters")]
    TooLong,
    /// It contains what must be escaped, or cannot be matched at all.
    #[error(
        "must consist of printable ASCII characters; write others as escapes, such as \\x0A (at character {position})"
    )]
    Character {
        /// The first such character, counted from 1.
        position: usize,
    },
    /// No regular expression, in any dialect.
    #[error("is not a regular expression: {reason} (at character {position})")]
    Syntax {
        /// What the parser says.
        reason: String,
        /// Where, counted from 1.
        position: usize,
    },
    /// RE2 does not know it, or means something else by it.
    #[error("is not a regular expression that the proxy understands: {construct} (at character {position})")]
    Unsupported {
        /// What it is.
        construct: &'static str,
        /// Where, counted from 1.
        position: usize,
    },
    /// RE2 would need too large a program for it.
    #[error("is too large for the proxy: about {size} instructions, at most {MAX_PROGRAM_SIZE}")]
    TooLarge {
        /// The estimated size.
        size: u32,
    },
}

/// Whether a proxy accepts `pattern`.
pub fn check(pattern: &str) -> Result<(), InvalidPattern> {
    if pattern.is_empty() {
        return Err(InvalidPattern::Empty);
    }
    if pattern.len() > MAX_LENGTH {
        return Err(InvalidPattern::TooLong);
    }
    if let Some(index) = pattern.chars().position(|c| !(' '..='~').contains(&c)) {
        return Err(InvalidPattern::Character { position: index + 1 });
    }
    let ast = ParserBuilder::new().nest_limit(MAX_DEPTH).build().parse(pattern).map_err(|error| {
        InvalidPattern::Syntax { reason: error.kind().to_string(), position: error.span().start.offset + 1 }
    })?;
    let mut program = Program { pattern, fold_case: false, depth: 0 };
    let size = program.part(&ast)?.size.saturating_add(Program::FRAME);
    if size > MAX_PROGRAM_SIZE { Err(InvalidPattern::TooLarge { size }) } else { Ok(()) }
}

/// How many groups of a pattern that [`check`] accepts keep what they match.
pub fn groups(pattern: &str) -> usize {
    let parsed = regex_syntax::ParserBuilder::new().unicode(false).utf8(false).build().parse(pattern);
    parsed.map_or(0, |parsed| parsed.properties().explicit_captures_len())
}

/// The walk over a pattern: refuses what RE2 reads otherwise, and adds up instructions.
struct Program<'a> {
    pattern: &'a str,
    /// Whether `i` was switched on anywhere before; it may double the ranges of a class.
    fold_case: bool,
    /// How many alternations and repetitions the walk is in.
    depth: u32,
}

/// What is known of a part of the program.
#[derive(Clone, Copy)]
struct Part {
    /// Its instructions.
    size: u32,
    /// The instructions that may come first. RE2 loops them where a loop is entered from several sides.
    first: u32,
    /// Whether it may match nothing. Repeating such a part costs RE2 extra instructions.
    nullable: bool,
    /// Whether a part of it loops without a bound.
    loops: bool,
}

impl Part {
    fn single(size: u32) -> Self {
        Self { size, first: size, nullable: false, loops: false }
    }

    fn empty(size: u32) -> Self {
        Self { nullable: true, ..Self::single(size) }
    }

    /// One after the other.
    fn then(self, next: Self) -> Self {
        let between = if self.loops && next.loops { next.first } else { 0 };
        Self {
            size: self.size.saturating_add(next.size).saturating_add(between),
            first: if self.nullable { self.first.saturating_add(next.first) } else { self.first },
            nullable: self.nullable && next.nullable,
            loops: self.loops || next.loops,
        }
    }

    /// One or the other.
    fn or(self, other: Self) -> Self {
        Self {
            size: self.size.saturating_add(other.size),
            first: self.first.saturating_add(other.first),
            nullable: self.nullable || other.nullable,
            loops: self.loops || other.loops,
        }
    }
}

impl Program<'_> {
    /// What RE2 adds to every program: failure, match and the search for a start.
    const FRAME: u32 = 4;

    fn part(&mut self, ast: &Ast) -> Result<Part, InvalidPattern> {
        match ast {
            Ast::Empty(_) => Ok(Part::empty(2)),
            Ast::Flags(set) => self.flags(&set.flags).map(|()| Part::empty(1)),
            Ast::Literal(literal) => byte(literal).map(|_| Part::single(1)),
            Ast::Dot(_) => Ok(Part::single(2)),
            Ast::Assertion(assertion) => match assertion.kind {
                AssertionKind::StartLine
                | AssertionKind::EndLine
                | AssertionKind::StartText
                | AssertionKind::EndText
                | AssertionKind::WordBoundary
                | AssertionKind::NotWordBoundary => Ok(Part::empty(1)),
                _ => refuse("start and end of a word other than by \\b", &assertion.span),
            },
            Ast::ClassUnicode(class) => refuse("a Unicode class", &class.span),
            Ast::ClassPerl(class) => Ok(self.class(&Bytes::perl(&class.kind, class.negated))),
            Ast::ClassBracketed(class) => {
                let ClassSet::Item(item) = &class.kind else {
                    return refuse("an operation on classes (escape &, - and ~)", &class.span);
                };
                let bytes = class_item(item)?;
                Ok(self.class(&if class.negated { bytes.complement() } else { bytes }))
            }
            Ast::Repetition(repetition) => self.repetition(repetition),
            Ast::Group(group) => self.group(group),
            Ast::Alternation(alternation) => {
                self.depth += 1;
                let mut parts = alternation.asts.iter().map(|ast| self.part(ast));
                let first = parts.next().unwrap_or(Ok(Part::empty(0)))?;
                let all = parts.try_fold(first, |all, part| part.map(|part| all.or(part)))?;
                self.depth -= 1;
                Ok(Part { size: all.size.saturating_add(u32::from(all.loops)), ..all })
            }
            Ast::Concat(concat) => {
                concat.asts.iter().try_fold(Part::empty(0), |all, ast| self.part(ast).map(|part| all.then(part)))
            }
        }
    }

    fn group(&mut self, group: &Group) -> Result<Part, InvalidPattern> {
        let captures = match &group.kind {
            GroupKind::CaptureIndex(_) => 2,
            GroupKind::CaptureName { name, .. } => {
                if !name.name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                    return refuse("a group name with other characters than A-Z, a-z, 0-9 and _", &name.span);
                }
                2
            }
            GroupKind::NonCapturing(flags) => self.flags(flags).map(|()| 0)?,
        };
        let part = self.part(&group.ast)?;
        Ok(Part { size: part.size.saturating_add(captures), ..part })
    }

    /// RE2 writes `x{2,5}` as `xx(x(x(x)?)?)?` and `x{2,}` as `xx+`.
    fn repetition(&mut self, repetition: &regex_syntax::ast::Repetition) -> Result<Part, InvalidPattern> {
        let span = &repetition.op.span;
        if matches!(*repetition.ast, Ast::Repetition(_)) {
            return refuse("a repetition of a repetition without a group", span);
        }
        if self.pattern[span.start.offset..span.end.offset].contains(char::is_whitespace) {
            return refuse("a repetition with spaces", span);
        }
        self.depth += 1;
        let inner = self.part(&repetition.ast)?;
        self.depth -= 1;
        let unbounded = matches!(
            repetition.op.kind,
            RepetitionKind::ZeroOrMore | RepetitionKind::OneOrMore | RepetitionKind::Range(RepetitionRange::AtLeast(_))
        );
        let operator = if inner.nullable { 4 } else { 1 }
            + if self.depth > 0 && (unbounded || inner.loops) { inner.first } else { 0 };
        let (copies, operators, nullable) = match &repetition.op.kind {
            RepetitionKind::ZeroOrOne | RepetitionKind::ZeroOrMore => (1, 1, true),
            RepetitionKind::OneOrMore => (1, 1, inner.nullable),
            RepetitionKind::Range(RepetitionRange::AtLeast(0)) => (1, 1, true),
            RepetitionKind::Range(RepetitionRange::AtLeast(least)) => (*least, 1, inner.nullable),
            RepetitionKind::Range(RepetitionRange::Exactly(0) | RepetitionRange::Bounded(_, 0)) => {
                return refuse("a repetition of zero times", span);
            }
            RepetitionKind::Range(RepetitionRange::Exactly(times)) => (*times, 0, inner.nullable),
            RepetitionKind::Range(RepetitionRange::Bounded(least, most)) => {
                (*most, most - least, inner.nullable || *least == 0)
            }
        };
        let size = inner.size.saturating_mul(copies).saturating_add(operators.saturating_mul(operator));
        Ok(Part { size, nullable, loops: inner.loops || unbounded, ..inner })
    }

    fn class(&self, bytes: &Bytes) -> Part {
        let ranges = bytes.ranges();
        Part::single(if self.fold_case { 2 * ranges } else { ranges }.max(1))
    }

    fn flags(&mut self, flags: &Flags) -> Result<(), InvalidPattern> {
        for item in &flags.items {
            match &item.kind {
                FlagsItemKind::Flag(Flag::CaseInsensitive) => self.fold_case = true,
                FlagsItemKind::Negation
                | FlagsItemKind::Flag(Flag::MultiLine | Flag::DotMatchesNewLine | Flag::SwapGreed) => {}
                FlagsItemKind::Flag(_) => return refuse("a flag other than i, m, s and U", &item.span),
            }
        }
        Ok(())
    }
}

fn refuse<T>(construct: &'static str, span: &Span) -> Result<T, InvalidPattern> {
    Err(InvalidPattern::Unsupported { construct, position: span.start.offset + 1 })
}

/// The byte that a literal stands for.
fn byte(literal: &Literal) -> Result<u8, InvalidPattern> {
    match literal.kind {
        LiteralKind::HexFixed(HexLiteralKind::UnicodeShort | HexLiteralKind::UnicodeLong)
        | LiteralKind::HexBrace(HexLiteralKind::UnicodeShort | HexLiteralKind::UnicodeLong) => {
            refuse("an escape with \\u or \\U (use \\x)", &literal.span)
        }
        LiteralKind::Superfluous if literal.c == '_' => refuse("an escaped underscore", &literal.span),
        _ => match u8::try_from(u32::from(literal.c)) {
            Ok(byte) => Ok(byte),
            Err(_) => refuse("a character above \\xFF (the proxy matches bytes)", &literal.span),
        },
    }
}

fn class_item(item: &ClassSetItem) -> Result<Bytes, InvalidPattern> {
    match item {
        ClassSetItem::Empty(_) => Ok(Bytes::none()),
        ClassSetItem::Literal(literal) => byte(literal).map(|b| Bytes::of(|other| other == b)),
        ClassSetItem::Range(range) => {
            let (first, last) = (byte(&range.start)?, byte(&range.end)?);
            Ok(Bytes::of(|b| (first..=last).contains(&b)))
        }
        ClassSetItem::Ascii(class) => {
            let bytes = Bytes::ascii(&class.kind);
            Ok(if class.negated { bytes.complement() } else { bytes })
        }
        ClassSetItem::Unicode(class) => refuse("a Unicode class", &class.span),
        ClassSetItem::Perl(class) => Ok(Bytes::perl(&class.kind, class.negated)),
        ClassSetItem::Bracketed(class) => refuse("a class within a class (escape the bracket)", &class.span),
        ClassSetItem::Union(union) => union.items.iter().try_fold(Bytes::none(), |all, item| {
            let more = class_item(item)?;
            Ok(Bytes::of(|b| all.has(b) || more.has(b)))
        }),
    }
}

/// A set of bytes: what a class matches.
struct Bytes([bool; 256]);

impl Bytes {
    fn of(has: impl Fn(u8) -> bool) -> Self {
        Self(std::array::from_fn(|index| has(index as u8)))
    }

    fn none() -> Self {
        Self([false; 256])
    }

    fn has(&self, byte: u8) -> bool {
        self.0[usize::from(byte)]
    }

    fn complement(&self) -> Self {
        Self::of(|b| !self.has(b))
    }

    /// How many ranges of neighbours it consists of: RE2 spends an instruction on each.
    fn ranges(&self) -> u32 {
        let starts = (0..256).filter(|&index| self.0[index] && (index == 0 || !self.0[index - 1])).count();
        u32::try_from(starts).unwrap_or(u32::MAX)
    }

    fn perl(kind: &ClassPerlKind, negated: bool) -> Self {
        let bytes = match kind {
            ClassPerlKind::Digit => Self::of(|b| b.is_ascii_digit()),
            ClassPerlKind::Space => Self::of(|b| b"\t\n\x0c\r ".contains(&b)),
            ClassPerlKind::Word => Self::of(|b| b.is_ascii_alphanumeric() || b == b'_'),
        };
        if negated { bytes.complement() } else { bytes }
    }

    fn ascii(kind: &ClassAsciiKind) -> Self {
        match kind {
            ClassAsciiKind::Alnum => Self::of(|b| b.is_ascii_alphanumeric()),
            ClassAsciiKind::Alpha => Self::of(|b| b.is_ascii_alphabetic()),
            ClassAsciiKind::Ascii => Self::of(|b| b.is_ascii()),
            ClassAsciiKind::Blank => Self::of(|b| b == b' ' || b == b'\t'),
            ClassAsciiKind::Cntrl => Self::of(|b| b.is_ascii_control()),
            ClassAsciiKind::Digit => Self::of(|b| b.is_ascii_digit()),
            ClassAsciiKind::Graph => Self::of(|b| b.is_ascii_graphic()),
            ClassAsciiKind::Lower => Self::of(|b| b.is_ascii_lowercase()),
            ClassAsciiKind::Print => Self::of(|b| b.is_ascii_graphic() || b == b' '),
            ClassAsciiKind::Punct => Self::of(|b| b.is_ascii_punctuation()),
            ClassAsciiKind::Space => Self::of(|b| b"\t\n\x0b\x0c\r ".contains(&b)),
            ClassAsciiKind::Upper => Self::of(|b| b.is_ascii_uppercase()),
            ClassAsciiKind::Word => Self::of(|b| b.is_ascii_alphanumeric() || b == b'_'),
            ClassAsciiKind::Xdigit => Self::of(|b| b.is_ascii_hexdigit()),
        }
    }
}

#[cfg(test)]
mod tests;
