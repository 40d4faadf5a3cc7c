//! The types of `proto/oona.proto`, generated. Used at the edges, and nowhere else.

#![expect(clippy::all, reason = "generated code")]

tonic::include_proto!("oona.v1");
