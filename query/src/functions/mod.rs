//! The functions that SQL here has beyond DataFusion's own.

mod bounded;
mod checked;
mod clock;
mod extremes;
pub(crate) mod floats;
mod intervals;
pub(crate) mod periods;
mod rules;
mod series;
pub(crate) mod sums;
mod uuids;
mod wrapped;
mod zoned;

use datafusion::execution::session_state::SessionState;
use everwhen_storage::ValidTime;

use crate::error::Result;

pub(crate) use bounded::{BoundedConcatenation, bounded_projection};
pub(crate) use checked::CheckedArithmetic;
pub use clock::{is_clock, pin};
pub(crate) use floats::FloatsInOrder;
pub use floats::{columns_in_order, ordered_float};
pub(crate) use intervals::IntervalsByLength;
pub(crate) use uuids::{UuidsOfOneForm, uuids_of_one_form};

/// Registers what is the same in all sessions: JSON operators and functions, series of instants,
/// instants from text, periods, sums that do not wrap.
///
/// # Errors
/// XX000 where DataFusion refuses.
pub fn register(state: &mut SessionState) -> Result<()> {
    datafusion_functions_json::register_all(state)?;
    series::register(state);
    zoned::register(state)?;
    periods::register(state)?;
    sums::register(state)?;
    extremes::register(state)?;
    bounded::register(state)
}

/// Registers `now()` and its kin, at an instant or, without one, as calls that stay calls.
///
/// # Errors
/// XX000 where DataFusion refuses.
pub fn register_clock(state: &mut SessionState, now: Option<ValidTime>) -> Result<()> {
    clock::register(state, now)
}
