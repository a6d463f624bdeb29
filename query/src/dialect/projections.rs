//! `ALTER PROJECTION`.

use super::cursor::Cursor;
use crate::error::Result;
use crate::statements::AlterProjection;

/// Reads a statement that begins with ALTER PROJECTION.
///
/// # Errors
/// 42601 for text of another form.
pub fn alter_projection(cursor: &mut Cursor<'_, '_>) -> Result<AlterProjection> {
    cursor.expect(&["alter", "projection"])?;
    let if_exists = cursor.accept(&["if", "exists"]);
    let (name, position) = cursor.name("a projection")?;
    let pause = cursor.accept(&["pause"]);
    if !pause && !cursor.accept(&["resume"]) {
        return Err(cursor.expected("PAUSE or RESUME"));
    }
    cursor.finish()?;
    Ok(AlterProjection { name, if_exists, pause, position })
}
