//! The sink's table and what stands beside it: whose it is, who made it, which of its rows are ours.
//!
//! A table that was there before the projection came belongs to somebody else: it is used as it is.
//! One that the sink made gets new columns as the query gains them. Neither is ever dropped or narrowed.

use rusqlite::{OptionalExtension as _, Transaction};
use serde::{Deserialize, Serialize};

use super::{Fault, signed};
use crate::deliver::kind::Kind;
use crate::deliver::sink::{Control, taken};
use crate::deliver::target::{GENERATION, METADATA, Target};

const CONTROL_TABLE: &str = "CREATE TABLE IF NOT EXISTS everwhen_control (
    projection TEXT PRIMARY KEY, sink_table TEXT NOT NULL, incarnation TEXT NOT NULL,
    generation INTEGER NOT NULL, lease INTEGER NOT NULL, change INTEGER NOT NULL,
    reloading INTEGER NOT NULL)";

/// The tables that projections have or had: they stay theirs until they are dropped. `made` holds the
/// columns that the sink gave the table, as JSON; it is empty for a table that was there before, and
/// NULL for one of a version that did not tell.
const TABLES_TABLE: &str = "CREATE TABLE IF NOT EXISTS everwhen_tables (
    sink_table TEXT PRIMARY KEY COLLATE NOCASE, projection TEXT NOT NULL, made TEXT)";

const OLDER_TABLES: &str = "INSERT OR IGNORE INTO everwhen_tables
    SELECT sink_table, projection, NULL FROM everwhen_control";

const IS_TABLE: &str = "SELECT count(*) FROM sqlite_master WHERE name = ?1";

/// Names that begin so are the sink's own.
const OWN_PREFIX: &str = "everwhen_";

/// The column of the side table with the generation that wrote a row.
const ROW_GENERATION: &str = "_everwhen_generation";

/// A column's name and declared type.
type ColumnForm = (String, String);

/// The columns that the sink gave a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Made {
    columns: Vec<ColumnForm>,
    key: Vec<String>,
}

impl Made {
    fn wanted(target: &Target) -> Self {
        let own = target.columns.iter().map(|c| (c.name.clone(), declared_type(c.kind).to_owned()));
        let added = METADATA.iter().filter(|_| target.metadata);
        let added = added.map(|name| ((*name).to_owned(), "INTEGER".to_owned()));
        let key = target.key_columns().map(|column| column.name.clone()).collect();
        Self { columns: own.chain(added).collect(), key }
    }

    /// The statement that makes the table, without the end, and its end: columns that are added
    /// later come between the two.
    fn statement(&self, table: &str) -> (String, String) {
        let columns: Vec<String> =
            self.columns.iter().map(|(name, kind)| format!("{} {kind}", quote(name))).collect();
        let key: Vec<String> = self.key.iter().map(|name| quote(name)).collect();
        let start = format!("CREATE TABLE {} ({}", quote(table), columns.join(", "));
        (start, format!(", PRIMARY KEY ({}))", key.join(", ")))
    }

    /// Says whether a table with this text is the one that was made, perhaps with further columns.
    fn is_in(&self, table: &str, text: &str) -> bool {
        let (start, end) = self.statement(table);
        let rest = text.strip_prefix(&start).and_then(|rest| rest.strip_suffix(&end));
        rest.is_some_and(|added| added.is_empty() || added.starts_with(','))
    }

    fn kind_of(&self, name: &str) -> Option<&str> {
        let found = self.columns.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, kind)| kind.as_str())
    }
}

/// What is known of a table that is the projection's.
struct Owned {
    made: Option<String>,
}

/// A table that exists.
struct Present {
    columns: Vec<ColumnForm>,
    key: Vec<String>,
    /// The statement that makes it, as SQLite keeps it.
    text: String,
}

impl Present {
    fn has(&self, name: &str) -> bool {
        self.columns.iter().any(|(known, _)| known.eq_ignore_ascii_case(name))
    }
}

/// Makes the sink's own tables that are missing.
pub fn make_own_tables(tx: &Transaction<'_>) -> rusqlite::Result<()> {
    tx.execute(CONTROL_TABLE, [])?;
    if tx.query_row(IS_TABLE, ["everwhen_tables"], |row| row.get::<_, i64>(0))? == 0 {
        tx.execute(TABLES_TABLE, [])?;
        tx.execute(OLDER_TABLES, [])?;
    }
    Ok(())
}

/// Reads the projection's control row.
pub fn control_of(tx: &Transaction<'_>, target: &Target) -> Result<Option<Control>, Fault> {
    let sql = "SELECT incarnation, generation, lease, change, reloading FROM everwhen_control
        WHERE projection = ?1 AND sink_table = ?2";
    let found = tx
        .prepare_cached(sql)?
        .query_row([&target.projection, &target.table], |row| {
            Ok(Control {
                incarnation: row.get(0)?,
                generation: row.get(1)?,
                lease: row.get(2)?,
                change: row.get(3)?,
                reloading: row.get(4)?,
            })
        })
        .optional()?;
    Ok(found)
}

/// Writes the projection's control row.
pub fn store_control(
    tx: &Transaction<'_>,
    target: &Target,
    control: &Control,
) -> Result<(), Fault> {
    let sql = "INSERT OR REPLACE INTO everwhen_control
        (projection, sink_table, incarnation, generation, lease, change, reloading)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    tx.prepare_cached(sql)?.execute((
        &target.projection,
        &target.table,
        &control.incarnation,
        signed(control.generation),
        signed(control.lease),
        signed(control.change),
        control.reloading,
    ))?;
    Ok(())
}

/// Has the table be there with the columns of the target, and what stands beside it. Returns the
/// control row as it is to be, given the one to start from.
///
/// Fails, and changes nothing, if the table is another projection's or cannot be made to fit.
pub fn have(
    tx: &Transaction<'_>,
    sink: &str,
    target: &Target,
    control: Control,
) -> Result<Control, Fault> {
    let present = present(tx, &target.table)?;
    let owned = owned(tx, sink, target, present.is_some())?;
    let wanted = Made::wanted(target);
    let known = owned.is_some();
    let (control, made) = match present {
        None => {
            let (start, end) = wanted.statement(&target.table);
            tx.execute(&format!("{start}{end}"), [])?;
            tx.execute(&format!("DROP TABLE IF EXISTS {}", rows_table(target)), [])?;
            (Control::new(target), Some(wanted))
        }
        Some(present) => {
            let made = match made_of(owned, &present, &target.table)? {
                Some(made) => Some(widen(tx, target, &present, &made, &wanted)?),
                None => {
                    refuse_missing(target, &present, &wanted)?;
                    None
                }
            };
            if !known {
                disown_rows(tx, target)?;
            }
            (control, made)
        }
    };
    own(tx, target, made.as_ref())?;
    have_rows_table(tx, target, known)?;
    if control.generation == 0 {
        age_rows(tx, target)?;
    }
    Ok(control)
}

/// Returns what is known of the table, if it is the projection's; refuses one of another projection.
/// A table that was dropped is nobody's.
fn owned(
    tx: &Transaction<'_>,
    sink: &str,
    target: &Target,
    exists: bool,
) -> Result<Option<Owned>, Fault> {
    let start = target.table.get(..OWN_PREFIX.len());
    if start.is_some_and(|start| start.eq_ignore_ascii_case(OWN_PREFIX)) {
        let detail = format!("names that begin with {OWN_PREFIX} are the sink's own");
        return Err(Fault::Table(format!("table \"{}\": {detail}", target.table)));
    }
    let sql = "SELECT projection, made FROM everwhen_tables WHERE sink_table = ?1";
    let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get(1)?));
    let found = tx.query_row(sql, [&target.table], read).optional()?;
    match found {
        Some((owner, _)) if exists && owner != target.projection => {
            Err(taken(sink, target, &owner).into())
        }
        Some((_, made)) if exists => Ok(Some(Owned { made })),
        _ => Ok(None),
    }
}

/// Takes note that the table is the projection's, and of the columns that the sink made.
fn own(tx: &Transaction<'_>, target: &Target, made: Option<&Made>) -> Result<(), Fault> {
    let made = made.map(serde_json::to_string).transpose();
    let made = made.map_err(|error| Fault::Table(error.to_string()))?.unwrap_or_default();
    let sql = "INSERT OR REPLACE INTO everwhen_tables (sink_table, projection, made)
        VALUES (?1, ?2, ?3)";
    tx.execute(sql, [&target.table, &target.projection, &made])?;
    Ok(())
}

/// Has no row of a table that was there before count as the projection's, whatever wrote it.
fn disown_rows(tx: &Transaction<'_>, target: &Target) -> Result<(), Fault> {
    if target.metadata {
        let table = quote(&target.table);
        let sql = format!("UPDATE {table} SET {GENERATION} = NULL WHERE {GENERATION} IS NOT NULL");
        tx.execute(&sql, [])?;
    }
    tx.execute(&format!("DROP TABLE IF EXISTS {}", rows_table(target)), [])?;
    Ok(())
}

/// Returns the columns that the sink made, if it made the table.
fn made_of(owned: Option<Owned>, present: &Present, table: &str) -> Result<Option<Made>, Fault> {
    let made = match owned.map(|owned| owned.made) {
        None => None,
        Some(None) => Some(Made { columns: present.columns.clone(), key: present.key.clone() }),
        Some(Some(text)) if text.is_empty() => None,
        Some(Some(text)) => {
            let made = serde_json::from_str(&text);
            Some(made.map_err(|error| Fault::Table(format!("its note in the sink: {error}")))?)
        }
    };
    Ok(made.filter(|made| made.is_in(table, &present.text)))
}

/// Adds the columns that the query has gained to a table that the sink made.
fn widen(
    tx: &Transaction<'_>,
    target: &Target,
    present: &Present,
    made: &Made,
    wanted: &Made,
) -> Result<Made, Fault> {
    let unfit = |what: String| {
        Fault::Table(format!(
            "table \"{}\" {what}: drop the table in the sink, so that it is made anew, or name \
             another with INTO sink.table",
            target.table
        ))
    };
    if let Some((gone, _)) = made.columns.iter().find(|(name, _)| wanted.kind_of(name).is_none()) {
        return Err(unfit(format!("has column \"{gone}\", which the query has no more")));
    }
    if made.key != wanted.key {
        let (old, new) = (made.key.join(", "), wanted.key.join(", "));
        return Err(unfit(format!("has the key ({old}), the projection has ({new})")));
    }
    let mut columns = made.columns.clone();
    for (name, kind) in &wanted.columns {
        match made.kind_of(name) {
            Some(old) if old == kind => {}
            Some(old) => {
                return Err(unfit(format!("has column \"{name}\" as {old}, the query as {kind}")));
            }
            None if present.has(name) => {
                return Err(unfit(format!("has a column \"{name}\" that somebody else added")));
            }
            None => {
                let sql = format!(
                    "ALTER TABLE {} ADD COLUMN {} {kind}",
                    quote(&target.table),
                    quote(name)
                );
                tx.execute(&sql, [])?;
                columns.push((name.clone(), kind.clone()));
            }
        }
    }
    Ok(Made { columns, key: made.key.clone() })
}

/// Refuses a table of somebody else that lacks columns.
fn refuse_missing(target: &Target, present: &Present, wanted: &Made) -> Result<(), Fault> {
    let missing: Vec<&str> = wanted
        .columns
        .iter()
        .map(|(name, _)| name.as_str())
        .filter(|name| !present.has(name))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Fault::Table(format!(
        "table \"{}\" was not made by the projection and lacks the columns {}: add them, or name \
         another table with INTO sink.table",
        target.table,
        missing.join(", ")
    )))
}

fn present(tx: &Transaction<'_>, table: &str) -> Result<Option<Present>, Fault> {
    let sql = "SELECT sql FROM sqlite_master WHERE name = ?1 COLLATE NOCASE AND type IN ('table', 'view')";
    let text: Option<Option<String>> = tx.query_row(sql, [table], |row| row.get(0)).optional()?;
    let Some(text) = text else { return Ok(None) };
    let mut columns = Vec::new();
    let mut key = Vec::new();
    let mut statement = tx.prepare("SELECT name, type, pk FROM pragma_table_info(?1)")?;
    let mut found = statement.query([table])?;
    while let Some(row) = found.next()? {
        let (name, kind, place): (String, String, usize) = (row.get(0)?, row.get(1)?, row.get(2)?);
        if place > 0 {
            key.push((place, name.clone()));
        }
        columns.push((name, kind));
    }
    key.sort_unstable();
    let key = key.into_iter().map(|(_, name)| name).collect();
    Ok(Some(Present { columns, key, text: text.unwrap_or_default() }))
}

/// Has the side table of the keys written, for rows that do not carry their generation.
fn have_rows_table(tx: &Transaction<'_>, target: &Target, known: bool) -> Result<(), Fault> {
    // Keys seen by a reload, of an older version.
    let older = quote(&format!("{OWN_PREFIX}seen_{}", target.table));
    tx.execute(&format!("DROP TABLE IF EXISTS {older}"), [])?;
    let (table, rows) = (quote(&target.table), rows_table(target));
    let found = present(tx, &rows_name(target))?;
    if target.metadata {
        if found.is_some() {
            let same = same_key(target);
            let sql = format!(
                "UPDATE {table} AS t SET {GENERATION} = -1
                 WHERE EXISTS (SELECT 1 FROM {rows} AS s WHERE {same})"
            );
            tx.execute(&sql, [])?;
            tx.execute(&format!("DROP TABLE {rows}"), [])?;
        }
        return Ok(());
    }
    let keys: Vec<String> = target.key_columns().map(|column| quote(&column.name)).collect();
    if let Some(found) = found {
        let names = found.columns.iter().map(|(name, _)| quote(name));
        if names.take(found.columns.len().saturating_sub(1)).ne(keys.iter().cloned()) {
            return Err(Fault::Table(format!(
                "table \"{}\" was written under another key: name another table with INTO sink.table",
                target.table
            )));
        }
        return Ok(());
    }
    let declared: Vec<String> = target
        .key_columns()
        .map(|column| format!("{} {}", quote(&column.name), declared_type(column.kind)))
        .collect();
    let (declared, keys) = (declared.join(", "), keys.join(", "));
    let index = quote(&format!("{}_key", rows_name(target)));
    tx.execute(&format!("CREATE TABLE {rows} ({declared}, {ROW_GENERATION} INTEGER)"), [])?;
    tx.execute(&format!("CREATE INDEX {index} ON {rows} ({keys})"), [])?;
    if known {
        // Written before the projection gave up the metadata, or by an older version, which
        // removed all other rows.
        let carries = present(tx, &target.table)?.is_some_and(|table| table.has(GENERATION));
        let those = if carries { format!("WHERE {GENERATION} IS NOT NULL") } else { String::new() };
        tx.execute(&format!("INSERT INTO {rows} SELECT {keys}, -1 FROM {table} {those}"), [])?;
    }
    Ok(())
}

/// Marks all rows of the projection as older than any generation.
fn age_rows(tx: &Transaction<'_>, target: &Target) -> Result<(), Fault> {
    let sql = if target.metadata {
        let table = quote(&target.table);
        format!("UPDATE {table} SET {GENERATION} = -1 WHERE {GENERATION} IS NOT NULL")
    } else {
        format!("UPDATE {} SET {ROW_GENERATION} = -1", rows_table(target))
    };
    tx.execute(&sql, [])?;
    Ok(())
}

/// Deletes the projection's rows that a reload to `generation` has not written.
pub fn end_reload(tx: &Transaction<'_>, target: &Target, generation: u64) -> Result<(), Fault> {
    let (table, generation) = (quote(&target.table), signed(generation));
    if target.metadata {
        tx.execute(&format!("DELETE FROM {table} WHERE {GENERATION} < ?1"), [generation])?;
        return Ok(());
    }
    let (rows, same) = (rows_table(target), same_key(target));
    let sql = format!(
        "DELETE FROM {table} AS t WHERE EXISTS
         (SELECT 1 FROM {rows} AS s WHERE {same} AND s.{ROW_GENERATION} < ?1)"
    );
    tx.execute(&sql, [generation])?;
    tx.execute(&format!("DELETE FROM {rows} WHERE {ROW_GENERATION} < ?1"), [generation])?;
    Ok(())
}

fn same_key(target: &Target) -> String {
    let same: Vec<String> =
        target.key_columns().map(|c| format!("s.{0} IS t.{0}", quote(&c.name))).collect();
    same.join(" AND ")
}

/// The statements that write rows of one table.
pub struct Statements {
    pub update: String,
    pub insert: String,
    pub delete: String,
    /// For rows that do not carry their generation; the key comes first, the generation last.
    pub mark: String,
    pub mark_new: String,
    pub marked: String,
    pub unmark: String,
}

impl Statements {
    pub fn new(target: &Target) -> Self {
        let table = quote(&target.table);
        let rows = rows_table(target);
        let names: Vec<String> =
            Made::wanted(target).columns.iter().map(|(name, _)| quote(name)).collect();
        let numbered = |names: &[String], between: &str, sign: &str| -> String {
            let parts = names.iter().zip(1..).map(|(name, n)| format!("{name} {sign} ?{n}"));
            parts.collect::<Vec<_>>().join(between)
        };
        let places = |count: usize| -> String {
            (1..=count).map(|n| format!("?{n}")).collect::<Vec<_>>().join(", ")
        };
        let keys: Vec<String> = target.key_columns().map(|column| quote(&column.name)).collect();
        let key_places = target.key.iter().map(|place| format!("?{}", place + 1));
        let matches: Vec<String> =
            keys.iter().zip(key_places).map(|(name, at)| format!("{name} IS {at}")).collect();
        let same_key = numbered(&keys, " AND ", "IS");
        let of_ours =
            if target.metadata { format!(" AND {GENERATION} IS NOT NULL") } else { String::new() };
        Self {
            update: format!(
                "UPDATE {table} SET {} WHERE {}",
                numbered(&names, ", ", "="),
                matches.join(" AND ")
            ),
            insert: format!(
                "INSERT INTO {table} ({}) VALUES ({})",
                names.join(", "),
                places(names.len())
            ),
            delete: format!("DELETE FROM {table} WHERE {same_key}{of_ours}"),
            mark: format!(
                "UPDATE {rows} SET {ROW_GENERATION} = ?{} WHERE {same_key}",
                keys.len() + 1
            ),
            mark_new: format!("INSERT INTO {rows} VALUES ({})", places(keys.len() + 1)),
            marked: format!("SELECT 1 FROM {rows} WHERE {same_key}"),
            unmark: format!("DELETE FROM {rows} WHERE {same_key}"),
        }
    }
}

fn rows_name(target: &Target) -> String {
    format!("{OWN_PREFIX}rows_{}", target.table)
}

fn rows_table(target: &Target) -> String {
    quote(&rows_name(target))
}

const fn declared_type(kind: Kind) -> &'static str {
    match kind {
        Kind::Bool | Kind::Int64 => "INTEGER",
        Kind::Float64 => "REAL",
        Kind::Bytes => "BLOB",
        _ => "TEXT",
    }
}

pub fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
