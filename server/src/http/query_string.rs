//! Query strings, taken as strictly as bodies.

use std::collections::BTreeMap;

use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use everwhen_storage::time::Instant;

use crate::failure::{Answered, Failure};
use crate::service::instant_of;

/// The extractor that handlers take.
pub type Extracted = Result<Query<BTreeMap<String, String>>, QueryRejection>;

/// Parameters that are taken one by one; what is left over is unknown.
pub struct Parameters {
    given: BTreeMap<String, String>,
    known: Vec<&'static str>,
}

impl Parameters {
    /// Takes what the extractor found.
    ///
    /// # Errors
    /// `invalid_request` for a query string that cannot be read.
    pub fn new(extracted: Extracted) -> Answered<Self> {
        let Query(given) = extracted
            .map_err(|error| Failure::request(format!("the query string is wrong: {error}")))?;
        Ok(Self { given, known: Vec::new() })
    }

    /// Takes a text; an empty one counts as absent.
    pub fn text(&mut self, name: &'static str) -> Option<String> {
        self.known.push(name);
        self.given.remove(name).filter(|text| !text.is_empty())
    }

    /// Takes an instant.
    ///
    /// # Errors
    /// `invalid_instant`.
    pub fn instant<A>(&mut self, name: &'static str) -> Answered<Option<Instant<A>>> {
        self.text(name).map(|text| instant_of(&name, &text)).transpose()
    }

    /// Refuses parameters that nobody took.
    ///
    /// # Errors
    /// `invalid_request`, naming the parameter and those there are.
    pub fn finish(self) -> Answered<()> {
        let Some(unknown) = self.given.keys().next() else { return Ok(()) };
        Err(Failure::request(format!("unknown parameter \"{unknown}\""))
            .with_hint(format!("known are: {}", self.known.join(", "))))
    }
}
