//! Expression programs over record batches: what a mapping computes of each record.
//!
//! A program is a select list with an optional WHERE and no FROM, compiled once to physical
//! expressions and run on whole batches. It is a pure function of the record, so that replay gives
//! the same result: functions that are not immutable are refused. It knows no tables and no store.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Expr, ExprSchemable, Volatility};
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_plan::PhysicalExpr;
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use everwhen_storage::ColumnType;

use crate::columns::{JSON_EXTENSION, field_of, is_extension};
use crate::dialect::TemporalDialect;
use crate::error::{Error, Result, SqlState};
use crate::functions::uuids_of_one_form;
use crate::session::planning_session;

/// A compiled select list over records of one schema.
#[derive(Debug, Clone)]
pub struct RecordProgram {
    outputs: Vec<Output>,
    predicate: Option<Arc<dyn PhysicalExpr>>,
    input: SchemaRef,
    output: SchemaRef,
}

#[derive(Debug, Clone)]
struct Output {
    value: Arc<dyn PhysicalExpr>,
    /// True where everything that the value is made of was sent; `None` where always so.
    sent: Option<Arc<dyn PhysicalExpr>>,
}

/// What a program computed of a batch.
#[derive(Debug, Clone)]
pub struct Computed {
    /// One row for each record that the WHERE lets through, in the batch's order.
    pub batch: RecordBatch,
    /// The input row of each output row, ascending.
    pub rows: Vec<usize>,
    /// For each column whether its inputs were sent; `None` where they always are.
    pub sent: Vec<Option<BooleanArray>>,
}

/// Names the boolean input column that says whether an input column was sent, if it has one.
pub type SentColumn<'a> = &'a dyn Fn(&str) -> Option<String>;

impl RecordProgram {
    /// Compiles `SELECT .. [WHERE ..]` without a FROM against the records' schema.
    ///
    /// `*` stands for the columns whose names do not begin with `_`.
    ///
    /// # Errors
    /// 42601 for text of another form, 42703 for an unknown column, 0A000 for anything that is no
    /// function of the record alone: other clauses, sub-queries, aggregates, windows, functions
    /// that are not immutable.
    pub fn compile(sql: &str, input: SchemaRef) -> Result<Self> {
        Self::compile_tracking(sql, input, &|_| None)
    }

    /// Checks the form of `SELECT .. [WHERE ..]` without a FROM, before its records are known.
    ///
    /// # Errors
    /// 42601 and 0A000, as [`Self::compile`] answers them.
    pub fn check_form(sql: &str) -> Result<()> {
        parse(sql).map(drop)
    }

    /// Returns the names that `SELECT .. [WHERE ..]` computes, over records of these columns.
    ///
    /// # Errors
    /// 42601 and 0A000, as [`Self::compile`] answers them.
    pub fn output_names(sql: &str, columns: &[String]) -> Result<Vec<String>> {
        Ok(items(&parse(sql)?.projection, columns)?.into_iter().map(|(name, _)| name).collect())
    }

    /// Compiles as [`Self::compile`] does, and answers in [`Computed::sent`] which outputs rest on
    /// fields that the record did not have: by `sent` for columns, by `json_contains` for paths
    /// into JSON documents.
    pub fn compile_tracking(sql: &str, input: SchemaRef, sent: SentColumn<'_>) -> Result<Self> {
        let select = parse(sql)?;
        let compiler = Compiler {
            state: planning_session(Vec::new())?,
            schema: DFSchema::try_from(Arc::clone(&input))?,
            sent,
        };
        let predicate = match &select.selection {
            Some(condition) => {
                let logical = compiler.logical(condition.clone(), "WHERE")?;
                if logical.get_type(&compiler.schema)? != DataType::Boolean {
                    let message = "the WHERE of a mapping must be a boolean";
                    return Err(Error::new(SqlState::DatatypeMismatch, message));
                }
                Some(compiler.physical(logical)?)
            }
            None => None,
        };
        let columns: Vec<String> = input.fields().iter().map(|f| f.name().clone()).collect();
        let mut outputs = Vec::new();
        let mut fields = Vec::<Field>::new();
        for (name, expression) in items(&select.projection, &columns)? {
            if fields.iter().any(|field| *field.name() == name) {
                let message = format!("column \"{name}\" is computed twice");
                return Err(Error::new(SqlState::DuplicateColumn, message));
            }
            let logical = json_text_at_top(compiler.logical(expression, &name)?);
            let sent = compiler.sent_of(&logical)?;
            let (_, field) = logical.to_field(&compiler.schema)?;
            let value = compiler.physical(logical)?;
            let kind = value.data_type(&input)?;
            fields.push(Field::new(name, kind, true).with_metadata(field.metadata().clone()));
            outputs.push(Output { value, sent });
        }
        Ok(Self { outputs, predicate, input, output: Arc::new(Schema::new(fields)) })
    }

    /// Returns the computed columns; a column of JSON text is marked as [`is_json`] sees it.
    pub fn output_schema(&self) -> &SchemaRef {
        &self.output
    }

    /// Returns the names of the input columns that are read.
    pub fn inputs(&self) -> BTreeSet<&str> {
        let presence = self.outputs.iter().filter_map(|output| output.sent.as_ref());
        self.outputs
            .iter()
            .map(|output| &output.value)
            .chain(presence)
            .chain(&self.predicate)
            .flat_map(collect_columns)
            .map(|column| self.input.field(column.index()).name().as_str())
            .collect()
    }

    /// Runs the program over a batch of the input schema.
    ///
    /// # Errors
    /// Whatever an expression answers on a value it cannot take; nothing tells on which row, so
    /// callers that must know halve the batch.
    pub fn run(&self, batch: &RecordBatch) -> Result<Computed> {
        let (kept, rows) = self.matching(batch)?;
        let mut columns = Vec::with_capacity(self.outputs.len());
        let mut sent = Vec::with_capacity(self.outputs.len());
        for output in &self.outputs {
            columns.push(output.value.evaluate(&kept)?.into_array(kept.num_rows())?);
            sent.push(match &output.sent {
                Some(expression) => {
                    Some(booleans(expression.evaluate(&kept)?.into_array(kept.num_rows())?)?)
                }
                None => None,
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(kept.num_rows()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.output), columns, &options)?;
        Ok(Computed { batch, rows, sent })
    }

    /// Keeps the rows that the WHERE lets through; other rows reach no other expression.
    fn matching(&self, batch: &RecordBatch) -> Result<(RecordBatch, Vec<usize>)> {
        let Some(predicate) = &self.predicate else {
            return Ok((batch.clone(), (0..batch.num_rows()).collect()));
        };
        let mask = booleans(predicate.evaluate(batch)?.into_array(batch.num_rows())?)?;
        let rows: Vec<usize> =
            (0..mask.len()).filter(|row| mask.is_valid(*row) && mask.value(*row)).collect();
        if rows.len() == batch.num_rows() {
            return Ok((batch.clone(), rows));
        }
        Ok((filter_record_batch(batch, &mask)?, rows))
    }
}

/// True for a column of JSON text.
pub fn is_json(field: &Field) -> bool {
    is_extension(field, JSON_EXTENSION)
}

/// Builds the field of a record column of that type, marked where it is JSON text.
pub fn record_field(name: &str, kind: &ColumnType) -> Field {
    field_of(name, kind)
}

fn booleans(array: ArrayRef) -> Result<BooleanArray> {
    array
        .as_any()
        .downcast_ref::<BooleanArray>()
        .cloned()
        .ok_or_else(|| Error::internal("a condition on records is not boolean"))
}

fn parse(sql: &str) -> Result<ast::Select> {
    let wrong = |error: ParserError| Error::syntax(error.to_string());
    // No text has more tokens than bytes.
    let dialect = TemporalDialect::of_tokens(sql.len());
    let parser = Parser::new(&dialect).try_with_sql(sql);
    let mut statements = parser.and_then(|mut parser| parser.parse_statements()).map_err(wrong)?;
    let (Some(ast::Statement::Query(query)), true) = (statements.pop(), statements.is_empty())
    else {
        return Err(Error::syntax("a mapping is SELECT .. [WHERE ..] over one record"));
    };
    let plain = query.with.is_none()
        && query.order_by.is_none()
        && query.limit_clause.is_none()
        && query.fetch.is_none();
    let ast::SetExpr::Select(select) = *query.body else {
        return Err(Error::unsupported("a mapping is a single SELECT over one record"));
    };
    if !select.from.is_empty() {
        let message = "a mapping's SELECT has no FROM: it reads its stream's record";
        return Err(Error::unsupported(message));
    }
    let ungrouped = matches!(&select.group_by,
        ast::GroupByExpr::Expressions(by, _) if by.is_empty());
    let bare = select.distinct.is_none()
        && select.having.is_none()
        && select.qualify.is_none()
        && select.into.is_none()
        && select.named_window.is_empty();
    if !(plain && ungrouped && bare) {
        let message = "a mapping's SELECT has a select list and a WHERE, no other clause";
        return Err(Error::unsupported(message));
    }
    Ok(*select)
}

/// Returns a select list's names and expressions, with `*` expanded to those of `columns` whose
/// names do not begin with `_`.
fn items(projection: &[ast::SelectItem], columns: &[String]) -> Result<Vec<(String, ast::Expr)>> {
    let mut items = Vec::new();
    for item in projection {
        match item {
            ast::SelectItem::ExprWithAlias { expr, alias } => {
                items.push((folded(alias), expr.clone()));
            }
            ast::SelectItem::UnnamedExpr(expr) => match expr {
                ast::Expr::Identifier(name) => items.push((folded(name), expr.clone())),
                _ => {
                    let message = format!("\"{expr}\" has no name");
                    return Err(Error::syntax(message).with_hint("name it: expression AS name"));
                }
            },
            ast::SelectItem::Wildcard(_) => {
                for name in columns.iter().filter(|name| !name.starts_with('_')) {
                    let ident = ast::Ident::with_quote('"', name);
                    items.push((name.clone(), ast::Expr::Identifier(ident)));
                }
            }
            other => {
                return Err(Error::unsupported(format!("\"{other}\" in a mapping")));
            }
        }
    }
    Ok(items)
}

struct Compiler<'a> {
    state: SessionState,
    schema: DFSchema,
    sent: SentColumn<'a>,
}

impl Compiler<'_> {
    fn logical(&self, expression: ast::Expr, name: &str) -> Result<Expr> {
        refuse_subqueries(&expression, name)?;
        let item = ast::ExprWithAlias { expr: expression, alias: None };
        let logical = self.state.create_logical_expr_from_sql_expr(item, &self.schema)?;
        refuse_impure(&logical)?;
        // No plan's rules come by here.
        Ok(uuids_of_one_form(logical, &self.schema)?.data)
    }

    fn physical(&self, logical: Expr) -> Result<Arc<dyn PhysicalExpr>> {
        Ok(self.state.create_physical_expr(logical, &self.schema)?)
    }

    /// Builds the condition under which everything that a value rests on was sent.
    fn sent_of(&self, logical: &Expr) -> Result<Option<Arc<dyn PhysicalExpr>>> {
        let mut conditions = Vec::new();
        logical.apply(|node| {
            match node {
                Expr::Column(column) => {
                    if let Some(bit) = (self.sent)(&column.name) {
                        conditions.push(Expr::Column(Column::from_name(bit)));
                    }
                }
                Expr::ScalarFunction(call) if reads_json(call) => {
                    conditions.push(Expr::ScalarFunction(ScalarFunction {
                        func: datafusion_functions_json::udfs::json_contains_udf(),
                        args: call.args.clone(),
                    }));
                }
                _ => {}
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        conditions
            .into_iter()
            .reduce(Expr::and)
            .map(|condition| self.physical(condition))
            .transpose()
    }
}

/// Folds an identifier as SQL does: to lower case unless it is quoted.
fn folded(ident: &ast::Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

/// True for a read of one path out of a JSON document.
fn reads_json(call: &ScalarFunction) -> bool {
    let name = call.func.name();
    (name.starts_with("json_get") || name == "json_as_text") && call.args.len() > 1
}

/// An output that is a JSON value itself (`payload->'x'`) is given as JSON text.
fn json_text_at_top(logical: Expr) -> Expr {
    match logical {
        Expr::Alias(alias) => json_text_at_top(*alias.expr),
        Expr::ScalarFunction(call) if call.func.name() == "json_get" => {
            Expr::ScalarFunction(ScalarFunction {
                func: datafusion_functions_json::udfs::json_get_json_udf(),
                args: call.args,
            })
        }
        other => other,
    }
}

fn refuse_subqueries(expression: &ast::Expr, name: &str) -> Result<()> {
    use std::ops::ControlFlow;
    let found = ast::visit_expressions(expression, |node| match node {
        ast::Expr::Subquery(_) | ast::Expr::Exists { .. } | ast::Expr::InSubquery { .. } => {
            ControlFlow::Break(())
        }
        _ => ControlFlow::Continue(()),
    });
    if found.is_break() {
        let message = format!("sub-query in \"{name}\": a mapping reads its record alone");
        return Err(Error::unsupported(message));
    }
    Ok(())
}

fn refuse_impure(logical: &Expr) -> Result<()> {
    let mut refused = None;
    logical.apply(|node| {
        match node {
            Expr::ScalarFunction(call)
                if call.func.signature().volatility != Volatility::Immutable =>
            {
                refused = Some(format!(
                    "function \"{}\" does not depend on the record alone",
                    call.func.name()
                ));
            }
            Expr::AggregateFunction(call) => {
                refused = Some(format!("aggregate \"{}\" in a mapping", call.func.name()));
            }
            Expr::WindowFunction(_) => refused = Some("window function in a mapping".to_owned()),
            Expr::Placeholder(_) => refused = Some("parameter in a mapping".to_owned()),
            _ => return Ok(TreeNodeRecursion::Continue),
        }
        Ok(TreeNodeRecursion::Stop)
    })?;
    match refused {
        Some(message) => Err(Error::unsupported(message)
            .with_hint("a mapping must give the same rows whenever its records are read again")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
