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
        let runtime = builder
            .thread_name(name)
            .thread_stack_size(everwhen_query::QUERY_STACK_BYTES)
            .on_thread_start(move || stand_back(nice))
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

/// Lets the other threads of the process run before this one, where the system knows how.
#[cfg(target_os = "linux")]
fn stand_back(nice: u8) {
    use thread_priority::{ThreadPriority, ThreadPriorityValue, set_current_thread_priority};

    let value = if nice == 0 { None } else { ThreadPriorityValue::try_from(priority(nice)).ok() };
    let Some(value) = value else { return };
    if let Err(error) = set_current_thread_priority(ThreadPriority::Crossplatform(value)) {
        tracing::debug!(?error, nice, "a thread keeps its priority");
    }
}

#[cfg(not(target_os = "linux"))]
const fn stand_back(_: u8) {}

/// Returns the priority, 0 to 99, that the library turns into a niceness: from 19 down to -20, each a
/// fortieth of the way, of which this is the middle.
#[cfg(target_os = "linux")]
fn priority(nice: u8) -> u8 {
    let from_least = 37_u16.saturating_sub(2 * u16::from(nice.min(NICE_MAX)));
    u8::try_from(99 * from_least / 78).unwrap_or(0)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// The niceness of the thread that asks: proc(5), field 19, counted after the name.
    fn niceness() -> i32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let (_, after) = stat.rsplit_once(") ").unwrap();
        after.split(' ').nth(16).unwrap().parse().unwrap()
    }

    #[test]
    fn threads_stand_back_as_far_as_they_are_told() {
        let own = niceness();
        for nice in 1..=NICE_MAX {
            let threads = Threads::start("nice", 1, nice).unwrap();
            let told = async { niceness() };
            let working = threads.handle().spawn(told);
            let blocking = threads.handle().spawn_blocking(niceness);
            let wait = Builder::new_current_thread().build().unwrap();
            let found = wait.block_on(async { (working.await.unwrap(), blocking.await.unwrap()) });
            let expected = i32::from(nice).max(own);
            assert_eq!(found, (expected, expected));
        }
        assert_eq!(niceness(), own, "nobody else does");
    }
}
