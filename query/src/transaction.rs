//! What the statements of one request are together: a query, a definition, or writes that are one
//! transaction, within BEGIN and COMMIT or without.

use everwhen_storage::SystemTime;

use crate::dialect::{ParsedStatement, TransactionOptions};
use crate::error::{Error, Result, SqlState};

/// What a request's statements are together.
pub(crate) enum Work {
    One(Box<ParsedStatement>),
    Writes {
        writes: Vec<ParsedStatement>,
        /// What BEGIN says the transaction's system time is.
        system_time: Option<SystemTime>,
    },
}

/// Takes BEGIN and COMMIT off a request and tells what is left.
///
/// # Errors
/// 25006 for a write in a transaction that reads, 0A000 for what cannot stand together.
pub(crate) fn of(statements: Vec<ParsedStatement>) -> Result<Work> {
    let (mode, mut rest) = without_transaction(statements)?;
    let Mode { read_only, options } = mode;
    let writes = rest.iter().filter(|statement| is_write(statement)).count();
    let definitions = rest.iter().filter(|statement| is_definition(statement)).count();
    if read_only == Some(true) && writes + definitions > 0 {
        let message = "a read transaction takes no writes";
        return Err(Error::new(SqlState::ReadOnlyTransaction, message));
    }
    if rest.is_empty() {
        return Err(Error::syntax("the request holds no statement"));
    }
    let erases = rest.iter().any(|one| matches!(one, ParsedStatement::Erase(_)));
    let stands_beside = |one: &ParsedStatement| {
        matches!(one, ParsedStatement::Erase(_) | ParsedStatement::Assert(_))
    };
    if erases && !rest.iter().all(stands_beside) {
        let message = "ERASE stands with nothing but ERASE and ASSERT in its transaction";
        return Err(Error::unsupported(message).with_hint("send the statements one by one"));
    }
    if writes == rest.len() {
        return Ok(Work::Writes { writes: rest, system_time: options.system_time });
    }
    if options.system_time.is_some() {
        return Err(Error::unsupported("only a transaction that writes has a SYSTEM_TIME")
            .with_hint("read FOR SYSTEM_TIME AS OF an instant, or at a SNAPSHOT_TOKEN"));
    }
    if rest.len() == 1 {
        let mut one = rest.swap_remove(0);
        if let ParsedStatement::Query(query) | ParsedStatement::Explain { query, .. } = &mut one {
            let settings = &mut query.clauses.settings;
            settings.snapshot_token = settings.snapshot_token.take().or(options.snapshot_token);
            settings.clock_time = settings.clock_time.take().or(options.clock_time);
        }
        return Ok(Work::One(Box::new(one)));
    }
    Err(Error::unsupported(if definitions > 0 {
        "a definition stands alone in its request"
    } else if writes > 0 {
        "queries cannot stand in a transaction that writes"
    } else {
        "a request holds one query"
    }))
}

/// What BEGIN says.
#[derive(Default)]
struct Mode {
    read_only: Option<bool>,
    options: TransactionOptions,
}

/// Returns the mode of the one transaction that a request may frame, and what is in it.
fn without_transaction(statements: Vec<ParsedStatement>) -> Result<(Mode, Vec<ParsedStatement>)> {
    let mut rest = Vec::with_capacity(statements.len());
    let (mut mode, mut open) = (Mode::default(), false);
    for statement in statements {
        match statement {
            ParsedStatement::Begin { read_only, options } => {
                if open || !rest.is_empty() {
                    return Err(Error::unsupported("a request holds one transaction"));
                }
                open = true;
                let read_only = read_only.or(options.read_only());
                mode = Mode { read_only, options };
            }
            ParsedStatement::Commit if open => open = false,
            ParsedStatement::Commit => {
                let message = "COMMIT without BEGIN";
                return Err(Error::new(SqlState::NoActiveTransaction, message));
            }
            ParsedStatement::Rollback => {
                let message = "ROLLBACK is not supported: leave out what is not to be done";
                return Err(Error::unsupported(message));
            }
            other => rest.push(other),
        }
    }
    Ok((mode, rest))
}

const fn is_write(statement: &ParsedStatement) -> bool {
    matches!(
        statement,
        ParsedStatement::Insert(_)
            | ParsedStatement::Update(_)
            | ParsedStatement::Delete(_)
            | ParsedStatement::Erase(_)
            | ParsedStatement::Assert(_)
    )
}

const fn is_definition(statement: &ParsedStatement) -> bool {
    matches!(
        statement,
        ParsedStatement::CreateTable(_)
            | ParsedStatement::DropTable(_)
            | ParsedStatement::CreateView(_)
            | ParsedStatement::DropView(_)
            | ParsedStatement::SetRetention(_)
            | ParsedStatement::Define(_)
    )
}
