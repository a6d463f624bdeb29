//! Prepared statements and portals: what the extended protocol keeps between messages.

use std::collections::HashMap;
use std::sync::Arc;

use everwhen_query::{Described, Params};
use everwhen_storage::ColumnType;
use serde_json::Value as Json;

use super::command::{Command, Kind};
use super::input::{Bind, violation};
use super::parameters::decode;
use super::session::{Call, Cursor, Reply, Session};
use super::types::{TEXT, kind_of, oid_of};
use super::values::Column;
use super::words::{Words, syntax};
use crate::failure::{Answered, Failure};

/// Prepared statements and portals of a session at most.
const KEPT_MAX: usize = 5_000;

/// A statement that was parsed.
#[derive(Debug)]
pub struct Prepared {
    pub sql: String,
    pub command: Command,
    /// The types that the client declared; 0 where it left them open.
    declared: Vec<u32>,
    /// True where it may answer rows.
    returning: bool,
    known: Option<Arc<Known>>,
}

/// What a statement takes and answers.
#[derive(Debug)]
struct Known {
    kinds: Vec<Option<ColumnType>>,
    columns: Option<Vec<Column>>,
}

/// A statement with its parameters, and as far as it has run.
pub struct Portal {
    prepared: Arc<Prepared>,
    params: Params,
    /// The formats asked for.
    results: Vec<u16>,
    pub state: Progress,
}

/// How far a portal has run.
pub enum Progress {
    Bound,
    Rows(Cursor),
    /// It has run to its end, with this command tag.
    Ended(String),
}

/// What a session has prepared.
#[derive(Default)]
pub struct Extended {
    statements: HashMap<String, Arc<Prepared>>,
    portals: HashMap<String, Portal>,
}

impl Extended {
    /// Keeps a statement.
    ///
    /// # Errors
    /// 42P05 where its name is taken, 42601 for several statements, 54000 for too many.
    pub fn parse(&mut self, name: String, sql: String, declared: Vec<u32>) -> Answered<()> {
        if !name.is_empty() && self.statements.contains_key(&name) {
            let detail = format!("prepared statement \"{name}\" exists already");
            return Err(Failure::of_sqlstate("42P05", detail));
        }
        if self.statements.len() >= KEPT_MAX {
            let detail = format!("a session keeps {KEPT_MAX} prepared statements at most");
            return Err(Failure::of_sqlstate("54000", detail));
        }
        let words = Words::of(&sql);
        let tokens = words.tokens();
        use datafusion::sql::sqlparser::tokenizer::Token;
        let parted = tokens.iter().position(|token| *token == Token::SemiColon);
        if parted.is_some_and(|at| tokens[at..].iter().any(|t| *t != Token::SemiColon)) {
            return Err(syntax("a prepared statement holds one statement"));
        }
        let returning = tokens.iter().any(|token| {
            matches!(token, Token::Word(word) if word.value.eq_ignore_ascii_case("returning"))
        });
        let command = Command::of(&sql)?;
        let prepared = Prepared { sql, command, declared, returning, known: None };
        self.statements.insert(name, Arc::new(prepared));
        Ok(())
    }

    /// Returns a prepared statement.
    ///
    /// # Errors
    /// 26000.
    pub fn statement(&self, name: &str) -> Answered<Arc<Prepared>> {
        self.statements.get(name).cloned().ok_or_else(|| {
            Failure::of_sqlstate("26000", format!("prepared statement \"{name}\" does not exist"))
        })
    }

    /// Keeps a statement with its parameters as a portal.
    ///
    /// # Errors
    /// 26000, 08P01 for a wrong number of values, 22P02 and 22P03 for values that are none.
    pub async fn bind(&mut self, session: &mut Session, bind: Bind) -> Answered<()> {
        let prepared = self.known(session, &bind.statement, !bind.values.is_empty()).await?;
        if self.portals.len() >= KEPT_MAX {
            let detail = format!("a session keeps {KEPT_MAX} portals at most");
            return Err(Failure::of_sqlstate("54000", detail));
        }
        let params = params_of(&prepared, &bind)?;
        if bind.results.iter().chain(&bind.formats).any(|format| *format > 1) {
            return Err(violation("a format is neither text nor binary"));
        }
        let (results, state) = (bind.results, Progress::Bound);
        self.portals.insert(bind.portal, Portal { prepared, params, results, state });
        Ok(())
    }

    /// Returns a statement's parameters and the columns of its answer.
    ///
    /// # Errors
    /// 26000, and whatever is wrong with the statement.
    pub async fn describe(
        &mut self,
        session: &mut Session,
        name: &str,
    ) -> Answered<(Vec<u32>, Option<Vec<Column>>)> {
        let prepared = self.known(session, name, true).await?;
        let Some(known) = &prepared.known else { return Ok((Vec::new(), None)) };
        let oids = (0..known.kinds.len()).map(|at| match prepared.declared.get(at) {
            Some(oid) if *oid != 0 => *oid,
            _ => known.kinds[at].as_ref().map_or(TEXT, oid_of),
        });
        Ok((oids.collect(), known.columns.clone()))
    }

    /// Returns a portal.
    ///
    /// # Errors
    /// 34000.
    pub fn portal(&mut self, name: &str) -> Answered<&mut Portal> {
        self.portals.get_mut(name).ok_or_else(|| {
            Failure::of_sqlstate("34000", format!("portal \"{name}\" does not exist"))
        })
    }

    /// Forgets a statement, or all.
    pub fn forget(&mut self, name: Option<&str>) {
        match name {
            None => self.statements.clear(),
            Some(name) => drop(self.statements.remove(name)),
        }
    }

    /// Forgets a portal.
    pub fn close(&mut self, name: &str) {
        self.portals.remove(name);
    }

    /// Forgets all portals, as the end of a transaction does.
    pub fn close_all(&mut self) {
        self.portals.clear();
    }

    /// Returns a statement with what it takes and answers, found out where that is needed.
    async fn known(
        &mut self,
        session: &mut Session,
        name: &str,
        needed: bool,
    ) -> Answered<Arc<Prepared>> {
        let prepared = self.statement(name)?;
        if !needed || prepared.known.is_some() {
            return Ok(prepared);
        }
        let known = Arc::new(prepared.find_out(session).await?);
        let known = Arc::new(Prepared {
            sql: prepared.sql.clone(),
            command: prepared.command.clone(),
            declared: prepared.declared.clone(),
            returning: prepared.returning,
            known: Some(known),
        });
        self.statements.insert(name.to_owned(), Arc::clone(&known));
        Ok(known)
    }
}

impl Prepared {
    async fn find_out(&self, session: &mut Session) -> Answered<Known> {
        let declared = self.declared.iter().map(|oid| (Json::Null, kind_of(*oid)));
        let params = Params::Typed(declared.collect());
        match &self.command {
            // Nothing of these tells more than what was declared; most have no parameters.
            Command::Sql(Kind::Catalog) => {
                let count = placeholders(&self.sql).max(self.declared.len());
                let kinds =
                    (0..count).map(|at| self.declared.get(at).and_then(|oid| kind_of(*oid)));
                let kinds: Vec<_> = kinds.collect();
                let nulls =
                    kinds.iter().map(|kind| (Json::Null, kind.clone().or(Some(ColumnType::Text))));
                let params = Params::Typed(nulls.collect());
                let call = Call { sql: &self.sql, command: &self.command, params };
                let columns = match session.run(call).await? {
                    Reply::Rows(cursor) => Some(cursor.columns),
                    _ => None,
                };
                Ok(Known { kinds, columns })
            }
            Command::Sql(Kind::Define(_)) => Ok(Known { kinds: Vec::new(), columns: None }),
            Command::Sql(_) if self.is_own_show() => {
                let call = Call { sql: &self.sql, command: &self.command, params };
                match session.run(call).await? {
                    Reply::Rows(cursor) => {
                        Ok(Known { kinds: Vec::new(), columns: Some(cursor.columns) })
                    }
                    _ => Ok(Known { kinds: Vec::new(), columns: None }),
                }
            }
            Command::Sql(_) => {
                let Described { parameters, columns, .. } =
                    session.describe(&self.sql, params).await?;
                let columns = columns.map(|shape| {
                    let fields = shape.schema.fields().iter().zip(&shape.columns);
                    fields.map(|(field, (_, kind))| Column::new(field, kind)).collect()
                });
                Ok(Known { kinds: parameters, columns })
            }
            Command::Show(_) => {
                let call = Call { sql: &self.sql, command: &self.command, params };
                match session.run(call).await? {
                    Reply::Rows(cursor) => {
                        Ok(Known { kinds: Vec::new(), columns: Some(cursor.columns) })
                    }
                    _ => Ok(Known { kinds: Vec::new(), columns: None }),
                }
            }
            _ => Ok(Known { kinds: Vec::new(), columns: None }),
        }
    }

    /// True for EXPLAIN PROJECTION, whose columns only running it tells.
    fn is_own_show(&self) -> bool {
        let mut words = Words::of(&self.sql);
        words.accept(&["explain"]) && self.command == Command::Sql(Kind::Bare)
    }

    /// True for a statement that answers rows whatever comes of it.
    fn is_query(&self) -> bool {
        matches!(
            self.command,
            Command::Show(_) | Command::Sql(Kind::Query | Kind::Bare | Kind::Catalog)
        )
    }
}

/// Returns the greatest number of a `$n`.
fn placeholders(sql: &str) -> usize {
    use datafusion::sql::sqlparser::tokenizer::Token;
    let words = Words::of(sql);
    let numbers = words.tokens().iter().filter_map(|token| match token {
        Token::Placeholder(name) => name.strip_prefix('$')?.parse::<usize>().ok(),
        _ => None,
    });
    numbers.max().unwrap_or(0).min(usize::from(u16::MAX))
}

fn params_of(prepared: &Prepared, bind: &Bind) -> Answered<Params> {
    let known = prepared.known.as_ref().map(|known| known.kinds.as_slice()).unwrap_or_default();
    let expected = known.len();
    if bind.values.len() < expected || (prepared.known.is_some() && bind.values.len() > expected) {
        let detail =
            format!("the statement has {expected} parameters, {} were given", bind.values.len());
        return Err(violation(detail));
    }
    let format = |at: usize| match bind.formats.as_slice() {
        [] => 0,
        [one] => *one,
        many => many.get(at).copied().unwrap_or(0),
    };
    if bind.formats.len() > 1 && bind.formats.len() != bind.values.len() {
        return Err(violation("the formats of the parameters are not as many as the parameters"));
    }
    let mut values = Vec::with_capacity(bind.values.len());
    for (at, bytes) in bind.values.iter().enumerate() {
        let declared = prepared.declared.get(at).copied().filter(|oid| *oid != 0);
        let kind = known.get(at).cloned().flatten();
        let oid = declared.or_else(|| kind.as_ref().map(oid_of)).unwrap_or(0);
        let json = match bytes {
            None => Json::Null,
            Some(bytes) => decode(bytes, oid, format(at) == 1)?,
        };
        // A declared type that there is none of leaves its text to the place it stands in.
        let kind = match declared {
            Some(oid) => kind_of(oid),
            None => kind,
        };
        values.push((json, kind));
    }
    Ok(Params::Typed(values))
}

impl Portal {
    /// Returns the statement's command.
    pub fn command(&self) -> &Command {
        &self.prepared.command
    }

    /// Returns the columns of the answer; a query is started for it.
    ///
    /// # Errors
    /// Whatever is wrong with the statement.
    pub async fn columns(&mut self, session: &mut Session) -> Answered<Option<Vec<Column>>> {
        if let Progress::Rows(cursor) = &self.state {
            return Ok(Some(cursor.columns.clone()));
        }
        if self.prepared.is_query() {
            self.start(session).await?;
            return match &self.state {
                Progress::Rows(cursor) => Ok(Some(cursor.columns.clone())),
                _ => Ok(None),
            };
        }
        let writes = matches!(self.prepared.command, Command::Sql(Kind::Write(_)));
        if !self.prepared.returning || !writes {
            return Ok(None);
        }
        let known = match &self.prepared.known {
            Some(known) => Arc::clone(known),
            None => Arc::new(self.prepared.find_out(session).await?),
        };
        match known.columns.clone() {
            Some(columns) => self.formatted(columns).map(Some),
            None => Ok(None),
        }
    }

    /// Runs the statement, or the query to its first rows.
    ///
    /// # Errors
    /// Whatever the statement deserves.
    pub async fn start(&mut self, session: &mut Session) -> Answered<()> {
        if !matches!(self.state, Progress::Bound) {
            return Ok(());
        }
        let params = self.params.clone();
        let prepared = Arc::clone(&self.prepared);
        let call = Call { sql: &prepared.sql, command: &prepared.command, params };
        self.state = match session.run(call).await? {
            Reply::Empty => Progress::Ended(String::new()),
            Reply::Done(tag) => Progress::Ended(tag),
            Reply::Rows(mut cursor) => {
                // What a client was told of the statement holds for its portals.
                let told = prepared.known.as_ref().and_then(|known| known.columns.clone());
                let columns = told.unwrap_or_else(|| std::mem::take(&mut cursor.columns));
                cursor.columns = self.formatted(columns)?;
                Progress::Rows(cursor)
            }
        };
        Ok(())
    }

    fn formatted(&self, mut columns: Vec<Column>) -> Answered<Vec<Column>> {
        let count = columns.len();
        for (at, column) in columns.iter_mut().enumerate() {
            let format = match self.results.as_slice() {
                [] => 0,
                [one] => *one,
                many if many.len() == count => many[at],
                _ => {
                    let detail = "the formats of the columns are not as many as the columns";
                    return Err(violation(detail));
                }
            };
            column.binary = format == 1;
        }
        Ok(columns)
    }
}
