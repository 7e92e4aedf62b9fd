//! Compiles `proto/` to tonic clients; no protoc needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let proto = concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto");
    let files = [
        "openim/msggateway/msggateway.proto",
        "openim/errinfo/errinfo.proto",
        "google/rpc/status.proto",
        "pinion/v1/push.proto",
    ];
    println!("cargo::rerun-if-changed={proto}");
    println!("cargo::rerun-if-changed=build.rs");
    tonic_prost_build::configure()
        .build_server(false)
        .bytes(".")
        .compile_fds(protox::compile(files, [proto])?)?;
    Ok(())
}
