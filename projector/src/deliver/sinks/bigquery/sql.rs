//! The statements of one table, as text. Nothing here talks to anybody.

use crate::deliver::kind::{Cell, Kind, float_text};
use crate::deliver::sink::Control;
use crate::deliver::step::{RowStep, Step};
use crate::deliver::target::{CHANGE, GENERATION, METADATA, TX, Target};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// BigQuery clusters by at most four columns.
const CLUSTER_COLUMNS_MAX: usize = 4;

/// Builds the statements for a target in a dataset.
pub struct TableSql<'a> {
    target: &'a Target,
    table: String,
    control: String,
    seen: String,
    made: String,
    columns_view: String,
}

impl<'a> TableSql<'a> {
    /// Checks the names, which cannot be escaped everywhere.
    pub fn new(project: &str, dataset: &str, target: &'a Target) -> Result<Self, String> {
        let plain = |name: &str| !name.is_empty() && !name.contains(['`', '\\', '\n', '\r', '.']);
        let columns = target.columns.iter().map(|column| column.name.as_str());
        for name in columns.chain([project, dataset, &target.table]) {
            if !plain(name) {
                return Err(format!("\"{name}\" is no name that BigQuery takes"));
            }
        }
        let path = |name: &str| format!("`{project}.{dataset}.{name}`");
        Ok(Self {
            target,
            table: path(&target.table),
            control: path(&format!("everwhen_control_{}", target.table)),
            seen: path(&format!("everwhen_seen_{}", target.table)),
            made: path(&format!("everwhen_made_{}", target.table)),
            columns_view: path("INFORMATION_SCHEMA.COLUMNS"),
        })
    }

    /// Names and declared types of the columns that the sink's table must have.
    pub fn columns(&self) -> Vec<(String, String)> {
        let own = self.target.columns.iter().map(|c| (c.name.clone(), declared_type(c.kind)));
        let added = METADATA.iter().filter(|_| self.target.metadata);
        own.chain(added.map(|name| ((*name).to_owned(), "INT64".to_owned()))).collect()
    }

    /// Makes the control table, and the one of the columns that the sink made, if they are missing.
    pub fn create_control(&self) -> String {
        format!(
            "CREATE TABLE IF NOT EXISTS {} (projection STRING, incarnation STRING, \
             generation INT64, lease INT64, `change` INT64, reloading BOOL);\n\
             CREATE TABLE IF NOT EXISTS {} (column_name STRING);",
            self.control, self.made
        )
    }

    /// Reads what there is, a word in front of each row: `present`, name and type of a column of the
    /// table; `made`, a column that the sink made (there are none in a table of somebody else);
    /// `owner`, another projection that has a control row for the table.
    pub fn read_form(&self) -> String {
        let table = literal(&self.target.table);
        let projection = literal(&self.target.projection);
        format!(
            "SELECT 'present', column_name, data_type FROM {} WHERE table_name = {table} \
             UNION ALL SELECT 'made', column_name, '' FROM {} \
             UNION ALL SELECT 'owner', projection, '' FROM {} WHERE projection != {projection}",
            self.columns_view, self.made, self.control
        )
    }

    /// Takes note of columns that the sink makes; of a new table, without those of an older one.
    pub fn keep_made(&self, names: &[&str], new: bool) -> Vec<String> {
        let rows: Vec<String> = names.iter().map(|name| format!("({})", literal(name))).collect();
        let mut statements = Vec::new();
        if new {
            statements.push(format!("DELETE FROM {} WHERE TRUE", self.made));
        }
        let rows = rows.join(", ");
        statements.push(format!("INSERT INTO {} (column_name) VALUES {rows}", self.made));
        statements
    }

    /// Makes the tables of rows that are missing.
    pub fn create_tables(&self) -> String {
        let declare = |columns: Vec<(String, String)>| -> String {
            let parts = columns.into_iter().map(|(name, kind)| format!("`{name}` {kind}"));
            parts.collect::<Vec<_>>().join(", ")
        };
        let clusterable =
            |kind: Kind| !matches!(kind, Kind::Float64 | Kind::Bytes | Kind::Json | Kind::Time);
        let cluster: Vec<String> = self
            .target
            .key_columns()
            .filter(|column| clusterable(column.kind))
            .take(CLUSTER_COLUMNS_MAX)
            .map(|column| format!("`{}`", column.name))
            .collect();
        let cluster = match cluster.is_empty() {
            true => String::new(),
            false => format!(" CLUSTER BY {}", cluster.join(", ")),
        };
        let mut script = format!(
            "CREATE TABLE IF NOT EXISTS {} ({}){cluster};",
            self.table,
            declare(self.columns())
        );
        if !self.target.metadata {
            let keys = self.target.key_columns().map(|c| (c.name.clone(), declared_type(c.kind)));
            let keys = declare(keys.collect());
            script += &format!("\nCREATE TABLE IF NOT EXISTS {} ({keys});", self.seen);
        }
        script
    }

    /// Adds a column to the sink's table.
    pub fn add_column(&self, name: &str, kind: &str) -> String {
        format!("ALTER TABLE {} ADD COLUMN `{name}` {kind}", self.table)
    }

    /// Removes the control rows of other projections: of a table that was dropped.
    pub fn forget_owners(&self) -> String {
        let projection = literal(&self.target.projection);
        format!("DELETE FROM {} WHERE projection != {projection}", self.control)
    }

    /// Reads the control row.
    pub fn read_control(&self) -> String {
        format!(
            "SELECT incarnation, CAST(generation AS STRING), CAST(lease AS STRING), \
             CAST(`change` AS STRING), CAST(reloading AS STRING) FROM {} WHERE projection = {} \
             ORDER BY lease DESC LIMIT 1",
            self.control,
            literal(&self.target.projection)
        )
    }

    /// Moves the control row from `found` to `control`, if it still is as found.
    pub fn move_control(&self, found: Option<&Control>, control: &Control) -> Vec<String> {
        let projection = literal(&self.target.projection);
        let mut statements = Vec::new();
        match found {
            None => statements.push(format!(
                "INSERT INTO {0} (projection, incarnation, generation, lease, `change`, reloading) \
                 SELECT {projection}, {1}, {2}, {3}, {4}, {5} FROM (SELECT 1) \
                 WHERE NOT EXISTS (SELECT 1 FROM {0} WHERE projection = {projection})",
                self.control,
                literal(&control.incarnation),
                control.generation,
                control.lease,
                control.change,
                control.reloading,
            )),
            Some(found) => statements.push(format!(
                "UPDATE {} SET {} WHERE {}",
                self.control,
                Self::assigned(control),
                self.is_at(found)
            )),
        }
        if control.generation == 0 && self.target.metadata {
            let table = &self.table;
            // Rows that were there before the projection are not its own, whatever wrote them.
            let older = if found.is_some() { "-1" } else { "NULL" };
            statements.push(format!(
                "UPDATE {table} SET `{GENERATION}` = {older} WHERE `{GENERATION}` IS NOT NULL"
            ));
        }
        statements
    }

    /// Bytes of a row in the literal of [`TableSql::write`], at most.
    pub fn row_bytes(&self, row: &RowStep) -> usize {
        quoted_rows(&[row], self.target).len()
    }

    /// Writes a batch in one transaction, if the control row is at `before`.
    pub fn write(&self, before: &Control, after: &Control, step: &Step) -> String {
        let mut script = vec![
            "BEGIN TRANSACTION".to_owned(),
            format!(
                "SELECT IF((SELECT COUNT(*) FROM {} WHERE {}) = 1, 1, \
                 ERROR('everwhen: the control row has moved'))",
                self.control,
                self.is_at(before)
            ),
        ];
        let track = !self.target.metadata && (before.reloading || step.reload_begin);
        if track && step.reload_begin {
            script.push(format!("DELETE FROM {} WHERE TRUE", self.seen));
        }
        let rows = step.last_of_each_key();
        if !rows.is_empty() {
            let source = self.source(&rows, step);
            script.push(self.merge(&source, &rows));
            if track {
                script.push(format!(
                    "INSERT INTO {} SELECT {} FROM ({source}) AS S WHERE NOT S.`_everwhen_delete`",
                    self.seen,
                    self.key_list("S")
                ));
            }
        }
        if before.ends_reload(step) {
            script.extend(self.end_reload(step));
        }
        script.push(format!(
            "UPDATE {} SET {} WHERE projection = {}",
            self.control,
            Self::assigned(after),
            literal(&self.target.projection)
        ));
        script.push("COMMIT TRANSACTION".to_owned());
        script.join(";\n") + ";"
    }

    /// Reads all rows, each value as text.
    pub fn read_rows(&self) -> String {
        let columns: Vec<String> = self
            .target
            .columns
            .iter()
            .map(|column| text_of(column.kind, &format!("`{}`", column.name)))
            .collect();
        format!("SELECT {} FROM {}", columns.join(", "), self.table)
    }

    fn end_reload(&self, step: &Step) -> Vec<String> {
        let table = &self.table;
        if self.target.metadata {
            // Rows without a generation are somebody else's.
            let generation = step.generation;
            return vec![format!("DELETE FROM {table} WHERE `{GENERATION}` < {generation}")];
        }
        let same = self.same_key(|_| true);
        vec![
            format!(
                "DELETE FROM {table} AS T WHERE NOT EXISTS (SELECT 1 FROM {} AS S WHERE {same})",
                self.seen
            ),
            format!("DELETE FROM {} WHERE TRUE", self.seen),
        ]
    }

    /// The rows as a query: every column, the metadata, and whether the row goes.
    fn source(&self, rows: &[&RowStep], step: &Step) -> String {
        let mut columns: Vec<String> = Vec::new();
        for (place, column) in self.target.columns.iter().enumerate() {
            let text = format!("JSON_VALUE(r, '$.c{place}')");
            columns.push(format!("{} AS `{}`", value_of(column.kind, &text), column.name));
        }
        if self.target.metadata {
            columns.push(format!("{} AS `{GENERATION}`", step.generation));
            columns.push(format!("{} AS `{TX}`", step.tx));
            columns.push(format!("CAST(JSON_VALUE(r, '$.n') AS INT64) AS `{CHANGE}`"));
        }
        columns.push("JSON_VALUE(r, '$.d') IS NOT NULL AS `_everwhen_delete`".to_owned());
        format!(
            "SELECT {} FROM UNNEST(JSON_QUERY_ARRAY({})) AS r",
            columns.join(", "),
            quoted_rows(rows, self.target)
        )
    }

    fn merge(&self, source: &str, rows: &[&RowStep]) -> String {
        let names: Vec<String> =
            self.columns().into_iter().map(|(name, _)| format!("`{name}`")).collect();
        let null_key = |place: usize| {
            rows.iter().any(|row| matches!(row.key.get(place), Some(Cell::Null) | None))
        };
        let of_ours = match self.target.metadata {
            true => format!(" AND T.`{GENERATION}` IS NOT NULL"),
            false => String::new(),
        };
        let set: Vec<String> = names.iter().map(|name| format!("{name} = S.{name}")).collect();
        let values: Vec<String> = names.iter().map(|name| format!("S.{name}")).collect();
        format!(
            "MERGE {} AS T USING ({source}) AS S ON {} \
             WHEN MATCHED AND S.`_everwhen_delete`{of_ours} THEN DELETE \
             WHEN MATCHED AND NOT S.`_everwhen_delete` THEN UPDATE SET {} \
             WHEN NOT MATCHED AND NOT S.`_everwhen_delete` THEN INSERT ({}) VALUES ({})",
            self.table,
            self.same_key(null_key),
            set.join(", "),
            names.join(", "),
            values.join(", ")
        )
    }

    /// Compares the keys of `T` and `S`; NULLs are equal where `nullable` says that there may be some.
    fn same_key(&self, nullable: impl Fn(usize) -> bool) -> String {
        let parts: Vec<String> = self
            .target
            .key_columns()
            .enumerate()
            .map(|(place, column)| {
                let name = &column.name;
                if column.nullable && nullable(place) {
                    format!(
                        "(T.`{name}` = S.`{name}` OR (T.`{name}` IS NULL AND S.`{name}` IS NULL))"
                    )
                } else {
                    format!("T.`{name}` = S.`{name}`")
                }
            })
            .collect();
        parts.join(" AND ")
    }

    fn key_list(&self, of: &str) -> String {
        let names: Vec<String> =
            self.target.key_columns().map(|column| format!("{of}.`{}`", column.name)).collect();
        names.join(", ")
    }

    fn is_at(&self, control: &Control) -> String {
        format!(
            "projection = {} AND incarnation = {} AND generation = {} AND lease = {} \
             AND `change` = {}",
            literal(&self.target.projection),
            literal(&control.incarnation),
            control.generation,
            control.lease,
            control.change
        )
    }

    fn assigned(control: &Control) -> String {
        format!(
            "incarnation = {}, generation = {}, lease = {}, `change` = {}, reloading = {}",
            literal(&control.incarnation),
            control.generation,
            control.lease,
            control.change,
            control.reloading
        )
    }
}

const fn sql_type(kind: Kind) -> &'static str {
    match kind {
        Kind::Bool => "BOOL",
        Kind::Int64 => "INT64",
        Kind::Float64 => "FLOAT64",
        Kind::Decimal { precision, scale } => {
            if scale <= 9 && precision <= 29 + scale {
                "NUMERIC"
            } else {
                "BIGNUMERIC"
            }
        }
        Kind::Text => "STRING",
        Kind::Bytes => "BYTES",
        Kind::Date => "DATE",
        Kind::Time => "TIME",
        Kind::Timestamp => "TIMESTAMP",
        Kind::Json => "JSON",
    }
}

/// The type with its digits: what stands in a declaration.
fn declared_type(kind: Kind) -> String {
    match kind {
        Kind::Decimal { precision, scale } => format!("{}({precision}, {scale})", sql_type(kind)),
        _ => sql_type(kind).to_owned(),
    }
}

/// Turns the text expression `text` into a value of the column's type.
fn value_of(kind: Kind, text: &str) -> String {
    match kind {
        Kind::Text => text.to_owned(),
        Kind::Bytes => format!("FROM_BASE64({text})"),
        Kind::Json => format!("PARSE_JSON({text})"),
        Kind::Decimal { .. } if sql_type(kind) == "NUMERIC" => format!("PARSE_NUMERIC({text})"),
        Kind::Decimal { .. } => format!("PARSE_BIGNUMERIC({text})"),
        _ => format!("CAST({text} AS {})", sql_type(kind)),
    }
}

/// Turns the column `name` into text that [`super::cell_of`] reads.
fn text_of(kind: Kind, name: &str) -> String {
    match kind {
        Kind::Text => name.to_owned(),
        Kind::Bytes => format!("TO_BASE64({name})"),
        Kind::Json => format!("TO_JSON_STRING({name})"),
        Kind::Timestamp => format!("CAST(UNIX_MICROS({name}) AS STRING)"),
        _ => format!("CAST({name} AS STRING)"),
    }
}

/// Writes the rows as a JSON array in a raw string literal. A raw literal takes every character but
/// its quote and line ends as it stands, and JSON text can say those in other characters.
fn quoted_rows(rows: &[&RowStep], target: &Target) -> String {
    let objects = rows.iter().map(|row| {
        let mut object = serde_json::Map::new();
        let mut put = |place: usize, cell: &Cell| {
            if let Some(text) = text(cell) {
                object.insert(format!("c{place}"), text.into());
            }
        };
        match &row.row {
            Some(cells) => cells.iter().enumerate().for_each(|(place, cell)| put(place, cell)),
            None => target.key.iter().zip(&row.key).for_each(|(&place, cell)| put(place, cell)),
        }
        object.insert("n".into(), row.change.to_string().into());
        if row.row.is_none() {
            object.insert("d".into(), "1".into());
        }
        serde_json::Value::Object(object)
    });
    raw_literal(&serde_json::Value::Array(objects.collect()).to_string())
}

fn raw_literal(json: &str) -> String {
    let mut literal = String::with_capacity(json.len() + 16);
    literal.push_str("r'");
    for c in json.chars() {
        match c {
            '\'' | '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' => {
                literal.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => literal.push(c),
        }
    }
    literal.push('\'');
    literal
}

fn text(cell: &Cell) -> Option<String> {
    Some(match cell {
        Cell::Null => return None,
        Cell::Bool(value) => value.to_string(),
        Cell::Int(value) => value.to_string(),
        Cell::Float(value) => float_text(*value),
        Cell::Text(text) | Cell::Json(text) => text.clone(),
        Cell::Bytes(bytes) => STANDARD.encode(bytes),
    })
}

/// A plain string literal.
fn literal(text: &str) -> String {
    let mut literal = String::with_capacity(text.len() + 2);
    literal.push('\'');
    for c in text.chars() {
        match c {
            '\'' | '\\' => {
                literal.push('\\');
                literal.push(c);
            }
            c if c.is_control() => literal.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => literal.push(c),
        }
    }
    literal.push('\'');
    literal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_breaks_out_of_a_row_literal() {
        let hostile = "'; DROP TABLE t; -- \\' \" \n \u{2028} r'";
        let json = serde_json::Value::from(hostile).to_string();
        let literal = raw_literal(&json);
        let inside = literal.strip_prefix("r'").unwrap().strip_suffix('\'').unwrap();
        assert!(!inside.contains(['\'', '\n', '\u{2028}']), "{inside}");
        let back: String = serde_json::from_str(inside).unwrap();
        assert_eq!(back, hostile);
    }

    #[test]
    fn names_that_cannot_be_quoted_are_refused() {
        let target = Target {
            projection: "p".into(),
            lease: 1,
            generation: 1,
            table: "a`b".into(),
            columns: Vec::new(),
            key: Vec::new(),
            metadata: true,
            incarnation: "i".into(),
            acked_change: 0,
        };
        assert!(TableSql::new("p", "d", &target).is_err());
    }
}
