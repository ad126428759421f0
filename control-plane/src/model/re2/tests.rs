use proptest::prelude::*;

use super::*;

#[test]
fn what_envoy_compiles_is_accepted() {
    for pattern in [
        "/v[0-9]+/ping",
        "/users/[^/]+/orders/[0-9]+(?:/.*)?",
        r".*\.(css|js|png|jpe?g|gif|svg)",
        "(?i)/admin/.*",
        "(?P<id>[a-f0-9]{32})",
        "(?<id>x)",
        r"[\w.-]+@[\w.-]+",
        r"\d{4}-\d{2}-\d{2}",
        r"[[:alpha:]][[:^digit:]]*",
        r"[]a][a-][-a][a-b-c]",
        r"\x41\x{7f}\xFF",
        r"\-\&\#\~\/\.\\",
        "a||b",
        "(|a)*",
        "(?U)a+(?-U)b+?",
        r"(?m)^\bx\B$\A\z",
        "a{2,}b{0,3}",
        "a{96}",
        "]}",
    ] {
        assert_eq!(check(pattern), Ok(()), "{pattern}");
    }
}

#[test]
fn what_envoy_would_refuse_or_read_otherwise_is_refused() {
    let table = [
        ("", "must not be empty"),
        ("/a(((b", "is not a regular expression: unclosed group (at character 5)"),
        ("*a", "is not a regular expression: repetition operator missing expression (at character 1)"),
        ("[a", "is not a regular expression: unclosed character class (at character 1)"),
        ("a{2,1}", "is not a regular expression: invalid repetition count range, the start must be <= the end"),
        ("a{,3}", "is not a regular expression: repetition quantifier expects a valid decimal"),
        ("(?=a)", "is not a regular expression: look-around, including look-ahead and look-behind, is not supported"),
        ("(?<!a)b", "is not a regular expression: look-around"),
        (r"(a)\1", "is not a regular expression: backreferences are not supported (at character 4)"),
        (r"\Qa\E", "is not a regular expression: unrecognized escape sequence"),
        (r"\C", "is not a regular expression: unrecognized escape sequence"),
        (r"\Z", "is not a regular expression: unrecognized escape sequence"),
        ("[a-z&&[^b]]", "is not a regular expression that the proxy understands: an operation on classes"),
        ("[a--b]", "is not a regular expression that the proxy understands: an operation on classes"),
        ("[a~~b]", "is not a regular expression that the proxy understands: an operation on classes"),
        ("[a[b]]", "is not a regular expression that the proxy understands: a class within a class"),
        (r"\u0041", r"is not a regular expression that the proxy understands: an escape with \u or \U (use \x)"),
        (r"\u{41}", r"is not a regular expression that the proxy understands: an escape with \u or \U (use \x)"),
        (r"[\U00000041]", r"is not a regular expression that the proxy understands: an escape with \u or \U (use \x)"),
        (r"\x{100}", r"is not a regular expression that the proxy understands: a character above \xFF"),
        (r"\_", "is not a regular expression that the proxy understands: an escaped underscore"),
        (r"\b{start}a", "is not a regular expression that the proxy understands: start and end of a word"),
        (r"\<a\>", "is not a regular expression that the proxy understands: start and end of a word"),
        ("(?x)a b", "is not a regular expression that the proxy understands: a flag other than i, m, s and U"),
        ("(?R)a", "is not a regular expression that the proxy understands: a flag other than i, m, s and U"),
        ("(?-u:a)", "is not a regular expression that the proxy understands: a flag other than i, m, s and U"),
        (r"\pL", "is not a regular expression that the proxy understands: a Unicode class (at character 1)"),
        (r"[\p{Greek}]", "is not a regular expression that the proxy understands: a Unicode class"),
        ("a**", "is not a regular expression that the proxy understands: a repetition of a repetition"),
        ("a{2}{3}", "is not a regular expression that the proxy understands: a repetition of a repetition"),
        ("a{ 2 }", "is not a regular expression that the proxy understands: a repetition with spaces"),
        ("a{0}", "is not a regular expression that the proxy understands: a repetition of zero times"),
        ("(?P<a.b>x)", "is not a regular expression that the proxy understands: a group name"),
        ("caf\u{e9}", "must consist of printable ASCII characters"),
        ("a\nb", "must consist of printable ASCII characters"),
        ("a{97}", "is too large for the proxy: about 101 instructions, at most 100"),
        ("a{1001}", "is too large for the proxy: about 1005 instructions, at most 100"),
        ("(((a{1000}){1000}){1000}){1000}", "is too large for the proxy: about 4294967295 instructions, at most 100"),
    ];
    for (pattern, reason) in table {
        let refused = check(pattern).expect_err(pattern).to_string();
        assert!(refused.starts_with(reason), "{pattern}: {refused}");
    }
    assert_eq!(check(&"a".repeat(MAX_LENGTH + 1)), Err(InvalidPattern::TooLong));
    let deep = format!("{}a{}", "(".repeat(60), ")".repeat(60));
    assert!(matches!(check(&deep), Err(InvalidPattern::Syntax { .. })));
}

/// Sizes that Envoy 1.40 reported for these patterns (with `re2.max_program_size.error_level: 1`), and by how much
/// they are overestimated.
#[test]
fn sizes_are_those_of_re2_or_a_little_above() {
    let table = [
        ("a", 5, 0),
        ("ab|cd|ef", 10, 0),
        ("(a)(b)", 10, 0),
        ("a{2,5}", 12, 0),
        ("a{2,}", 7, 0),
        (r"\W", 9, 0),
        (r"\S", 8, 0),
        ("(?:ab|cd)+x", 10, 0),
        ("(?:a{100}){10}", 1004, 0),
        (r".*\.(?:css|js|png|jpe?g|gif|svg)", 26, 1),
        ("/users/[^/]+/orders/[0-9]+(?:/.*)?", 29, 4),
        ("(?i)[a-z]", 5, 2),
        ("a||b", 7, 1),
        ("^*", 9, 0),
        ("(|a)*", 12, 1),
        ("(?:a|)*", 10, 1),
        ("(b|a+|a?)", 13, 0),
        ("(?:(?:.)+|(?:\\d)*?)", 12, 1),
        (".+(?:a)+", 10, 0),
        ("(?:.+){3}?", 15, 4),
        ("(?:(?:a){2,})?", 9, 0),
        ("(?:[xyz]+|\\S^[a-z0-9])", 15, 0),
    ];
    let mut wrong = Vec::new();
    for (pattern, of_re2, above) in table {
        let ast = ParserBuilder::new().build().parse(pattern).unwrap();
        let size = Program { pattern, fold_case: false, depth: 0 }.part(&ast).unwrap().size + Program::FRAME;
        if size != of_re2 + above {
            wrong.push((pattern, of_re2, i64::from(size) - i64::from(of_re2)));
        }
    }
    assert_eq!(wrong, []);
}

proptest! {
    #[test]
    fn no_input_makes_it_panic(pattern in r"[a-c0-3(){}\[\]|*+?^$.,:<>=!PiUx\\bpdwu&~ -]{0,40}") {
        let _ = check(&pattern);
    }
}
