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

/// Sizes that Envoy 1.40 reported for these patterns (with `re2.max_program_size.error_level: 1`).
#[test]
fn sizes_are_those_of_re2_or_a_little_above() {
    let table = [
        ("a", 5, 5),
        ("ab|cd|ef", 10, 10),
        ("(a)(b)", 10, 10),
        ("a{2,5}", 12, 12),
        ("a{2,}", 7, 7),
        ("(?:ab|cd)+x", 10, 10),
        (r"\W", 9, 9),
        (r"\S", 8, 8),
        ("(?i)[a-z]", 5, 7),
        ("(|a)*", 12, 13),
        ("a||b", 7, 8),
        ("^*", 9, 9),
        ("(?:a|)*", 10, 11),
        (r".*\.(?:css|js|png|jpe?g|gif|svg)", 26, 27),
        ("/users/[^/]+/orders/[0-9]+(?:/.*)?", 29, 29),
        ("(?:a{100}){10}", 1004, 1004),
    ];
    for (pattern, of_re2, expected) in table {
        let ast = ParserBuilder::new().build().parse(pattern).unwrap();
        let size = Program { pattern, fold_case: false }.part(&ast).unwrap().size + Program::FRAME;
        assert_eq!(size, expected, "{pattern}");
        assert!(size >= of_re2, "{pattern}");
    }
}

proptest! {
    #[test]
    fn no_input_makes_it_panic(pattern in r"[a-c0-3(){}\[\]|*+?^$.,:<>=!PiUx\\bpdwu&~ -]{0,40}") {
        let _ = check(&pattern);
    }
}
