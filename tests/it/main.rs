//! Behaviour of the whole gateway, seen from outside, and the rules of the source tree.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::let_underscore_must_use,
    unreachable_pub,
    missing_docs,
    reason = "a test fails by panicking and uses the real clock"
)]

mod admission;
mod adoption;
mod assign;
mod assign_dispatch;
mod bad_input;
mod churn;
mod cluster;
mod cluster_lists;
mod cluster_logins;
mod commands;
mod control;
mod doctor;
mod drain;
mod harness;
mod hostile;
mod inside;
mod kubernetes;
mod leak;
mod log_lines;
mod login;
mod onlooker;
mod openim;
mod openim_config;
mod openim_metrics;
mod placement;
mod protection;
mod proxy;
mod proxy_ends;
mod proxy_limits;
mod push_api;
mod recording;
mod reload;
mod shutdown;
mod slow;
mod stall;
mod start;
mod supervisor;
mod syscalls;
mod tidy;
mod tuning;
