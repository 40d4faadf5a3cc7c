//! Oona, a message bus whose behaviour can be changed while it runs.
//!
//! This crate is the composition root: stores, policies, edges (gRPC, HTTP, command line) and the
//! tasks that connect them to the decisions of `oona-core`. It is a library too, so a process can
//! embed the bus.

pub mod chain;
pub mod cli;
pub mod metrics;
pub mod proto;
