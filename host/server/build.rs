//! Compiles `proto/oona.proto` in Rust alone, so that nobody has to install protoc.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto/oona.proto");
    let files = protox::compile(["proto/oona.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".oona.v1.PublishRequest.payload")
        .bytes(".oona.v1.Delivery.payload")
        .bytes(".oona.v1.PushPolicyRequest.component")
        .bytes(".oona.v1.ActivatePolicyRequest.component")
        .bytes(".oona.v1.GetArtifactResponse.component")
        .bytes(".oona.v1.GetDeadLetterResponse.payload")
        .bytes(".oona.v1.GetDeadLetterResponse.Field.name")
        .bytes(".oona.v1.GetDeadLetterResponse.Field.value")
        .type_attribute(".oona.v1.DeadLetter", "#[derive(serde::Serialize)]")
        .type_attribute(".oona.v1.GroupReport", "#[derive(serde::Serialize)]")
        .type_attribute(".oona.v1.BroadcastResponse", "#[derive(serde::Serialize)]")
        .type_attribute(".oona.v1.Forced", "#[derive(serde::Serialize)]")
        .type_attribute(".oona.v1.BreakerStatus", "#[derive(serde::Serialize)]")
        .type_attribute(".oona.v1.ModeStatus", "#[derive(serde::Serialize)]")
        .type_attribute(".oona.v1.MovedDeadLetter", "#[derive(serde::Serialize)]")
        .btree_map(".oona.v1.DeadLetter.attributes")
        .btree_map(".oona.v1.PublishRequest.attributes")
        .btree_map(".oona.v1.Delivery.attributes")
        .emit_rerun_if_changed(false)
        .compile_fds(files)?;
    Ok(())
}
