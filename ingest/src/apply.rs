//! A mapping's rows to writes.
//!
//! A whole batch is computed at once. Where that fails it is halved until the offending records
//! stand alone; each becomes a rejection and the rest goes on.

use arrow::array::RecordBatch;
use everwhen_storage::{
    AssertedFrom, Assertion, Event, EventId, Op, Row, RowKey, Tenant, ValidTime, Value, Write,
    WriteKind,
};
use xxhash_rust::xxh3::xxh3_128;

use crate::batch::Records;
use crate::columns::ValueColumn;
use crate::dead_letter::Rejection;
use crate::decode::json::Decoded;
use crate::mapping::{CompiledMapping, OutputColumn, Role, Verb};

/// What the mappings made of a batch of records, so far.
#[derive(Debug)]
pub struct Assembly {
    /// The writes of each record.
    pub writes: Vec<Vec<Write>>,
    /// The first reason against each record; its writes do not count then.
    pub rejected: Vec<Option<Rejection>>,
}

impl Assembly {
    /// Starts with nothing for `records` records.
    pub fn new(records: usize) -> Self {
        Self {
            writes: (0..records).map(|_| Vec::new()).collect(),
            rejected: (0..records).map(|_| None).collect(),
        }
    }

    /// Turns a record away; the first reason stays.
    pub fn reject(&mut self, record: usize, rejection: Rejection) {
        self.rejected[record].get_or_insert(rejection);
    }
}

/// Which tenant the records belong to.
#[derive(Debug, Clone, Copy)]
pub struct TenantRule<'a> {
    /// The tenant of records whose mapping names none.
    pub tenant: &'a Tenant,
    /// Refuse records that name another one: a session other than the default tenant's is bound.
    pub bound: bool,
}

impl CompiledMapping {
    /// Adds what this mapping asserts of a decoded batch.
    pub fn apply(
        &self,
        decoded: &Decoded,
        records: &Records,
        tenants: TenantRule<'_>,
        into: &mut Assembly,
    ) {
        let mut run = Run {
            mapping: self,
            decoded,
            records,
            tenants,
            last_tenant: tenants.tenant.clone(),
            content: Vec::new(),
        };
        run.rows(&decoded.batch, 0, into);
    }
}

struct Run<'a> {
    mapping: &'a CompiledMapping,
    decoded: &'a Decoded,
    records: &'a Records,
    tenants: TenantRule<'a>,
    /// The tenant of the row before: most rows of a batch have few tenants.
    last_tenant: Tenant,
    /// Scratch space for what is hashed.
    content: Vec<u8>,
}

/// The computed columns of some rows, by what they are for.
struct Rows {
    keys: Vec<ValueColumn>,
    fields: Vec<FieldColumn>,
    valid_from: Option<ValueColumn>,
    valid_to: Option<ValueColumn>,
    tenant: Option<ValueColumn>,
    event_id: Option<ValueColumn>,
    order: Option<ValueColumn>,
}

struct FieldColumn {
    id: everwhen_storage::ColumnId,
    not_null: bool,
    name: String,
    values: ValueColumn,
    sent: Option<arrow::array::BooleanArray>,
}

impl Run<'_> {
    /// Handles rows `base..` of the decoded batch, given as a slice of it.
    fn rows(&mut self, slice: &RecordBatch, base: usize, into: &mut Assembly) {
        if slice.num_rows() == 0 {
            return;
        }
        match self.compute(slice) {
            Ok((rows, places)) => {
                for (row, place) in places.iter().enumerate() {
                    let record = self.decoded.rows[base + place];
                    match self.write(&rows, row, record) {
                        Ok(write) => into.writes[record].push(write),
                        Err(rejection) => into.reject(record, rejection),
                    }
                }
            }
            Err(reason) if slice.num_rows() == 1 => {
                let reason = format!("mapping \"{}\": {reason}", self.mapping.name);
                into.reject(self.decoded.rows[base], Rejection::new(reason));
            }
            Err(_) => {
                let half = slice.num_rows() / 2;
                self.rows(&slice.slice(0, half), base, into);
                self.rows(&slice.slice(half, slice.num_rows() - half), base + half, into);
            }
        }
    }

    fn compute(&self, slice: &RecordBatch) -> Result<(Rows, Vec<usize>), String> {
        let computed = self.mapping.program.run(slice).map_err(|error| error.to_string())?;
        let mut rows = Rows {
            keys: Vec::new(),
            fields: Vec::new(),
            valid_from: None,
            valid_to: None,
            tenant: None,
            event_id: None,
            order: None,
        };
        let mut keys = Vec::new();
        let outputs = self.mapping.columns.iter().zip(computed.batch.columns());
        for ((output, array), sent) in outputs.zip(computed.sent) {
            let values = ValueColumn::cast(array, &output.kind, output.checked)
                .map_err(|error| format!("column \"{}\": {error}", output.name))?;
            match output.role {
                Role::Key(place) => keys.push((place, values)),
                Role::Field(id) => rows.fields.push(self.field(id, output, values, sent)),
                Role::ValidFrom => rows.valid_from = Some(values),
                Role::ValidTo => rows.valid_to = Some(values),
                Role::Tenant => rows.tenant = Some(values),
                Role::EventId => rows.event_id = Some(values),
                Role::Order => rows.order = Some(values),
            }
        }
        keys.sort_by_key(|(place, _)| *place);
        rows.keys = keys.into_iter().map(|(_, values)| values).collect();
        rows.fields.sort_by_key(|field| field.id);
        Ok((rows, computed.rows))
    }

    fn field(
        &self,
        id: everwhen_storage::ColumnId,
        output: &OutputColumn,
        values: ValueColumn,
        sent: Option<arrow::array::BooleanArray>,
    ) -> FieldColumn {
        let nullable = self.mapping.table.column_by_id(id).is_none_or(|column| column.nullable);
        let not_null = self.mapping.verb == Verb::Put && !nullable;
        FieldColumn { id, not_null, name: output.name.clone(), values, sent }
    }

    fn write(&mut self, rows: &Rows, row: usize, record: usize) -> Result<Write, Rejection> {
        let tenant = self.tenant(rows, row)?;
        let kind = self.kind(rows, row, record).map_err(|reason| Rejection {
            reason: format!("mapping \"{}\": {reason}", self.mapping.name),
            tenant: Some(tenant.clone()),
        })?;
        Ok(Write { tenant, table: self.mapping.table.id, kind })
    }

    fn tenant(&mut self, rows: &Rows, row: usize) -> Result<Tenant, Rejection> {
        let Some(column) = &rows.tenant else { return Ok(self.tenants.tenant.clone()) };
        let reject =
            |why: String| Rejection::new(format!("mapping \"{}\": {why}", self.mapping.name));
        let name = column.text(row).ok_or_else(|| reject("_tenant is NULL".to_owned()))?;
        if name != self.last_tenant.as_str() {
            self.last_tenant = Tenant::new(name).map_err(|error| reject(error.to_string()))?;
        }
        if self.tenants.bound && self.last_tenant != *self.tenants.tenant {
            let session = self.tenants.tenant;
            return Err(reject(format!("_tenant is \"{name}\", the session's is \"{session}\"")));
        }
        Ok(self.last_tenant.clone())
    }

    fn kind(&mut self, rows: &Rows, row: usize, record: usize) -> Result<WriteKind, String> {
        let event_id = match &rows.event_id {
            Some(column) => Some(EventId(
                column.text(row).ok_or_else(|| "_event_id is NULL".to_owned())?.to_owned(),
            )),
            None => None,
        };
        let verb = self.mapping.verb;
        let op = match (verb, event_id) {
            (Verb::Retract, Some(event_id)) => return Ok(WriteKind::Retract { event_id }),
            (Verb::Retract, None) => return Err("_event_id is missing".to_owned()),
            (Verb::Put, id) => (Op::Put, id),
            (Verb::Patch { set_nulls }, id) => (Op::Patch { set_nulls }, id),
            (Verb::Delete, id) => (Op::Delete, id),
        };
        let (op, event_id) = op;
        let key = self.key(rows, row)?;
        let (from, to) = self.period(rows, row, record)?;
        let fields = fields(rows, row, verb)?;
        let event = event_id.map(|id| {
            let named = (rows.valid_from.is_some(), rows.valid_to.is_some());
            let content_hash =
                content_hash(&mut self.content, op, &key, (from, to, named), &fields);
            Event { id, content_hash }
        });
        let order = rows.order.as_ref().and_then(|column| column.int(row)).unwrap_or(0);
        let assertion = Assertion { op, from, to, order, fields, exact: false };
        Ok(WriteKind::Assert { key, assertion, event })
    }

    fn key(&self, rows: &Rows, row: usize) -> Result<RowKey, String> {
        let mut values = Vec::with_capacity(rows.keys.len());
        for (place, column) in rows.keys.iter().enumerate() {
            let value = column.value(row);
            if value.is_null() {
                let table = &self.mapping.table;
                let id = table.key.get(place).and_then(|id| table.column_by_id(*id));
                return Err(format!("{} is NULL", id.map_or("_id", |column| column.name.as_str())));
            }
            values.push(value);
        }
        RowKey::encode(&values).map_err(|error| error.to_string())
    }

    /// Returns the stated period, from the record's timestamp and open where nothing is stated.
    fn period(
        &self,
        rows: &Rows,
        row: usize,
        record: usize,
    ) -> Result<(AssertedFrom, ValidTime), String> {
        let from = match &rows.valid_from {
            Some(column) => Some(column.int(row).ok_or("_valid_from is NULL")?),
            None => self.records.get(record).timestamp,
        };
        let to = rows.valid_to.as_ref().and_then(|column| column.int(row));
        let to = to.map_or(ValidTime::END, ValidTime::from_micros);
        let Some(from) = from else { return Ok((AssertedFrom::SystemTime, to)) };
        let from = ValidTime::from_micros(from);
        if from >= to {
            return Err(format!("valid_from {from} is not before valid_to {to}"));
        }
        Ok((AssertedFrom::At(from), to))
    }
}

fn fields(rows: &Rows, row: usize, verb: Verb) -> Result<Row, String> {
    let mut fields = Vec::with_capacity(rows.fields.len());
    for field in &rows.fields {
        let value = field.values.value(row);
        if !value.is_null() {
            fields.push((field.id, value));
            continue;
        }
        if field.not_null {
            return Err(format!("column \"{}\" is NOT NULL", field.name));
        }
        let sent = field.sent.as_ref().is_none_or(|sent| sent.value(row));
        if sent && matches!(verb, Verb::Patch { set_nulls: true }) {
            fields.push((field.id, Value::Null));
        }
    }
    Ok(Row::new(fields))
}

/// Hashes what an event said: verb, key, fields, and the times that its mapping names.
///
/// The hash is stored with the event's id, so its input's form is fixed: all numbers little
/// endian, lengths before what is of variable length, a tag before each value.
fn content_hash(
    content: &mut Vec<u8>,
    op: Op,
    key: &RowKey,
    (from, to, named): (AssertedFrom, ValidTime, (bool, bool)),
    fields: &Row,
) -> u128 {
    content.clear();
    content.push(match op {
        Op::Put => 1,
        Op::Patch { set_nulls: false } => 2,
        Op::Patch { set_nulls: true } => 3,
        Op::Delete => 4,
    });
    push_bytes(content, key.as_bytes());
    content.push(u8::from(named.0) | (u8::from(named.1) << 1));
    if let (true, AssertedFrom::At(from)) = (named.0, from) {
        content.extend_from_slice(&from.micros().to_le_bytes());
    }
    if named.1 {
        content.extend_from_slice(&to.micros().to_le_bytes());
    }
    for (column, value) in fields.fields() {
        content.extend_from_slice(&column.0.to_le_bytes());
        push_value(content, value);
    }
    xxh3_128(content)
}

fn push_bytes(content: &mut Vec<u8>, bytes: &[u8]) {
    push_length(content, bytes.len());
    content.extend_from_slice(bytes);
}

fn push_length(content: &mut Vec<u8>, length: usize) {
    content.extend_from_slice(&u64::try_from(length).unwrap_or(u64::MAX).to_le_bytes());
}

fn push_value(content: &mut Vec<u8>, value: &Value) {
    let mut tagged = |tag: u8, bytes: &[u8]| {
        content.push(tag);
        content.extend_from_slice(bytes);
    };
    match value {
        Value::Null => tagged(0, &[]),
        Value::Bool(value) => tagged(1, &[u8::from(*value)]),
        Value::Int(value) => tagged(2, &value.to_le_bytes()),
        Value::Float(value) => tagged(3, &value.to_bits().to_le_bytes()),
        Value::Decimal(value) => tagged(4, &value.to_le_bytes()),
        Value::Date(value) => tagged(5, &value.to_le_bytes()),
        Value::Time(value) => tagged(6, &value.to_le_bytes()),
        Value::Timestamp(value) => tagged(7, &value.to_le_bytes()),
        Value::Text(value) => {
            content.push(8);
            push_bytes(content, value.as_bytes());
        }
        Value::Json(value) => {
            content.push(9);
            push_bytes(content, value.as_bytes());
        }
        Value::Bytes(value) => {
            content.push(10);
            push_bytes(content, value);
        }
        Value::Uuid(value) => tagged(13, value.as_bytes()),
        Value::List(values) | Value::Struct(values) => {
            content.push(if matches!(value, Value::List(_)) { 11 } else { 12 });
            push_length(content, values.len());
            for value in values {
                push_value(content, value);
            }
        }
    }
}

/// Gives all assertions of one record under one event id the hash of all of them, since they are
/// one set and are compared as a whole.
pub fn join_event_hashes(writes: &mut [Write]) {
    let event_of = |write: &Write| match &write.kind {
        WriteKind::Assert { event: Some(event), .. } => {
            Some((write.tenant.clone(), write.table, event.id.clone(), event.content_hash))
        }
        _ => None,
    };
    let events: Vec<_> = writes.iter().map(event_of).collect();
    for (at, write) in writes.iter_mut().enumerate() {
        let Some((tenant, table, id, _)) = &events[at] else { continue };
        let same = events.iter().flatten().filter(|(of_tenant, of_table, of_id, _)| {
            (of_tenant, of_table, of_id) == (tenant, table, id)
        });
        let hashes: Vec<u8> = same.flat_map(|(.., hash)| hash.to_le_bytes()).collect();
        if hashes.len() > size_of::<u128>()
            && let WriteKind::Assert { event: Some(event), .. } = &mut write.kind
        {
            event.content_hash = xxh3_128(&hashes);
        }
    }
}
