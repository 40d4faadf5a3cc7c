//! The payloads that peers exchange, generated from `proto/leyline.proto`.

include!(concat!(env!("OUT_DIR"), "/esper.leyline.v1.rs"));
