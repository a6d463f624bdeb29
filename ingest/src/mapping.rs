//! A mapping's definition: which assertions a stream's records make about which table.
//!
//! [`CompiledMapping`] is the form that runs; how its rows become writes is in [`crate::apply`].

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, SchemaRef};
use everwhen_query::columns::field_type;
use everwhen_query::records::RecordProgram;
use everwhen_query::statements::{CreateMapping, MappingVerb};
use everwhen_query::{Error as QueryError, SqlState};
use everwhen_storage::{
    ColumnDef, ColumnId, ColumnType, Definition, DefinitionChange, DefinitionKind, Definitions,
    Precedence, TableDef, TableId, TxId,
};
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::stream::StreamDef;

/// What a mapping's rows assert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    Put,
    Patch {
        /// NULLs that were sent overwrite.
        set_nulls: bool,
    },
    Delete,
    Retract,
}

impl From<MappingVerb> for Verb {
    fn from(verb: MappingVerb) -> Self {
        match verb {
            MappingVerb::Put => Self::Put,
            MappingVerb::Patch { set_nulls } => Self::Patch { set_nulls },
            MappingVerb::Delete => Self::Delete,
            MappingVerb::Retract => Self::Retract,
        }
    }
}

/// A mapping as stored: the body of its [`Definition`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MappingDef {
    pub stream: String,
    pub verb: Verb,
    pub table: String,
    /// A select list and perhaps a WHERE, no FROM.
    pub select: String,
    pub sql: String,
}

impl MappingDef {
    /// Reads the mappings of a stream, with their names, in the order of the names.
    ///
    /// # Errors
    /// Where one was written by another version of the program.
    pub fn all_of(definitions: &Definitions, stream: &str) -> Result<Vec<(String, Self)>> {
        let mut mappings = Vec::new();
        for definition in definitions.all(DefinitionKind::Mapping) {
            let mapping = Self::read(definition)?;
            if mapping.stream == stream {
                mappings.push((definition.name.clone(), mapping));
            }
        }
        Ok(mappings)
    }

    fn read(definition: &Definition) -> Result<Self> {
        serde_json::from_value(definition.body.clone()).map_err(|error| {
            let message = format!("mapping \"{}\" cannot be read: {error}", definition.name);
            QueryError::new(SqlState::ObjectNotInState, message).into()
        })
    }
}

/// What an output column of a mapping is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A column of the key, by its place in the key.
    Key(usize),
    Field(ColumnId),
    ValidFrom,
    ValidTo,
    Tenant,
    EventId,
    Order,
}

/// An output column: its purpose, and the type it is cast to.
#[derive(Debug, Clone)]
pub struct OutputColumn {
    pub name: String,
    pub role: Role,
    pub kind: ColumnType,
    /// Its expression is of that type already.
    pub checked: bool,
}

/// A mapping that is ready to run over decoded batches of one schema.
#[derive(Debug, Clone)]
pub struct CompiledMapping {
    pub name: String,
    pub verb: Verb,
    pub table: Arc<TableDef>,
    pub program: RecordProgram,
    /// One for each output column of the program, in order.
    pub columns: Vec<OutputColumn>,
}

impl CompiledMapping {
    /// Compiles a mapping against its stream's full schema and the table as defined.
    ///
    /// # Errors
    /// 42P01 where the table is gone, otherwise what [`plan_mapping`] answers.
    pub fn compile(
        definitions: &Definitions,
        name: &str,
        mapping: &MappingDef,
        stream: &StreamDef,
    ) -> Result<Self> {
        Self::compile_over(definitions, name, mapping, stream, stream.schema())
    }

    /// Compiles a mapping against some of the stream's columns, which must be all that it reads.
    pub fn compile_over(
        definitions: &Definitions,
        name: &str,
        mapping: &MappingDef,
        stream: &StreamDef,
        schema: SchemaRef,
    ) -> Result<Self> {
        let program = program(mapping, stream, schema)?;
        let table = definitions
            .table(&mapping.table)
            .ok_or_else(|| QueryError::unknown_table(&mapping.table))?;
        let columns = bind(mapping.verb, &program, table)?;
        Ok(Self {
            name: name.to_owned(),
            verb: mapping.verb,
            table: Arc::clone(table),
            program,
            columns,
        })
    }
}

/// Plans `CREATE MAPPING`: the definition, and the table where it does not exist or lacks columns.
///
/// # Errors
/// 42710 where it exists, 42704 for an unknown stream, 42703 for a column that a declared table
/// does not have or a key column that is not computed, 42804 for types that do not fit, 23502 for
/// a NOT NULL column that a PUT leaves out, 0A000 for what no mapping can do, and what
/// [`RecordProgram::compile`] answers.
pub fn plan_mapping(
    definitions: &Definitions,
    statement: &CreateMapping,
) -> Result<Vec<DefinitionChange>> {
    if definitions.get(DefinitionKind::Mapping, &statement.name).is_some() && !statement.or_replace
    {
        if statement.if_not_exists {
            return Ok(Vec::new());
        }
        let message = format!("mapping \"{}\" exists already", statement.name);
        return Err(QueryError::new(SqlState::DuplicateObject, message).into());
    }
    if let Some(option) = statement.options.keys().next() {
        let message = format!("a mapping has no option \"{option}\"");
        return Err(QueryError::new(SqlState::InvalidParameter, message).into());
    }
    if definitions.get(DefinitionKind::View, &statement.table).is_some() {
        let message = format!("\"{}\" is a view: it takes no writes", statement.table);
        return Err(QueryError::unsupported(message).into());
    }
    RecordProgram::check_form(&statement.select)
        .map_err(|error| error.at(statement.select_position))?;
    let stream = definitions.get(DefinitionKind::Stream, &statement.stream).ok_or_else(|| {
        let message = format!("stream \"{}\" does not exist", statement.stream);
        QueryError::new(SqlState::UndefinedObject, message)
    })?;
    let stream = StreamDef::read(stream)?;
    let mapping = MappingDef {
        stream: statement.stream.clone(),
        verb: statement.verb.into(),
        table: statement.table.clone(),
        select: statement.select.clone(),
        sql: statement.sql.clone(),
    };
    let planned = program(&mapping, &stream, stream.schema()).and_then(|program| {
        let table = table_for(definitions, &mapping, &program)?;
        bind(mapping.verb, &program, &table)?;
        Ok(table)
    });
    let table = planned.map_err(|error| match error {
        crate::Error::Statement(error) => error.at(statement.select_position).into(),
        other => other,
    })?;
    let mut changes = Vec::new();
    if definitions.table(&table.name).is_none_or(|existing| **existing != table) {
        changes.push(DefinitionChange::Table(table));
    }
    let body = serde_json::to_value(&mapping)
        .map_err(|error| QueryError::internal(format!("mapping to JSON: {error}")))?;
    changes.push(DefinitionChange::Put(Definition {
        kind: DefinitionKind::Mapping,
        name: statement.name.clone(),
        body,
        tx: TxId::ZERO,
    }));
    Ok(changes)
}

fn program(mapping: &MappingDef, stream: &StreamDef, schema: SchemaRef) -> Result<RecordProgram> {
    let set_nulls = matches!(mapping.verb, Verb::Patch { set_nulls: true });
    let sent = |column: &str| if set_nulls { stream.sent_of(column) } else { None };
    Ok(if set_nulls {
        RecordProgram::compile_tracking(&mapping.select, schema, &sent)?
    } else {
        RecordProgram::compile(&mapping.select, schema)?
    })
}

/// The special output columns besides the key's.
const SPECIAL: [(&str, Role, ColumnType); 5] = [
    ("_valid_from", Role::ValidFrom, ColumnType::Timestamp),
    ("_valid_to", Role::ValidTo, ColumnType::Timestamp),
    ("_tenant", Role::Tenant, ColumnType::Text),
    ("_event_id", Role::EventId, ColumnType::Text),
    ("_order", Role::Order, ColumnType::Int64),
];

fn special(name: &str) -> Option<(Role, ColumnType)> {
    let found = SPECIAL.iter().find(|(special, ..)| *special == name);
    found.map(|(_, role, kind)| (*role, kind.clone()))
}

/// Returns the mapping's table as it must be once the mapping exists.
fn table_for(
    definitions: &Definitions,
    mapping: &MappingDef,
    program: &RecordProgram,
) -> Result<TableDef> {
    let existing = definitions.table(&mapping.table).map(|table| TableDef::clone(table));
    let mut table = match existing {
        Some(table) if table.declared => return Ok(table),
        Some(table) => table,
        None if mapping.verb == Verb::Retract => {
            return Err(QueryError::unknown_table(&mapping.table).into());
        }
        None => TableDef {
            id: TableId(definitions.next_table),
            name: mapping.table.clone(),
            precedence: Precedence::Effective,
            key: Vec::new(),
            columns: Vec::new(),
            declared: false,
        },
    };
    let added = table.columns.iter().map(|column| column.id.0 + 1).max().unwrap_or(0);
    let mut next = added.max(definitions.next_column(table.id).0);
    for field in program.output_schema().fields() {
        if special(field.name()).is_some() || table.column(field.name()).is_some() {
            continue;
        }
        let is_key = field.name() == "_id" && table.key.is_empty();
        if field.name().starts_with('_') && !is_key {
            return Err(unknown_special(field.name()).into());
        }
        let kind = kind_of(field)?.ok_or_else(|| {
            let message = format!("column \"{}\" is NULL and has no type", field.name());
            QueryError::new(SqlState::DatatypeMismatch, message).with_hint("cast it: NULL::TEXT")
        })?;
        let id = ColumnId(next);
        next += 1;
        if is_key {
            key_kind(&kind)?;
            table.key.push(id);
        }
        table.columns.push(ColumnDef { id, name: field.name().clone(), kind, nullable: !is_key });
    }
    if table.key.is_empty() {
        return Err(missing_key("_id").into());
    }
    Ok(table)
}

fn key_kind(kind: &ColumnType) -> Result<()> {
    if kind.may_be_key() {
        return Ok(());
    }
    let message = format!("a key cannot be of type {kind}");
    Err(QueryError::new(SqlState::DatatypeMismatch, message).into())
}

fn missing_key(name: &str) -> QueryError {
    QueryError::new(SqlState::UndefinedColumn, format!("the key column \"{name}\" is not computed"))
        .with_hint(format!("add: expression AS {name}"))
}

fn unknown_special(name: &str) -> QueryError {
    QueryError::unknown_column(name).with_hint(
        "a mapping's special columns are the key's, _valid_from, _valid_to, _tenant, _event_id \
         and _order",
    )
}

/// Gives every output column its role in a table, and checks that together they make sense.
fn bind(verb: Verb, program: &RecordProgram, table: &TableDef) -> Result<Vec<OutputColumn>> {
    let mut columns = Vec::new();
    for field in program.output_schema().fields() {
        let (role, kind) = role_of(field.name(), table)?;
        let checked = check_cast(field, role, &kind)?;
        columns.push(OutputColumn { name: field.name().clone(), role, kind, checked });
    }
    let has = |role: Role| columns.iter().any(|column| column.role == role);
    if table.precedence == Precedence::Recorded {
        let refused = [(Role::EventId, "_event_id"), (Role::Order, "_order")];
        if let Some((_, name)) = refused.iter().find(|(role, _)| has(*role)) {
            let message =
                format!("{name} for table \"{}\": its precedence is RECORDED", table.name);
            return Err(QueryError::unsupported(message)
                .with_hint("event ids and orders hold in tables of EFFECTIVE precedence")
                .into());
        }
    }
    if verb == Verb::Retract {
        if !has(Role::EventId) {
            let message = "RETRACT FROM needs _event_id";
            return Err(QueryError::new(SqlState::UndefinedColumn, message).into());
        }
    } else {
        for (place, id) in table.key.iter().enumerate() {
            if !has(Role::Key(place)) {
                let name = table.column_by_id(*id).map_or("_id", |column| column.name.as_str());
                return Err(missing_key(name).into());
            }
        }
    }
    check_verb(verb, &columns, table)?;
    Ok(columns)
}

fn check_verb(verb: Verb, columns: &[OutputColumn], table: &TableDef) -> Result<()> {
    let refused = columns.iter().find(|column| match verb {
        Verb::Put | Verb::Patch { .. } => false,
        Verb::Delete => matches!(column.role, Role::Field(_)),
        Verb::Retract => !matches!(column.role, Role::EventId | Role::Tenant),
    });
    if let Some(column) = refused {
        let word = if verb == Verb::Delete { "DELETE FROM" } else { "RETRACT FROM" };
        let message = format!("{word} takes no column \"{}\"", column.name);
        return Err(QueryError::new(SqlState::InvalidColumnReference, message).into());
    }
    if verb == Verb::Put {
        let left_out = table.columns.iter().find(|column| {
            let computed = columns.iter().any(|output| output.role == Role::Field(column.id));
            !column.nullable && !table.is_key(column.id) && !computed
        });
        if let Some(column) = left_out {
            let message = format!("column \"{}\" is NOT NULL but not computed", column.name);
            return Err(QueryError::new(SqlState::NotNullViolation, message).into());
        }
    }
    Ok(())
}

fn role_of(name: &str, table: &TableDef) -> Result<(Role, ColumnType)> {
    if let Some(column) = table.column(name) {
        let place = table.key.iter().position(|id| *id == column.id);
        return Ok((place.map_or(Role::Field(column.id), Role::Key), column.kind.clone()));
    }
    if let Some(found) = special(name) {
        return Ok(found);
    }
    if name.starts_with('_') {
        return Err(unknown_special(name).into());
    }
    let message = format!("table \"{}\" has no column \"{name}\"", table.name);
    Err(QueryError::new(SqlState::UndefinedColumn, message).into())
}

/// Returns whether an expression is of its column's type already; refuses one that cannot become it.
fn check_cast(field: &Field, role: Role, to: &ColumnType) -> Result<bool> {
    let Some(from) = kind_of(field)? else { return Ok(false) };
    let same = from == *to;
    let fits = same
        || match (&from, to) {
            (ColumnType::Int64, ColumnType::Float64 | ColumnType::Decimal)
            | (ColumnType::Date, ColumnType::Timestamp)
            | (ColumnType::Json | ColumnType::Uuid, ColumnType::Text) => true,
            (ColumnType::Text, to) => {
                !matches!(to, ColumnType::List(_) | ColumnType::Struct(_) | ColumnType::Bytes)
            }
            (ColumnType::Int64, ColumnType::Text) => role == Role::EventId,
            (ColumnType::Timestamp, ColumnType::Int64) => role == Role::Order,
            _ => false,
        };
    if fits {
        return Ok(same);
    }
    let message = format!("column \"{}\" is {to}, its expression is {from}", field.name());
    Err(QueryError::new(SqlState::DatatypeMismatch, message).with_hint("add a CAST").into())
}

/// Returns the nearest column type; `None` for a bare NULL.
fn kind_of(field: &Field) -> Result<Option<ColumnType>> {
    if *field.data_type() == DataType::Null {
        return Ok(None);
    }
    match field_type(field) {
        None | Some(ColumnType::List(_) | ColumnType::Struct(_)) => {
            let message = format!("column \"{}\" of type {}", field.name(), field.data_type());
            Err(QueryError::unsupported(message).with_hint("add a CAST").into())
        }
        kind => Ok(kind),
    }
}

#[cfg(test)]
mod tests;
