//! Definitions of streams, mappings and projections: planned by the crate that owns each kind,
//! one at a time, and committed like any write.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use everwhen_ingest::{plan_alter, plan_drop, plan_mapping, plan_stream};
use everwhen_query::basis_token;
use everwhen_query::statements::{DefinitionStatement, ExplainProjection};
use everwhen_storage::{Batch, ColumnType, DefinitionChange, DefinitionKind, Definitions};

use super::query::{Answer, rows_at_hand};
use super::write::Written;
use super::{Services, blocking};
use crate::failure::{Answered, Failure};

/// Carries out a definition statement.
///
/// # Errors
/// What the owner of the definition finds wrong with it.
pub async fn run(services: &Services, statement: DefinitionStatement) -> Answered<Answer> {
    let _alone = services.defining.lock().await;
    match statement {
        DefinitionStatement::ExplainProjection(explain) => {
            explain_projection(services, explain).await
        }
        DefinitionStatement::CreateProjection(create) => {
            // Planned outside the writer's turn: it may build indexes, which needs turns itself.
            let projections = Arc::clone(&services.projections);
            let name = create.name.clone();
            let changes = blocking(move || Ok(projections.plan_create(&create)?)).await?;
            let batch = Batch { definitions: changes, ..Batch::default() };
            if batch.definitions.is_empty() {
                return Ok(Answer::Written(Written::unchanged(&services.store)));
            }
            let committed = services.store.write(batch).await?;
            take_up(services).await?;
            let projections = Arc::clone(&services.projections);
            let mut written = Written::of_commit(&services.store, &committed);
            written.warnings = blocking(move || Ok(projections.warnings(&name))).await?;
            Ok(Answer::Written(written))
        }
        DefinitionStatement::AlterTable(alter) => {
            let written = everwhen_query::alter_table(&services.store, &alter).await?;
            Ok(Answer::Written(written.into()))
        }
        DefinitionStatement::AlterProjection(alter) => {
            let projections = Arc::clone(&services.projections);
            blocking(move || Ok(projections.alter(&alter)?)).await?;
            Ok(Answer::Written(Written::unchanged(&services.store)))
        }
        DefinitionStatement::AlterStream(alter) => {
            let store = services.store.clone();
            in_turn(services, move |definitions| {
                let sources = store.sources(&alter.name)?;
                Ok(plan_alter(definitions, &sources, &alter)?)
            })
            .await
        }
        DefinitionStatement::CreateIndex(create) => {
            let written = everwhen_query::create_index(&services.store, &create).await?;
            Ok(Answer::Written(written.into()))
        }
        DefinitionStatement::DropIndex(drop) => {
            let written = everwhen_query::drop_index(&services.store, &drop).await?;
            Ok(Answer::Written(written.into()))
        }
        DefinitionStatement::CreateStream(create) => {
            in_turn(services, move |definitions| Ok(plan_stream(definitions, &create)?)).await
        }
        DefinitionStatement::CreateMapping(create) => {
            in_turn(services, move |definitions| Ok(plan_mapping(definitions, &create)?)).await
        }
        DefinitionStatement::Drop(drop) if drop.kind == DefinitionKind::Projection => {
            let projections = Arc::clone(&services.projections);
            let answer = in_turn(services, move |_| Ok(projections.plan_drop(&drop)?)).await?;
            take_up(services).await?;
            Ok(answer)
        }
        DefinitionStatement::Drop(drop) => {
            in_turn(services, move |definitions| Ok(plan_drop(definitions, &drop)?)).await
        }
    }
}

/// Plans against the definitions in force and commits, with nothing in between.
async fn in_turn<F>(services: &Services, plan: F) -> Answered<Answer>
where
    F: FnOnce(&Definitions) -> Answered<Vec<DefinitionChange>> + Send + 'static,
{
    let turn = services.store.turn().await?;
    let definitions = turn.definitions();
    let changes = blocking(move || plan(&definitions)).await?;
    if changes.is_empty() {
        return Ok(Answer::Written(Written::unchanged(&services.store)));
    }
    let committed = turn.commit(Batch { definitions: changes, ..Batch::default() }).await?;
    Ok(Answer::Written(Written::of_commit(&services.store, &committed)))
}

/// Has projections follow the definitions before the answer goes out.
async fn take_up(services: &Services) -> Answered<()> {
    let projections = Arc::clone(&services.projections);
    blocking(move || Ok(projections.refresh()?)).await
}

/// Answers how a projection is kept up to date, one line a row.
async fn explain_projection(services: &Services, explain: ExplainProjection) -> Answered<Answer> {
    let projections = Arc::clone(&services.projections);
    let text = blocking(move || Ok(projections.explain(&explain)?)).await?;
    let lines: ArrayRef = Arc::new(StringArray::from(text.lines().collect::<Vec<_>>()));
    let batch =
        RecordBatch::try_from_iter([("plan", lines)]).map_err(|error| Failure::internal(&error))?;
    let basis = basis_token(&services.store, services.store.latest());
    Ok(rows_at_hand(vec![("plan".to_owned(), ColumnType::Text)], batch, basis))
}
