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
        .btree_map(".oona.v1.PublishRequest.attributes")
        .btree_map(".oona.v1.Delivery.attributes")
        .emit_rerun_if_changed(false)
        .compile_fds(files)?;
    Ok(())
}
