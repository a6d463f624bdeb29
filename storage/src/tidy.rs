//! Merging what was flushed in pieces, while a family is small.
//!
//! A flush leaves a file over the whole range of keys, and every read looks into each of them until RocksDB
//! thinks them enough for a compaction. While all of a family is about as large as one flush, merging
//! at once writes at most what the flush wrote again; later it would cost too much.

use rocksdb::CompactOptions;

use crate::engine::Engine;
use crate::families::Family;

/// A family up to here is small: the size of one memtable.
const SMALL_BYTES: u64 = 64 << 20;

/// Merges the files of each small family that has several of them; answers how many families that
/// were. Blocking. Does nothing where there is no room, or after a write failed.
pub(crate) fn merge_small(engine: &Engine) -> usize {
    if engine.keeper().is_full() || engine.keeper().check().is_err() {
        return 0;
    }
    let scattered = |family: &Family| {
        let (flushed, bytes) = engine.files_of(*family);
        flushed > 1 && bytes <= SMALL_BYTES
    };
    let due: Vec<Family> = Family::ALL.into_iter().filter(scattered).collect();
    for family in &due {
        let mut options = CompactOptions::default();
        options.set_exclusive_manual_compaction(false);
        let all = None::<&[u8]>;
        engine.db().compact_range_cf_opt(engine.family(*family), all, all, &options);
    }
    due.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Directory;

    #[test]
    fn files_of_a_small_family_become_one_and_say_the_same() {
        let directory = Directory::new();
        let engine = Engine::open(&directory.0, 8 << 20).unwrap();
        let (current, meta) = (engine.family(Family::Current), engine.family(Family::Meta));
        assert_eq!(merge_small(&engine), 0);
        for round in 0..3_u8 {
            for key in 0..100_u8 {
                engine.db().put_cf(current, [key], [round, key]).unwrap();
            }
            engine.db().flush_cf(current).unwrap();
        }
        engine.db().put_cf(meta, b"one", b"file").unwrap();
        engine.db().flush_cf(meta).unwrap();
        assert_eq!(engine.files_of(Family::Current).0, 3);
        assert_eq!(merge_small(&engine), 1);
        assert_eq!(engine.files_of(Family::Current).0, 0);
        assert_eq!(engine.files_of(Family::Meta).0, 1);
        assert_eq!(merge_small(&engine), 0);
        for key in 0..100_u8 {
            assert_eq!(engine.db().get_cf(current, [key]).unwrap(), Some(vec![2, key]));
        }
    }
}
