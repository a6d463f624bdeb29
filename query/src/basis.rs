//! Basis tokens: a place to read at, opaque to whoever holds it.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use everwhen_storage::{Basis, Store, TxId, ValidTime};

use crate::error::{Error, Result, SqlState};

/// How long a statement waits for the store to reach its basis.
const REACH_WAIT_MAX: Duration = Duration::from_secs(10);
const FORM: &str = "1";

/// Returns the token of a basis of this store.
pub fn basis_token(store: &Store, basis: Basis) -> String {
    let incarnation = store.incarnation();
    let text = format!("{FORM}/{incarnation}/{}/{}", basis.tx, basis.now.micros());
    BASE64.encode(text)
}

/// Reads a token, without waiting for the store to reach it.
///
/// # Errors
/// 22023 for text that is no token, 0B000 for the token of another store.
pub fn parse_basis(store: &Store, token: &str) -> Result<Basis> {
    let no_token =
        || Error::new(SqlState::InvalidParameter, "the basis is no token that an answer carried");
    let bytes = BASE64.decode(token.trim()).map_err(|_| no_token())?;
    let text = String::from_utf8(bytes).map_err(|_| no_token())?;
    let parts: Vec<&str> = text.split('/').collect();
    let [FORM, incarnation, tx, now] = parts.as_slice() else {
        return Err(no_token());
    };
    if *incarnation != store.incarnation() {
        let message = "the basis is of another data directory, or of one before a restore";
        return Err(Error::new(SqlState::UnreachedBasis, message));
    }
    let tx = TxId::new(tx.parse().map_err(|_| no_token())?);
    let now = ValidTime::from_micros(now.parse().map_err(|_| no_token())?);
    Ok(Basis { tx, now })
}

/// Waits until the store has reached a basis.
///
/// # Errors
/// 0B000 where it does not within ten seconds.
pub async fn reach(store: &Store, basis: Basis) -> Result<()> {
    if basis.tx <= store.latest().tx {
        return Ok(());
    }
    let mut commits = store.watch_tx();
    let reached = commits.wait_for(|tx| *tx >= basis.tx);
    match tokio::time::timeout(REACH_WAIT_MAX, reached).await {
        Ok(Ok(_)) => Ok(()),
        _ => {
            let latest = store.latest().tx.get();
            Err(everwhen_storage::Error::Unreached { asked: basis.tx.get(), latest }.into())
        }
    }
}
