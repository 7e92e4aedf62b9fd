//! Generated messages and clients (`proto/`, compiled by `build.rs`). Nothing is written by hand here.
#![allow(
    dead_code,
    clippy::all,
    clippy::too_many_lines,
    clippy::let_underscore_must_use,
    clippy::allow_attributes_without_reason,
    reason = "generated code; the .proto files are the documentation"
)]

pub mod openim {
    pub mod sdkws {
        tonic::include_proto!("openim.sdkws");
    }
    pub mod msggateway {
        tonic::include_proto!("openim.msggateway");
    }
    pub mod protobuf {
        tonic::include_proto!("openim.protobuf");
    }
}

pub mod pinion {
    tonic::include_proto!("pinion.v1");
}

pub mod rpc {
    tonic::include_proto!("google.rpc");
}
