//! Pages of a query at a fixed basis: a token holds the basis and how many rows came before.
//!
//! The token is of no use to another statement: it holds a digest of the one it was made for.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use everwhen_query::Page;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::body::Object;
use crate::failure::{Answered, Failure};
use crate::service::query::Statement;

/// Which page of a statement's rows a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paging {
    pub offset: u64,
    pub rows: u64,
    digest: u64,
}

#[derive(Serialize, Deserialize)]
struct Token {
    #[serde(rename = "b")]
    basis: String,
    #[serde(rename = "o")]
    offset: u64,
    #[serde(rename = "r")]
    rows: u64,
    #[serde(rename = "d")]
    digest: u64,
}

impl Paging {
    /// Takes `page_size` and `page`, and has the statement read that page, at the page's basis.
    ///
    /// # Errors
    /// `invalid_request` for a size of 0, and for a token that is none, or of another request.
    pub fn take(body: &mut Object, statement: &mut Statement) -> Answered<Option<Self>> {
        let (size, token) = (body.whole("page_size")?, body.text("page")?);
        if size == Some(0) {
            return Err(Failure::request("\"page_size\" must be at least 1"));
        }
        let digest = digest(statement);
        let paging = match (token, size) {
            (None, None) => return Ok(None),
            (None, Some(rows)) => Self { offset: 0, rows, digest },
            (Some(token), size) => {
                if statement.basis.is_some() {
                    let detail = "\"page\" holds its basis: \"basis\" cannot stand beside it";
                    return Err(Failure::request(detail));
                }
                let token = Token::parse(&token)?;
                if token.digest != digest {
                    let detail = "\"page\" was answered to another request";
                    return Err(Failure::request(detail)
                        .with_hint("send what was sent for the first page, and \"page\""));
                }
                statement.basis = Some(token.basis);
                Self { offset: token.offset, rows: size.unwrap_or(token.rows), digest }
            }
        };
        // One row more tells whether another page follows.
        let rows = paging.rows.saturating_add(1);
        statement.page = Some(Page { offset: paging.offset, rows });
        Ok(Some(paging))
    }

    /// Returns the token of the page after this one.
    pub fn next(&self, basis: &str) -> String {
        let token = Token {
            basis: basis.to_owned(),
            offset: self.offset.saturating_add(self.rows),
            rows: self.rows,
            digest: self.digest,
        };
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).unwrap_or_default())
    }
}

impl Token {
    fn parse(text: &str) -> Answered<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok();
        bytes
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .ok_or_else(|| Failure::request("\"page\" is no token of a page"))
    }
}

/// Returns what tells a statement from others: everything that its rows depend on but the basis.
fn digest(statement: &Statement) -> u64 {
    let Statement { sql, params, tenant, valid_time, system_time, limit, .. } = statement;
    let parts = (sql, params, tenant, valid_time, system_time, limit);
    xxh3_64(format!("{parts:?}").as_bytes())
}
