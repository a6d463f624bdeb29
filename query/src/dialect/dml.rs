//! Writes: INSERT, PATCH, UPDATE and DELETE from the parser's tree to ours.

use datafusion::sql::sqlparser::ast::{
    self, AssignmentTarget, Expr, FromTable, Ident, ObjectName, Query, SelectItem, SetExpr,
    Spanned, Statement, TableFactor, TableObject, TableWithJoins, UpdateTableFromKind,
};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Span, Token};

use super::clauses::{self, Axis, BoundExpr, Clause, ClauseKind, Clauses, first_column};
use super::cursor::Cursor;
use super::positions::Positions;
use super::tokens::StatementText;
use super::{
    ColumnName, Delete, Insert, InsertVerb, ParseLimits, ParsedQuery, Portion, TableName, Update,
    with_parser,
};
use crate::error::{Error, Result, SqlState};

/// Reads INSERT INTO and PATCH INTO.
pub fn insert(mut text: StatementText<'_>, limits: &ParseLimits) -> Result<Insert> {
    let verb = insert_verb(&mut text);
    let mut clauses = clauses::extract(&mut text)?;
    let records = take_records(&mut text, limits)?;
    let statement = with_parser(&text, limits, |parser| parser.parse_statement())?;
    let positions = clauses.positions.clone();
    let Statement::Insert(insert) = statement else {
        return Err(Error::unsupported("this form of INSERT is not supported").at(text.position(0)));
    };
    refuse_insert_forms(&insert).map_err(|error| error.at(text.position(0)))?;
    let TableObject::TableName(name) = &insert.table else {
        return Err(Error::unsupported("INSERT into a function is not supported"));
    };
    let table = table_name(name, &positions)?;
    let portion = portion(clauses.take(&[table.ident.span.end]))?;
    if let (Portion::All | Portion::Between { .. }, InsertVerb::Put) = (&portion, verb) {
        return Err(Error::syntax("INSERT has no FOR PORTION OF VALID_TIME")
            .at(table.position)
            .with_hint("give the columns _valid_from and _valid_to"));
    }
    let (columns, query) = match records {
        Some(records) => records,
        None => {
            let columns = column_names(&insert.columns, &positions)?;
            let Some(query) = insert.source else {
                return Err(Error::unsupported("INSERT needs VALUES, RECORDS or a query")
                    .at(text.position(0)));
            };
            (columns, query)
        }
    };
    let source = ParsedQuery { query, clauses };
    Ok(Insert { verb, table, columns, source, portion, returning: insert.returning })
}

/// Reads UPDATE.
pub fn update(mut text: StatementText<'_>, limits: &ParseLimits) -> Result<Update> {
    let mut clauses = clauses::extract(&mut text)?;
    let statement = with_parser(&text, limits, |parser| parser.parse_statement())?;
    let Statement::Update(update) = statement else {
        return Err(Error::unsupported("this form of UPDATE is not supported"));
    };
    if update.output.is_some() || !update.order_by.is_empty() || update.limit.is_some() {
        return Err(Error::unsupported("UPDATE has no OUTPUT, ORDER BY or LIMIT"));
    }
    let target = target(&update.table, &mut clauses)?;
    let mut assignments = Vec::new();
    for assignment in update.assignments {
        let column = match &assignment.target {
            AssignmentTarget::ColumnName(name) => column_name(name, &clauses.positions)?,
            AssignmentTarget::Tuple(_) => {
                return Err(Error::unsupported("SET of several columns at once is not supported")
                    .at(clauses.positions.start(assignment.target.span())));
            }
        };
        if assignments.iter().any(|(earlier, _): &(ColumnName, Expr)| earlier.name == column.name) {
            let message = format!("column \"{}\" is set twice", column.name);
            return Err(Error::new(SqlState::DuplicateColumn, message).at(column.position));
        }
        assignments.push((column, assignment.value));
    }
    let from = match update.from {
        None => Vec::new(),
        Some(UpdateTableFromKind::AfterSet(from) | UpdateTableFromKind::BeforeSet(from)) => from,
    };
    Ok(Update {
        table: target.table,
        alias: target.alias,
        portion: target.portion,
        assignments,
        from,
        selection: update.selection,
        returning: update.returning,
        clauses,
    })
}

/// Reads DELETE FROM.
pub fn delete(mut text: StatementText<'_>, limits: &ParseLimits) -> Result<Delete> {
    let mut clauses = clauses::extract(&mut text)?;
    let statement = with_parser(&text, limits, |parser| parser.parse_statement())?;
    let Statement::Delete(delete) = statement else {
        return Err(Error::unsupported("this form of DELETE is not supported"));
    };
    let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = delete.from;
    let [table] = from.as_slice() else {
        return Err(Error::unsupported("DELETE takes one table").at(text.position(0)));
    };
    if !delete.tables.is_empty()
        || delete.output.is_some()
        || !delete.order_by.is_empty()
        || delete.limit.is_some()
    {
        return Err(Error::unsupported("DELETE has no OUTPUT, ORDER BY or LIMIT"));
    }
    let target = target(table, &mut clauses)?;
    Ok(Delete {
        table: target.table,
        alias: target.alias,
        portion: target.portion,
        using: delete.using.unwrap_or_default(),
        selection: delete.selection,
        returning: delete.returning,
        clauses,
    })
}

/// Reads ERASE FROM: a DELETE of all times, so without a window.
pub fn erase(mut text: StatementText<'_>, limits: &ParseLimits) -> Result<Delete> {
    let from = text.tokens.get(1).map(|token| &token.token);
    if !matches!(from, Some(Token::Word(word)) if word.keyword == Keyword::FROM) {
        return Err(Error::syntax("expected FROM after ERASE").at(text.position(1)));
    }
    if let Some(first) = text.tokens.first_mut() {
        first.token = Token::make_keyword("DELETE");
    }
    let start = text.position(0);
    let erase = delete(text, limits)?;
    if !matches!(erase.portion, Portion::Default) {
        return Err(Error::syntax("ERASE has no FOR PORTION OF VALID_TIME")
            .at(erase.table.position)
            .with_hint("it removes all of valid time and of system time; DELETE ends a period"));
    }
    if erase.returning.is_some() {
        return Err(Error::unsupported("ERASE has no RETURNING").at(start));
    }
    Ok(erase)
}

impl Update {
    /// Returns the query `SELECT items FROM table, from.. WHERE selection`, with the table read
    /// over `window` of valid time, open where it has no end: what the UPDATE's effect is computed
    /// from.
    pub fn reading(&self, items: Vec<SelectItem>, window: ClauseKind) -> ParsedQuery {
        let target = Target {
            table: self.table.clone(),
            alias: self.alias.clone(),
            portion: self.portion.clone(),
        };
        reading(&target, items, window, &self.from, self.selection.as_ref(), &self.clauses)
    }
}

impl Delete {
    /// Returns the query `SELECT items FROM table, using.. WHERE selection`, with the table read
    /// over `window` of valid time: what the DELETE's effect is computed from.
    pub fn reading(&self, items: Vec<SelectItem>, window: ClauseKind) -> ParsedQuery {
        let target = Target {
            table: self.table.clone(),
            alias: self.alias.clone(),
            portion: self.portion.clone(),
        };
        reading(&target, items, window, &self.using, self.selection.as_ref(), &self.clauses)
    }
}

/// The table that an UPDATE or DELETE writes.
struct Target {
    table: TableName,
    alias: Option<Ident>,
    portion: Portion,
}

fn reading(
    target: &Target,
    projection: Vec<SelectItem>,
    window: ClauseKind,
    others: &[TableWithJoins],
    selection: Option<&Expr>,
    clauses: &Clauses,
) -> ParsedQuery {
    let mut clauses = clauses.clone();
    let window = match window {
        ClauseKind::FromTo(from, None) => {
            let end = BoundExpr { expr: Expr::value(ast::Value::Null), position: from.position };
            ClauseKind::FromTo(from, Some(end))
        }
        window => window,
    };
    clauses.list.push(Clause {
        axis: Axis::Valid,
        kind: window,
        portion: false,
        anchor: target.table.ident.span.end,
        position: target.table.position,
    });
    let alias = target.alias.clone().map(|name| ast::TableAlias {
        explicit: true,
        name,
        columns: Vec::new(),
        at: None,
    });
    let mut from = vec![TableWithJoins {
        relation: table_factor(target.table.ident.clone(), alias),
        joins: Vec::new(),
    }];
    from.extend_from_slice(others);
    let select = ast::Select { projection, from, selection: selection.cloned(), ..empty_select() };
    ParsedQuery { query: Box::new(query_of(SetExpr::Select(Box::new(select)))), clauses }
}

/// Returns a table's factor by bare name.
pub fn table_factor(name: Ident, alias: Option<ast::TableAlias>) -> TableFactor {
    TableFactor::Table {
        name: ObjectName::from(vec![name]),
        alias,
        args: None,
        with_hints: Vec::new(),
        version: None,
        with_ordinality: false,
        partitions: Vec::new(),
        json_path: None,
        sample: None,
        index_hints: Vec::new(),
    }
}

/// Returns a query without clauses around a body.
pub const fn query_of_parts(body: Box<SetExpr>) -> Query {
    Query {
        with: None,
        body,
        order_by: None,
        limit_clause: None,
        fetch: None,
        locks: Vec::new(),
        for_clause: None,
        settings: None,
        format_clause: None,
        pipe_operators: Vec::new(),
    }
}

/// Returns a query of nothing but a body.
pub fn query_of(body: SetExpr) -> Query {
    query_of_parts(Box::new(body))
}

/// Returns a SELECT with nothing in it.
pub fn empty_select() -> ast::Select {
    ast::Select {
        select_token: ast::helpers::attached_token::AttachedToken::empty(),
        optimizer_hints: Vec::new(),
        distinct: None,
        select_modifiers: None,
        top: None,
        top_before_distinct: false,
        projection: Vec::new(),
        exclude: None,
        into: None,
        from: Vec::new(),
        lateral_views: Vec::new(),
        prewhere: None,
        selection: None,
        connect_by: Vec::new(),
        group_by: ast::GroupByExpr::Expressions(Vec::new(), Vec::new()),
        cluster_by: Vec::new(),
        distribute_by: Vec::new(),
        sort_by: Vec::new(),
        having: None,
        named_window: Vec::new(),
        qualify: None,
        window_before_qualify: false,
        value_table_mode: None,
        flavor: ast::SelectFlavor::Standard,
    }
}

/// Turns PATCH into INSERT for the parser, and reads SET NULLS after the table's name.
fn insert_verb(text: &mut StatementText<'_>) -> InsertVerb {
    let Some(first) = text.tokens.first_mut() else { return InsertVerb::Put };
    match &first.token {
        Token::Word(word) if word.value.eq_ignore_ascii_case("patch") => {
            first.token = Token::make_keyword("INSERT");
        }
        _ => return InsertVerb::Put,
    }
    // PATCH INTO name [FOR ..] SET NULLS: the words stand before the source, at the top level.
    let mut depth = 0_usize;
    for at in 0..text.tokens.len() {
        match &text.tokens[at].token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            Token::Word(word) if depth == 0 => match word.keyword {
                Keyword::VALUES | Keyword::SELECT | Keyword::WITH => break,
                Keyword::SET => {
                    let next = text.tokens.get(at + 1).map(|token| &token.token);
                    if matches!(next, Some(Token::Word(w)) if w.value.eq_ignore_ascii_case("nulls"))
                    {
                        text.tokens.drain(at..at + 2);
                        return InsertVerb::Patch { set_nulls: true };
                    }
                }
                _ => {}
            },
            _ => {}
        }
    }
    InsertVerb::Patch { set_nulls: false }
}

/// Columns and rows of `RECORDS {..}, ..`.
type Records = (Vec<ColumnName>, Box<Query>);

/// Reads `RECORDS {a: 1, b: 'x'}, {..}` into columns and rows; in its place `VALUES (NULL)` stays
/// for the parser. A field that a record leaves out is NULL.
fn take_records(text: &mut StatementText<'_>, limits: &ParseLimits) -> Result<Option<Records>> {
    let mut cursor = Cursor::new(text);
    cursor.at = 3;
    if !cursor.accept(&["records"]) {
        return Ok(None);
    }
    let start = cursor.at;
    if cursor.peek() != Some(&Token::LBrace) {
        return Err(cursor.expected("a record in braces"));
    }
    let end = records_end(text, start);
    let part = StatementText {
        tokens: text.tokens[start..end].to_vec(),
        end: text.tokens.get(end - 1).map_or(text.end, |token| token.span.end),
        ..*text
    };
    let expressions =
        with_parser(&part, limits, |parser| parser.parse_comma_separated(Parser::parse_expr))?;
    let mut columns: Vec<ColumnName> = Vec::new();
    let mut records = Vec::new();
    for expression in expressions {
        let Expr::Dictionary(fields) = expression else {
            return Err(Error::syntax("expected a record in braces").at(text.position(start)));
        };
        let mut record: Vec<(usize, Expr)> = Vec::new();
        for field in fields {
            let name = normal(&field.key);
            let position = text.positions.start(field.key.span).unwrap_or(1);
            let index = columns.iter().position(|column| column.name == name);
            let index = index.unwrap_or_else(|| {
                columns.push(ColumnName { name, position });
                columns.len() - 1
            });
            if record.iter().any(|(earlier, _)| *earlier == index) {
                let message = format!("field \"{}\" is given twice", columns[index].name);
                return Err(Error::new(SqlState::DuplicateColumn, message).at(position));
            }
            record.push((index, *field.value));
        }
        records.push(record);
    }
    let null = || Expr::value(ast::Value::Null);
    let rows = records
        .into_iter()
        .map(|record| {
            let mut row = vec![null(); columns.len()];
            for (index, value) in record {
                row[index] = value;
            }
            ast::Parens::with_empty_span(row)
        })
        .collect();
    let values = ast::Values { explicit_row: false, value_keyword: false, rows };
    let placeholder = ["VALUES", "(", "NULL", ")"].map(|word| {
        let token = match word {
            "(" => Token::LParen,
            ")" => Token::RParen,
            word => Token::make_keyword(word),
        };
        datafusion::sql::sqlparser::tokenizer::TokenWithSpan::wrap(token)
    });
    text.tokens.splice(start - 1..end, placeholder);
    Ok(Some((columns, Box::new(query_of(SetExpr::Values(values))))))
}

/// Returns where the records end: at RETURNING or the statement's end.
fn records_end(text: &StatementText<'_>, start: usize) -> usize {
    let mut depth = 0_usize;
    for (index, token) in text.tokens.iter().enumerate().skip(start) {
        match &token.token {
            Token::LBrace | Token::LParen | Token::LBracket => depth += 1,
            Token::RBrace | Token::RParen | Token::RBracket => depth = depth.saturating_sub(1),
            Token::Word(word) if depth == 0 && word.keyword == Keyword::RETURNING => return index,
            _ => {}
        }
    }
    text.tokens.len()
}

fn refuse_insert_forms(insert: &ast::Insert) -> Result<()> {
    let refused = if insert.on.is_some() {
        "ON CONFLICT"
    } else if insert.table_alias.is_some() || insert.insert_alias.is_some() {
        "an alias"
    } else if insert.overwrite || insert.replace_into || insert.or.is_some() || insert.ignore {
        "OVERWRITE, REPLACE or IGNORE"
    } else if insert.partitioned.is_some() || !insert.after_columns.is_empty() {
        "PARTITION"
    } else if !insert.assignments.is_empty() {
        "SET"
    } else {
        return Ok(());
    };
    Err(Error::unsupported(format!("INSERT with {refused} is not supported"))
        .with_hint("a row of the same key is replaced from its valid time on"))
}

fn target(table: &TableWithJoins, clauses: &mut Clauses) -> Result<Target> {
    let TableFactor::Table { name, alias, args: None, .. } = &table.relation else {
        return Err(Error::unsupported("a write needs a table")
            .at(clauses.positions.start(table.relation.span())));
    };
    if let Some(join) = table.joins.first() {
        return Err(Error::unsupported("a write's table cannot be a join")
            .at(clauses.positions.start(join.relation.span()))
            .with_hint("use FROM in UPDATE, USING in DELETE"));
    }
    let table = table_name(name, &clauses.positions)?;
    let alias = alias.as_ref().map(|alias| alias.name.clone());
    let mut anchors = vec![table.ident.span.end];
    anchors.extend(alias.iter().map(|alias| alias.span.end));
    let portion = portion(clauses.take(&anchors))?;
    Ok(Target { table, alias, portion })
}

/// Returns a write's window from the clauses at its table.
fn portion(clauses: Vec<Clause>) -> Result<Portion> {
    let mut clauses = clauses.into_iter();
    let Some(clause) = clauses.next() else { return Ok(Portion::Default) };
    if let Some(second) = clauses.next() {
        return Err(Error::syntax("a write has one window of valid time").at(second.position));
    }
    if clause.axis == Axis::System {
        return Err(Error::syntax("a write has no SYSTEM_TIME clause")
            .at(clause.position)
            .with_hint("system time is given by the database at commit"));
    }
    let bounds: Vec<_> = match &clause.kind {
        ClauseKind::FromTo(from, to) => std::iter::once(from).chain(to).collect(),
        _ => Vec::new(),
    };
    for bound in bounds {
        if let Some((name, _)) = first_column(&bound.expr) {
            let message = format!("column \"{name}\" cannot stand in a write's window");
            return Err(Error::new(SqlState::InvalidColumnReference, message).at(bound.position));
        }
    }
    match clause.kind {
        ClauseKind::All => Ok(Portion::All),
        ClauseKind::FromTo(from, to) => Ok(Portion::Between { from, to }),
        ClauseKind::AsOf(_) | ClauseKind::Between(..) | ClauseKind::Only(..) => {
            Err(Error::syntax("a write's window is FROM a [TO b] or ALL").at(clause.position))
        }
    }
}

/// Reads the name of a table that is written.
fn table_name(name: &ObjectName, positions: &Positions) -> Result<TableName> {
    let parts: Vec<&Ident> = name.0.iter().filter_map(|part| part.as_ident()).collect();
    let position = parts.first().and_then(|ident| positions.start(ident.span)).unwrap_or(1);
    let ident = match parts.as_slice() {
        [table] => *table,
        [schema, table] if normal(schema) == "public" => *table,
        [schema, _] if normal(schema) == "everwhen" || normal(schema) == "information_schema" => {
            return Err(Error::unsupported(format!(
                "{name} is a system table: it cannot be written"
            ))
            .at(position));
        }
        _ => return Err(Error::unknown_table(&name.to_string()).at(position)),
    };
    Ok(TableName { name: normal(ident), position, ident: ident.clone() })
}

fn column_names(names: &[ObjectName], positions: &Positions) -> Result<Vec<ColumnName>> {
    let mut columns: Vec<ColumnName> = Vec::new();
    for name in names {
        let column = column_name(name, positions)?;
        if columns.iter().any(|earlier| earlier.name == column.name) {
            let message = format!("column \"{}\" is named twice", column.name);
            return Err(Error::new(SqlState::DuplicateColumn, message).at(column.position));
        }
        columns.push(column);
    }
    Ok(columns)
}

fn column_name(name: &ObjectName, positions: &Positions) -> Result<ColumnName> {
    let at = |span: Span| positions.start(span).unwrap_or(1);
    match name.0.last().and_then(|part| part.as_ident()) {
        Some(ident) => Ok(ColumnName { name: normal(ident), position: at(ident.span) }),
        None => Err(Error::syntax("expected a column")),
    }
}

/// Returns an identifier in its normal form: lower case unless quoted.
pub fn normal(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}
