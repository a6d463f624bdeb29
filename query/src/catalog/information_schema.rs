//! `information_schema`: the views of ISO/IEC 9075-11, with the columns and the type names that Postgres
//! gives them, over what the catalogs list.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::catalog::{MemTable, MemorySchemaProvider, SchemaProvider, TableProvider};
use datafusion::execution::context::SessionContext;
use everwhen_storage::{ColumnType, Value};

use super::Names;
use super::listed::Listed;
use crate::columns::{PERIOD_EXTENSION, field_type, is_extension};
use crate::error::{Error, Result};
use crate::session::{REFERENCES, SYSTEM_SCHEMA};
use crate::system_tables::{Declared, batch_of, schema_of};

pub const SCHEMA: &str = "information_schema";

/// What a row says; NULL where it says nothing.
type Row = BTreeMap<&'static str, Value>;

const WHERE: [&str; 3] = ["table_catalog", "table_schema", "table_name"];
const CONSTRAINT: [&str; 3] = ["constraint_catalog", "constraint_schema", "constraint_name"];

/// Registers the views with a catalog session.
///
/// # Errors
/// XX000 where something cannot be registered.
pub fn register(session: &SessionContext, names: &Names, listed: &[Listed]) -> Result<()> {
    let missing = || Error::internal("a catalog session has no catalog");
    let catalog = session.catalog(&names.database).ok_or_else(missing)?;
    let schema = MemorySchemaProvider::new();
    let of = Shown { names, listed };
    for (name, columns, rows) in [
        ("schemata", SCHEMATA, of.schemata()),
        ("tables", TABLES, of.tables()),
        ("views", VIEWS, of.views()),
        ("columns", COLUMNS, of.columns()),
        ("table_constraints", TABLE_CONSTRAINTS, of.table_constraints()),
        ("key_column_usage", KEY_COLUMN_USAGE, of.key_columns(true)),
        ("constraint_column_usage", CONSTRAINT_COLUMN_USAGE, of.key_columns(false)),
        ("referential_constraints", REFERENTIAL_CONSTRAINTS, Vec::new()),
        ("check_constraints", CHECK_CONSTRAINTS, Vec::new()),
        ("sequences", SEQUENCES, Vec::new()),
        ("triggers", TRIGGERS, Vec::new()),
        ("routines", ROUTINES, Vec::new()),
        ("parameters", PARAMETERS, Vec::new()),
    ] {
        schema.register_table(name.to_owned(), table(columns, &rows)?)?;
    }
    catalog.register_schema(SCHEMA, Arc::new(schema))?;
    Ok(())
}

fn table(columns: &Declared, rows: &[Row]) -> Result<Arc<dyn TableProvider>> {
    let value = |row: &Row, name: &str| row.get(name).cloned().unwrap_or(Value::Null);
    let rows: Vec<Vec<Value>> =
        rows.iter().map(|row| columns.iter().map(|(name, _)| value(row, name)).collect()).collect();
    let batch = batch_of(columns, &rows)?;
    Ok(Arc::new(MemTable::try_new(schema_of(columns), vec![vec![batch]])?))
}

fn text(value: impl Into<String>) -> Value {
    Value::Text(value.into())
}

fn yes(is_so: bool) -> Value {
    text(if is_so { "YES" } else { "NO" })
}

/// Who asks, and what there is.
struct Shown<'a> {
    names: &'a Names,
    listed: &'a [Listed],
}

impl Shown<'_> {
    /// Returns a row that names something of the database.
    fn row(&self, names: [&'static str; 3], schema: &str, name: &str) -> Row {
        let values = [self.names.database.as_str(), schema, name].map(text);
        names.into_iter().zip(values).collect()
    }

    fn schemata(&self) -> Vec<Row> {
        let named = ["catalog_name", "schema_name", "schema_owner"];
        let schemas = [REFERENCES, SYSTEM_SCHEMA, SCHEMA, "pg_catalog"];
        schemas.map(|schema| self.row(named, schema, &self.names.user)).to_vec()
    }

    fn tables(&self) -> Vec<Row> {
        let row = |one: &Listed| {
            let mut row = self.row(WHERE, one.schema_name, &one.name);
            let kind = if one.view.is_some() { "VIEW" } else { "BASE TABLE" };
            row.insert("table_type", text(kind));
            let takes_rows = one.view.is_none() && one.schema_name == REFERENCES;
            row.insert("is_insertable_into", yes(takes_rows));
            row.insert("is_typed", yes(false));
            row
        };
        self.listed.iter().map(row).collect()
    }

    fn views(&self) -> Vec<Row> {
        let row = |one: &Listed| {
            let definition = one.view.clone()?;
            let mut row = self.row(WHERE, one.schema_name, &one.name);
            row.insert("view_definition", text(definition));
            row.insert("check_option", text("NONE"));
            for able in [
                "is_updatable",
                "is_insertable_into",
                "is_trigger_updatable",
                "is_trigger_deletable",
                "is_trigger_insertable_into",
            ] {
                row.insert(able, yes(false));
            }
            Some(row)
        };
        self.listed.iter().filter_map(row).collect()
    }

    fn columns(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for one in self.listed {
            let fields = one.columns.fields().iter().zip(1..);
            rows.extend(fields.map(|(field, place)| self.column(one, field, place)));
        }
        rows
    }

    fn column(&self, of: &Listed, field: &Field, place: i64) -> Row {
        let mut row = self.row(WHERE, of.schema_name, &of.name);
        let kind = Kind::of(field);
        let is_key = of.key.contains(field.name());
        row.insert("column_name", text(field.name()));
        row.insert("ordinal_position", Value::Int(place));
        row.insert("dtd_identifier", text(place.to_string()));
        row.insert("is_nullable", yes(field.is_nullable() && !is_key));
        row.insert("data_type", text(kind.name));
        row.extend(self.row(["udt_catalog", "udt_schema", "udt_name"], "pg_catalog", &kind.udt));
        let numbers = [
            ("numeric_precision", kind.numeric.map(|(precision, ..)| precision)),
            ("numeric_precision_radix", kind.numeric.map(|(_, radix, _)| radix)),
            ("numeric_scale", kind.numeric.and_then(|(.., scale)| scale)),
            ("datetime_precision", kind.fraction),
        ];
        let known = numbers.into_iter().filter_map(|(name, number)| Some((name, number?)));
        row.extend(known.map(|(name, number)| (name, Value::Int(number))));
        row.insert("is_self_referencing", yes(false));
        row.insert("is_identity", yes(false));
        row.insert("is_generated", text("NEVER"));
        row.insert("is_updatable", yes(of.view.is_none() && of.schema_name == REFERENCES));
        row
    }

    fn keyed(&self) -> impl Iterator<Item = (&Listed, String)> {
        let with_key = self.listed.iter().filter(|one| !one.key.is_empty());
        with_key.map(|one| (one, format!("{}_pkey", one.name)))
    }

    fn table_constraints(&self) -> Vec<Row> {
        let row = |(one, constraint): (&Listed, String)| {
            let mut row = self.row(WHERE, one.schema_name, &one.name);
            row.extend(self.row(CONSTRAINT, one.schema_name, &constraint));
            row.insert("constraint_type", text("PRIMARY KEY"));
            row.insert("is_deferrable", yes(false));
            row.insert("initially_deferred", yes(false));
            row.insert("enforced", yes(true));
            row
        };
        self.keyed().map(row).collect()
    }

    fn key_columns(&self, with_places: bool) -> Vec<Row> {
        let mut rows = Vec::new();
        for (one, constraint) in self.keyed() {
            for (column, place) in one.key.iter().zip(1..) {
                let mut row = self.row(WHERE, one.schema_name, &one.name);
                row.extend(self.row(CONSTRAINT, one.schema_name, &constraint));
                row.insert("column_name", text(column));
                if with_places {
                    row.insert("ordinal_position", Value::Int(place));
                }
                rows.push(row);
            }
        }
        rows
    }
}

/// A type as Postgres calls it.
struct Kind {
    name: &'static str,
    /// Its name in `pg_type`.
    udt: String,
    /// Precision, its radix, and scale.
    numeric: Option<(i64, i64, Option<i64>)>,
    /// Digits of a second's fraction.
    fraction: Option<i64>,
}

impl Kind {
    fn of(field: &Field) -> Self {
        if is_extension(field, PERIOD_EXTENSION) {
            return Self::plain("tstzrange", "tstzrange");
        }
        let mut kind = Self::of_type(&field_type(field).unwrap_or(ColumnType::Text));
        if let (DataType::Decimal128(precision, scale), Some(_)) = (field.data_type(), kind.numeric)
        {
            kind.numeric = Some((i64::from(*precision), 10, Some(i64::from(*scale))));
        }
        kind
    }

    fn of_type(kind: &ColumnType) -> Self {
        let numeric = |kind: Self, numeric| Self { numeric: Some(numeric), ..kind };
        let timed = |kind: Self, fraction| Self { fraction: Some(fraction), ..kind };
        match kind {
            ColumnType::Bool => Self::plain("boolean", "bool"),
            ColumnType::Int64 => numeric(Self::plain("bigint", "int8"), (64, 2, Some(0))),
            ColumnType::Float64 => {
                numeric(Self::plain("double precision", "float8"), (53, 2, None))
            }
            ColumnType::Decimal => numeric(Self::plain("numeric", "numeric"), (38, 10, Some(9))),
            ColumnType::Text => Self::plain("text", "text"),
            ColumnType::Bytes => Self::plain("bytea", "bytea"),
            ColumnType::Uuid => Self::plain("uuid", "uuid"),
            ColumnType::Date => timed(Self::plain("date", "date"), 0),
            ColumnType::Time => timed(Self::plain("time without time zone", "time"), 6),
            ColumnType::Timestamp => {
                timed(Self::plain("timestamp with time zone", "timestamptz"), 6)
            }
            ColumnType::List(item) => match item.as_ref() {
                // As the wire shows them.
                ColumnType::List(_) | ColumnType::Struct(_) => Self::plain("json", "json"),
                ColumnType::Uuid => Self::plain("ARRAY", "_text"),
                item => Self::plain("ARRAY", &format!("_{}", Self::of_type(item).udt)),
            },
            ColumnType::Json | ColumnType::Struct(_) => Self::plain("json", "json"),
        }
    }

    fn plain(name: &'static str, udt: &str) -> Self {
        Self { name, udt: udt.to_owned(), numeric: None, fraction: None }
    }
}

const TEXT: ColumnType = ColumnType::Text;
const INT: ColumnType = ColumnType::Int64;

const SCHEMATA: &Declared = &[
    ("catalog_name", TEXT),
    ("schema_name", TEXT),
    ("schema_owner", TEXT),
    ("default_character_set_catalog", TEXT),
    ("default_character_set_schema", TEXT),
    ("default_character_set_name", TEXT),
    ("sql_path", TEXT),
];

const TABLES: &Declared = &[
    ("table_catalog", TEXT),
    ("table_schema", TEXT),
    ("table_name", TEXT),
    ("table_type", TEXT),
    ("self_referencing_column_name", TEXT),
    ("reference_generation", TEXT),
    ("user_defined_type_catalog", TEXT),
    ("user_defined_type_schema", TEXT),
    ("user_defined_type_name", TEXT),
    ("is_insertable_into", TEXT),
    ("is_typed", TEXT),
    ("commit_action", TEXT),
];

const VIEWS: &Declared = &[
    ("table_catalog", TEXT),
    ("table_schema", TEXT),
    ("table_name", TEXT),
    ("view_definition", TEXT),
    ("check_option", TEXT),
    ("is_updatable", TEXT),
    ("is_insertable_into", TEXT),
    ("is_trigger_updatable", TEXT),
    ("is_trigger_deletable", TEXT),
    ("is_trigger_insertable_into", TEXT),
];

const COLUMNS: &Declared = &[
    ("table_catalog", TEXT),
    ("table_schema", TEXT),
    ("table_name", TEXT),
    ("column_name", TEXT),
    ("ordinal_position", INT),
    ("column_default", TEXT),
    ("is_nullable", TEXT),
    ("data_type", TEXT),
    ("character_maximum_length", INT),
    ("character_octet_length", INT),
    ("numeric_precision", INT),
    ("numeric_precision_radix", INT),
    ("numeric_scale", INT),
    ("datetime_precision", INT),
    ("interval_type", TEXT),
    ("interval_precision", INT),
    ("character_set_catalog", TEXT),
    ("character_set_schema", TEXT),
    ("character_set_name", TEXT),
    ("collation_catalog", TEXT),
    ("collation_schema", TEXT),
    ("collation_name", TEXT),
    ("domain_catalog", TEXT),
    ("domain_schema", TEXT),
    ("domain_name", TEXT),
    ("udt_catalog", TEXT),
    ("udt_schema", TEXT),
    ("udt_name", TEXT),
    ("scope_catalog", TEXT),
    ("scope_schema", TEXT),
    ("scope_name", TEXT),
    ("maximum_cardinality", INT),
    ("dtd_identifier", TEXT),
    ("is_self_referencing", TEXT),
    ("is_identity", TEXT),
    ("identity_generation", TEXT),
    ("identity_start", TEXT),
    ("identity_increment", TEXT),
    ("identity_maximum", TEXT),
    ("identity_minimum", TEXT),
    ("identity_cycle", TEXT),
    ("is_generated", TEXT),
    ("generation_expression", TEXT),
    ("is_updatable", TEXT),
];

const TABLE_CONSTRAINTS: &Declared = &[
    ("constraint_catalog", TEXT),
    ("constraint_schema", TEXT),
    ("constraint_name", TEXT),
    ("table_catalog", TEXT),
    ("table_schema", TEXT),
    ("table_name", TEXT),
    ("constraint_type", TEXT),
    ("is_deferrable", TEXT),
    ("initially_deferred", TEXT),
    ("enforced", TEXT),
    ("nulls_distinct", TEXT),
];

const KEY_COLUMN_USAGE: &Declared = &[
    ("constraint_catalog", TEXT),
    ("constraint_schema", TEXT),
    ("constraint_name", TEXT),
    ("table_catalog", TEXT),
    ("table_schema", TEXT),
    ("table_name", TEXT),
    ("column_name", TEXT),
    ("ordinal_position", INT),
    ("position_in_unique_constraint", INT),
];

const CONSTRAINT_COLUMN_USAGE: &Declared = &[
    ("table_catalog", TEXT),
    ("table_schema", TEXT),
    ("table_name", TEXT),
    ("column_name", TEXT),
    ("constraint_catalog", TEXT),
    ("constraint_schema", TEXT),
    ("constraint_name", TEXT),
];

const REFERENTIAL_CONSTRAINTS: &Declared = &[
    ("constraint_catalog", TEXT),
    ("constraint_schema", TEXT),
    ("constraint_name", TEXT),
    ("unique_constraint_catalog", TEXT),
    ("unique_constraint_schema", TEXT),
    ("unique_constraint_name", TEXT),
    ("match_option", TEXT),
    ("update_rule", TEXT),
    ("delete_rule", TEXT),
];

const CHECK_CONSTRAINTS: &Declared = &[
    ("constraint_catalog", TEXT),
    ("constraint_schema", TEXT),
    ("constraint_name", TEXT),
    ("check_clause", TEXT),
];

const SEQUENCES: &Declared = &[
    ("sequence_catalog", TEXT),
    ("sequence_schema", TEXT),
    ("sequence_name", TEXT),
    ("data_type", TEXT),
    ("start_value", TEXT),
    ("minimum_value", TEXT),
    ("maximum_value", TEXT),
    ("increment", TEXT),
    ("cycle_option", TEXT),
];

const TRIGGERS: &Declared = &[
    ("trigger_catalog", TEXT),
    ("trigger_schema", TEXT),
    ("trigger_name", TEXT),
    ("event_manipulation", TEXT),
    ("event_object_catalog", TEXT),
    ("event_object_schema", TEXT),
    ("event_object_table", TEXT),
    ("action_order", INT),
    ("action_condition", TEXT),
    ("action_statement", TEXT),
    ("action_orientation", TEXT),
    ("action_timing", TEXT),
];

const ROUTINES: &Declared = &[
    ("specific_catalog", TEXT),
    ("specific_schema", TEXT),
    ("specific_name", TEXT),
    ("routine_catalog", TEXT),
    ("routine_schema", TEXT),
    ("routine_name", TEXT),
    ("routine_type", TEXT),
    ("data_type", TEXT),
    ("routine_definition", TEXT),
    ("external_language", TEXT),
    ("is_deterministic", TEXT),
];

const PARAMETERS: &Declared = &[
    ("specific_catalog", TEXT),
    ("specific_schema", TEXT),
    ("specific_name", TEXT),
    ("ordinal_position", INT),
    ("parameter_mode", TEXT),
    ("parameter_name", TEXT),
    ("data_type", TEXT),
    ("parameter_default", TEXT),
];
