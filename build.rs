//! Compiles `proto/` to Rust (no protoc needed) and to descriptors for server reflection, and records the build facts
//! that `pinion --version` prints.

use std::path::Path;
use std::process::Command;

/// The files of the services that Pinion offers, and of what travels in their errors: server reflection hands them out.
const SERVED: [&str; 10] = [
    "proto/openim/msggateway/msggateway.proto",
    "proto/openim/errinfo/errinfo.proto",
    "proto/openim/legacy/msggateway.proto",
    "proto/openim/legacy/errinfo.proto",
    "proto/google/rpc/status.proto",
    "proto/pinion/v1/push.proto",
    "proto/pinion/v1/node.proto",
    "proto/grpc/health/v1/health.proto",
    "proto/grpc/reflection/v1/reflection.proto",
    "proto/grpc/reflection/v1alpha/reflection.proto",
];

/// What clients, OpenIM's other services, etcd and the nodes of a cluster speak.
const SPOKEN: [&str; 9] = [
    "proto/openim/sdkws/sdkws.proto",
    "proto/openim/msg/msg.proto",
    "proto/openim/push/push.proto",
    "proto/openim/user/user.proto",
    "proto/openim/auth/auth.proto",
    "proto/openim/legacy/auth.proto",
    "proto/etcd/rpc.proto",
    "proto/pinion/copy/v1/copy.proto",
    "proto/pinion/peer/v1/peer.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    println!("cargo::rerun-if-changed=build.rs");
    prost_build::Config::new()
        // Payloads are slices of the request, and encoding is deterministic (std maps encode in random order).
        .bytes(["."])
        .btree_map(["."])
        .compile_fds(protox::compile(SERVED.into_iter().chain(SPOKEN), ["proto"])?)?;
    let mut served = protox::Compiler::new(["proto"])?;
    served.include_imports(true).open_files(SERVED)?;
    let descriptors = Path::new(&std::env::var("OUT_DIR")?).join("served.bin");
    std::fs::write(descriptors, served.encode_file_descriptor_set())?;
    // A new commit is a new fact. Outside a repository there is no such file, and nothing to watch.
    if let Some(log) = line_of(Command::new("git").args(["rev-parse", "--git-path", "logs/HEAD"]))
        && std::path::Path::new(&log).exists()
    {
        println!("cargo::rerun-if-changed={log}");
    }
    record("PINION_COMMIT", Command::new("git").args(["rev-parse", "--short=12", "HEAD"]));
    record("PINION_RUSTC", Command::new(std::env::var("RUSTC")?).arg("--version"));
    println!("cargo::rustc-env=PINION_PROFILE={}", std::env::var("PROFILE")?);
    println!("cargo::rustc-env=PINION_TARGET={}", std::env::var("TARGET")?);
    Ok(())
}

/// Puts the first line of a command's output into the environment of the build, or "unknown".
fn record(name: &str, command: &mut Command) {
    let line = line_of(command).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env={name}={line}");
}

/// The first line of a command's output, if it worked and said something.
fn line_of(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|o| o.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().next().filter(|l| !l.is_empty()).map(str::to_owned)
}
