//! `ALTER TABLE`: one change of one column.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::cursor::Cursor;
use super::definitions::{declared_column, table_name};
use super::types::column_type;
use crate::error::{Error, Result};
use crate::statements::{AlterTable, ColumnChange, NamedColumn};

/// Reads a statement that begins with ALTER.
///
/// # Errors
/// 42601 for text of another form, 0A000 for changes that are not built.
pub fn alter_table(cursor: &mut Cursor<'_, '_>) -> Result<AlterTable> {
    cursor.expect(&["alter"])?;
    if !cursor.accept(&["table"]) {
        return Err(
            Error::unsupported("ALTER changes tables and streams alone").at(cursor.position())
        );
    }
    let if_exists = cursor.accept(&["if", "exists"]);
    let (name, position) = table_name(cursor)?;
    let change = change(cursor)?;
    if cursor.peek() == Some(&Token::Comma) {
        return Err(Error::unsupported("several changes in one ALTER TABLE")
            .at(cursor.position())
            .with_hint("send them one by one"));
    }
    cursor.finish()?;
    Ok(AlterTable { name, if_exists, position, change })
}

fn change(cursor: &mut Cursor<'_, '_>) -> Result<ColumnChange> {
    let position = cursor.position();
    if cursor.accept(&["add"]) {
        refuse_constraints(cursor)?;
        cursor.accept(&["column"]);
        let if_not_exists = cursor.accept(&["if", "not", "exists"]);
        let column = declared_column(cursor, &[])?;
        return Ok(ColumnChange::Add { column, if_not_exists });
    }
    if cursor.accept(&["drop"]) {
        refuse_constraints(cursor)?;
        cursor.accept(&["column"]);
        let if_exists = cursor.accept(&["if", "exists"]);
        return Ok(ColumnChange::Drop { column: column(cursor)?, if_exists });
    }
    if cursor.accept(&["rename", "to"]) {
        return Err(Error::unsupported("a table keeps its name")
            .at(position)
            .with_hint("mappings and projections name it; columns can be renamed"));
    }
    if cursor.accept(&["rename"]) {
        cursor.accept(&["column"]);
        let from = column(cursor)?;
        cursor.expect(&["to"])?;
        return Ok(ColumnChange::Rename { column: from, to: column(cursor)? });
    }
    if cursor.accept(&["alter"]) {
        cursor.accept(&["column"]);
        return of_column(cursor);
    }
    Err(cursor.expected("ADD, DROP, RENAME, ALTER COLUMN or SET"))
}

fn of_column(cursor: &mut Cursor<'_, '_>) -> Result<ColumnChange> {
    let column = column(cursor)?;
    if cursor.accept(&["set", "not", "null"]) {
        return Ok(ColumnChange::SetNotNull { column });
    }
    if cursor.accept(&["drop", "not", "null"]) {
        return Ok(ColumnChange::DropNotNull { column });
    }
    if cursor.accept(&["type"]) || cursor.accept(&["set", "data", "type"]) {
        let kind = column_type(cursor)?;
        if cursor.sees(&["using"]) {
            let message = "a type is changed without USING: stored values are widened when read";
            return Err(Error::unsupported(message).at(cursor.position()));
        }
        return Ok(ColumnChange::Type { column, kind });
    }
    Err(cursor.expected("TYPE, SET NOT NULL or DROP NOT NULL"))
}

fn column(cursor: &mut Cursor<'_, '_>) -> Result<NamedColumn> {
    let (name, position) = cursor.name("a column")?;
    Ok(NamedColumn { name, position })
}

fn refuse_constraints(cursor: &Cursor<'_, '_>) -> Result<()> {
    for word in ["constraint", "primary", "unique", "foreign", "check"] {
        if cursor.sees(&[word]) {
            return Err(Error::unsupported("a table has no constraint but its PRIMARY KEY")
                .at(cursor.position()));
        }
    }
    Ok(())
}
