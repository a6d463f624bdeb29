//! The server: thin front ends over one set of services, and the command line.
//!
//! Read next: [`app`] (what is built and stopped in which order), [`service`] (what is done),
//! [`http`], [`grpc`] and [`postgres`] (how it is asked for), [`code`] (how errors are numbered).

pub mod app;
pub mod cli;
pub mod code;
pub mod config;
mod delivery;
mod encode;
pub mod failure;
mod grpc;
mod health;
mod housekeeping;
mod http;
mod limits;
mod listeners;
mod metrics;
mod postgres;
pub mod service;
mod shipping;
pub mod telemetry;
mod threads;

pub use app::{App, Endpoints, RunningApp, clock_of};
pub use config::{Config, Listen};
