//! What the change of a result means for the rows of a sink, key by key. Pure.

/// The rows of a delta that have one key, by their places.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Touch {
    /// Rows that came, with how often.
    pub come: Vec<(u32, i64)>,
    /// Rows that went, with how often (positive).
    pub gone: Vec<(u32, i64)>,
    /// A column of the key is NULL.
    pub null: bool,
    /// A row that came has a value that could not be computed.
    pub failed: bool,
}

/// What to do about a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The sink's row becomes the row at this place.
    Upsert(u32),
    /// The sink's row goes; the place is of a row with the key.
    Delete(u32),
    /// The delta alone does not tell: count the rows that the key has now.
    Check(u32),
}

/// Decides what a touched key means.
///
/// `unique`: the query cannot give two rows of one key. `held`: the key is in quarantine, so how
/// many rows it had is not known. Otherwise it had none or one.
pub fn verdict(touch: &Touch, unique: bool, held: bool) -> Option<Verdict> {
    let first = touch.come.first().or(touch.gone.first()).map(|(place, _)| *place)?;
    if touch.null || touch.failed || held {
        return Some(Verdict::Check(first));
    }
    let once = |rows: &[(u32, i64)]| match rows {
        [(place, 1)] => Some(*place),
        _ => None,
    };
    match (once(&touch.come), once(&touch.gone)) {
        // It had just the row that went, so it has just the one that came.
        (Some(place), Some(_)) => Some(Verdict::Upsert(place)),
        (None, Some(place)) if touch.come.is_empty() => Some(Verdict::Delete(place)),
        // A row may be there that did not change, unless the query rules it out.
        (Some(place), None) if touch.gone.is_empty() && unique => Some(Verdict::Upsert(place)),
        _ => Some(Verdict::Check(first)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(come: &[(u32, i64)], gone: &[(u32, i64)]) -> Touch {
        Touch { come: come.to_vec(), gone: gone.to_vec(), ..Touch::default() }
    }

    #[test]
    fn a_row_for_a_row_is_an_upsert() {
        let touched = touch(&[(1, 1)], &[(0, 1)]);
        assert_eq!(verdict(&touched, false, false), Some(Verdict::Upsert(1)));
    }

    #[test]
    fn a_lone_loss_is_a_delete() {
        assert_eq!(verdict(&touch(&[], &[(0, 1)]), false, false), Some(Verdict::Delete(0)));
    }

    #[test]
    fn a_lone_gain_is_trusted_only_where_the_key_is_proven() {
        let touched = touch(&[(3, 1)], &[]);
        assert_eq!(verdict(&touched, true, false), Some(Verdict::Upsert(3)));
        assert_eq!(verdict(&touched, false, false), Some(Verdict::Check(3)));
    }

    #[test]
    fn a_held_null_or_failed_key_is_always_counted() {
        let touched = touch(&[(1, 1)], &[(0, 1)]);
        assert_eq!(verdict(&touched, true, true), Some(Verdict::Check(1)));
        let null = Touch { null: true, ..touched.clone() };
        assert_eq!(verdict(&null, true, false), Some(Verdict::Check(1)));
        let failed = Touch { failed: true, ..touched };
        assert_eq!(verdict(&failed, true, false), Some(Verdict::Check(1)));
    }

    #[test]
    fn two_gains_are_counted() {
        let touched = touch(&[(1, 1), (2, 1)], &[(0, 1)]);
        assert_eq!(verdict(&touched, true, false), Some(Verdict::Check(1)));
        assert_eq!(verdict(&touch(&[(1, 2)], &[]), true, false), Some(Verdict::Check(1)));
    }
}
