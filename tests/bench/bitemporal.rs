//! A history whose every version corrects the one before it, for all sides: version `v` of a key is valid from
//! day `v` on, and is recorded `v` hours after the first one was.

use std::path::Path;
use std::sync::Arc;

use everwhen_storage::{
    Batch, Clock, DefinitionChange, ManualClock, Options, Precedence, Store, ValidTime,
};

use crate::fixture::{DAY, put, table, write};
use crate::peers::{Loaded, Peer};

/// 2025-01-01, the day of the first version.
const FIRST_DAY: i64 = 1_735_689_600_000_000;
/// 2025-02-01, when the first versions were recorded; the next ones an hour later each.
const RECORDED: i64 = 1_738_368_000_000_000;
const HOUR: i64 = 3_600_000_000;
/// Transactions handed over at once.
const BATCH: i64 = 10_000;

/// So many keys with so many versions each.
#[derive(Clone, Copy)]
pub struct Bitemporal {
    pub keys: i64,
    pub versions: i64,
}

impl Bitemporal {
    /// Makes a store with the history, and a MariaDB and a PostgreSQL that hold the same.
    pub fn load(self, store: &Path) -> [Peer; 2] {
        tokio::task::block_in_place(|| {
            self.store(store);
            let peers = [Peer::mariadb(), Peer::postgres()];
            for peer in &peers {
                let seconds = peer.load(self.rows());
                println!("{}: loaded in {seconds:.0} s", peer.name);
            }
            peers
        })
    }

    /// Makes a store in which every version was written at its hour.
    pub fn store(self, path: &Path) {
        let clock = Arc::new(ManualClock::at(RECORDED - HOUR));
        let store = Store::open(Options {
            path: path.to_owned(),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            sync: false,
            block_cache_bytes: 512 << 20,
        })
        .unwrap();
        let definitions = vec![DefinitionChange::Table(table(Precedence::Effective))];
        write(&store, Batch { definitions, ..Batch::default() });
        for version in 0..self.versions {
            Clock::set(&*clock, RECORDED + version * HOUR).unwrap();
            for first in (0..self.keys).step_by(usize::try_from(BATCH).unwrap()) {
                let from = ValidTime::from_micros(FIRST_DAY + version * DAY);
                let ids = first..(first + BATCH).min(self.keys);
                let txs = ids.map(|id| put(id, version, from)).collect();
                write(&store, Batch { txs, ..Batch::default() });
            }
        }
        store.close().unwrap();
    }

    /// The rows of a bitemporal table after the same writes, by key: two for each version but the last.
    pub fn rows(self) -> impl Iterator<Item = Loaded> {
        let day = |version: i64| text(FIRST_DAY + version * DAY);
        let hour = |version: i64| text(RECORDED + version * HOUR);
        (0..self.keys).flat_map(move |id| {
            (0..self.versions).flat_map(move |version| {
                let row = move |valid_to: Option<i64>, sys: (i64, Option<i64>)| Loaded {
                    id: format!("key-{id:08}"),
                    site: format!("site {}", id % 97),
                    n: id * 10 + version,
                    note: format!("note {version} of {id}, forty characters or so"),
                    valid: (day(version), valid_to.map(day)),
                    sys: (hour(sys.0), sys.1.map(hour)),
                };
                let next = version + 1;
                if next == self.versions {
                    vec![row(None, (version, None))]
                } else {
                    vec![row(None, (version, Some(next))), row(Some(next), (next, None))]
                }
            })
        })
    }
}

fn text(micros: i64) -> String {
    let at = jiff::Timestamp::from_microsecond(micros).unwrap().to_string();
    at.trim_end_matches('Z').replace('T', " ")
}
