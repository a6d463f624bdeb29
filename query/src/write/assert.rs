//! ASSERT: a condition that must be true of what the transaction sees, or nothing of it is done.

use arrow::array::{Array, AsArray};

use super::draft::Draft;
use super::{Writing, rows_of};
use crate::columns::cast_column;
use crate::dialect::Assert;
use crate::error::{Error, Result, SqlState};
use crate::session::StatementContext;
use everwhen_storage::ColumnType;

/// Evaluates an ASSERT where it stands: it sees what earlier statements wrote.
///
/// # Errors
/// P0004 where the condition is false or NULL, 42804 where it is no condition.
pub async fn check(
    writing: &Writing<'_>,
    ctx: &StatementContext,
    draft: &Draft,
    assert: &Assert,
) -> Result<()> {
    let reading = writing.reading(ctx, &draft.definitions);
    let (_, batches) = rows_of(&reading, draft, &assert.query).await?;
    let Some(row) = batches.iter().find(|batch| batch.num_rows() > 0) else {
        return Err(Error::internal("an assertion came to nothing"));
    };
    let condition = row.column(0);
    if condition.is_valid(0) {
        let Some(holds) = condition.as_boolean_opt() else {
            let message = format!("ASSERT takes a condition, not a {}", condition.data_type());
            return Err(Error::new(SqlState::DatatypeMismatch, message));
        };
        if holds.value(0) {
            return Ok(());
        }
    }
    let message = match row.columns().get(1) {
        Some(given) => {
            let text = cast_column(given, &ColumnType::Text)?;
            text.is_valid(0).then(|| text.as_string::<i32>().value(0).to_owned())
        }
        None => None,
    };
    let message = message.unwrap_or_else(|| format!("the assertion failed: {}", assert.text));
    Err(Error::new(SqlState::AssertFailure, message))
}
