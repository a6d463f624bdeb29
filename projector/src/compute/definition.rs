//! What CREATE PROJECTION says, as it is kept with the definitions.

use std::collections::BTreeMap;

use everwhen_query::statements::CreateProjection;
use everwhen_storage::{ColumnType, Definition};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A projection's definition. Kept as JSON in the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Body {
    /// The whole statement.
    pub sql: String,
    /// The query's text.
    pub query: String,
    /// Names of the key's columns.
    pub key: Vec<String>,
    /// The sink named by INTO, if one was.
    pub sink: Option<String>,
    /// The sink's table.
    pub table: String,
    /// Rows carry `_generation`, `_tx` and `_change`.
    pub metadata: bool,
    /// The sink's column of the tenant; without one only `default` is covered.
    pub tenant_column: Option<String>,
    /// The query's columns; their types are fixed here.
    pub columns: Vec<OutputColumn>,
}

/// A column of a projection's rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutputColumn {
    /// Its name in the query and in the sink.
    pub name: String,
    /// Its type.
    pub kind: ColumnType,
    /// False for the key.
    pub nullable: bool,
}

/// Columns that a sink adds to rows with metadata.
pub const METADATA: [&str; 3] = ["_generation", "_tx", "_change"];

impl Body {
    /// Checks the statement's options and puts the definition together.
    pub fn new(
        statement: &CreateProjection,
        columns: Vec<OutputColumn>,
        several_tenants: bool,
    ) -> Result<Self> {
        let mut options: BTreeMap<&str, &str> =
            statement.options.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let metadata = match options.remove("metadata") {
            None | Some("true" | "on") => true,
            Some("false" | "off") => false,
            Some(other) => {
                return Err(Error::refused(format!(
                    "metadata = '{other}' is neither true nor false"
                )));
            }
        };
        let tenant_column = match options.remove("tenant_column") {
            None => several_tenants.then(|| "_tenant".to_owned()),
            Some("none") => None,
            Some(name) => Some(name.to_owned()),
        };
        if let Some(unknown) = options.keys().next() {
            return Err(Error::refused_with(
                format!("a projection has no option \"{unknown}\""),
                "options are metadata and tenant_column",
            ));
        }
        let body = Self {
            sql: statement.sql.clone(),
            query: statement.query.clone(),
            key: statement.key.clone(),
            sink: statement.sink.clone(),
            table: statement.sink_table.clone().unwrap_or_else(|| statement.name.clone()),
            metadata,
            tenant_column,
            columns,
        };
        body.check_names()?;
        Ok(body)
    }

    fn check_names(&self) -> Result<()> {
        let mut names: Vec<&str> = self.columns.iter().map(|column| column.name.as_str()).collect();
        names.extend(self.tenant_column.as_deref());
        if self.metadata {
            names.extend(METADATA);
        }
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::refused_with(
                format!("a row in the sink would have two columns \"{}\"", twice[0]),
                "give the columns of the query different names with AS",
            ));
        }
        if self.key.is_empty() {
            return Err(Error::refused_with("a projection has a key", "write KEY (columns)"));
        }
        for (at, name) in self.key.iter().enumerate() {
            if self.key[..at].contains(name) {
                return Err(Error::refused(format!("key column \"{name}\" is named twice")));
            }
            if !self.columns.iter().any(|column| column.name == *name) {
                return Err(Error::refused_with(
                    format!("key column \"{name}\" is no column of the query"),
                    "select it, or name another",
                ));
            }
        }
        Ok(())
    }

    /// Reads a definition.
    pub fn of(definition: &Definition) -> Result<Self> {
        serde_json::from_value(definition.body.clone()).map_err(|error| Error::Corrupt {
            projection: definition.name.clone(),
            why: error.to_string(),
        })
    }

    /// Returns the places of the key's columns among the query's.
    pub fn key_places(&self) -> Vec<usize> {
        self.key
            .iter()
            .filter_map(|name| self.columns.iter().position(|column| column.name == *name))
            .collect()
    }

    /// Returns the names of the key in the sink: the tenant first, where it has a column.
    pub fn sink_key(&self) -> Vec<String> {
        self.tenant_column.iter().chain(&self.key).cloned().collect()
    }

    /// Returns the sink's columns: the tenant's first, where it has one.
    pub fn sink_columns(&self) -> Vec<OutputColumn> {
        let tenant = self.tenant_column.iter().map(|name| OutputColumn {
            name: name.clone(),
            kind: ColumnType::Text,
            nullable: false,
        });
        tenant.chain(self.columns.iter().cloned()).collect()
    }
}
