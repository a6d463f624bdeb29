//! The stored pieces of one key within a window of valid time, and the versions they make.
//!
//! ```text
//! latest belief   |----tx 2----|--tx 7--|      |---tx 4------------>    timeline, then current
//! read at tx 5    |----tx 2----|???????????????|---tx 4------------>    ? = look in the archive
//! ```
//!
//! Where the latest belief is no newer than what is read it answers alone. Elsewhere, gaps
//! included, a piece may have been superseded since: those windows are read from the archive,
//! one fork after the other, each by one seek to the first piece superseded after the instant.

use crate::error::Result;
use crate::key::Fork;
use crate::scan::merge::{Believed, Pieces};
use crate::scan::reader::{Current, Reader};
use crate::time::{Period, ValidTime};
use crate::tx::TxId;

/// Beyond this many separate windows the archive is read over all of them at once.
const WINDOWS_MAX: usize = 4;

/// So often the instants beside a version are read to find where it ends, then windows of twice
/// the length: the cuts into a version are few, or so many that long runs are cheaper.
const PROBES_MAX: usize = 12;

/// Returns the instant just before `at`, the first one staying.
pub(crate) fn before(at: ValidTime) -> ValidTime {
    at.saturating_add(-1)
}

/// Returns the smallest window that holds a period and the instants it touches.
pub(crate) fn with_neighbours(period: &Period<ValidTime>) -> Period<ValidTime> {
    let wider = Period::nonempty(before(period.from()), period.to().saturating_add(1));
    wider.unwrap_or(*period)
}

/// A row to read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'a> {
    /// The row's prefix in every family.
    pub(crate) prefix: &'a [u8],
    pub(crate) current: Current<'a>,
    /// Nothing of the row is later than the reader's transaction.
    pub(crate) unchanged: bool,
}

impl Target<'_> {
    /// True where the latest belief is all that was believed.
    fn is_settled(&self, reader: &Reader<'_>, believed: Believed) -> bool {
        reader.is_latest(believed.from) || self.unchanged && believed.from == reader.tx()
    }
}

/// Fills `out` with the versions of a key that were believed in `believed` and overlap `wanted`,
/// in order of `valid_from`, `tx_from`. Versions that do not overlap may stand among them.
pub(crate) fn versions(
    reader: &Reader<'_>,
    target: &Target<'_>,
    wanted: Period<ValidTime>,
    believed: Believed,
    out: &mut Pieces,
) -> Result<()> {
    out.clear();
    let Some(believed) = reader.shown(&target.current, believed) else { return Ok(()) };
    gather(reader, target, wanted, believed, out)?;
    out.coalesce();
    // Stored pieces of the latest belief are maximal, and so they were where none was superseded.
    let whole = believed.is_one_tx()
        && (target.current.archive.is_empty() || target.is_settled(reader, believed));
    if whole || wanted == Period::ALL {
        return Ok(());
    }
    let mut beside = Beside { wanted, seen: Vec::new() };
    for _ in 0..PROBES_MAX {
        let next = beside.unseen(out);
        if next.is_empty() {
            return Ok(());
        }
        for instant in next {
            gather(reader, target, instant, believed, out)?;
            beside.seen.push(instant.from());
        }
        out.coalesce();
    }
    let mut window = wanted;
    while let Some(longer) = twice_where_cut(out, wanted, window) {
        window = longer;
        out.clear();
        gather(reader, target, window, believed, out)?;
        out.coalesce();
    }
    Ok(())
}

/// The instants beside the versions that may go on beyond the window they were found in.
struct Beside {
    wanted: Period<ValidTime>,
    /// Those that have been read, beside the whole window.
    seen: Vec<ValidTime>,
}

impl Beside {
    fn is_seen(&self, at: ValidTime) -> bool {
        self.wanted.contains(at) || self.seen.contains(&at)
    }

    /// Returns the instants that must be read to know where wanted versions end.
    fn unseen(&self, out: &Pieces) -> Vec<Period<ValidTime>> {
        let mut unseen = Vec::new();
        for piece in out.iter().filter(|piece| piece.valid.overlaps(&self.wanted)) {
            let (from, to) = (piece.valid.from(), piece.valid.to());
            if from != ValidTime::BEGIN && !self.is_seen(before(from)) {
                unseen.extend(Period::nonempty(before(from), from));
            }
            if to != ValidTime::END && !self.is_seen(to) {
                unseen.extend(Period::nonempty(to, to.saturating_add(1)));
            }
        }
        unseen.sort_unstable();
        unseen.dedup();
        unseen
    }
}

/// Returns the window, longer by its length on each side where a wanted version may go on.
fn twice_where_cut(
    out: &Pieces,
    wanted: Period<ValidTime>,
    window: Period<ValidTime>,
) -> Option<Period<ValidTime>> {
    let step = window.to().micros().saturating_sub(window.from().micros());
    let (mut from, mut to) = (window.from(), window.to());
    for piece in out.iter().filter(|piece| piece.valid.overlaps(&wanted)) {
        if piece.valid.from() <= window.from() {
            from = from.min(piece.valid.from().saturating_add(-step));
        }
        if piece.valid.to() >= window.to() {
            to = to.max(piece.valid.to().saturating_add(step));
        }
    }
    Period::nonempty(from, to).filter(|longer| *longer != window)
}

/// Appends the stored pieces that overlap `window` and were believed in `believed`.
fn gather(
    reader: &Reader<'_>,
    target: &Target<'_>,
    window: Period<ValidTime>,
    believed: Believed,
    out: &mut Pieces,
) -> Result<()> {
    let Target { prefix, current, .. } = target;
    let mut doubtful = Doubtful { from: window.from(), periods: Vec::new() };
    if current.timeline && window.from() < current.valid_from {
        reader.timeline(prefix, window, &mut |found, row| {
            if found.tx_from <= believed.to {
                out.push(found.valid, found.tx_from, None, row);
            }
            if found.tx_from <= believed.from {
                doubtful.settle(found.valid);
            }
        })?;
    }
    if let Some(valid) = Period::nonempty(current.valid_from, ValidTime::END)
        && valid.overlaps(&window)
    {
        if let Some(row) = current.row
            && current.tx_from <= believed.to
        {
            out.push(valid, current.tx_from, None, row);
        }
        if current.tx_from <= believed.from {
            doubtful.settle(valid);
        }
    }
    doubtful.up_to(window.to());
    if doubtful.periods.is_empty() || current.archive.is_empty() || reader.is_latest(believed.from)
    {
        return Ok(());
    }
    if let [first, .., last] = doubtful.periods.as_slice()
        && doubtful.periods.len() > WINDOWS_MAX
    {
        return archive(reader, target, first.hull(last), believed, out);
    }
    for period in &doubtful.periods {
        archive(reader, target, *period, believed, out)?;
    }
    Ok(())
}

/// The parts of a window that the latest belief leaves open.
struct Doubtful {
    /// Everything before is settled or in `periods`.
    from: ValidTime,
    periods: Vec<Period<ValidTime>>,
}

impl Doubtful {
    fn up_to(&mut self, at: ValidTime) {
        self.periods.extend(Period::nonempty(self.from, at));
    }

    fn settle(&mut self, valid: Period<ValidTime>) {
        self.up_to(valid.from());
        self.from = self.from.max(valid.to());
    }
}

/// Appends archived pieces that overlap `window` and were believed in `believed`.
fn archive(
    reader: &Reader<'_>,
    target: &Target<'_>,
    window: Period<ValidTime>,
    believed: Believed,
    out: &mut Pieces,
) -> Result<()> {
    let superseded = believed.from.plus(1);
    reader.with_archive(|cursor| {
        // What is superseded is most often without an end, and such pieces stand in high levels.
        for level in target.current.archive.iter_down() {
            let first = Fork::containing(window.from(), level);
            let last = Fork::containing(before(window.to()), level);
            cursor.seek(target.prefix, first, superseded);
            while let Some(found) = cursor.piece(target.prefix)? {
                let fork = found.fork;
                if fork > last {
                    break;
                }
                if found.tx_to <= believed.from {
                    cursor.seek(target.prefix, fork, superseded);
                    continue;
                }
                let spent = found.tx_from > believed.to || believed.is_one_tx();
                if found.tx_from <= believed.to && found.valid.overlaps(&window) {
                    let tx_to = (found.tx_to <= believed.to).then_some(found.tx_to);
                    out.push(found.valid, found.tx_from, tx_to, found.row);
                    if believed.is_one_tx() && found.valid.intersect(&window) == Some(window) {
                        return Ok(());
                    }
                }
                if !spent {
                    cursor.next();
                } else if fork == last {
                    break;
                } else {
                    // What follows in this fork was believed later still.
                    cursor.seek(target.prefix, Fork { at: fork.at + 1, ..fork }, TxId::ZERO);
                }
            }
        }
        Ok(())
    })
}
