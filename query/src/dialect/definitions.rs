//! Our own definition statements: tables, streams, mappings, projections, and their dropping.

use std::collections::BTreeMap;

use datafusion::sql::sqlparser::ast::{Query, SetExpr, Spanned};
use datafusion::sql::sqlparser::tokenizer::{Span, Token};
use everwhen_storage::{ColumnType, DefinitionKind, Precedence};

use super::cursor::Cursor;
use super::retention;
use super::types::column_type;
use super::{ParseLimits, ParsedStatement, indexes, parse_query_text, views};
use crate::error::{Error, Result, SqlState};
use crate::statements::{
    CreateMapping, CreateProjection, CreateStream, CreateTable, DeclaredColumn,
    DefinitionStatement, DropDefinition, DropTable, ExplainProjection, Format, KafkaSource,
    MappingVerb,
};

type Options = BTreeMap<String, (String, usize)>;

/// What stands between CREATE and the name.
#[derive(Clone, Copy)]
pub(super) struct Heading {
    pub(super) or_replace: bool,
    pub(super) if_not_exists: bool,
    pub(super) temporary: bool,
}

/// Reads a statement that begins with CREATE.
pub fn create(cursor: &mut Cursor<'_, '_>, limits: &ParseLimits) -> Result<ParsedStatement> {
    cursor.expect(&["create"])?;
    let replace_position = cursor.position();
    let or_replace = cursor.accept(&["or", "replace"]);
    let kind_position = cursor.position();
    let temporary = cursor.accept(&["temporary"]) || cursor.accept(&["temp"]);
    let kind = match cursor.peek() {
        Some(Token::Word(word)) => word.value.to_ascii_lowercase(),
        _ => return Err(cursor.expected("TABLE, VIEW, INDEX, STREAM, MAPPING or PROJECTION")),
    };
    let kinds = ["table", "view", "index", "stream", "mapping", "projection"];
    if !kinds.contains(&kind.as_str()) || (temporary && kind != "view") {
        let temporary = if temporary { "TEMPORARY " } else { "" };
        let message = format!("CREATE {temporary}{} is not supported", kind.to_uppercase());
        return Err(Error::unsupported(message).at(kind_position));
    }
    cursor.at += 1;
    let if_not_exists = cursor.accept(&["if", "not", "exists"]);
    let heading = Heading { or_replace, if_not_exists, temporary };
    if or_replace && (if_not_exists || kind == "table") {
        let message = format!(
            "OR REPLACE cannot stand with {}",
            if if_not_exists { "IF NOT EXISTS" } else { "CREATE TABLE" }
        );
        return Err(Error::unsupported(message).at(replace_position));
    }
    let define = match kind.as_str() {
        "table" => return Ok(ParsedStatement::CreateTable(create_table(cursor, heading)?)),
        "view" => return Ok(ParsedStatement::CreateView(views::create(cursor, heading, limits)?)),
        "index" => DefinitionStatement::CreateIndex(indexes::create(cursor, heading)?),
        "stream" => DefinitionStatement::CreateStream(create_stream(cursor, heading)?),
        "mapping" => DefinitionStatement::CreateMapping(create_mapping(cursor, heading, limits)?),
        _ => DefinitionStatement::CreateProjection(create_projection(cursor, heading, limits)?),
    };
    Ok(ParsedStatement::Define(define))
}

/// Reads a statement that begins with DROP.
pub fn drop(cursor: &mut Cursor<'_, '_>) -> Result<ParsedStatement> {
    cursor.expect(&["drop"])?;
    let kind_position = cursor.position();
    if cursor.accept(&["view"]) {
        return Ok(ParsedStatement::DropView(views::drop(cursor)?));
    }
    if cursor.accept(&["index"]) {
        let drop = DefinitionStatement::DropIndex(indexes::drop(cursor)?);
        return Ok(ParsedStatement::Define(drop));
    }
    let kind = if cursor.accept(&["table"]) {
        None
    } else if cursor.accept(&["stream"]) {
        Some(DefinitionKind::Stream)
    } else if cursor.accept(&["mapping"]) {
        Some(DefinitionKind::Mapping)
    } else if cursor.accept(&["projection"]) {
        Some(DefinitionKind::Projection)
    } else if let Some(Token::Word(word)) = cursor.peek() {
        let message = format!("DROP {} is not supported", word.value.to_uppercase());
        return Err(Error::unsupported(message).at(kind_position));
    } else {
        return Err(cursor.expected("TABLE, VIEW, INDEX, STREAM, MAPPING or PROJECTION"));
    };
    let if_exists = cursor.accept(&["if", "exists"]);
    let (name, position) = match kind {
        None => table_name(cursor)?,
        Some(_) => cursor.name("a name")?,
    };
    cursor.finish()?;
    Ok(match kind {
        None => ParsedStatement::DropTable(DropTable { name, if_exists, position }),
        Some(kind) => ParsedStatement::Define(DefinitionStatement::Drop(DropDefinition {
            kind,
            name,
            if_exists,
            position,
        })),
    })
}

/// Reads what follows EXPLAIN where it is PROJECTION or CREATE PROJECTION.
pub fn explain_projection(
    cursor: &mut Cursor<'_, '_>,
    limits: &ParseLimits,
) -> Result<ExplainProjection> {
    if cursor.sees(&["create"]) {
        let start = cursor.at;
        let sql = cursor.text.text_from(start).to_owned();
        return match create(cursor, limits)? {
            ParsedStatement::Define(DefinitionStatement::CreateProjection(projection)) => {
                Ok(ExplainProjection::Create(Box::new(CreateProjection { sql, ..projection })))
            }
            _ => Err(Error::unsupported("EXPLAIN CREATE explains projections alone")
                .at(cursor.text.position(start))),
        };
    }
    cursor.expect(&["projection"])?;
    if cursor.accept(&["key"]) {
        let key = plain(cursor.names("a column of the key")?);
        cursor.expect(&["as"])?;
        let (query, query_position) = query_text(cursor, limits)?;
        return Ok(ExplainProjection::Query { key, query, query_position });
    }
    let (name, position) = cursor.name("a projection")?;
    cursor.finish()?;
    Ok(ExplainProjection::Named { name, position })
}

fn create_table(cursor: &mut Cursor<'_, '_>, heading: Heading) -> Result<CreateTable> {
    let (name, position) = table_name(cursor)?;
    let mut declared = TableColumns::default();
    cursor.expect_token(&Token::LParen)?;
    loop {
        declared.item(cursor)?;
        if !cursor.accept_token(&Token::Comma) {
            break;
        }
    }
    cursor.expect_token(&Token::RParen)?;
    let mut options = with_options(cursor)?;
    cursor.finish()?;
    let precedence = precedence(&mut options)?;
    let retention = match options.remove(retention::OPTION) {
        Some((text, at)) => retention::micros(&text, at)?,
        None => None,
    };
    refuse_others(&options, "precedence, history_retention")?;
    let (columns, key) = declared.finish(position)?;
    let if_not_exists = heading.if_not_exists;
    Ok(CreateTable { name, if_not_exists, columns, key, precedence, retention, position })
}

/// Columns and key of a table while they are read.
#[derive(Default)]
struct TableColumns {
    columns: Vec<DeclaredColumn>,
    key: Option<Vec<(String, usize)>>,
}

impl TableColumns {
    fn item(&mut self, cursor: &mut Cursor<'_, '_>) -> Result<()> {
        let position = cursor.position();
        if cursor.accept(&["primary", "key"]) {
            let names = cursor.names("a column of the key")?;
            return self.set_key(names, position);
        }
        if cursor.sees(&["constraint"]) || cursor.sees(&["unique"]) || cursor.sees(&["foreign"]) {
            return Err(
                Error::unsupported("a table has no constraint but its PRIMARY KEY").at(position)
            );
        }
        let mut column = declared_column(cursor, &self.columns)?;
        if cursor.accept(&["primary", "key"]) {
            column.not_null = true;
            cursor.accept(&["not", "null"]);
            self.set_key(vec![(column.name.clone(), column.position)], position)?;
        }
        self.columns.push(column);
        Ok(())
    }

    fn set_key(&mut self, names: Vec<(String, usize)>, position: usize) -> Result<()> {
        if self.key.replace(names).is_some() {
            let message = "a table has one PRIMARY KEY";
            return Err(Error::new(SqlState::InvalidTableDefinition, message).at(position));
        }
        Ok(())
    }

    fn finish(mut self, position: usize) -> Result<(Vec<DeclaredColumn>, Vec<String>)> {
        let key = self.key.take().unwrap_or_else(|| vec![("_id".to_owned(), position)]);
        if key.len() == 1 && key[0].0 == "_id" && !self.columns.iter().any(|c| c.name == "_id") {
            let kind = ColumnType::Text;
            let id = DeclaredColumn { name: "_id".to_owned(), kind, not_null: true, position };
            self.columns.insert(0, id);
        }
        for (name, position) in &key {
            let Some(column) = self.columns.iter_mut().find(|column| column.name == *name) else {
                return Err(Error::unknown_column(name).at(*position));
            };
            column.not_null = true;
            if !column.kind.may_be_key() {
                let message = format!("a {} column cannot be part of a key", column.kind);
                return Err(Error::new(SqlState::InvalidTableDefinition, message)
                    .at(column.position)
                    .with_hint("keys are text, int64, timestamptz, date, bool or bytes"));
            }
        }
        Ok((self.columns, plain(key)))
    }
}

/// Reads `name type [NOT NULL | NULL]`.
pub(super) fn declared_column(
    cursor: &mut Cursor<'_, '_>,
    earlier: &[DeclaredColumn],
) -> Result<DeclaredColumn> {
    let (name, position) = cursor.name("a column")?;
    if earlier.iter().any(|column| column.name == name) {
        let message = format!("column \"{name}\" is declared twice");
        return Err(Error::new(SqlState::DuplicateColumn, message).at(position));
    }
    if name.starts_with('_') && name != "_id" {
        let message = format!("column \"{name}\" cannot be declared");
        return Err(Error::new(SqlState::InvalidTableDefinition, message)
            .at(position)
            .with_hint("names that begin with an underscore belong to the database"));
    }
    let kind = column_type(cursor)?;
    let not_null = cursor.accept(&["not", "null"]);
    if !not_null {
        cursor.accept(&["null"]);
    }
    for refused in ["default", "references", "unique", "check", "generated", "collate"] {
        if cursor.sees(&[refused]) {
            let message = format!("{} on a column is not supported", refused.to_uppercase());
            return Err(Error::unsupported(message).at(cursor.position()));
        }
    }
    Ok(DeclaredColumn { name, kind, not_null, position })
}

fn create_stream(cursor: &mut Cursor<'_, '_>, heading: Heading) -> Result<CreateStream> {
    let (name, _) = cursor.name("a stream")?;
    let kafka = if cursor.accept(&["from"]) {
        let position = cursor.position();
        cursor.expect(&["kafka"])?;
        Some(kafka_source(cursor.options()?, position)?)
    } else {
        None
    };
    let mut columns = None;
    if cursor.accept(&["format"]) {
        let position = cursor.position();
        let (format, _) = cursor.name("a format")?;
        match format.as_str() {
            "json" => {}
            "cloudevents" | "debezium" | "avro" | "protobuf" => {
                let message = format!("format {} is not built", format.to_uppercase());
                return Err(Error::unsupported(message).at(position).with_hint("use FORMAT JSON"));
            }
            _ => {
                let message = format!("format \"{format}\" does not exist");
                return Err(Error::new(SqlState::UndefinedObject, message).at(position));
            }
        }
        if cursor.accept_token(&Token::LParen) {
            columns = Some(stream_columns(cursor)?);
        }
    }
    let options = with_options(cursor)?;
    cursor.finish()?;
    Ok(CreateStream {
        name,
        or_replace: heading.or_replace,
        if_not_exists: heading.if_not_exists,
        kafka,
        format: Format::Json,
        columns,
        options: values(options),
        sql: cursor.text.text_from(0).to_owned(),
    })
}

fn stream_columns(cursor: &mut Cursor<'_, '_>) -> Result<Vec<DeclaredColumn>> {
    let mut columns = Vec::new();
    loop {
        let column = declared_column(cursor, &columns)?;
        columns.push(column);
        if !cursor.accept_token(&Token::Comma) {
            break;
        }
    }
    cursor.expect_token(&Token::RParen)?;
    Ok(columns)
}

fn kafka_source(mut options: Options, position: usize) -> Result<KafkaSource> {
    let mut required = |key: &str| {
        options.remove(key).map(|(value, _)| value).filter(|value| !value.is_empty()).ok_or_else(
            || {
                let message = format!("FROM KAFKA needs the option \"{key}\"");
                Error::new(SqlState::InvalidParameter, message).at(position)
            },
        )
    };
    let brokers = required("brokers")?;
    let topic = required("topic")?;
    Ok(KafkaSource { brokers, topic, options: values(options) })
}

fn create_mapping(
    cursor: &mut Cursor<'_, '_>,
    heading: Heading,
    limits: &ParseLimits,
) -> Result<CreateMapping> {
    let (name, _) = cursor.name("a mapping")?;
    cursor.expect(&["on"])?;
    let (stream, _) = cursor.name("a stream")?;
    cursor.expect(&["as"])?;
    let verb = mapping_verb(cursor)?;
    let (table, _) = table_name(cursor)?;
    let verb = match verb {
        MappingVerb::Patch { .. } if cursor.accept(&["set", "nulls"]) => {
            MappingVerb::Patch { set_nulls: true }
        }
        other => other,
    };
    let options = with_options(cursor)?;
    let (select, select_position) = mapping_select(cursor, limits)?;
    Ok(CreateMapping {
        name,
        or_replace: heading.or_replace,
        if_not_exists: heading.if_not_exists,
        stream,
        verb,
        table,
        select,
        select_position,
        options: values(options),
        sql: cursor.text.text_from(0).to_owned(),
    })
}

fn mapping_verb(cursor: &mut Cursor<'_, '_>) -> Result<MappingVerb> {
    for (words, verb) in [
        (["put", "into"], MappingVerb::Put),
        (["patch", "into"], MappingVerb::Patch { set_nulls: false }),
        (["delete", "from"], MappingVerb::Delete),
        (["retract", "from"], MappingVerb::Retract),
    ] {
        if cursor.accept(&words) {
            return Ok(verb);
        }
    }
    Err(cursor.expected("PUT INTO, PATCH INTO, DELETE FROM or RETRACT FROM"))
}

/// Reads a mapping's SELECT: a list and perhaps a WHERE, over one record.
fn mapping_select(cursor: &mut Cursor<'_, '_>, limits: &ParseLimits) -> Result<(String, usize)> {
    let position = cursor.position();
    if !cursor.sees(&["select"]) {
        return Err(cursor.expected("SELECT"));
    }
    let parsed = parse_query_text(cursor.text, cursor.at, limits)?;
    let text = cursor.text.text_from(cursor.at).to_owned();
    cursor.at = cursor.text.tokens.len();
    match foreign_part(&parsed.query) {
        None => Ok((text, position)),
        Some((what, span)) => Err(Error::unsupported(format!("a mapping has no {what}"))
            .at(span.and_then(|span| cursor.text.positions.start(span)))
            .at(position)
            .with_hint("a mapping reads one record: SELECT expressions [WHERE condition]")),
    }
}

/// Returns what a mapping's SELECT must not have, and where it is if that is known.
fn foreign_part(query: &Query) -> Option<(&'static str, Option<Span>)> {
    if let Some(with) = &query.with {
        return Some(("WITH", Some(with.with_token.0.span)));
    }
    if query.order_by.is_some() || query.limit_clause.is_some() || query.fetch.is_some() {
        return Some(("ORDER BY or LIMIT", None));
    }
    let SetExpr::Select(select) = query.body.as_ref() else {
        return Some(("UNION or VALUES", None));
    };
    if let Some(first) = select.from.first() {
        return Some(("FROM", Some(first.relation.span())));
    }
    if select.distinct.is_some() || select.having.is_some() {
        return Some(("DISTINCT or HAVING", None));
    }
    None
}

fn create_projection(
    cursor: &mut Cursor<'_, '_>,
    heading: Heading,
    limits: &ParseLimits,
) -> Result<CreateProjection> {
    let (name, _) = cursor.name("a projection")?;
    cursor.expect(&["key"])?;
    let key = plain(cursor.names("a column of the key")?);
    let (mut sink, mut sink_table) = (None, None);
    if cursor.accept(&["into"]) {
        sink = Some(cursor.name("a sink")?.0);
        if cursor.accept_token(&Token::Period) {
            sink_table = Some(cursor.name("a sink's table")?.0);
        }
    }
    let options = with_options(cursor)?;
    cursor.expect(&["as"])?;
    let (query, query_position) = query_text(cursor, limits)?;
    Ok(CreateProjection {
        name,
        or_replace: heading.or_replace,
        if_not_exists: heading.if_not_exists,
        key,
        sink,
        sink_table,
        options: values(options),
        query,
        query_position,
        sql: cursor.text.text_from(0).to_owned(),
    })
}

/// Reads the query that ends a statement: its text, once it is known to parse.
pub(super) fn query_text(
    cursor: &mut Cursor<'_, '_>,
    limits: &ParseLimits,
) -> Result<(String, usize)> {
    let position = cursor.position();
    let is_query = ["select", "with", "values", "setting"].iter().any(|word| cursor.sees(&[word]));
    if !is_query && cursor.peek() != Some(&Token::LParen) {
        return Err(cursor.expected("a query"));
    }
    parse_query_text(cursor.text, cursor.at, limits)?;
    let text = cursor.text.text_from(cursor.at).to_owned();
    cursor.at = cursor.text.tokens.len();
    Ok((text, position))
}

/// Reads the name of a table of ours, which may be qualified with `public`.
pub(super) fn table_name(cursor: &mut Cursor<'_, '_>) -> Result<(String, usize)> {
    let (name, position) = cursor.name("a table")?;
    if !cursor.accept_token(&Token::Period) {
        return Ok((name, position));
    }
    let (table, _) = cursor.name("a table")?;
    if name == "public" {
        return Ok((table, position));
    }
    let message = format!("schema \"{name}\" takes no tables");
    Err(Error::unsupported(message).at(position))
}

fn with_options(cursor: &mut Cursor<'_, '_>) -> Result<Options> {
    if cursor.accept(&["with"]) { cursor.options() } else { Ok(Options::new()) }
}

fn precedence(options: &mut Options) -> Result<Precedence> {
    let Some((value, position)) = options.remove("precedence") else {
        return Ok(Precedence::Recorded);
    };
    match value.to_ascii_lowercase().as_str() {
        "recorded" => Ok(Precedence::Recorded),
        "effective" => Ok(Precedence::Effective),
        _ => {
            let message = format!("precedence \"{value}\" does not exist");
            Err(Error::new(SqlState::InvalidParameter, message)
                .at(position)
                .with_hint("precedence is 'recorded' or 'effective'"))
        }
    }
}

fn refuse_others(options: &Options, known: &str) -> Result<()> {
    match options.iter().next() {
        None => Ok(()),
        Some((key, (_, position))) => {
            let message = format!("option \"{key}\" does not exist");
            Err(Error::new(SqlState::UndefinedObject, message)
                .at(*position)
                .with_hint(format!("known here: {known}")))
        }
    }
}

fn values(options: Options) -> BTreeMap<String, String> {
    options.into_iter().map(|(key, (value, _))| (key, value)).collect()
}

pub(super) fn plain(names: Vec<(String, usize)>) -> Vec<String> {
    names.into_iter().map(|(name, _)| name).collect()
}
