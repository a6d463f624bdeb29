//! Ranges of a table's keys.

use crate::error::Result;
use crate::key;
use crate::schema::{RowKey, TableId, Tenant};
use crate::value::Value;

/// A half-open range of a table's keys, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRange {
    /// Encoded, as [`RowKey`] is; the start of a key will do.
    from: Vec<u8>,
    /// `None` to the end.
    to: Option<Vec<u8>>,
}

impl KeyRange {
    /// Every key.
    pub const ALL: Self = Self { from: Vec::new(), to: None };

    /// Builds the range of the keys whose first columns have the values of `equal`, and whose next
    /// column is at least `least` and at most `most`, where given.
    ///
    /// # Errors
    /// [`crate::Error::Refused`] for a value that cannot stand in a key.
    pub fn of(equal: &[Value], least: Option<&Value>, most: Option<&Value>) -> Result<Self> {
        let with = |last: Option<&Value>| {
            let values: Vec<Value> = equal.iter().chain(last).cloned().collect();
            RowKey::encode(&values).map(|key| key.0)
        };
        Ok(Self { from: with(least)?, to: key::prefix_end(&with(most)?) })
    }

    /// Builds the range of the keys whose first columns have the values of `equal`, and whose next
    /// one is a text that starts with `start`.
    ///
    /// # Errors
    /// As [`KeyRange::of`].
    pub fn starting_with(equal: &[Value], start: &str) -> Result<Self> {
        let mut from = RowKey::encode(equal)?.0;
        key::put_text_start(&mut from, start);
        let to = key::prefix_end(&from);
        Ok(Self { from, to })
    }

    /// Builds the range of the keys after one.
    pub fn after(key: &RowKey) -> Self {
        // No key begins with another.
        Self { from: [key.0.as_slice(), &[0]].concat(), to: None }
    }

    /// True where the key is in the range.
    pub fn contains(&self, key: &RowKey) -> bool {
        key.0 >= self.from && self.to.as_ref().is_none_or(|to| key.0 < *to)
    }

    /// Returns what both ranges have in common; it may be empty.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let to = match (&self.to, &other.to) {
            (Some(one), Some(two)) => Some(one.min(two).clone()),
            (one, two) => one.as_ref().or(two.as_ref()).cloned(),
        };
        Self { from: self.from.clone().max(other.from.clone()), to }
    }

    /// Returns the first whole key of the range and the end of it, for one tenant's table.
    pub(crate) fn bounds(&self, tenant: &Tenant, table: TableId) -> (Vec<u8>, Option<Vec<u8>>) {
        let prefix = key::table_prefix(tenant, table);
        let end = match &self.to {
            None => key::prefix_end(&prefix),
            Some(to) => Some([prefix.as_slice(), to].concat()),
        };
        ([prefix.as_slice(), &self.from].concat(), end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(values: &[Value]) -> RowKey {
        RowKey::encode(values).unwrap()
    }

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn a_range_holds_the_keys_between_its_bounds() {
        let (two, five) = (Value::Int(-2), Value::Int(5));
        let range = KeyRange::of(&[], Some(&two), Some(&five)).unwrap();
        for (at, within) in [(-3, false), (-2, true), (0, true), (5, true), (6, false)] {
            assert_eq!(range.contains(&key(&[Value::Int(at)])), within, "{at}");
        }
        let from = KeyRange::of(&[], Some(&Value::Int(5)), None).unwrap();
        let both = range.intersection(&from);
        assert!(both.contains(&key(&[Value::Int(5)])) && !both.contains(&key(&[Value::Int(4)])));
        assert!(from.contains(&key(&[Value::Int(i64::MAX)])));
    }

    #[test]
    fn a_range_of_a_composite_key_stays_within_its_first_values() {
        let of_a = KeyRange::of(&[text("a")], None, None).unwrap();
        assert!(of_a.contains(&key(&[text("a"), Value::Int(i64::MIN)])));
        assert!(of_a.contains(&key(&[text("a"), Value::Int(i64::MAX)])));
        assert!(!of_a.contains(&key(&[text("a\0"), Value::Int(1)])));
        assert!(!of_a.contains(&key(&[text("b"), Value::Int(1)])));
        let some = KeyRange::of(&[text("a")], Some(&Value::Int(3)), None).unwrap();
        assert!(some.contains(&key(&[text("a"), Value::Int(3)])));
        assert!(!some.contains(&key(&[text("a"), Value::Int(2)])));
        assert!(!some.contains(&key(&[text("b"), Value::Int(3)])));
    }

    #[test]
    fn what_comes_after_a_key_is_all_but_it() {
        let keys = ["", "\0", "a", "a\0", "a\0b", "ab", "b"].map(|of| key(&[text(of)]));
        for (at, key) in keys.iter().enumerate() {
            let after = KeyRange::after(key);
            let found: Vec<bool> = keys.iter().map(|key| after.contains(key)).collect();
            let expected: Vec<bool> = (0..keys.len()).map(|other| other > at).collect();
            assert_eq!(found, expected, "{at}");
        }
    }

    #[test]
    fn texts_with_a_start_are_a_range() {
        for start in ["ab", "a\0", "\u{10FFFF}", ""] {
            let range = KeyRange::starting_with(&[], start).unwrap();
            for end in ["", "\0", "x", "\u{10FFFF}"] {
                assert!(
                    range.contains(&key(&[text(&format!("{start}{end}"))])),
                    "{start:?}{end:?}"
                );
            }
        }
        let range = KeyRange::starting_with(&[], "ab").unwrap();
        assert!(!range.contains(&key(&[text("a")])) && !range.contains(&key(&[text("ac")])));
    }
}
