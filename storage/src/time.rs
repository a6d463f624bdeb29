//! The two time axes as types: [`ValidTime`], [`SystemTime`] and the half-open [`Period`].
//!
//! Both count microseconds since the Unix epoch, UTC. They do not mix: a bare `i64` never crosses
//! a function boundary, and comparing across the axes does not compile.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;

use crate::civil;
use crate::error::{Error, Result};

/// Marks the axis of valid time: when a fact holds in the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Valid;

/// Marks the axis of system time: when the database recorded it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct System;

/// A point on one time axis, in microseconds since the Unix epoch, UTC.
pub struct Instant<A>(i64, PhantomData<A>);

/// A point in valid time, given by whoever writes the fact.
pub type ValidTime = Instant<Valid>;

/// A point in system time, given by the single writer at commit.
pub type SystemTime = Instant<System>;

impl<A> Instant<A> {
    /// The open start of the axis: before every representable instant.
    pub const BEGIN: Self = Self(i64::MIN, PhantomData);
    /// The open end of the axis, `NULL` in SQL: after every representable instant.
    pub const END: Self = Self(i64::MAX, PhantomData);

    /// Wraps microseconds since the Unix epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros, PhantomData)
    }

    /// Returns microseconds since the Unix epoch; `i64::MIN`/`i64::MAX` at the open ends.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Returns the instant `micros` later, staying at the open ends.
    pub const fn saturating_add(self, micros: i64) -> Self {
        Self(self.0.saturating_add(micros), PhantomData)
    }

    /// True at either open end.
    pub const fn is_open(self) -> bool {
        self.0 == i64::MIN || self.0 == i64::MAX
    }

    /// Parses RFC 3339 (`2026-01-05T09:00:00Z`, offsets allowed, `T` or space, at most 6
    /// fraction digits) or a bare date (midnight UTC).
    ///
    /// # Errors
    /// [`Error::BadInstant`] for anything else, for dates that do not exist, for years before 1 or
    /// after 9999, and for precision finer than a microsecond.
    pub fn parse(text: &str) -> Result<Self> {
        parse_micros(text).map(Self::from_micros)
    }
}

fn parse_micros(text: &str) -> Result<i64> {
    let bad = |why: &str| Error::BadInstant { text: text.to_owned(), why: why.to_owned() };
    let text = text.trim();
    let micros = match civil::parse_instant(text.as_bytes()) {
        Some(micros) => micros,
        None if fraction_digits(text) > 6 => return Err(bad("finer than a microsecond")),
        None => {
            parse_lax(text).ok_or_else(|| bad("not an RFC 3339 instant or a date that exists"))?
        }
    };
    if (civil::FIRST_MICROS..=civil::LAST_MICROS).contains(&micros) {
        Ok(micros)
    } else {
        Err(bad("outside of the years 0001 to 9999"))
    }
}

fn fraction_digits(text: &str) -> usize {
    let fraction = text.split_once('.').map_or("", |(_, fraction)| fraction);
    fraction.bytes().take_while(u8::is_ascii_digit).count()
}

/// Reads the rarer forms of ISO 8601.
fn parse_lax(text: &str) -> Option<i64> {
    if let Ok(instant) = text.parse::<jiff::Timestamp>() {
        return Some(instant.as_microsecond());
    }
    let civil = text
        .parse::<jiff::civil::DateTime>()
        .or_else(|_| text.parse::<jiff::civil::Date>().map(|date| date.at(0, 0, 0, 0)))
        .ok()?;
    Some(civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_microsecond())
}

impl<A> fmt::Display for Instant<A> {
    /// Writes RFC 3339 UTC with `Z` and 0, 3 or 6 fraction digits; `-inf` and `inf` at the ends.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            i64::MIN => f.write_str("-inf"),
            i64::MAX => f.write_str("inf"),
            micros => civil::write_instant(f, micros),
        }
    }
}

impl<A> fmt::Debug for Instant<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// Written out because a derive would demand the same of the axis marker.
impl<A> Clone for Instant<A> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<A> Copy for Instant<A> {}
impl<A> PartialEq for Instant<A> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl<A> Eq for Instant<A> {}
impl<A> PartialOrd for Instant<A> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<A> Ord for Instant<A> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}
impl<A> Hash for Instant<A> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

/// A half-open period `[from, to)` on one axis; never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period<T> {
    from: T,
    to: T,
}

impl<A> Period<Instant<A>> {
    /// The whole axis.
    pub const ALL: Self = Self { from: Instant::BEGIN, to: Instant::END };

    /// Builds `[from, to)`.
    ///
    /// # Errors
    /// [`Error::EmptyPeriod`] where `from >= to`.
    pub fn new(from: Instant<A>, to: Instant<A>) -> Result<Self> {
        if from < to {
            Ok(Self { from, to })
        } else {
            Err(Error::EmptyPeriod { from: from.to_string(), to: to.to_string() })
        }
    }

    /// Builds `[from, to)`, or nothing where it would be empty.
    pub fn nonempty(from: Instant<A>, to: Instant<A>) -> Option<Self> {
        (from < to).then_some(Self { from, to })
    }

    /// Returns the inclusive start.
    pub const fn from(&self) -> Instant<A> {
        self.from
    }

    /// Returns the exclusive end.
    pub const fn to(&self) -> Instant<A> {
        self.to
    }

    /// True where `from <= at < to`.
    pub fn contains(&self, at: Instant<A>) -> bool {
        self.from <= at && at < self.to
    }

    /// True where the two share an instant.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.from < other.to && other.from < self.to
    }

    /// True where the two share an instant or meet end to start.
    pub fn touches(&self, other: &Self) -> bool {
        self.from <= other.to && other.from <= self.to
    }

    /// Returns the shared part.
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        Self::nonempty(self.from.max(other.from), self.to.min(other.to))
    }

    /// Returns the smallest period that holds both.
    pub fn hull(&self, other: &Self) -> Self {
        Self { from: self.from.min(other.from), to: self.to.max(other.to) }
    }
}
