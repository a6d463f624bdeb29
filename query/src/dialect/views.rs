//! `CREATE VIEW` and `DROP VIEW`.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::ParseLimits;
use super::cursor::Cursor;
use super::definitions::{Heading, plain, query_text, table_name};
use crate::error::Result;
use crate::statements::{CreateView, DropView};

/// Reads what follows `CREATE [OR REPLACE] [TEMPORARY] VIEW [IF NOT EXISTS]`.
pub(super) fn create(
    cursor: &mut Cursor<'_, '_>,
    heading: Heading,
    limits: &ParseLimits,
) -> Result<CreateView> {
    let (name, position) = table_name(cursor)?;
    let columns = match cursor.peek() {
        Some(Token::LParen) => plain(cursor.names("a column of the view")?),
        _ => Vec::new(),
    };
    cursor.expect(&["as"])?;
    let (query, query_position) = query_text(cursor, limits)?;
    let Heading { or_replace, if_not_exists, temporary } = heading;
    Ok(CreateView {
        name,
        temporary,
        or_replace,
        if_not_exists,
        columns,
        query,
        query_position,
        position,
    })
}

/// Reads what follows `DROP VIEW`.
pub(super) fn drop(cursor: &mut Cursor<'_, '_>) -> Result<DropView> {
    let if_exists = cursor.accept(&["if", "exists"]);
    let (name, position) = table_name(cursor)?;
    cursor.finish()?;
    Ok(DropView { name, if_exists, position })
}
