//! `ASSERT condition [, message]`: parsed as the select list that it is.

use datafusion::sql::sqlparser::ast::{Query, Select, SelectItem, SetExpr};
use datafusion::sql::sqlparser::tokenizer::Token;

use super::tokens::StatementText;
use super::{Assert, ParseLimits, ParsedQuery, empty_select, query};
use crate::error::{Error, Result};

pub(super) fn assert(mut text: StatementText<'_>, limits: &ParseLimits) -> Result<Assert> {
    let written = text.text_from(1).to_owned();
    let position = text.position(0);
    if let Some(first) = text.tokens.first_mut() {
        first.token = Token::make_keyword("SELECT");
    }
    let parsed = query(text, limits)?;
    let Some(items) = items_alone(&parsed) else {
        let message = "ASSERT takes a condition, and a message behind a comma";
        return Err(Error::syntax(message).at(position));
    };
    let condition = items.first().map(ToString::to_string).unwrap_or_default();
    let text = if items.len() == 1 { written } else { condition };
    Ok(Assert { query: parsed, text })
}

/// Returns the one or two expressions of a query that is nothing but them.
fn items_alone(parsed: &ParsedQuery) -> Option<&[SelectItem]> {
    let Query { body, .. } = parsed.query.as_ref();
    let SetExpr::Select(select) = body.as_ref() else { return None };
    let items = &select.projection;
    let plain = items.iter().all(|item| matches!(item, SelectItem::UnnamedExpr(_)));
    let bare = Select { projection: items.clone(), ..empty_select() };
    let is_bare = **select == bare
        && parsed.query.with.is_none()
        && parsed.query.order_by.is_none()
        && parsed.query.limit_clause.is_none()
        && parsed.query.fetch.is_none();
    (is_bare && plain && (1..=2).contains(&items.len())).then_some(items.as_slice())
}
