//! Statements told apart: those of the session are read whole, of the others only the kind.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::copy::Copy;
use super::words::{Words, syntax};
use crate::failure::{Answered, Failure};

/// A statement, as far as a session must understand it.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Nothing but white space and comments.
    Empty,
    Begin(Begin),
    Commit,
    Rollback,
    Savepoint(String),
    RollbackTo(String),
    Release(String),
    /// `SET TRANSACTION`, or `SET SESSION CHARACTERISTICS AS TRANSACTION` for all that follow.
    Mode {
        read_only: Option<bool>,
        session: bool,
    },
    /// `None` for the default.
    Set {
        name: String,
        value: Option<String>,
    },
    /// `None` for all.
    Reset(Option<String>),
    /// Settings of the session; `all` for all of them.
    Show(String),
    DiscardAll,
    DiscardTemporary,
    /// `None` for all.
    Deallocate(Option<String>),
    Copy(Box<Copy>),
    Sql(Kind),
}

/// `BEGIN [READ ONLY | READ WRITE] [WITH (..)]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Begin {
    pub read_only: Option<bool>,
    pub snapshot_token: Option<String>,
    pub clock_time: Option<String>,
    pub system_time: Option<String>,
}

/// What a statement of the database does, by its first word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Query,
    /// A query without tables: it has no data to read.
    Bare,
    /// A query of the catalogs that Postgres keeps of itself.
    Catalog,
    /// The word that its command tag begins with.
    Write(&'static str),
    /// A definition, by its command tag.
    Define(&'static str),
}

impl Command {
    /// Reads a statement.
    ///
    /// # Errors
    /// 42601 for a statement of the session that is wrong, 0A000 for those there are none of.
    pub fn of(sql: &str) -> Answered<Self> {
        let mut words = Words::of(sql);
        if words.is_over() && words.tokens().is_empty() && sql.trim().is_empty() {
            return Ok(Self::Empty);
        }
        let Some(first) = words.word() else {
            return Ok(match only_comments(&words, sql) {
                true => Self::Empty,
                false => Self::Sql(query(&words)),
            });
        };
        let command = match first.as_str() {
            "begin" | "start" | "commit" | "end" | "rollback" | "abort" | "savepoint"
            | "release" | "prepare" => transaction(&mut words)?,
            "set" => set(&mut words)?,
            "reset" => {
                words.accept(&["reset"]);
                match words.accept(&["all"]) {
                    true => Self::Reset(None),
                    false => Self::Reset(Some(setting(&mut words)?)),
                }
            }
            "show" => match show(&mut words)? {
                Some(show) => show,
                None => return Ok(Self::Sql(Kind::Bare)),
            },
            "discard" => {
                words.take();
                match words.name()?.as_str() {
                    "all" => Self::DiscardAll,
                    "plans" | "sequences" => Self::Reset(Some(String::new())),
                    "temp" | "temporary" => Self::DiscardTemporary,
                    _ => {
                        return Err(syntax("expected ALL, PLANS, SEQUENCES or TEMP after DISCARD"));
                    }
                }
            }
            "deallocate" => {
                words.take();
                words.accept(&["prepare"]);
                match words.accept(&["all"]) {
                    true => Self::Deallocate(None),
                    false => Self::Deallocate(Some(words.name()?)),
                }
            }
            "copy" => return Ok(Self::Copy(Box::new(Copy::of(sql)?))),
            "listen" | "unlisten" | "notify" | "execute" | "declare" | "fetch" | "move"
            | "close" | "lock" | "cluster" | "vacuum" | "analyze" | "grant" | "revoke"
            | "security" | "comment" | "do" | "call" | "truncate" | "merge" | "refresh"
            | "reindex" => {
                return Err(unsupported(format!("{} is not supported", first.to_uppercase())));
            }
            other => return Ok(Self::Sql(kind(other, &words))),
        };
        words.finish()?;
        Ok(command)
    }
}

fn only_comments(words: &Words, sql: &str) -> bool {
    words.tokens().iter().all(|token| *token == Token::SemiColon)
        && (!words.tokens().is_empty()
            || sql.trim_start().starts_with("--")
            || sql.trim_start().starts_with("/*"))
}

fn unsupported(detail: impl Into<String>) -> Failure {
    Failure::of_sqlstate("0A000", detail.into())
}

fn transaction(words: &mut Words) -> Answered<Command> {
    if words.accept(&["begin"]) || words.accept(&["start", "transaction"]) {
        let _optional = words.accept(&["transaction"]) || words.accept(&["work"]);
        let mut begin = Begin { read_only: modes(words)?, ..Begin::default() };
        if words.accept(&["with"]) {
            options(words, &mut begin)?;
        }
        return Ok(Command::Begin(begin));
    }
    if words.accept(&["prepare", "transaction"])
        || words.accept(&["commit", "prepared"])
        || words.accept(&["rollback", "prepared"])
    {
        return Err(unsupported("two-phase commit is not supported"));
    }
    if words.accept(&["prepare"]) {
        return Err(unsupported("PREPARE is not supported")
            .with_hint("drivers prepare statements by the protocol's own messages"));
    }
    if words.accept(&["savepoint"]) {
        return Ok(Command::Savepoint(words.name()?));
    }
    if words.accept(&["release"]) {
        words.accept(&["savepoint"]);
        return Ok(Command::Release(words.name()?));
    }
    let rollback = words.accept(&["rollback"]) || words.accept(&["abort"]);
    if !rollback && !words.accept(&["commit"]) {
        words.accept(&["end"]);
    }
    let _optional = words.accept(&["transaction"]) || words.accept(&["work"]);
    if rollback && words.accept(&["to"]) {
        words.accept(&["savepoint"]);
        return Ok(Command::RollbackTo(words.name()?));
    }
    if words.accept(&["and", "chain"]) {
        return Err(unsupported("AND CHAIN is not supported"));
    }
    words.accept(&["and", "no", "chain"]);
    Ok(if rollback { Command::Rollback } else { Command::Commit })
}

/// Reads the modes of a transaction; every isolation level is taken, all are serializable.
fn modes(words: &mut Words) -> Answered<Option<bool>> {
    let mut read_only = None;
    loop {
        if words.accept(&["read", "only"]) {
            read_only = Some(true);
        } else if words.accept(&["read", "write"]) {
            read_only = Some(false);
        } else if words.accept(&["isolation", "level"]) {
            let known = words.accept(&["read", "committed"])
                || words.accept(&["read", "uncommitted"])
                || words.accept(&["repeatable", "read"])
                || words.accept(&["serializable"]);
            if !known {
                return Err(syntax("expected an isolation level"));
            }
        } else if !words.accept(&["not", "deferrable"]) && !words.accept(&["deferrable"]) {
            return Ok(read_only);
        }
        words.accept_sign(&Token::Comma);
    }
}

/// Reads `(SNAPSHOT_TOKEN = '..', CLOCK_TIME = TIMESTAMP '..', SYSTEM_TIME = '..')`.
fn options(words: &mut Words, begin: &mut Begin) -> Answered<()> {
    if !words.accept_sign(&Token::LParen) {
        return Err(syntax("expected options in parentheses after WITH"));
    }
    loop {
        let name = words.name()?;
        if !words.accept_sign(&Token::Eq) {
            words.accept(&["to"]);
        }
        let _typed = words.accept(&["timestamp", "with", "time", "zone"])
            || words.accept(&["timestamptz"])
            || words.accept(&["timestamp"])
            || words.accept(&["date"]);
        let value = words.value()?;
        match name.as_str() {
            "snapshot_token" => begin.snapshot_token = Some(value),
            "clock_time" => begin.clock_time = Some(value),
            "system_time" => begin.system_time = Some(value),
            _ => {
                let detail = format!("a transaction has no option \"{name}\"");
                return Err(Failure::of_sqlstate("42704", detail)
                    .with_hint("there are SNAPSHOT_TOKEN, CLOCK_TIME and SYSTEM_TIME"));
            }
        }
        if !words.accept_sign(&Token::Comma) {
            break;
        }
    }
    match words.accept_sign(&Token::RParen) {
        true => Ok(()),
        false => Err(syntax("expected a closing parenthesis")),
    }
}

fn set(words: &mut Words) -> Answered<Command> {
    words.accept(&["set"]);
    if words.accept(&["session", "characteristics", "as", "transaction"]) {
        return Ok(Command::Mode { read_only: modes(words)?, session: true });
    }
    if words.accept(&["transaction"]) {
        return Ok(Command::Mode { read_only: modes(words)?, session: false });
    }
    let _scope = words.accept(&["session"]) || words.accept(&["local"]);
    let name = match () {
        () if words.accept(&["time", "zone"]) => "timezone".to_owned(),
        () if words.accept(&["names"]) => "client_encoding".to_owned(),
        () => {
            let name = setting(words)?;
            if !words.accept_sign(&Token::Eq) && !words.accept(&["to"]) {
                return Err(syntax("expected = or TO after the name of a setting"));
            }
            name
        }
    };
    if words.accept(&["default"]) {
        return Ok(Command::Set { name, value: None });
    }
    // A type before a value says nothing that its text does not.
    if words.tokens().len() > 4 {
        let _typed = words.accept(&["timestamp", "with", "time", "zone"])
            || words.accept(&["timestamptz"])
            || words.accept(&["timestamp"])
            || words.accept(&["interval"]);
    }
    let mut values = vec![words.value()?];
    while words.accept_sign(&Token::Comma) {
        values.push(words.value()?);
    }
    Ok(Command::Set { name, value: Some(values.join(", ")) })
}

/// Reads a setting's name, which may have dots.
fn setting(words: &mut Words) -> Answered<String> {
    let mut name = words.name()?;
    while words.accept_sign(&Token::Period) {
        name = format!("{name}.{}", words.name()?);
    }
    Ok(name.to_lowercase())
}

/// Reads SHOW of a setting; nothing for what the database itself shows.
fn show(words: &mut Words) -> Answered<Option<Command>> {
    words.accept(&["show"]);
    let name = match () {
        () if words.accept(&["time", "zone"]) => "timezone".to_owned(),
        () if words.accept(&["transaction", "isolation", "level"]) => {
            "transaction_isolation".to_owned()
        }
        () => setting(words)?,
    };
    let own =
        ["snapshot_token", "clock_time", "tables", "views", "streams", "mappings", "projections"];
    Ok((!own.contains(&name.as_str())).then_some(Command::Show(name)))
}

fn kind(first: &str, words: &Words) -> Kind {
    match first {
        "insert" => Kind::Write("INSERT 0"),
        "patch" => Kind::Write("PATCH"),
        "update" => Kind::Write("UPDATE"),
        "delete" => Kind::Write("DELETE"),
        "erase" => Kind::Write("ERASE"),
        "assert" => Kind::Write("ASSERT"),
        "create" | "drop" | "alter" => define(first, words),
        "explain" => match words.tokens().iter().any(|token| is_word(token, "projection")) {
            true => Kind::Bare,
            false => Kind::Query,
        },
        _ => query(words),
    }
}

fn is_word(token: &Token, expected: &str) -> bool {
    matches!(token, Token::Word(word) if word.value.eq_ignore_ascii_case(expected))
}

/// Returns the command tag of a definition, as clients know it.
fn define(first: &str, words: &Words) -> Kind {
    let objects = ["table", "stream", "mapping", "projection", "index", "view"];
    let object = words
        .tokens()
        .iter()
        .skip(1)
        .find_map(|token| objects.into_iter().find(|object| is_word(token, object)));
    Kind::Define(match (first, object) {
        ("create", Some("table")) => "CREATE TABLE",
        ("create", Some("stream")) => "CREATE STREAM",
        ("create", Some("mapping")) => "CREATE MAPPING",
        ("create", Some("projection")) => "CREATE PROJECTION",
        ("create", Some("index")) => "CREATE INDEX",
        ("create", Some("view")) => "CREATE VIEW",
        ("create", _) => "CREATE",
        ("drop", Some("table")) => "DROP TABLE",
        ("drop", Some("stream")) => "DROP STREAM",
        ("drop", Some("mapping")) => "DROP MAPPING",
        ("drop", Some("projection")) => "DROP PROJECTION",
        ("drop", Some("index")) => "DROP INDEX",
        ("drop", Some("view")) => "DROP VIEW",
        ("drop", _) => "DROP",
        (_, Some("table")) => "ALTER TABLE",
        (_, Some("projection")) => "ALTER PROJECTION",
        (_, Some("stream")) => "ALTER STREAM",
        _ => "ALTER",
    })
}

/// Tells queries of tables from those of Postgres' own catalogs and from those of neither.
fn query(words: &Words) -> Kind {
    let tokens = words.tokens();
    let mut from = false;
    for (at, token) in tokens.iter().enumerate() {
        let Token::Word(word) = token else { continue };
        let name = word.value.to_lowercase();
        let called = tokens.get(at + 1) == Some(&Token::LParen);
        let qualified = at > 0 && tokens[at - 1] == Token::Period;
        let cast = at > 0 && tokens[at - 1] == Token::DoubleColon;
        let catalog = match word.quote_style {
            Some(_) if !qualified => name == "pg_catalog" || name == "information_schema",
            _ => is_catalog(&name, called, cast),
        };
        if catalog {
            return Kind::Catalog;
        }
        // The table may be of a `SETTING ..` or WITH before it as well.
        from |= word.quote_style.is_none() && matches!(name.as_str(), "from" | "table" | "join");
    }
    if from { Kind::Query } else { Kind::Bare }
}

/// True for names that only Postgres' own catalogs have.
fn is_catalog(name: &str, called: bool, cast: bool) -> bool {
    const FUNCTIONS: &[&str] = &[
        "version",
        "current_schema",
        "current_schemas",
        "current_database",
        "current_setting",
        "set_config",
        "format_type",
        "obj_description",
        "col_description",
        "shobj_description",
        "to_regclass",
        "to_regtype",
        "has_table_privilege",
        "has_schema_privilege",
        "has_database_privilege",
        "has_any_column_privilege",
        "inet_server_addr",
        "inet_server_port",
        "txid_current",
    ];
    const WORDS: &[&str] =
        &["current_user", "session_user", "current_catalog", "current_role", "information_schema"];
    if name.starts_with("pg_") || WORDS.contains(&name) {
        return true;
    }
    (called && FUNCTIONS.contains(&name))
        || (cast && matches!(name, "regclass" | "regtype" | "regproc" | "regnamespace" | "oid"))
        || (name == "current_schema")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(sql: &str) -> Command {
        Command::of(sql).unwrap_or_else(|failure| panic!("{sql}: {failure:?}"))
    }

    #[test]
    fn transactions_have_modes_and_options() {
        let begin = |read_only| Command::Begin(Begin { read_only, ..Begin::default() });
        assert_eq!(command("BEGIN"), begin(None));
        assert_eq!(
            command("start transaction isolation level repeatable read, read only"),
            begin(Some(true))
        );
        assert_eq!(command("BEGIN READ WRITE;"), begin(Some(false)));
        let sql =
            "BEGIN READ ONLY WITH (SNAPSHOT_TOKEN = 'abc', CLOCK_TIME = TIMESTAMP '2026-01-05')";
        let expected = Begin {
            read_only: Some(true),
            snapshot_token: Some("abc".to_owned()),
            clock_time: Some("2026-01-05".to_owned()),
            system_time: None,
        };
        assert_eq!(command(sql), Command::Begin(expected));
        assert_eq!(command("END"), Command::Commit);
        assert_eq!(command("ABORT WORK"), Command::Rollback);
        assert_eq!(command("ROLLBACK TO SAVEPOINT a"), Command::RollbackTo("a".to_owned()));
        assert_eq!(command("SAVEPOINT \"A b\""), Command::Savepoint("A b".to_owned()));
        for (sql, state) in [
            ("PREPARE a AS SELECT 1", "0A000"),
            ("BEGIN WITH (COLOUR = 'red')", "42704"),
            ("BEGIN nonsense", "42601"),
            ("COMMIT PREPARED 'x'", "0A000"),
        ] {
            assert_eq!(Command::of(sql).unwrap_err().sqlstate, state, "{sql}");
        }
    }

    #[test]
    fn settings_are_set_shown_and_reset() {
        let set = |name: &str, value: &str| Command::Set {
            name: name.to_owned(),
            value: Some(value.to_owned()),
        };
        assert_eq!(command("SET application_name = 'x'"), set("application_name", "x"));
        assert_eq!(command("SET extra_float_digits TO 3"), set("extra_float_digits", "3"));
        assert_eq!(command("SET SESSION DateStyle = ISO, MDY"), set("datestyle", "ISO, MDY"));
        assert_eq!(command("SET TIME ZONE 'UTC'"), set("timezone", "UTC"));
        assert_eq!(
            command("SET valid_time = TIMESTAMP '2026-01-05'"),
            set("valid_time", "2026-01-05")
        );
        let default = Command::Set { name: "valid_time".to_owned(), value: None };
        assert_eq!(command("SET valid_time TO DEFAULT"), default);
        assert_eq!(command("RESET ALL"), Command::Reset(None));
        assert_eq!(command("SHOW TIME ZONE"), Command::Show("timezone".to_owned()));
        assert_eq!(command("SHOW snapshot_token"), Command::Sql(Kind::Bare));
        let all = "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY";
        assert_eq!(command(all), Command::Mode { read_only: Some(true), session: true });
    }

    #[test]
    fn statements_are_told_apart_by_what_they_touch() {
        for (sql, kind) in [
            ("SELECT * FROM t", Kind::Query),
            ("SELECT 1", Kind::Bare),
            ("(SELECT a FROM t)", Kind::Query),
            ("WITH x AS (SELECT * FROM t) SELECT 1", Kind::Query),
            ("SELECT version()", Kind::Catalog),
            ("SELECT version FROM t", Kind::Query),
            ("select pg_catalog.version()", Kind::Catalog),
            ("SELECT * FROM information_schema.tables", Kind::Catalog),
            ("SELECT 'a'::regclass", Kind::Catalog),
            ("SELECT 'pg_class' FROM t", Kind::Query),
            ("INSERT INTO t VALUES (1)", Kind::Write("INSERT 0")),
            ("create or replace stream s", Kind::Define("CREATE STREAM")),
            ("alter stream s skip", Kind::Define("ALTER STREAM")),
            ("EXPLAIN SELECT * FROM t", Kind::Query),
        ] {
            assert_eq!(command(sql), Command::Sql(kind), "{sql}");
        }
        assert_eq!(command(" "), Command::Empty);
        assert_eq!(command("-- nothing"), Command::Empty);
        assert_eq!(command(";"), Command::Empty);
    }

    #[test]
    fn fuzzed_statements_of_the_session_are_read_or_refused() {
        let corpus = [
            "BEGIN READ ONLY WITH (SNAPSHOT_TOKEN = 'x', CLOCK_TIME = TIMESTAMP '2026-01-05')",
            "START TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ WRITE, NOT DEFERRABLE",
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
            "SET LOCAL a.b TO 'x', -5, y",
            "SET TIME ZONE INTERVAL '+00:00'",
            "ROLLBACK TO SAVEPOINT \"S p\"",
            "SHOW TRANSACTION ISOLATION LEVEL",
            "DEALLOCATE PREPARE ALL",
            "COPY (SELECT a, (b) FROM t) TO STDOUT (FORMAT csv, HEADER true, NULL '')",
            "COPY \"T\".t (a, \"B\") FROM STDIN WITH CSV DELIMITER E'\\t'",
            "SELECT pg_catalog.version(), 'x'::regclass FROM information_schema.tables",
            "CREATE OR REPLACE VIEW v AS SELECT 1",
            "-- nothing",
        ];
        let words = ["READ", "ONLY", "TO", "WITH", "ALL", "FORMAT", "STDIN", "STDOUT", "PREPARE"];
        everwhen_fuzz::Fuzz::text("statements of a session", corpus)
            .words(&words)
            .run_text(|text| Command::of(text).is_ok());
    }
}
