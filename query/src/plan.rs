//! Plans of continuous queries: bound to no basis, with their table references recoverable.

use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::decorrelate_lateral_join::DecorrelateLateralJoin;
use datafusion::optimizer::decorrelate_predicate_subquery::DecorrelatePredicateSubquery;
use datafusion::optimizer::eliminate_cross_join::EliminateCrossJoin;
use datafusion::optimizer::eliminate_filter::EliminateFilter;
use datafusion::optimizer::eliminate_join::EliminateJoin;
use datafusion::optimizer::eliminate_outer_join::EliminateOuterJoin;
use datafusion::optimizer::extract_equijoin_predicate::ExtractEquijoinPredicate;
use datafusion::optimizer::optimize_projections::OptimizeProjections;
use datafusion::optimizer::optimizer::{Optimizer, OptimizerRule};
use datafusion::optimizer::push_down_filter::PushDownFilter;
use datafusion::optimizer::replace_distinct_aggregate::ReplaceDistinctWithAggregate;
use datafusion::optimizer::rewrite_set_comparison::RewriteSetComparison;
use datafusion::optimizer::scalar_subquery_to_join::ScalarSubqueryToJoin;
use datafusion::optimizer::simplify_expressions::SimplifyExpressions;
use datafusion::physical_plan::collect;
use everwhen_storage::{Definitions, Store};

use crate::constants::Constants;
use crate::diagnose::Diagnose;
use crate::dialect::{ParseLimits, Positions, parse_query};
use crate::error::{Error, Result, SqlState};
use crate::functions;
use crate::read::{Defaults, plan_query, temporal_table};
use crate::rewrite::{RewriteInput, Rewritten, is_twice, rewrite, shown_name};
use crate::session::{NamedTable, StatementContext, planning_session, session_state};

/// A query planned for running again and again, with what places the errors of running it.
#[derive(Debug)]
pub struct Continuous {
    /// The plan.
    pub plan: LogicalPlan,
    /// Where characters of the query's text are.
    pub positions: Positions,
}

/// Plans a query for running again and again: analysed, sub-queries turned into joins, filters and
/// equalities pushed to where they apply. `now()` stays a call ([`functions::is_clock`]); leaves
/// are scans of [`crate::table::TemporalTable`].
///
/// # Errors
/// Whatever is wrong with the query; 0A000 for system tables and for bounds that are neither
/// constant nor of a table to their left.
pub fn plan_projection(store: &Store, definitions: &Definitions, sql: &str) -> Result<Continuous> {
    let parsed = parse_query(sql, &ParseLimits::default())?;
    let positions = parsed.clauses.positions().clone();
    let input =
        RewriteInput { definitions, is_system_table: &|name| name.starts_with("everwhen.") };
    let Rewritten { query, tables, system_tables } = rewrite(&parsed, &input)?;
    if let Some(name) = system_tables.first() {
        let message = format!("{name} has no changes that a projection could follow");
        return Err(Error::unsupported(message));
    }
    let constants = Constants::timeless();
    let mut references: Vec<NamedTable> = Vec::with_capacity(tables.len());
    for table in tables {
        let name = table.unique_name.clone();
        references.push((name, Arc::new(temporal_table(&constants, table, Defaults::default())?)));
    }
    let state = planning_session(references)?;
    // The session's tables are at hand, so planning never waits.
    let plan = futures::executor::block_on(plan_query(&state, query, &positions))?;
    let mut names = plan.schema().fields().iter().map(|field| field.name());
    if let Some(name) = names.find(|name| is_twice(name)) {
        let message = format!("a projection has two columns \"{}\"", shown_name(name));
        return Err(Error::new(SqlState::DuplicateColumn, message));
    }
    // Nothing of the store is read; it is named so that plans can come to rest on its statistics.
    let _ = store;
    let analysed = state
        .analyzer()
        .execute_and_check(plan, state.config_options(), |_, _| {})
        .diagnosed(&positions)?;
    // The session is the context, as the rule for DISTINCT ON looks functions up in it.
    let optimizer = Optimizer::with_rules(rules());
    let plan = optimizer.optimize(analysed, &state, |_, _| {}).diagnosed(&positions)?;
    Ok(Continuous { plan, positions })
}

/// The rules that keep a plan's operators plain: no rewriting of aggregates, no shared
/// sub-expressions, no nodes that only speed up one run.
fn rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    vec![
        Arc::new(RewriteSetComparison::new()),
        Arc::new(SimplifyExpressions::new()),
        Arc::new(ReplaceDistinctWithAggregate::new()),
        Arc::new(EliminateJoin::new()),
        Arc::new(DecorrelatePredicateSubquery::new()),
        Arc::new(ScalarSubqueryToJoin::new()),
        Arc::new(DecorrelateLateralJoin::new()),
        Arc::new(ExtractEquijoinPredicate::new()),
        Arc::new(EliminateFilter::new()),
        Arc::new(EliminateCrossJoin::new()),
        Arc::new(EliminateOuterJoin::new()),
        Arc::new(PushDownFilter::new()),
        Arc::new(OptimizeProjections::new()),
    ]
}

/// Runs a planned query at a basis, for one tenant.
///
/// # Errors
/// Whatever running it reports.
pub async fn execute_plan(
    store: Store,
    plan: LogicalPlan,
    mut ctx: StatementContext,
) -> Result<Vec<RecordBatch>> {
    // The context names the store too; the argument says plainly what is read.
    ctx.store = store;
    let positions = Positions::default();
    let state = session_state(&ctx)?;
    let plan = functions::pin(plan, ctx.basis.now)?;
    let physical = state.create_physical_plan(&plan).await.diagnosed(&positions)?;
    collect(physical, state.task_ctx()).await.diagnosed(&positions)
}
