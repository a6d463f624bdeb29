//! A store in a directory of its own, a clock to move and answers as JSON.

use std::sync::Arc;

use everwhen_storage::{Clock, ManualClock, Options, Store, ValidTime};
use futures::StreamExt;
use serde_json::Value as Json;

use crate::columns::json_of;
use crate::statements::DefinitionStatement;
use crate::{Engine, EngineOptions, Error, Outcome, Params, Request, RowsAnswer, WriteAnswer};

pub struct Kit {
    pub engine: Arc<Engine>,
    pub store: Store,
    pub clock: Arc<ManualClock>,
    pub directory: tempfile::TempDir,
}

impl Kit {
    /// Starts at 2026-01-01.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let start = ValidTime::parse("2026-01-01").unwrap().micros();
        let clock = Arc::new(ManualClock::at(start));
        let store = Store::open(Options {
            path: directory.path().join("data"),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            sync: false,
            block_cache_bytes: 8 << 20,
        })
        .unwrap();
        let engine = Engine::new(store.clone(), EngineOptions::default());
        Self { engine, store, clock, directory }
    }

    pub fn at(&self, text: &str) {
        self.clock.set(ValidTime::parse(text).unwrap().micros()).unwrap();
    }

    /// Lets a minute pass.
    pub fn clock_forward(&self) {
        self.clock.set(self.clock.now_micros() + 60_000_000).unwrap();
    }

    pub async fn run(&self, request: Request) -> Result<Outcome, Error> {
        self.engine.execute(request).await
    }

    pub async fn write(&self, sql: &str) -> WriteAnswer {
        match self.run(Request::new(sql)).await {
            Ok(Outcome::Written(answer)) => answer,
            Ok(_) => panic!("{sql} is no write"),
            Err(error) => panic!("{sql}: {error:?}"),
        }
    }

    /// Runs an ALTER TABLE, a CREATE INDEX or a DROP INDEX, as the server does.
    pub async fn alter(&self, sql: &str) -> Result<WriteAnswer, Error> {
        let Outcome::Define(definition) = self.run(Request::new(sql)).await? else {
            panic!("{sql} defines nothing")
        };
        match definition {
            DefinitionStatement::AlterTable(alter) => crate::alter_table(&self.store, &alter).await,
            DefinitionStatement::CreateIndex(create) => {
                crate::create_index(&self.store, &create).await
            }
            DefinitionStatement::DropIndex(drop) => crate::drop_index(&self.store, &drop).await,
            _ => panic!("{sql} is no definition that tests run"),
        }
    }

    pub async fn answer(&self, request: Request) -> RowsAnswer {
        let sql = request.sql.clone();
        match self.run(request).await {
            Ok(Outcome::Rows(answer)) => answer,
            Ok(_) => panic!("{sql} is no query"),
            Err(error) => panic!("{sql}: {error:?}"),
        }
    }

    pub async fn rows(&self, sql: &str) -> Json {
        self.rows_of(Request::new(sql)).await
    }

    pub async fn rows_of(&self, request: Request) -> Json {
        collect(self.answer(request).await).await.unwrap()
    }

    pub async fn error(&self, sql: &str) -> Error {
        match self.run(Request::new(sql)).await {
            Ok(Outcome::Rows(answer)) => collect(answer).await.expect_err(sql),
            Ok(_) => panic!("{sql} was not refused"),
            Err(error) => error,
        }
    }
}

pub async fn collect(answer: RowsAnswer) -> Result<Json, Error> {
    let RowsAnswer { columns, mut stream, .. } = answer;
    let mut rows = Vec::new();
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        for row in 0..batch.num_rows() {
            let cells = batch.columns().iter().zip(&columns);
            rows.push(cells.map(|(array, (_, kind))| json_of(array, row, kind)).collect::<Json>());
        }
    }
    Ok(Json::Array(rows))
}

pub fn with_params(sql: &str, params: Json) -> Request {
    let params = match params {
        Json::Array(values) => Params::Positional(values),
        Json::Object(values) => Params::Named(values),
        _ => Params::None,
    };
    Request { params, ..Request::new(sql) }
}
