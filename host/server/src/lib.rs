//! Oona, a message bus whose behaviour can be changed while it runs.
//!
//! This crate is the composition root: stores, policies, edges (gRPC, HTTP, command line) and the
//! tasks that connect them to the decisions of `oona-core`. It is a library too, so a process can
//! embed the bus.

pub mod access;
pub mod alerts;
pub mod auditor;
pub mod author;
pub mod bench;
pub mod bus;
pub mod cases;
pub mod chain;
pub mod cli;
pub mod clock;
pub mod config;
pub mod decisions;
pub mod demo;
pub mod doctor;
pub mod events;
pub mod explain;
pub mod gates;
pub mod grpc;
pub mod host;
pub mod http;
pub mod journeys;
pub mod latency;
pub mod laws;
mod length;
pub mod metrics;
pub mod native;
pub mod otel;
pub mod overview;
pub mod policies;
mod process;
pub mod proto;
pub mod record;
pub mod registry;
pub mod replay;
pub mod server;
pub mod shutdown;
pub mod signature;
pub mod store;
mod sync;
pub mod telemetry;
pub mod watch;
