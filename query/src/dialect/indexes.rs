//! `CREATE INDEX` and `DROP INDEX`.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::cursor::Cursor;
use super::definitions::{Heading, table_name};
use crate::error::{Error, Result};
use crate::statements::{CreateIndex, DropIndex, NamedColumn};

/// Reads what follows `CREATE [OR REPLACE] INDEX [IF NOT EXISTS]`.
pub(super) fn create(cursor: &mut Cursor<'_, '_>, heading: Heading) -> Result<CreateIndex> {
    let (name, position) = cursor.name("a name")?;
    cursor.expect(&["on"])?;
    let (table, table_position) = table_name(cursor)?;
    if cursor.sees(&["using"]) {
        let message = "an index has one form: leave USING out";
        return Err(Error::unsupported(message).at(cursor.position()));
    }
    let columns = columns(cursor)?;
    cursor.finish()?;
    let Heading { or_replace, if_not_exists, .. } = heading;
    Ok(CreateIndex { name, position, or_replace, if_not_exists, table, table_position, columns })
}

fn columns(cursor: &mut Cursor<'_, '_>) -> Result<Vec<NamedColumn>> {
    let is_list = cursor.peek() == Some(&Token::LParen);
    let names = cursor.names("a column").map_err(|error| {
        let is_expression = cursor.peek() == Some(&Token::LParen);
        let is_order = ["asc", "desc", "nulls"].iter().any(|word| cursor.sees(&[word]));
        if is_list && (is_expression || is_order) {
            let message = "an index is over columns alone, which have no order of their own";
            return Error::unsupported(message).at(cursor.position());
        }
        error
    })?;
    Ok(names.into_iter().map(|(name, position)| NamedColumn { name, position }).collect())
}

/// Reads what follows `DROP INDEX`.
pub(super) fn drop(cursor: &mut Cursor<'_, '_>) -> Result<DropIndex> {
    let if_exists = cursor.accept(&["if", "exists"]);
    let (name, position) = cursor.name("a name")?;
    cursor.finish()?;
    Ok(DropIndex { name, if_exists, position })
}
