//! What the tests have in common.

pub mod binary;
pub mod bus;
pub mod desk;
pub mod grpc;
pub mod http;
pub mod policies;
pub mod redis_server;
