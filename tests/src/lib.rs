//! What the tests have in common.

pub mod binary;
pub mod browser;
pub mod bus;
pub mod by_hand;
pub mod clock;
pub mod desk;
pub mod fuzz;
pub mod grpc;
pub mod http;
pub mod place;
pub mod policies;
pub mod prometheus;
pub mod proxy;
pub mod redis_server;
pub mod stand;
pub mod terminal;
