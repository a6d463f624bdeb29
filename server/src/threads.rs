//! Runtimes for work of one kind, and how far their threads stand back for others.

use tokio::runtime::{Builder, Handle, Runtime};

/// A runtime. Dropped without waiting, since async code may drop it.
pub struct Threads(Option<Runtime>);

/// How far threads may stand back, as `nice` counts.
pub const NICE_MAX: u8 = 19;

impl Threads {
    /// Starts so many threads, 0 for one a core, that stand back for all others by `nice`, 0 to
    /// [`NICE_MAX`].
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn start(name: &str, count: usize, nice: u8) -> std::io::Result<Self> {
        let mut builder = Builder::new_multi_thread();
        if count > 0 {
            builder.worker_threads(count);
        }
        // Threads begin as those that start them, which may be one of these.
        let niceness = niceness().filter(|_| nice > 0).map(|own| own + i16::from(nice));
        let runtime = builder
            .thread_name(name)
            .thread_stack_size(everwhen_query::QUERY_STACK_BYTES)
            .on_thread_start(move || niceness.into_iter().for_each(stand_back))
            .enable_all()
            .build()?;
        Ok(Self(Some(runtime)))
    }

    /// Returns what work is handed to.
    pub fn handle(&self) -> Handle {
        self.0.as_ref().map_or_else(Handle::current, |runtime| runtime.handle().clone())
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Lets threads that are less nice run before this one, where the system knows how.
#[cfg(target_os = "linux")]
fn stand_back(nice: i16) {
    use thread_priority::{ThreadPriority, ThreadPriorityValue, set_current_thread_priority};

    let Ok(value) = ThreadPriorityValue::try_from(priority(nice)) else { return };
    if let Err(error) = set_current_thread_priority(ThreadPriority::Crossplatform(value)) {
        tracing::debug!(?error, nice, "a thread keeps its priority");
    }
}

#[cfg(not(target_os = "linux"))]
const fn stand_back(_: i16) {}

#[cfg(not(target_os = "linux"))]
const fn niceness() -> Option<i16> {
    None
}

/// Returns the niceness of the thread that asks: proc(5), field 19, counted after the name.
#[cfg(target_os = "linux")]
fn niceness() -> Option<i16> {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").ok()?;
    let (_, after) = stat.rsplit_once(") ")?;
    after.split(' ').nth(16)?.parse().ok()
}

/// Returns the priority, 0 to 99, that the library turns into a niceness: from 19 down to -20, each a
/// fortieth of the way, of which this is the middle.
#[cfg(target_os = "linux")]
fn priority(nice: i16) -> u8 {
    let from_least = 37 - 2 * nice.clamp(-20, i16::from(NICE_MAX));
    u8::try_from(99 * from_least / 78).unwrap_or(0)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn threads_stand_back_as_far_as_they_are_told() {
        let own = niceness().unwrap();
        for nice in 1..=NICE_MAX {
            let threads = Threads::start("nice", 1, nice).unwrap();
            let told = async { niceness() };
            let working = threads.handle().spawn(told);
            let blocking = threads.handle().spawn_blocking(niceness);
            let wait = Builder::new_current_thread().build().unwrap();
            let found = wait.block_on(async { (working.await.unwrap(), blocking.await.unwrap()) });
            let expected = Some((own + i16::from(nice)).min(i16::from(NICE_MAX)));
            assert_eq!(found, (expected, expected));
        }
        assert_eq!(niceness(), Some(own), "nobody else does");
    }
}
