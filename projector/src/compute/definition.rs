//! What CREATE PROJECTION says, as it is kept with the definitions.

use std::collections::BTreeMap;

use everwhen_query::statements::CreateProjection;
use everwhen_storage::{ColumnType, Definition, DefinitionKind, Definitions, Tenant};
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
    /// The sink's column of the tenant; without one a single tenant is covered.
    pub tenant_column: Option<String>,
    /// The tenants covered. Definitions made before this could be said have none: they cover all
    /// tenants if they have a column of the tenant, else `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenants: Option<Tenants>,
    /// The query's columns; their types are fixed here.
    pub columns: Vec<OutputColumn>,
}

/// Which tenants' rows a projection has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tenants {
    /// Every tenant there is and will be.
    All,
    /// These, whether they exist or not.
    Named(Vec<String>),
}

impl Tenants {
    /// Reads the option `tenants`.
    fn parse(text: &str) -> Result<Self> {
        if text == "all" {
            return Ok(Self::All);
        }
        let mut names: Vec<String> = Vec::new();
        for name in text.split(',').map(str::trim) {
            if Tenant::new(name).is_err() {
                return Err(Error::refused_with(
                    format!("tenants = '{text}' names no tenants"),
                    "write tenants = 'default', tenants = 'all', or names of tenants with commas",
                ));
            }
            if names.iter().any(|known| known == name) {
                return Err(Error::refused(format!("tenant \"{name}\" is named twice")));
            }
            names.push(name.to_owned());
        }
        Ok(Self::Named(names))
    }
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
    pub fn new(statement: &CreateProjection, columns: Vec<OutputColumn>) -> Result<Self> {
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
        let tenants = Tenants::parse(options.remove("tenants").unwrap_or("default"))?;
        let single = matches!(&tenants, Tenants::Named(names) if names.len() == 1);
        let tenant_column = match options.remove("tenant_column") {
            None => (!single).then(|| "_tenant".to_owned()),
            Some("none") if single => None,
            Some("none") => {
                return Err(Error::refused_with(
                    "rows of several tenants need a column of the tenant",
                    "leave tenant_column out, or cover a single tenant",
                ));
            }
            Some(name) => Some(name.to_owned()),
        };
        if let Some(unknown) = options.keys().next() {
            return Err(Error::refused_with(
                format!("a projection has no option \"{unknown}\""),
                "options are metadata, tenants and tenant_column",
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
            tenants: Some(tenants),
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
        if self.table.get(..9).is_some_and(|start| start.eq_ignore_ascii_case("everwhen_")) {
            return Err(Error::refused_with(
                format!(
                    "table names that begin with everwhen_, as \"{}\", are for sinks",
                    self.table
                ),
                "name another table with INTO sink.table",
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

    /// Says whether a tenant's rows are the projection's.
    pub fn covers(&self, tenant: &Tenant) -> bool {
        match &self.tenants {
            Some(Tenants::All) => true,
            Some(Tenants::Named(names)) => names.iter().any(|name| name == tenant.as_str()),
            None => self.tenant_column.is_some() || *tenant == Tenant::default(),
        }
    }

    /// Returns the tenants covered, given those that there are.
    pub fn covered(&self, known: Vec<Tenant>) -> Vec<Tenant> {
        let named: Vec<Tenant> = match &self.tenants {
            Some(Tenants::Named(names)) => {
                return names.iter().filter_map(|name| Tenant::new(name).ok()).collect();
            }
            _ => vec![Tenant::default()],
        };
        let known = known.into_iter().filter(|tenant| self.covers(tenant));
        let known: Vec<Tenant> = known.filter(|tenant| !named.contains(tenant)).collect();
        [known, named].concat()
    }

    /// Returns the tenant covered, of a projection without a column of the tenant.
    pub fn only_tenant(&self) -> Tenant {
        self.covered(Vec::new()).into_iter().next().unwrap_or_default()
    }

    /// Refuses the table if another projection has it: two would delete each other's rows. Where one
    /// of them names no sink, the delivery process chooses it, perhaps the other's.
    ///
    /// # Errors
    /// [`Error::TableTaken`].
    pub fn check_table(&self, name: &str, definitions: &Definitions) -> Result<()> {
        for other in definitions.all(DefinitionKind::Projection) {
            if other.name == name {
                continue;
            }
            let Ok(body) = Self::of(other) else { continue };
            let same_sink = self.sink.is_none() || body.sink.is_none() || self.sink == body.sink;
            if same_sink && self.table.eq_ignore_ascii_case(&body.table) {
                let sink = self.sink.as_deref().or(body.sink.as_deref()).unwrap_or("default");
                return Err(Error::TableTaken {
                    table: self.table.clone(),
                    projection: other.name.clone(),
                    hint: format!(
                        "write INTO {sink}.another_table, or drop projection \"{}\" first",
                        other.name
                    ),
                });
            }
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use everwhen_storage::TxId;

    use super::*;

    fn statement(sink: Option<(&str, Option<&str>)>, options: &[(&str, &str)]) -> CreateProjection {
        CreateProjection {
            name: "p".to_owned(),
            or_replace: false,
            if_not_exists: false,
            key: vec!["id".to_owned()],
            sink: sink.map(|(sink, _)| sink.to_owned()),
            sink_table: sink.and_then(|(_, table)| table.map(str::to_owned)),
            options: options.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            query: String::new(),
            query_position: 1,
            sql: String::new(),
        }
    }

    fn body(sink: Option<(&str, Option<&str>)>, options: &[(&str, &str)]) -> Result<Body> {
        let id = OutputColumn { name: "id".to_owned(), kind: ColumnType::Text, nullable: false };
        Body::new(&statement(sink, options), vec![id])
    }

    fn tenant(name: &str) -> Tenant {
        Tenant::new(name).unwrap()
    }

    #[test]
    fn the_default_tenant_alone_is_covered_unless_others_are_named() {
        let one = body(None, &[]).unwrap();
        assert_eq!(one.tenant_column, None);
        assert!(one.covers(&Tenant::default()) && !one.covers(&tenant("a")));
        let known = || vec![tenant("a"), Tenant::default(), tenant("b")];
        assert_eq!(one.covered(known()), [Tenant::default()]);

        let other = body(None, &[("tenants", "a"), ("tenant_column", "none")]).unwrap();
        assert_eq!(other.only_tenant(), tenant("a"));
        assert_eq!(other.sink_key(), ["id"]);

        let some = body(None, &[("tenants", "a, b")]).unwrap();
        assert_eq!(some.sink_key(), ["_tenant", "id"]);
        assert_eq!(some.covered(Vec::new()), [tenant("a"), tenant("b")]);
        assert!(!some.covers(&Tenant::default()));

        let all = body(None, &[("tenants", "all"), ("tenant_column", "whose")]).unwrap();
        assert_eq!(all.sink_key(), ["whose", "id"]);
        assert_eq!(all.covered(known()), [tenant("a"), tenant("b"), Tenant::default()]);
        assert!(all.covers(&tenant("later")));

        for wrong in ["", "A", "a,,b", "a, a"] {
            assert!(body(None, &[("tenants", wrong)]).is_err(), "{wrong}");
        }
        let bare = body(None, &[("tenants", "a, b"), ("tenant_column", "none")]);
        assert!(bare.is_err(), "rows of two tenants would have one key");
    }

    #[test]
    fn definitions_from_before_the_option_mean_what_they_meant() {
        let stored = |column: &str| {
            let text = format!(
                r#"{{"sql":"","query":"","key":["id"],"sink":null,"table":"t","metadata":true,"tenant_column":{column},"columns":[]}}"#
            );
            serde_json::from_str::<Body>(&text).unwrap()
        };
        let none = stored("null");
        assert!(none.covers(&Tenant::default()) && !none.covers(&tenant("a")));
        let all = stored("\"_tenant\"");
        assert!(all.covers(&tenant("a")));
        assert_eq!(all.covered(vec![tenant("a")]), [tenant("a"), Tenant::default()]);
    }

    #[test]
    fn a_table_of_another_projection_is_refused() {
        let stored = |name: &str, sink| Definition {
            kind: DefinitionKind::Projection,
            name: name.to_owned(),
            body: serde_json::to_value(body(sink, &[]).unwrap()).unwrap(),
            tx: TxId::ZERO,
        };
        let mut definitions = Definitions::default();
        for definition in [
            stored("first", Some(("warehouse", Some("t")))),
            stored("implied", Some(("lake", None))),
        ] {
            let projections = definitions.others.entry(DefinitionKind::Projection).or_default();
            projections.insert(definition.name.clone(), std::sync::Arc::new(definition));
        }
        let check = |name: &str, sink| body(sink, &[]).unwrap().check_table(name, &definitions);
        let error = check("second", Some(("warehouse", Some("T")))).unwrap_err();
        assert_eq!(error.sqlstate(), "42710");
        assert!(error.to_string().contains("projection \"first\""), "{error}");
        assert!(error.hint().unwrap().contains("INTO warehouse."), "{error:?}");
        assert!(check("first", Some(("warehouse", Some("t")))).is_ok(), "its own");
        assert!(check("second", Some(("lake", Some("t")))).is_ok(), "another sink");
        assert!(check("second", Some(("warehouse", Some("u")))).is_ok(), "another table");
        assert!(check("t", None).is_err(), "without INTO the table has the projection's name");
    }
}
