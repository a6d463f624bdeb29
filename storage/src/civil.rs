//! Days and microseconds since the Unix epoch to calendar dates and back, in the proleptic Gregorian
//! calendar, UTC. Pure arithmetic, so that the whole range of the contract can be written and read:
//! 0001-01-01T00:00:00Z to 9999-12-31T23:59:59.999999Z.
//!
//! Source: Howard Hinnant, "chrono-compatible low-level date algorithms".

use std::fmt;

/// Microseconds of a day.
pub const MICROS_PER_DAY: i64 = 86_400_000_000;

/// The first day that can be stored: 0001-01-01.
pub const FIRST_DAY: i64 = -719_162;

/// The last day that can be stored: 9999-12-31.
pub const LAST_DAY: i64 = 2_932_896;

/// The first instant that can be stored, in microseconds since the Unix epoch.
pub const FIRST_MICROS: i64 = FIRST_DAY * MICROS_PER_DAY;

/// The last instant that can be stored, in microseconds since the Unix epoch, inclusive.
pub const LAST_MICROS: i64 = (LAST_DAY + 1) * MICROS_PER_DAY - 1;

/// Days from 0000-03-01, where the eras of 400 years begin, to the Unix epoch.
const EPOCH_FROM_ERA: i64 = 719_468;

const DAYS_PER_ERA: i64 = 146_097;

/// A date of the proleptic Gregorian calendar, with the astronomical year: 0 is 1 BC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CivilDate {
    year: i64,
    month: i64,
    day: i64,
}

impl CivilDate {
    /// Returns the date `days` after 1970-01-01.
    pub const fn of_days(days: i64) -> Self {
        let shifted = days.saturating_add(EPOCH_FROM_ERA);
        let era = shifted.div_euclid(DAYS_PER_ERA);
        let day_of_era = shifted.rem_euclid(DAYS_PER_ERA);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        // Months are counted from March, so that the day of a leap year comes last.
        let from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * from_march + 2) / 5 + 1;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        let next_year = if month <= 2 { 1 } else { 0 };
        Self { year: year_of_era + era * 400 + next_year, month, day }
    }

    /// Builds a date, where it exists and lies in the years 1 to 9999.
    pub const fn new(year: i64, month: i64, day: i64) -> Option<Self> {
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days = match month {
            2 if leap => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
            _ => return None,
        };
        if year < 1 || year > 9_999 || day < 1 || day > days {
            return None;
        }
        Some(Self { year, month, day })
    }

    /// Returns the days since 1970-01-01.
    pub const fn days(self) -> i64 {
        let year = if self.month <= 2 { self.year - 1 } else { self.year };
        let era = year.div_euclid(400);
        let year_of_era = year.rem_euclid(400);
        let day_of_year = (153 * ((self.month + 9) % 12) + 2) / 5 + self.day - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        era * DAYS_PER_ERA + day_of_era - EPOCH_FROM_ERA
    }

    /// Reads `YYYY-MM-DD`; nothing for any other form and for a date that does not exist.
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() != 10 || text[4] != b'-' || text[7] != b'-' {
            return None;
        }
        Self::new(digits(&text[..4])?, digits(&text[5..7])?, digits(&text[8..])?)
    }
}

impl fmt::Display for CivilDate {
    /// Writes `YYYY-MM-DD`; years beyond four digits and before year 0 with their sign, as ISO 8601
    /// expands them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.year {
            0..=9_999 => write!(f, "{:04}", self.year)?,
            year => write!(f, "{year:+05}")?,
        }
        write!(f, "-{:02}-{:02}", self.month, self.day)
    }
}

/// Writes an instant as RFC 3339 UTC with `Z` and 0, 3 or 6 fraction digits.
///
/// # Errors
/// Those of the formatter.
pub fn write_instant(f: &mut impl fmt::Write, micros: i64) -> fmt::Result {
    let date = CivilDate::of_days(micros.div_euclid(MICROS_PER_DAY));
    let of_day = micros.rem_euclid(MICROS_PER_DAY);
    let (seconds, fraction) = (of_day / 1_000_000, of_day % 1_000_000);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    write!(f, "{date}T{hour:02}:{minute:02}:{second:02}")?;
    match fraction {
        0 => f.write_str("Z"),
        _ if fraction % 1_000 == 0 => write!(f, ".{:03}Z", fraction / 1_000),
        _ => write!(f, ".{fraction:06}Z"),
    }
}

/// Reads `YYYY-MM-DD`, alone or with `T` or a space and `HH:MM[:SS[.ffffff]]`, and with `Z` or an
/// offset `+HH[[:]MM]`; without one it is UTC. Returns microseconds since the Unix epoch, or nothing
/// for any other form.
pub fn parse_instant(text: &[u8]) -> Option<i64> {
    let (date, rest) = text.split_at_checked(10)?;
    let midnight = CivilDate::parse(date)?.days() * MICROS_PER_DAY;
    let Some((separator, clock)) = rest.split_first() else { return Some(midnight) };
    if !matches!(separator, b'T' | b't' | b' ') {
        return None;
    }
    let zone_at = clock.iter().position(|byte| matches!(byte, b'Z' | b'z' | b'+' | b'-'));
    let (clock, zone) = clock.split_at(zone_at.unwrap_or(clock.len()));
    Some(midnight + clock_micros(clock)? - zone_micros(zone)?)
}

/// Reads `HH:MM[:SS[.ffffff]]` as microseconds since midnight.
fn clock_micros(text: &[u8]) -> Option<i64> {
    let two = |at: usize| digits(text.get(at..at + 2)?);
    if text.get(2) != Some(&b':') {
        return None;
    }
    let (hour, minute) = (two(0)?, two(3)?);
    let (second, rest) = match text.get(5..) {
        Some([]) => (0, &[] as &[u8]),
        Some([b':', ..]) => (two(6)?, text.get(8..)?),
        _ => return None,
    };
    let fraction = match rest {
        [] => 0,
        [b'.', fraction @ ..] if (1..=6).contains(&fraction.len()) => {
            let scale = 10_i64.pow(u32::try_from(6 - fraction.len()).ok()?);
            digits(fraction)? * scale
        }
        _ => return None,
    };
    let exists = hour < 24 && minute < 60 && second < 60;
    exists.then_some(((hour * 60 + minute) * 60 + second) * 1_000_000 + fraction)
}

/// Reads nothing, `Z` or `+HH[[:]MM]` as microseconds east of UTC.
fn zone_micros(text: &[u8]) -> Option<i64> {
    let Some((sign, offset)) = text.split_first() else { return Some(0) };
    let sign = match sign {
        b'Z' | b'z' => return offset.is_empty().then_some(0),
        b'-' => -1,
        _ => 1,
    };
    let (hours, minutes) = match offset.len() {
        2 => (digits(offset)?, 0),
        4 => (digits(&offset[..2])?, digits(&offset[2..])?),
        5 if offset[2] == b':' => (digits(&offset[..2])?, digits(&offset[3..])?),
        _ => return None,
    };
    (hours < 24 && minutes < 60).then_some(sign * (hours * 60 + minutes) * 60_000_000)
}

fn digits(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0_i64, |number, byte| {
        byte.is_ascii_digit().then(|| number * 10 + i64::from(byte - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use arrow::temporal_conversions::{date32_to_datetime, timestamp_us_to_datetime};

    use super::*;

    fn text(micros: i64) -> String {
        let mut text = String::new();
        write_instant(&mut text, micros).unwrap();
        text
    }

    #[test]
    fn every_day_of_the_range_is_as_counted_day_by_day() {
        let (mut year, mut month, mut day) = (1, 1, 1);
        for days in FIRST_DAY..=LAST_DAY {
            let date = CivilDate::new(year, month, day).unwrap();
            assert_eq!(CivilDate::of_days(days), date, "{days}");
            assert_eq!(date.days(), days);
            let shown = date.to_string();
            assert_eq!(CivilDate::parse(shown.as_bytes()), Some(date), "{shown}");
            if CivilDate::new(year, month, day + 1).is_some() {
                day += 1;
            } else if month < 12 {
                (month, day) = (month + 1, 1);
            } else {
                (year, month, day) = (year + 1, 1, 1);
            }
        }
        assert_eq!((year, month, day), (10_000, 1, 1), "the range ends with year 9999");
    }

    #[test]
    fn another_calendar_library_agrees() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for n in 0..200_000_i64 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let span = (LAST_MICROS - FIRST_MICROS).unsigned_abs() + 1;
            let at = FIRST_MICROS + i64::try_from(state % span).unwrap();
            let at = match n % 3 {
                0 => at,
                1 => at - at.rem_euclid(1_000),
                _ => at - at.rem_euclid(1_000_000),
            };
            let twin = timestamp_us_to_datetime(at).unwrap();
            assert_eq!(text(at), twin.format("%Y-%m-%dT%H:%M:%S%.fZ").to_string(), "{at}");
            assert_eq!(parse_instant(text(at).as_bytes()), Some(at), "{at}");
            let days = i32::try_from(at.div_euclid(MICROS_PER_DAY)).unwrap();
            let twin = date32_to_datetime(days).unwrap().format("%Y-%m-%d").to_string();
            assert_eq!(CivilDate::of_days(days.into()).to_string(), twin);
        }
    }

    #[test]
    fn the_ends_of_the_range_are_written_and_read() {
        for (micros, shown) in [
            (FIRST_MICROS, "0001-01-01T00:00:00Z"),
            (LAST_MICROS, "9999-12-31T23:59:59.999999Z"),
            (LAST_MICROS - 999_999, "9999-12-31T23:59:59Z"),
            (253_402_207_200_000_000, "9999-12-30T22:00:00Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
        ] {
            assert_eq!(text(micros), shown);
            assert_eq!(parse_instant(shown.as_bytes()), Some(micros), "{shown}");
        }
        assert_eq!(text(LAST_MICROS + 1), "+10000-01-01T00:00:00Z");
        assert_eq!(text(FIRST_MICROS - 1), "0000-12-31T23:59:59.999999Z");
    }

    #[test]
    fn forms_that_are_none_are_not_read() {
        for wrong in [
            "2026-02-30",
            "0000-01-01",
            "2026-1-05",
            "2026-01-05T24:00:00Z",
            "2026-01-05T09:00:60Z",
            "2026-01-05T09:00:00.Z",
            "2026-01-05T09:00:00.1234567Z",
            "2026-01-05T09:00:00Zx",
            "2026-01-05T09:00:00+1",
            "2026-01-05T09Z",
            "2026-01-05X09:00:00Z",
            "+10000-01-01",
        ] {
            assert_eq!(parse_instant(wrong.as_bytes()), None, "{wrong}");
        }
        let at = parse_instant(b"2026-01-05T09:00:00Z");
        for same in ["2026-01-05 10:00:00+01", "2026-01-05t04:30-0430", "2026-01-05 09:00"] {
            assert_eq!(parse_instant(same.as_bytes()), at, "{same}");
        }
    }
}
