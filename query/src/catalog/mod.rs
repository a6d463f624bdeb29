//! The catalogs that Postgres keeps of itself, over our tables: for tools that ask what there is.
//!
//! Statements about `pg_catalog` and `information_schema` run in a session of their own, which
//! has every table's columns and none of its rows. It is kept as long as the definitions stay, so
//! that the object ids of one statement are those of the next.

mod activity;
mod forms;
mod functions;
mod information_schema;
mod keys;
mod listed;

use std::ops::ControlFlow;
use std::sync::{Arc, LazyLock};

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::source_as_provider;
use datafusion::execution::context::{SQLOptions, SessionContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::Statement as DataFusionStatement;
use datafusion::sql::sqlparser::ast::{
    ObjectName, ObjectNamePart, Query, Statement, visit_relations,
};
use datafusion_pg_catalog::sql::PostgresCompatibilityParser;
use everwhen_storage::{Basis, Definitions};
use parking_lot::Mutex;

use crate::answer::{RowsAnswer, start};
use crate::diagnose::Diagnose;
use crate::dialect::{ParseLimits, Positions, check_cost, normal};
use crate::engine::{Inner, Request};
use crate::error::{Error, Result};
use crate::read::{Defaults, Planned, Reading};
use crate::session::{NamedTable, REFERENCES, SYSTEM_SCHEMA, StatementContext, catalog_session};
use activity::Activity;
use listed::Listed;

pub use functions::SERVER_VERSION;

/// The schemas of the catalogs.
const SCHEMAS: [&str; 2] = [information_schema::SCHEMA, "pg_catalog"];

/// Sessions that are kept at most.
const KEPT_MAX: usize = 16;

/// Who asks, as the catalogs show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    pub database: String,
    pub user: String,
}

/// The sessions by who asks and the definitions that they show.
#[derive(Default)]
pub struct Catalogs {
    sessions: Mutex<Vec<Kept>>,
    /// What the last definitions list, which is the same whoever asks.
    listed: Mutex<Option<AllListed>>,
}

/// What definitions list.
type AllListed = (Arc<Definitions>, Arc<[Listed]>);

struct Kept {
    names: Names,
    definitions: Arc<Definitions>,
    session: SessionContext,
}

impl Catalogs {
    async fn session(
        &self,
        inner: &Inner,
        names: &Names,
        definitions: &Arc<Definitions>,
        ctx: &StatementContext,
    ) -> Result<SessionContext> {
        if let Some(session) = self.kept(names, definitions) {
            return Ok(session);
        }
        let listed = self.listed(inner, definitions, ctx).await;
        let session = build(inner, names, definitions, &listed)?;
        let mut kept = self.sessions.lock();
        if kept.len() >= KEPT_MAX {
            kept.remove(0);
        }
        kept.push(Kept {
            names: names.clone(),
            definitions: Arc::clone(definitions),
            session: session.clone(),
        });
        Ok(session)
    }

    async fn listed(
        &self,
        inner: &Inner,
        definitions: &Arc<Definitions>,
        ctx: &StatementContext,
    ) -> Arc<[Listed]> {
        if let Some((of, listed)) = &*self.listed.lock()
            && Arc::ptr_eq(of, definitions)
        {
            return Arc::clone(listed);
        }
        let defaults = Defaults::default();
        let reading = Reading { ctx, definitions, defaults, system_tables: &inner.system_tables };
        let listed: Arc<[Listed]> = listed::all(&reading).await.into();
        *self.listed.lock() = Some((Arc::clone(definitions), Arc::clone(&listed)));
        listed
    }

    fn kept(&self, names: &Names, definitions: &Arc<Definitions>) -> Option<SessionContext> {
        let kept = self.sessions.lock();
        let found = kept
            .iter()
            .find(|one| one.names == *names && Arc::ptr_eq(&one.definitions, definitions));
        found.map(|found| found.session.clone())
    }
}

fn build(
    inner: &Inner,
    names: &Names,
    definitions: &Definitions,
    listed: &[Listed],
) -> Result<SessionContext> {
    let of = |schema: &str| -> Vec<NamedTable> {
        listed.iter().filter(|one| one.schema_name == schema).map(Listed::named).collect()
    };
    let runtime = Arc::clone(&inner.runtime);
    let session = catalog_session(&names.database, of(REFERENCES), of(SYSTEM_SCHEMA), runtime)?;
    functions::register(&session, names)?;
    information_schema::register(&session, names, listed)?;
    let activity = inner.system_tables.get("queries").map(Activity::new);
    keys::register(&session, names, definitions, activity)?;
    Ok(session)
}

/// True where a query names a table of the catalogs by its schema.
pub fn is_asked(query: &Query) -> bool {
    let of_catalogs = |name: &ObjectName| {
        let schema = name.0.first().and_then(ObjectNamePart::as_ident).map(normal);
        name.0.len() > 1 && schema.is_some_and(|schema| SCHEMAS.contains(&schema.as_str()))
    };
    let found = visit_relations(query, |name| match of_catalogs(name) {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    });
    found.is_break()
}

/// Runs a query of the catalogs.
pub async fn run(inner: &Inner, request: &Request, names: &Names) -> Result<RowsAnswer> {
    let (planned, basis) = plan(inner, request, &request.sql, names).await?;
    start(planned, Positions::default(), crate::basis::basis_token(&inner.store, basis)).await
}

/// Plans a query of the catalogs, given by its text, at the request's basis.
pub async fn plan(
    inner: &Inner,
    request: &Request,
    sql: &str,
    names: &Names,
) -> Result<(Planned, Basis)> {
    static PARSER: LazyLock<PostgresCompatibilityParser> =
        LazyLock::new(PostgresCompatibilityParser::new);
    let basis = inner.basis_of(request).await?;
    let definitions = inner.store.definitions_at(basis.tx);
    // Within the limits of every statement, before anything recurses over it.
    check_cost(sql, &ParseLimits::default())?;
    let sql = forms::without_functions_in_from(sql).unwrap_or_else(|| sql.to_owned());
    let parsed = PARSER
        .parse(&keys::without_expandarray(&sql))
        .map_err(|error| Error::syntax(error.to_string()))?;
    let [Statement::Query(query)] = parsed.as_slice() else {
        return Err(Error::unsupported("the catalogs can be queried and nothing else"));
    };
    let mut query = query.clone();
    forms::rewrite(&mut query);
    let positions = Positions::default();
    request.params.bind(&mut query, &positions)?;
    // What stops a statement's work is found in its context.
    let interrupt = request.interrupt.clone();
    let ctx = inner.context(basis, &request.tenant).with_interrupt(interrupt);
    let session = inner.catalogs.session(inner, names, &definitions, &ctx).await?;
    let mut state = session.state();
    state.config_mut().set_extension(Arc::new(ctx));
    let statement = DataFusionStatement::Statement(Box::new(Statement::Query(query)));
    let plan = state.statement_to_plan(statement).await.diagnosed(&positions)?;
    let read_only =
        SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    read_only.verify_plan(&plan).diagnosed(&positions)?;
    refuse_tables(&plan)?;
    Ok((Planned { state, plan }, basis))
}

/// Refuses a query that reads tables besides the catalogs: there are no rows of them here.
fn refuse_tables(plan: &LogicalPlan) -> Result<()> {
    let mut found = None;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Ok(provider) = source_as_provider(&scan.source)
            && provider.downcast_ref::<Listed>().is_some()
        {
            found = Some(scan.table_name.table().to_owned());
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    match found {
        None => Ok(()),
        Some(table) => {
            let message = format!("\"{table}\" is read together with Postgres' own catalogs");
            Err(Error::unsupported(message)
                .with_hint("query tables in one statement and the catalogs in another"))
        }
    }
}
