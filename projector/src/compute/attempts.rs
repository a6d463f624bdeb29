//! Steps that ended the process: noted while they run, and not tried again and again. Pausing by hand is here too.

use everwhen_storage::Store;

use super::cursor::{Attempt, State, attempt_key, encode, read, state_key};
use super::projection::Projection;
use crate::error::Result;

/// So many processes may end during a step before it is not tried again by itself.
const ENDED_MAX: u32 = 2;

/// Takes note of a step that a process before this one ended in; after two, nothing more is computed.
/// Returns the state, and whether an end is noted that the next step makes good.
pub fn after_end(store: &Store, name: &str, mut state: State) -> Result<(State, bool)> {
    let key = attempt_key(name);
    let Some(mut attempt) = read::<Attempt>(store, name, &key)? else { return Ok((state, false)) };
    if !attempt.running {
        return Ok((state, true));
    }
    attempt = Attempt { running: false, ended: attempt.ended + 1 };
    let mut entries = vec![(key, Some(encode(name, &attempt)?))];
    if attempt.ended >= ENDED_MAX && state.paused.is_none() {
        let ended = attempt.ended;
        let why = format!(
            "the server process ended {ended} times while it computed a step of this projection; \
             use ALTER PROJECTION {name} RESUME to try again"
        );
        tracing::error!(
            projection = name,
            ended,
            "projection paused: the server ended in its step"
        );
        state.paused = Some(why);
        entries.push((state_key(name), Some(encode(name, &state)?)));
    }
    store.put_cursors(&entries, true)?;
    Ok((state, true))
}

impl Projection {
    /// Says that a step takes its time, or that it has ended with the process alive.
    pub fn note_attempt(&self, store: &Store, running: bool) -> Result<()> {
        let key = attempt_key(&self.name);
        let entry = match running {
            true => {
                let before: Option<Attempt> = read(store, &self.name, &key)?;
                let ended = before.map_or(0, |before| before.ended);
                Some(encode(&self.name, &Attempt { running, ended })?)
            }
            false => None,
        };
        self.put(store, &vec![(key, entry)], false)
    }

    /// Computes nothing more until [`Projection::resume`]. What is computed is still delivered.
    pub fn pause(&self, store: &Store) -> Result<()> {
        self.set_paused(store, Some("paused by ALTER PROJECTION".to_owned()))
    }

    /// Goes on.
    pub fn resume(&self, store: &Store) -> Result<()> {
        self.note_attempt(store, false)?;
        self.set_paused(store, None)
    }

    fn set_paused(&self, store: &Store, paused: Option<String>) -> Result<()> {
        let _computing = self.computing.lock();
        let mut shared = self.shared.lock();
        let state = State { paused, ..shared.state.clone() };
        let entries = vec![(state_key(&self.name), Some(encode(&self.name, &state)?))];
        self.put(store, &entries, true)?;
        shared.state = state;
        shared.failure = None;
        drop(shared);
        self.wake.notify_one();
        Ok(())
    }
}
