//! Generated protobuf messages (`proto/`, compiled by `build.rs`). Nothing is written by hand here.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::cast_possible_truncation,
    clippy::disallowed_types,
    reason = "generated code; the .proto files are the documentation"
)]

/// `openim.*` packages.
pub mod openim {
    pub mod sdkws {
        include!(concat!(env!("OUT_DIR"), "/openim.sdkws.rs"));
    }
    pub mod msg {
        include!(concat!(env!("OUT_DIR"), "/openim.msg.rs"));
    }
    pub mod push {
        include!(concat!(env!("OUT_DIR"), "/openim.push.rs"));
    }
    pub mod msggateway {
        include!(concat!(env!("OUT_DIR"), "/openim.msggateway.rs"));
    }
    pub mod user {
        include!(concat!(env!("OUT_DIR"), "/openim.user.rs"));
    }
    pub mod auth {
        include!(concat!(env!("OUT_DIR"), "/openim.auth.rs"));
    }
    pub mod protobuf {
        include!(concat!(env!("OUT_DIR"), "/openim.protobuf.rs"));
    }
}

/// `OpenIMServer.*` packages: OpenIM 3.5 and 3.6.
pub mod open_im_server {
    pub mod auth {
        include!(concat!(env!("OUT_DIR"), "/open_im_server.auth.rs"));
    }
    pub mod msggateway {
        include!(concat!(env!("OUT_DIR"), "/open_im_server.msggateway.rs"));
    }
}

/// gRPC's own services.
pub mod grpc {
    pub mod health {
        include!(concat!(env!("OUT_DIR"), "/grpc.health.v1.rs"));
    }
    /// `v1alpha` is the same on the wire.
    pub mod reflection {
        include!(concat!(env!("OUT_DIR"), "/grpc.reflection.v1.rs"));
    }
}

/// `pinion.v1`: our own push API.
pub mod pinion {
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/pinion.v1.rs"));
    }
    pub mod copy {
        include!(concat!(env!("OUT_DIR"), "/pinion.copy.v1.rs"));
    }
    pub mod peer {
        include!(concat!(env!("OUT_DIR"), "/pinion.peer.v1.rs"));
    }
}

/// etcd's API v3, as far as `control` uses it.
pub mod etcd {
    include!(concat!(env!("OUT_DIR"), "/etcdserverpb.rs"));
}

/// `google.rpc`.
pub mod rpc {
    include!(concat!(env!("OUT_DIR"), "/google.rpc.rs"));
}

/// A `google.protobuf.FileDescriptorSet`: the files of the services that Pinion offers and what they import, imports
/// first. Without comments.
pub const SERVED_FILES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/served.bin"));
