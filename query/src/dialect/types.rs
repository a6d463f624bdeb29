//! Column types as written in declarations.

use datafusion::sql::sqlparser::tokenizer::Token;
use everwhen_storage::ColumnType;

use super::cursor::Cursor;
use crate::error::{Error, Result, SqlState};

/// How deep lists and structs may nest.
const DEPTH_MAX: usize = 16;

/// Reads a column's type.
///
/// # Errors
/// 42704 for a name that is no type, 22023 for a decimal that does not fit, 54001 for nesting.
pub fn column_type(cursor: &mut Cursor<'_, '_>) -> Result<ColumnType> {
    let mut angles = 0;
    let kind = nested(cursor, 0, &mut angles)?;
    if angles == 0 { Ok(kind) } else { Err(cursor.expected("a type without a further \">\"")) }
}

/// `angles` counts closing brackets that a `>>` token has brought for the types around.
fn nested(cursor: &mut Cursor<'_, '_>, depth: usize, angles: &mut usize) -> Result<ColumnType> {
    let position = cursor.position();
    if depth > DEPTH_MAX {
        let message = "a type is nested too deeply";
        return Err(Error::new(SqlState::StatementTooComplex, message).at(position));
    }
    let (name, _) = cursor.name("a type")?;
    let mut kind = match name.as_str() {
        "list" | "array" if cursor.accept_token(&Token::Lt) => {
            let item = nested(cursor, depth + 1, angles)?;
            close_angle(cursor, angles)?;
            ColumnType::List(Box::new(item))
        }
        "struct" if cursor.accept_token(&Token::Lt) => {
            let fields = struct_fields(cursor, depth, angles)?;
            ColumnType::Struct(fields)
        }
        _ => scalar(cursor, &name, position)?,
    };
    let mut dimensions = 0;
    while cursor.accept_token(&Token::LBracket) {
        cursor.expect_token(&Token::RBracket)?;
        dimensions += 1;
        if depth + dimensions > DEPTH_MAX {
            let message = "a type is nested too deeply";
            return Err(Error::new(SqlState::StatementTooComplex, message).at(position));
        }
        kind = ColumnType::List(Box::new(kind));
    }
    Ok(kind)
}

fn struct_fields(
    cursor: &mut Cursor<'_, '_>,
    depth: usize,
    angles: &mut usize,
) -> Result<Vec<(String, ColumnType)>> {
    let mut fields: Vec<(String, ColumnType)> = Vec::new();
    loop {
        let (name, position) = cursor.name("a field")?;
        if fields.iter().any(|(earlier, _)| *earlier == name) {
            let message = format!("field \"{name}\" is named twice");
            return Err(Error::new(SqlState::DuplicateColumn, message).at(position));
        }
        cursor.accept_token(&Token::Colon);
        fields.push((name, nested(cursor, depth + 1, angles)?));
        if *angles > 0 || !cursor.accept_token(&Token::Comma) {
            break;
        }
    }
    close_angle(cursor, angles)?;
    Ok(fields)
}

fn close_angle(cursor: &mut Cursor<'_, '_>, angles: &mut usize) -> Result<()> {
    if *angles > 0 {
        *angles -= 1;
        return Ok(());
    }
    // The tokenizer takes several brackets in a row for one operator.
    if let Some(token) = cursor.peek().map(ToString::to_string)
        && token.len() > 1
        && token.bytes().all(|byte| byte == b'>')
    {
        cursor.at += 1;
        *angles += token.len() - 1;
        return Ok(());
    }
    cursor.expect_token(&Token::Gt)
}

fn scalar(cursor: &mut Cursor<'_, '_>, name: &str, position: usize) -> Result<ColumnType> {
    Ok(match name {
        "bool" | "boolean" => ColumnType::Bool,
        "int" | "integer" | "bigint" | "smallint" | "int2" | "int4" | "int8" | "int32"
        | "int64" => ColumnType::Int64,
        "float" if cursor.accept_token(&Token::LParen) => {
            // Binary digits: every float has 53.
            if !(1..=53).contains(&digits(cursor)?) {
                let message = "a float has from 1 to 53 digits";
                return Err(Error::new(SqlState::InvalidParameter, message).at(position));
            }
            cursor.expect_token(&Token::RParen)?;
            ColumnType::Float64
        }
        "float" | "float4" | "float8" | "float32" | "float64" | "real" => ColumnType::Float64,
        "double" => {
            cursor.accept(&["precision"]);
            ColumnType::Float64
        }
        "decimal" | "numeric" => {
            decimal_size(cursor, position)?;
            ColumnType::Decimal
        }
        "text" | "string" => ColumnType::Text,
        "uuid" => ColumnType::Uuid,
        "varchar" => {
            refuse_length(cursor)?;
            ColumnType::Text
        }
        "bytes" | "bytea" => ColumnType::Bytes,
        "date" => ColumnType::Date,
        "time" => {
            cursor.accept(&["without", "time", "zone"]);
            ColumnType::Time
        }
        "timestamptz" => ColumnType::Timestamp,
        "timestamp" => {
            if cursor.accept(&["without", "time", "zone"]) {
                let message = "timestamps without a time zone are not supported";
                return Err(Error::unsupported(message)
                    .at(position)
                    .with_hint("use timestamptz: an instant, kept in UTC"));
            }
            cursor.accept(&["with", "time", "zone"]);
            ColumnType::Timestamp
        }
        "json" | "jsonb" => ColumnType::Json,
        _ => {
            let message = format!("type \"{name}\" does not exist");
            return Err(Error::new(SqlState::UndefinedObject, message).at(position).with_hint(
                "types are bool, int64, float64, decimal, text, bytes, date, time, timestamptz, \
                 json, list<..> and struct<name: ..>",
            ));
        }
    })
}

fn refuse_length(cursor: &mut Cursor<'_, '_>) -> Result<()> {
    if cursor.peek() == Some(&Token::LParen) {
        return Err(Error::unsupported("a length limit on text is not supported")
            .at(cursor.position())
            .with_hint("use text"));
    }
    Ok(())
}

/// Reads `(precision[, scale])`: every decimal is kept as decimal(38,9), which must hold it.
fn decimal_size(cursor: &mut Cursor<'_, '_>, position: usize) -> Result<()> {
    if !cursor.accept_token(&Token::LParen) {
        return Ok(());
    }
    let precision = digits(cursor)?;
    let scale = if cursor.accept_token(&Token::Comma) { digits(cursor)? } else { 0 };
    cursor.expect_token(&Token::RParen)?;
    if scale > 9 || precision < 1 || precision.saturating_sub(scale) > 29 {
        let message = format!("decimal({precision},{scale}) does not fit into decimal(38,9)");
        return Err(Error::new(SqlState::InvalidParameter, message).at(position));
    }
    Ok(())
}

fn digits(cursor: &mut Cursor<'_, '_>) -> Result<u32> {
    let number = match cursor.peek() {
        Some(Token::Number(text, _)) => text.parse().ok(),
        _ => None,
    };
    let Some(number) = number else { return Err(cursor.expected("a number of digits")) };
    cursor.at += 1;
    Ok(number)
}
