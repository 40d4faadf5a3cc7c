//! The payloads that peers exchange, generated from `proto/leyline.proto`.

#![expect(
    clippy::all,
    reason = "generated; the documentation of what matters is carried over from the .proto"
)]

include!(concat!(env!("OUT_DIR"), "/esper.leyline.v1.rs"));
