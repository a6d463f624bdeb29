//! Seeded fuzzing in process: inputs are mutated from a corpus and given to a target, which may
//! refuse them but must neither panic, overflow its stack nor take long.
//!
//! `EVERWHEN_EXECUTIONS` says how often each target is called, 5,000 times by default and 100,000
//! times for each of `EVERWHEN_SOAK`; `EVERWHEN_SEED` is the seed. With `EVERWHEN_FUZZ_TRACE` every
//! input is printed before it is run: for one that ends the process.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on panics")]
#![allow(clippy::disallowed_methods, reason = "how long an input takes is part of the answer")]

mod mutate;

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use mutate::Mutator;
pub use mutate::Random;

/// The stack of threads that decode what clients send.
pub const STACK_BYTES: usize = 2 << 20;
/// An input that takes longer is a finding; the machine may be busy with other tests.
const EXECUTION_MAX: Duration = Duration::from_secs(10);
/// Accepted inputs that are kept to be mutated again, beside the corpus.
const KEPT_MAX: usize = 2_000;
const INPUT_BYTES_MAX: usize = 64 << 10;

/// What is fuzzed, and with what.
#[derive(Debug, Clone)]
pub struct Fuzz<'a> {
    name: &'a str,
    corpus: Vec<Vec<u8>>,
    words: Vec<&'a str>,
    is_text: bool,
    stack_bytes: usize,
}

impl<'a> Fuzz<'a> {
    /// Fuzzes a decoder of bytes.
    pub fn bytes(name: &'a str, corpus: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let corpus = corpus.into_iter().collect();
        Self { name, corpus, words: Vec::new(), is_text: false, stack_bytes: STACK_BYTES }
    }

    /// Fuzzes a decoder of text: mutations keep UTF-8 and work on words more than on characters.
    pub fn text<T: Into<String>>(name: &'a str, corpus: impl IntoIterator<Item = T>) -> Self {
        let corpus = corpus.into_iter().map(|text| text.into().into_bytes());
        Self { is_text: true, ..Self::bytes(name, corpus) }
    }

    /// Adds words that inputs are likely to be made of.
    #[must_use]
    pub fn words(mut self, words: &[&'a str]) -> Self {
        self.words.extend(words);
        self
    }

    /// Runs the target with another stack than [`STACK_BYTES`].
    #[must_use]
    pub const fn stack(mut self, bytes: usize) -> Self {
        self.stack_bytes = bytes;
        self
    }

    /// Calls a target that takes text.
    ///
    /// # Panics
    /// As [`Self::run`].
    pub fn run_text(self, target: impl Fn(&str) -> bool + Send + Sync) {
        self.run(|bytes| target(std::str::from_utf8(bytes).expect("text is mutated as text")));
    }

    /// Calls the target, which says whether it accepted its input.
    ///
    /// # Panics
    /// Where the target panics or is slow, and where it accepts nothing or everything, as it is not
    /// fuzzed then.
    pub fn run(self, target: impl Fn(&[u8]) -> bool + Send + Sync) {
        assert!(!self.corpus.is_empty(), "{}: the corpus is empty", self.name);
        let (name, stack) = (self.name, self.stack_bytes);
        let began = Instant::now();
        let tally = std::thread::scope(|scope| {
            let work = || self.executions(&target);
            let thread = std::thread::Builder::new().stack_size(stack).spawn_scoped(scope, work);
            thread.unwrap().join()
        });
        let tally = tally.unwrap_or_else(|cause| std::panic::resume_unwind(cause));
        println!("{name}: {tally:?} in {:.1} s", began.elapsed().as_secs_f64());
        assert!(tally.accepted > 0, "{name}: nothing was accepted");
        assert!(tally.accepted < tally.executions, "{name}: everything was accepted");
    }

    fn executions(&self, target: &impl Fn(&[u8]) -> bool) -> Tally {
        let seed = number("EVERWHEN_SEED").unwrap_or(20_261_121);
        let soak = number("EVERWHEN_SOAK").map_or(5_000, |soak| 100_000 * soak);
        let executions = number("EVERWHEN_EXECUTIONS").unwrap_or(soak);
        let trace = std::env::var_os("EVERWHEN_FUZZ_TRACE").is_some();
        let mut random = Random::of(seed, self.name);
        let mutator = Mutator::new(&self.corpus, &self.words, self.is_text);
        let mut kept: Vec<Vec<u8>> = Vec::new();
        let mut tally = Tally { executions, accepted: 0 };
        for at in 0..executions {
            let place = random.below(self.corpus.len() + kept.len());
            let base = self.corpus.get(place).unwrap_or_else(|| &kept[place - self.corpus.len()]);
            // First of all, every input of the corpus as it is.
            let input = match usize::try_from(at).ok().and_then(|at| self.corpus.get(at)) {
                Some(input) => input.clone(),
                None => mutator.mutated(base, &mut random),
            };
            if trace {
                eprintln!("{} {at}: {}", self.name, shown(&input));
            }
            let began = Instant::now();
            let accepted = catch_unwind(AssertUnwindSafe(|| target(&input)));
            let took = began.elapsed();
            let wrong = match accepted {
                Err(_) => Some("panics".to_owned()),
                Ok(_) if took > EXECUTION_MAX => Some(format!("takes {took:?}")),
                Ok(_) => None,
            };
            if let Some(wrong) = wrong {
                let input = shown(&input);
                panic!("{} {wrong}: EVERWHEN_SEED={seed}, execution {at}\n{input}", self.name);
            }
            if accepted.is_ok_and(|accepted| accepted) {
                tally.accepted += 1;
                if kept.len() < KEPT_MAX && input.len() <= INPUT_BYTES_MAX / 16 {
                    kept.push(input);
                }
            }
        }
        tally
    }
}

/// What a run came to.
#[derive(Debug)]
struct Tally {
    executions: u64,
    accepted: u64,
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// Returns an input as the text of a Rust byte string.
fn shown(input: &[u8]) -> String {
    const SHOWN_MAX: usize = 4_000;
    let mut text = String::from("b\"");
    for byte in input.iter().take(SHOWN_MAX) {
        let _ = write!(text, "{}", byte.escape_ascii());
    }
    text.push('"');
    if input.len() > SHOWN_MAX {
        let _ = write!(text, ".. of {} bytes", input.len());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_deep_in_a_format_is_found() {
        let found = catch_unwind(|| {
            Fuzz::bytes("tags", [b"key=1;size=2".to_vec()]).run(|bytes| {
                let Ok(text) = std::str::from_utf8(bytes) else { return false };
                let parts: Vec<&str> = text.split(';').collect();
                assert!(parts.len() < 4 || !parts[3].starts_with("size"), "the fourth part");
                text.starts_with("key=")
            });
        });
        let cause = found.unwrap_err();
        let message = cause.downcast_ref::<String>().unwrap();
        assert!(message.contains("tags panics: EVERWHEN_SEED="), "{message}");
    }

    #[test]
    fn text_stays_text_and_inputs_stay_small() {
        Fuzz::text("words", ["SELECT 'é' FROM t", "(((a)))"]).words(&["WHERE"]).run_text(|text| {
            assert!(text.len() <= INPUT_BYTES_MAX);
            text.contains('S')
        });
    }
}
