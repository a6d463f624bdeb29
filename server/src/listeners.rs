//! The listeners: bound first, so that a taken port is known before anything runs, then served.

use std::future::IntoFuture as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::{ListenerExt as _, TapIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;

use crate::app::{Endpoints, Error};
use crate::config::{Config, Listen};
use crate::service::Services;
use crate::{grpc, http, postgres};

type Ended = (&'static str, Result<(), String>);

/// The server's listeners and the tasks that serve them.
pub struct Listeners {
    http: Option<Bound>,
    grpc: Option<Bound>,
    postgres: Option<Bound>,
    postgres_connections_max: usize,
    admin: Option<Bound>,
    /// HTTP, gRPC and Postgres: these drain.
    requests: JoinSet<Ended>,
    /// Admin: served until the very end.
    health: JoinSet<Ended>,
    stop_admin: CancellationToken,
}

struct Bound {
    address: SocketAddr,
    listener: Option<TcpListener>,
}

impl Listeners {
    /// Binds every listener that is not off.
    ///
    /// # Errors
    /// [`Error::Listen`] where an address cannot be had.
    pub async fn bind(config: &Config) -> Result<Self, Error> {
        Ok(Self {
            http: bind("HTTP", &config.http_listen).await?,
            grpc: bind("gRPC", &config.grpc_listen).await?,
            postgres: bind("Postgres", &config.postgres_listen).await?,
            postgres_connections_max: config.postgres_connections_max,
            admin: bind("admin", &config.admin_listen).await?,
            requests: JoinSet::new(),
            health: JoinSet::new(),
            stop_admin: CancellationToken::new(),
        })
    }

    /// Returns where they can be reached.
    pub fn endpoints(&self) -> Endpoints {
        let url = |bound: &Option<Bound>| bound.as_ref().map(|b| format!("http://{}", b.address));
        Endpoints {
            http: url(&self.http),
            grpc: url(&self.grpc),
            postgres: self.postgres.as_ref().map(|bound| bound.address.to_string()),
            admin: url(&self.admin),
        }
    }

    /// Begins to serve on all of them.
    ///
    /// # Errors
    /// [`Error::Describe`].
    pub async fn serve(&mut self, services: &Arc<Services>) -> Result<(), Error> {
        if let Some(listener) = self.admin.as_mut().and_then(|bound| bound.listener.take()) {
            let router = http::admin_router(Arc::clone(services));
            let stop = self.stop_admin.clone().cancelled_owned();
            let serving =
                axum::serve(prompt(listener), router).with_graceful_shutdown(stop).into_future();
            self.health.spawn(async move { ("admin", serving.await.map_err(|e| e.to_string())) });
        }
        if let Some(listener) = self.http.as_mut().and_then(|bound| bound.listener.take()) {
            let router = http::router(Arc::clone(services));
            let stop = services.health.stopping().clone().cancelled_owned();
            let serving =
                axum::serve(prompt(listener), router).with_graceful_shutdown(stop).into_future();
            self.requests.spawn(async move { ("HTTP", serving.await.map_err(|e| e.to_string())) });
        }
        if let Some(listener) = self.grpc.as_mut().and_then(|bound| bound.listener.take()) {
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            let routes = grpc::routes(Arc::clone(services)).await?;
            let stop = services.health.stopping().clone().cancelled_owned();
            let serving = tonic::transport::Server::builder()
                .http2_keepalive_interval(Some(Duration::from_secs(20)))
                .add_routes(routes)
                .serve_with_incoming_shutdown(incoming, stop);
            self.requests.spawn(async move { ("gRPC", serving.await.map_err(|e| e.to_string())) });
        }
        if let Some(listener) = self.postgres.as_mut().and_then(|bound| bound.listener.take()) {
            let stop = services.health.stopping().clone();
            let serving = postgres::serve(
                listener,
                Arc::clone(services),
                self.postgres_connections_max,
                stop,
            );
            self.requests.spawn(async move { ("Postgres", serving.await) });
        }
        Ok(())
    }

    /// Waits until one of them stops by itself.
    pub async fn failed(&mut self) -> Error {
        let ended = tokio::select! {
            Some(ended) = self.requests.join_next() => ended,
            Some(ended) = self.health.join_next() => ended,
            else => std::future::pending().await,
        };
        match ended {
            Ok((name, Ok(()))) => Error::Stopped { name, why: "it ended".to_owned() },
            Ok((name, Err(why))) => Error::Stopped { name, why },
            Err(error) => Error::Stopped { name: "unknown", why: error.to_string() },
        }
    }

    /// Waits for requests under way, at most for `drain`, then cuts off what is left.
    pub async fn stop(mut self, drain: Duration) {
        let all = async { while self.requests.join_next().await.is_some() {} };
        if tokio::time::timeout(drain, all).await.is_err() {
            tracing::warn!("requests were cut off: the drain time is over");
            self.requests.shutdown().await;
        }
        self.stop_admin.cancel();
        self.health.shutdown().await;
    }
}

/// Sends small answers at once instead of waiting for more to send.
fn prompt(listener: TcpListener) -> TapIo<TcpListener, impl FnMut(&mut TcpStream) + Send> {
    listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection sends with delay");
        }
    })
}

async fn bind(name: &'static str, listen: &Listen) -> Result<Option<Bound>, Error> {
    let Listen::At(address) = listen else { return Ok(None) };
    let failed = |source| Error::Listen { name, address: address.clone(), source };
    let listener = TcpListener::bind(address.as_str()).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok(Some(Bound { address, listener: Some(listener) }))
}
