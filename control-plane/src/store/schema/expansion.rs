//! What a migration may do while programs run that do not know of it: add.
//!
//! Every statement has to be of a form that such a program does not notice. To take something away, a migration says at its top
//! which older one has made that superfluous, `-- Contract of 0009_name: …`, and then may do anything: whoever still needs it is more
//! than a version behind, and not started.

use super::{Migration, postgres, sqlite};

/// Migrations up to this one came before the first release; nothing that runs is older.
const BEFORE_RELEASES: i64 = 8;

/// What stands before the name of the older migration.
const CONTRACT: &str = "-- Contract of ";

/// The statements of `sql` in capitals, with single blanks, without comments and without what stands in quotes.
fn statements(sql: &str) -> Vec<String> {
    let lines = sql.lines().map(|line| line.split_once("--").map_or(line, |(code, _)| code));
    let text = lines.collect::<Vec<_>>().join(" ");
    let outside = |text: &str, quote: &str| text.split(quote).step_by(2).collect::<Vec<_>>().join(" '' ");
    let words = outside(&outside(&text, "$$"), "'").to_uppercase();
    let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut statements: Vec<String> = Vec::new();
    for part in words.split(';').map(str::trim) {
        match statements.last_mut() {
            // The statements of a trigger's body end in a semicolon, too.
            Some(last) if last.starts_with("CREATE TRIGGER") && last.contains(" BEGIN ") && !last.ends_with(" END") => {
                *last = format!("{last} ; {part}");
            }
            _ => statements.push(part.to_owned()),
        }
    }
    statements.retain(|statement| !statement.is_empty());
    statements
}

/// The word after `phrase`, without what stands in brackets behind it.
fn word_after<'a>(statement: &'a str, phrase: &str) -> Option<&'a str> {
    let (_, rest) = statement.split_once(phrase)?;
    rest.split([' ', '(']).find(|word| !word.is_empty() && !["IF", "NOT", "EXISTS"].contains(word))
}

/// The statements of `sql` that a program may notice which does not know of them.
fn noticed(sql: &str) -> Vec<String> {
    let statements = statements(sql);
    let created: Vec<_> = statements.iter().filter_map(|one| word_after(one, "CREATE TABLE ")).collect();
    let is_new = |table: Option<&str>| table.is_some_and(|table| created.contains(&table));
    let unnoticed = |statement: &String| {
        let begins = |words: &str| statement.starts_with(words);
        if begins("CREATE UNIQUE INDEX ") || begins("CREATE TRIGGER ") {
            is_new(word_after(statement, " ON "))
        } else if begins("INSERT INTO ") {
            is_new(word_after(statement, "INSERT INTO "))
        } else if begins("ALTER TABLE ") && statement.contains(" ADD COLUMN ") {
            let asks = statement.contains("NOT NULL") && !statement.contains("DEFAULT");
            !asks
                && ![
                    "UNIQUE",
                    "PRIMARY KEY",
                    "CHECK",
                    "REFERENCES",
                    " DROP ",
                    " RENAME ",
                    " ALTER ",
                    " ADD CONSTRAINT ",
                ]
                .iter()
                .any(|words| statement.contains(words))
        } else {
            // An UPDATE fills what was added.
            ["CREATE TABLE ", "CREATE INDEX ", "CREATE FUNCTION ", "UPDATE "].into_iter().any(begins)
        }
    };
    statements.iter().filter(|statement| !unnoticed(statement)).cloned().collect()
}

/// What is wrong with `migration`, of all that there are.
fn problem(migration: &Migration, all: &[Migration]) -> Option<String> {
    let sql = migration.sql.as_str();
    let Some(contract) = sql.strip_prefix(CONTRACT) else {
        let noticed = noticed(sql);
        return (!noticed.is_empty()).then(|| format!("this takes away, or asks for more: {noticed:?}"));
    };
    let named = contract.split([':', '\n']).next().unwrap_or_default();
    let name = |older: &Migration| format!("{:04}_{}", older.version, older.description);
    let is_older = all.iter().any(|older| older.version + 1 < migration.version && name(older) == named);
    (!is_older).then(|| format!("there is no older migration {named:?}"))
}

#[test]
fn migrations_expand_or_say_what_they_contract() {
    for migrator in [postgres(), sqlite()] {
        let all: Vec<_> = migrator.iter().cloned().collect();
        for migration in all.iter().filter(|migration| migration.version > BEFORE_RELEASES) {
            assert_eq!(problem(migration, &all), None, "migration {} {}", migration.version, migration.description);
        }
    }
}

#[test]
fn both_databases_have_the_same_versions_without_gaps() {
    let named = |migrator: super::Migrator| -> Vec<_> {
        migrator.iter().map(|one| (one.version, one.description.to_string())).collect()
    };
    assert_eq!(named(postgres()), named(sqlite()));
    assert!(named(sqlite()).into_iter().map(|(version, _)| version).eq(1..=super::newest(&sqlite())));
}

#[test]
fn what_was_made_before_releases_would_have_passed() {
    for migrator in [postgres(), sqlite()] {
        for migration in migrator.iter() {
            assert_eq!(noticed(migration.sql.as_str()), [""; 0], "{}", migration.description);
        }
    }
}

#[test]
fn what_is_noticed_is_told_from_what_is_not() {
    for sql in [
        "DROP TABLE a",
        "ALTER TABLE a RENAME TO b",
        "ALTER TABLE a RENAME COLUMN b TO c",
        "ALTER TABLE a DROP COLUMN b",
        "ALTER TABLE a ALTER COLUMN b TYPE bigint",
        "ALTER TABLE a ALTER b SET NOT NULL",
        "ALTER TABLE a ADD CONSTRAINT c CHECK (b > 0)",
        "ALTER TABLE a ADD COLUMN b TEXT NOT NULL",
        "ALTER TABLE a ADD COLUMN b TEXT UNIQUE",
        "CREATE UNIQUE INDEX b ON a (c)",
        "CREATE TRIGGER t BEFORE UPDATE ON a BEGIN SELECT 1; END",
        "CREATE OR REPLACE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN END $$",
        "INSERT INTO a VALUES (1)",
        "DELETE FROM a",
        "TRUNCATE a",
        "CREATE TABLE b (c TEXT); drop\n table a;",
    ] {
        assert_eq!(noticed(sql).len(), 1, "{sql}");
    }
    for sql in [
        "-- DROP TABLE a\n CREATE TABLE b (c TEXT NOT NULL); INSERT INTO b VALUES ('DROP; TABLE');",
        "CREATE TABLE b (c TEXT); CREATE UNIQUE INDEX d ON b (c); CREATE TRIGGER t BEFORE DELETE ON b BEGIN SELECT 1; END;",
        "ALTER TABLE a ADD COLUMN b TEXT; UPDATE a SET b = ''; CREATE INDEX c ON a (b)",
        "ALTER TABLE a ADD COLUMN b TEXT NOT NULL DEFAULT ''",
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN DELETE FROM a; END $$",
    ] {
        assert_eq!(noticed(sql), [""; 0], "{sql}");
    }
}

#[test]
fn a_contract_names_what_has_made_it_superfluous() {
    let migrator = |sql: &'static str| {
        let between = "ALTER TABLE a ADD COLUMN c TEXT";
        super::migrator(&[(1, "first", "CREATE TABLE a (b TEXT)"), (2, "second", between), (3, "third", sql)])
    };
    let found = |sql| {
        let all: Vec<_> = migrator(sql).iter().cloned().collect();
        problem(&all[2], &all)
    };
    assert_eq!(found("-- Contract of 0001_first: nobody reads b\nDROP TABLE a"), None);
    for sql in [
        "DROP TABLE a",
        "-- Contract of 0002_second\nDROP TABLE a",
        "-- Contract of 0003_third\nDROP TABLE a",
        "-- Contract of all\nDROP TABLE a",
    ] {
        assert!(found(sql).is_some(), "{sql}");
    }
}
