//! COPY: rows of a query out, rows of a client in, in the text and csv formats.

use datafusion::sql::sqlparser::tokenizer::Token;
use everwhen_query::Params;
use everwhen_storage::ColumnType;
use serde_json::Value as Json;

use super::command::{Command, Kind};
use super::connection::{Connection, Stop};
use super::input::{Message, not_utf8, violation};
use super::parameters::from_text;
use super::session::{Call, Reply};
use super::transaction::{Transaction, Writes};
use super::words::{Words, syntax};
use crate::failure::{Answered, Failure};

/// A COPY statement.
#[derive(Debug, Clone, PartialEq)]
pub struct Copy {
    /// What is copied: a query, or a table to write to.
    of: Of,
    form: Form,
}

#[derive(Debug, Clone, PartialEq)]
enum Of {
    /// `COPY (query) TO STDOUT`, `COPY t TO STDOUT`.
    Query(String),
    /// `COPY t (columns) FROM STDIN`: the table and the columns as they stand in SQL.
    Table { table: String, columns: Vec<String> },
}

/// How rows are written.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Form {
    csv: bool,
    header: bool,
    delimiter: u8,
    quote: u8,
    escape: u8,
    null: String,
}

impl Form {
    const fn text() -> Self {
        let null = String::new();
        Self { csv: false, header: false, delimiter: b'\t', quote: b'"', escape: b'"', null }
    }
}

impl Copy {
    /// Reads a statement.
    ///
    /// # Errors
    /// 42601 for what is none, 0A000 for files, programs and formats that there are none of.
    pub fn of(sql: &str) -> Answered<Self> {
        let mut words = Words::of(sql);
        words.accept(&["copy"]);
        let query = words.accept_sign(&Token::LParen);
        if query {
            return Self::of_query(sql, words);
        }
        let mut table = quoted(&words.name()?);
        while words.accept_sign(&Token::Period) {
            table = format!("{table}.{}", quoted(&words.name()?));
        }
        let mut columns = Vec::new();
        if words.accept_sign(&Token::LParen) {
            loop {
                columns.push(quoted(&words.name()?));
                if !words.accept_sign(&Token::Comma) {
                    break;
                }
            }
            if !words.accept_sign(&Token::RParen) {
                return Err(syntax("expected a closing parenthesis after the columns"));
            }
        }
        let into = direction(&mut words)?;
        let form = form(&mut words)?;
        let of = match into {
            true => Of::Table { table, columns },
            false => {
                let items = if columns.is_empty() { "*".to_owned() } else { columns.join(", ") };
                Of::Query(format!("SELECT {items} FROM {table}"))
            }
        };
        Ok(Self { of, form })
    }

    fn of_query(sql: &str, mut words: Words) -> Answered<Self> {
        let mut depth = 1;
        while depth > 0 {
            match words.take() {
                Some(Token::LParen) => depth += 1,
                Some(Token::RParen) => depth -= 1,
                Some(_) => {}
                None => return Err(syntax("expected a closing parenthesis after the query")),
            }
        }
        if direction(&mut words)? {
            return Err(syntax("COPY FROM needs a table"));
        }
        let form = form(&mut words)?;
        let query = parenthesized(sql).ok_or_else(|| syntax("expected a query in parentheses"))?;
        Ok(Self { of: Of::Query(query.to_owned()), form })
    }

    /// True for rows that come from the client.
    pub const fn is_in(&self) -> bool {
        matches!(self.of, Of::Table { .. })
    }
}

/// Returns what stands between the first parenthesis and the one that closes it.
fn parenthesized(sql: &str) -> Option<&str> {
    use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
    use datafusion::sql::sqlparser::tokenizer::Tokenizer;
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, sql).tokenize_with_location().ok()?;
    let positions = everwhen_query::dialect::Positions::new(sql);
    let (mut depth, mut start) = (0_usize, None);
    for token in tokens {
        match token.token {
            Token::LParen => {
                if depth == 0 {
                    start = positions.byte(sql, token.span.end);
                }
                depth += 1;
            }
            Token::RParen => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return sql.get(start?..positions.byte(sql, token.span.start)?);
                }
            }
            _ => {}
        }
    }
    None
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Reads `FROM STDIN` or `TO STDOUT`; true for the first.
fn direction(words: &mut Words) -> Answered<bool> {
    if words.accept(&["from"]) {
        if words.accept(&["stdin"]) {
            return Ok(true);
        }
    } else if !words.accept(&["to"]) {
        return Err(syntax("expected FROM STDIN or TO STDOUT"));
    } else if words.accept(&["stdout"]) {
        return Ok(false);
    }
    let detail = "COPY reaches no file or program of the server";
    Err(Failure::of_sqlstate("0A000", detail.to_owned())
        .with_hint("use FROM STDIN or TO STDOUT, or \\copy of psql"))
}

/// Reads `[WITH] (FORMAT csv, HEADER, ..)` or the older `[WITH] CSV HEADER ..`.
fn form(words: &mut Words) -> Answered<Form> {
    let mut form = Form::text();
    let (mut null, mut delimiter) = (None, None);
    words.accept(&["with"]);
    let listed = words.accept_sign(&Token::LParen);
    while !words.is_over() && !words.accept_sign(&Token::RParen) {
        let option = words.name()?;
        match option.as_str() {
            "format" => match words.value()?.to_lowercase().as_str() {
                "csv" => form.csv = true,
                "text" => {}
                other => return Err(unsupported(&format!("COPY in the format {other}"))),
            },
            "csv" => form.csv = true,
            "binary" => return Err(unsupported("COPY in the format binary")),
            "header" => form.header = header(words)?,
            "delimiter" | "delimiters" => {
                words.accept(&["as"]);
                delimiter = Some(character(words)?);
            }
            "null" => {
                words.accept(&["as"]);
                null = Some(words.value()?);
            }
            "quote" => {
                words.accept(&["as"]);
                form.quote = character(words)?;
                form.escape = form.quote;
            }
            "escape" => {
                words.accept(&["as"]);
                form.escape = character(words)?;
            }
            "encoding" => {
                let encoding = words.value()?.to_lowercase();
                if !matches!(encoding.as_str(), "utf8" | "utf-8" | "unicode") {
                    return Err(unsupported("COPY in an encoding other than UTF8"));
                }
            }
            "freeze" => drop(header(words)?),
            other => return Err(unsupported(&format!("COPY with {}", other.to_uppercase()))),
        }
        if listed {
            words.accept_sign(&Token::Comma);
        }
    }
    words.finish()?;
    form.delimiter = delimiter.unwrap_or(if form.csv { b',' } else { b'\t' });
    form.null = null.unwrap_or_else(|| if form.csv { String::new() } else { "\\N".to_owned() });
    Ok(form)
}

fn header(words: &mut Words) -> Answered<bool> {
    match words.word().as_deref() {
        Some("true" | "on" | "match") => words.value().map(|_| true),
        Some("false" | "off") => words.value().map(|_| false),
        _ => Ok(true),
    }
}

fn character(words: &mut Words) -> Answered<u8> {
    let text = words.value()?;
    let text = if text == "\\t" { "\t" } else { &text };
    match text.as_bytes() {
        [one] if one.is_ascii() && !matches!(one, b'\n' | b'\r') => Ok(*one),
        _ => Err(syntax("expected one character")),
    }
}

fn unsupported(what: &str) -> Failure {
    Failure::of_sqlstate("0A000", format!("{what} is not supported"))
}

/// Sends the rows of a query.
pub async fn copy_out(connection: &mut Connection, copy: &Copy) -> Result<(), Stop> {
    let Of::Query(sql) = &copy.of else {
        return Err(Failure::internal(&"a COPY FROM was taken for a COPY TO").into());
    };
    let command = Command::of(sql)?;
    if !matches!(command, Command::Sql(Kind::Query | Kind::Bare | Kind::Catalog)) {
        return Err(unsupported("COPY of another statement than a query").into());
    }
    let call = Call { sql, command: &command, params: Params::None };
    let reply = connection.attend(async |session| session.run(call).await).await?;
    let Reply::Rows(mut cursor) = reply else {
        return Err(Failure::internal(&"a query answered no rows").into());
    };
    let form = &copy.form;
    connection.output.copy_out(cursor.columns.len());
    let mut rows = 0_u64;
    if form.header {
        let names: Vec<_> = cursor.columns.iter().map(|column| column.name.clone()).collect();
        connection.output.copy_data(|out| {
            let names = names.iter().map(|name| Some(name.as_bytes()));
            line(form, names, &mut |bytes| out.extend_from_slice(bytes));
            Ok(())
        })?;
    }
    let mut values: Vec<Option<bytes::BytesMut>> = Vec::new();
    loop {
        let more = connection.attend(async |_| {
            let Some((columns, arrays, row)) = cursor.next_row().await? else { return Ok(false) };
            values.clear();
            for (column, array) in columns.iter().zip(arrays) {
                let mut text = bytes::BytesMut::new();
                values.push(match array.is_null(row) {
                    true => None,
                    false => {
                        column.text(array, row, &mut text)?;
                        Some(text)
                    }
                });
            }
            Ok(true)
        });
        if !more.await? {
            break;
        }
        rows += 1;
        connection.output.copy_data(|out| {
            let values = values.iter().map(|value| value.as_deref());
            line(form, values, &mut |bytes| out.extend_from_slice(bytes));
            Ok(())
        })?;
        connection.output.relieve().await?;
    }
    connection.output.copy_done();
    connection.output.complete(&format!("COPY {rows}"));
    Ok(())
}

/// Writes one line.
fn line<'v>(
    form: &Form,
    values: impl Iterator<Item = Option<&'v [u8]>>,
    out: &mut dyn FnMut(&[u8]),
) {
    for (place, value) in values.enumerate() {
        if place > 0 {
            out(&[form.delimiter]);
        }
        match value {
            None => out(form.null.as_bytes()),
            Some(value) if form.csv => csv_value(form, value, out),
            Some(value) => text_value(form, value, out),
        }
    }
    out(b"\n");
}

fn csv_value(form: &Form, value: &[u8], out: &mut dyn FnMut(&[u8])) {
    let special = |b: &u8| matches!(*b, b'\n' | b'\r') || *b == form.delimiter || *b == form.quote;
    if !value.iter().any(special) && value != form.null.as_bytes() && value != b"\\." {
        return out(value);
    }
    out(&[form.quote]);
    for byte in value {
        if *byte == form.quote || *byte == form.escape {
            out(&[form.escape]);
        }
        out(&[*byte]);
    }
    out(&[form.quote]);
}

fn text_value(form: &Form, value: &[u8], out: &mut dyn FnMut(&[u8])) {
    for byte in value {
        match *byte {
            b'\\' => out(b"\\\\"),
            b'\n' => out(b"\\n"),
            b'\r' => out(b"\\r"),
            b'\t' => out(b"\\t"),
            other if other == form.delimiter => out(&[b'\\', other]),
            other => out(&[other]),
        }
    }
}

/// Takes rows from the client, and writes them as one transaction.
pub async fn copy_in(connection: &mut Connection, copy: &Copy) -> Result<(), Stop> {
    let Of::Table { table, columns } = &copy.of else {
        return Err(Failure::internal(&"a COPY TO was taken for a COPY FROM").into());
    };
    let (insert, kinds) = target(connection, table, columns).await?;
    connection.output.copy_in(kinds.len());
    connection.output.flush().await?;
    let mut reader = Reader::new(copy.form.clone());
    let mut writes = Writes::default();
    let bytes_max = connection.session.services.limits.body_bytes_max;
    let mut fault = None;
    let mut rows = 0_u64;
    loop {
        match connection.input.message().await {
            Ok(Some(Message::CopyData(bytes))) if fault.is_none() => {
                let mut keep = |row: Vec<Option<String>>| {
                    rows += 1;
                    let params = params(row, &kinds, rows)?;
                    writes.push(&insert, params, bytes_max)
                };
                // What comes after a fault is passed over, as the client may send it all first.
                fault = reader.take(&bytes, &mut keep).err();
            }
            Ok(Some(Message::CopyData(_) | Message::Flush | Message::Sync)) => {}
            Ok(Some(Message::CopyDone)) => break,
            Ok(Some(Message::CopyFail(why))) => {
                let detail = format!("COPY was given up by the client: {why}");
                return Err(Failure::of_sqlstate("57014", detail).into());
            }
            Ok(Some(Message::Terminate) | None) => return Err(Stop::Gone),
            Ok(Some(_)) => return Err(violation("a COPY has not ended").into()),
            Err(failure) => return Err(failure.into()),
        }
    }
    let mut keep = |row: Vec<Option<String>>| {
        rows += 1;
        writes.push(&insert, params(row, &kinds, rows)?, bytes_max)
    };
    if let Some(failure) = fault.or_else(|| reader.end(&mut keep).err()) {
        return Err(failure.into());
    }
    connection.attend(async |session| session.write_copied(writes, &insert).await).await?;
    connection.output.complete(&format!("COPY {rows}"));
    Ok(())
}

/// Returns the INSERT of one row and the types of its columns.
async fn target(
    connection: &mut Connection,
    table: &str,
    columns: &[String],
) -> Result<(String, Vec<Option<ColumnType>>), Stop> {
    let columns = match columns.is_empty() {
        false => columns.to_vec(),
        true => {
            let star = format!("SELECT * FROM {table}");
            let found = connection
                .attend(async |session| session.describe(&star, Params::None).await)
                .await?;
            let shape = found.columns.map(|shape| shape.columns).unwrap_or_default();
            shape.iter().map(|(name, _)| quoted(name)).collect()
        }
    };
    let values: Vec<_> = (1..=columns.len()).map(|at| format!("${at}")).collect();
    let insert =
        format!("INSERT INTO {table} ({}) VALUES ({})", columns.join(", "), values.join(", "));
    let described = connection
        .attend(async |session| {
            let kind = Kind::Write("COPY");
            let token = session.settings.snapshot_token().map(str::to_owned);
            let services = std::sync::Arc::clone(&session.services);
            session.transaction.admit(&services, kind, token.as_deref())?;
            session.describe(&insert, Params::None).await
        })
        .await?;
    Ok((insert, described.parameters))
}

fn params(row: Vec<Option<String>>, kinds: &[Option<ColumnType>], line: u64) -> Answered<Params> {
    if row.len() != kinds.len() {
        let detail =
            format!("row {line} of COPY has {} values, {} were expected", row.len(), kinds.len());
        return Err(Failure::of_sqlstate("22P04", detail));
    }
    let values = row.into_iter().zip(kinds).map(|(value, kind)| {
        let json = match (value, kind) {
            (None, _) => Json::Null,
            (Some(text), None) => text.into(),
            (Some(text), Some(kind)) => from_text(&text, kind).map_err(|failure| Failure {
                detail: format!("row {line} of COPY: {}", failure.detail),
                ..failure
            })?,
        };
        Ok((json, kind.clone()))
    });
    Ok(Params::Typed(values.collect::<Answered<_>>()?))
}

/// Reads rows out of pieces of a COPY, wherever the pieces are cut.
struct Reader {
    form: Form,
    /// Of the row that has not ended.
    value: Vec<u8>,
    row: Vec<Option<String>>,
    state: At,
    /// True where the value had quotes, so that it is not NULL.
    was_quoted: bool,
    header: bool,
    ended: bool,
    begun: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Plain,
    /// After a backslash of the text format.
    Escaped,
    /// Within quotes.
    Quoted,
    /// After a quote or escape within quotes.
    QuotedEscape,
    /// After a carriage return.
    Return,
}

type Keep<'k> = &'k mut dyn FnMut(Vec<Option<String>>) -> Answered<()>;

impl Reader {
    const fn new(form: Form) -> Self {
        let header = form.header;
        Self {
            form,
            value: Vec::new(),
            row: Vec::new(),
            state: At::Plain,
            was_quoted: false,
            header,
            ended: false,
            begun: false,
        }
    }

    fn take(&mut self, bytes: &[u8], keep: Keep<'_>) -> Answered<()> {
        bytes.iter().try_for_each(|byte| self.step(*byte, keep))
    }

    /// Ends the last row, where it has no line end.
    fn end(&mut self, keep: Keep<'_>) -> Answered<()> {
        if matches!(self.state, At::Quoted) {
            let detail = "COPY ended within a quoted value".to_owned();
            return Err(Failure::of_sqlstate("22P04", detail));
        }
        match self.begun {
            true => self.end_row(keep),
            false => Ok(()),
        }
    }

    fn step(&mut self, byte: u8, keep: Keep<'_>) -> Answered<()> {
        if self.ended {
            return Ok(());
        }
        if self.state == At::Return {
            self.state = At::Plain;
            if byte == b'\n' {
                return Ok(());
            }
        }
        match self.state {
            At::Quoted if byte == self.form.escape && self.form.escape != self.form.quote => {
                self.state = At::QuotedEscape;
            }
            At::Quoted if byte == self.form.quote => self.state = At::QuotedEscape,
            At::Quoted => self.value.push(byte),
            At::QuotedEscape if byte == self.form.quote || byte == self.form.escape => {
                self.value.push(byte);
                self.state = At::Quoted;
            }
            At::QuotedEscape => {
                self.state = At::Plain;
                return self.plain(byte, keep);
            }
            At::Escaped => self.escaped(byte),
            At::Plain | At::Return => return self.plain(byte, keep),
        }
        Ok(())
    }

    fn plain(&mut self, byte: u8, keep: Keep<'_>) -> Answered<()> {
        self.begun = true;
        match byte {
            b'\n' => return self.end_row(keep),
            b'\r' => {
                self.end_row(keep)?;
                self.state = At::Return;
            }
            byte if byte == self.form.delimiter => return self.end_value(),
            byte if self.form.csv && byte == self.form.quote => {
                self.was_quoted = true;
                self.state = At::Quoted;
            }
            b'\\' if !self.form.csv => {
                self.value.push(b'\\');
                self.state = At::Escaped;
            }
            byte => self.value.push(byte),
        }
        Ok(())
    }

    /// Keeps `\N` and `\.` as they are until the value ends, and reads the other escapes.
    fn escaped(&mut self, byte: u8) {
        self.state = At::Plain;
        let first = self.value.len() == 1;
        if first && (byte == b'N' || byte == b'.') {
            self.value.push(byte);
            return;
        }
        self.value.pop();
        self.was_quoted = true;
        self.value.push(match byte {
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 11,
            other => other,
        });
    }

    fn end_value(&mut self) -> Answered<()> {
        let value = std::mem::take(&mut self.value);
        let quoted = std::mem::take(&mut self.was_quoted);
        if !quoted && value == self.form.null.as_bytes() {
            self.row.push(None);
            return Ok(());
        }
        self.row.push(Some(String::from_utf8(value).map_err(|_| not_utf8())?));
        Ok(())
    }

    fn end_row(&mut self, keep: Keep<'_>) -> Answered<()> {
        self.begun = false;
        if self.row.is_empty() && self.value == b"\\." && !self.was_quoted {
            self.ended = true;
            return Ok(());
        }
        self.end_value()?;
        let row = std::mem::take(&mut self.row);
        if std::mem::take(&mut self.header) {
            return Ok(());
        }
        keep(row)
    }
}

/// Keeps the copied rows for COMMIT, or writes them at once.
impl super::session::Session {
    /// Writes the rows of a COPY: at once, or with the transaction they stand in.
    ///
    /// # Errors
    /// Whatever is wrong with them.
    pub async fn write_copied(&mut self, copied: Writes, insert: &str) -> Answered<()> {
        let bytes_max = self.services.limits.body_bytes_max;
        if let Transaction::Writing(writes) = &mut self.transaction {
            return copied
                .take()
                .into_iter()
                .try_for_each(|(_, params)| writes.push(insert, params, bytes_max));
        }
        self.write_all(copied).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(sql: &str) -> Copy {
        Copy::of(sql).unwrap_or_else(|failure| panic!("{sql}: {failure:?}"))
    }

    fn read(sql: &str, pieces: &[&str]) -> Vec<Vec<Option<String>>> {
        let mut reader = Reader::new(copy(sql).form);
        let mut rows = Vec::new();
        let mut keep = |row| {
            rows.push(row);
            Ok(())
        };
        for piece in pieces {
            reader.take(piece.as_bytes(), &mut keep).unwrap();
        }
        reader.end(&mut keep).unwrap();
        rows
    }

    fn row(values: &[Option<&str>]) -> Vec<Option<String>> {
        values.iter().map(|value| value.map(str::to_owned)).collect()
    }

    #[test]
    fn statements_are_read_in_both_forms() {
        let table = |sql: &str| match copy(sql).of {
            Of::Table { table, columns } => (table, columns),
            Of::Query(query) => panic!("{query}"),
        };
        assert_eq!(table("COPY t FROM STDIN").0, "\"t\"");
        let columns = vec!["\"a\"".to_owned(), "\"B\"".to_owned()];
        assert_eq!(table("copy T (a, \"B\") from stdin csv header"), ("\"t\"".to_owned(), columns));
        let query = |sql: &str| match copy(sql).of {
            Of::Query(query) => query,
            Of::Table { table, .. } => panic!("{table}"),
        };
        assert_eq!(query("COPY (SELECT ')', (1)) TO STDOUT"), "SELECT ')', (1)");
        assert_eq!(query("COPY t (a) TO STDOUT (FORMAT csv)"), "SELECT \"a\" FROM \"t\"");
        let form =
            copy("COPY t TO STDOUT WITH (FORMAT csv, HEADER true, DELIMITER ';', NULL '-')").form;
        assert!(form.csv && form.header);
        assert_eq!((form.delimiter, form.null.as_str()), (b';', "-"));
        for (sql, state) in [
            ("COPY t FROM '/etc/passwd'", "0A000"),
            ("COPY t TO PROGRAM 'x'", "0A000"),
            ("COPY t FROM STDIN (FORMAT binary)", "0A000"),
            ("COPY t", "42601"),
            ("COPY (SELECT 1) FROM STDIN", "42601"),
        ] {
            assert_eq!(Copy::of(sql).unwrap_err().sqlstate, state, "{sql}");
        }
    }

    #[test]
    fn text_rows_are_read_wherever_they_are_cut() {
        let text = "COPY t FROM STDIN";
        let expected = vec![
            row(&[Some("a"), None]),
            row(&[Some("b\tc\n"), Some("")]),
            row(&[Some("\\N"), Some("x")]),
        ];
        let whole = "a\t\\N\nb\\tc\\n\t\n\\\\N\tx\n\\.\n";
        assert_eq!(read(text, &[whole]), expected);
        let bytes: Vec<_> = whole.split_inclusive(|_| true).collect();
        assert_eq!(read(text, &bytes), expected);
        assert_eq!(read(text, &["a\tb"]), vec![row(&[Some("a"), Some("b")])]);
    }

    #[test]
    fn csv_rows_tell_null_from_empty() {
        let csv = "COPY t FROM STDIN (FORMAT csv, HEADER)";
        let rows = read(csv, &["a,b\r\n1,\r\n\"x \"\"y\"\",\nz\",\"\"\r\n"]);
        assert_eq!(rows, vec![row(&[Some("1"), None]), row(&[Some("x \"y\",\nz"), Some("")])]);
    }

    #[test]
    fn lines_read_back() {
        for sql in ["COPY t FROM STDIN", "COPY t FROM STDIN CSV"] {
            let form = copy(sql).form;
            let values = [Some("a,\t\"b\"\\\n"), None, Some(""), Some("\\N")];
            let mut out = Vec::new();
            let bytes = values.iter().map(|value| value.map(str::as_bytes));
            line(&form, bytes, &mut |bytes| out.extend_from_slice(bytes));
            assert_eq!(
                read(sql, &[std::str::from_utf8(&out).unwrap()]),
                vec![row(&values)],
                "{sql}"
            );
        }
    }

    #[test]
    fn fuzzed_rows_are_read_or_refused() {
        let kinds = [None, Some(ColumnType::Int64), Some(ColumnType::Bytes)];
        let rows = ["a\t1\t\\x0a\n\\N\t2\t\\\\x\r\n\\.\n", "a,1,\"x\"\"y\"\n,,\"\"\n", "!a!;1;x\n"];
        let rows = rows.map(|rows| rows.as_bytes().to_vec());
        let csv = "COPY t FROM STDIN (FORMAT csv, HEADER, DELIMITER ';', QUOTE '!', ESCAPE '?')";
        for sql in ["COPY t FROM STDIN", "COPY t FROM STDIN (FORMAT csv)", csv] {
            let form = copy(sql).form;
            everwhen_fuzz::Fuzz::bytes(sql, rows.clone()).run(|bytes| {
                let (mut reader, mut line) = (Reader::new(form.clone()), 0);
                let mut keep = |row: Vec<Option<String>>| {
                    line += 1;
                    params(row, &kinds, line).map(drop)
                };
                // Cut anywhere, as a network does.
                let cut = bytes.len() / 2;
                let taken = reader.take(&bytes[..cut], &mut keep);
                let taken = taken.and_then(|()| reader.take(&bytes[cut..], &mut keep));
                taken.and_then(|()| reader.end(&mut keep)).is_ok()
            });
        }
    }
}
