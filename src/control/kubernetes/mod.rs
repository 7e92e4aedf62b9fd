//! The instances of OpenIM's services in Kubernetes (spec 11.1): the ready addresses of their `Endpoints` objects.
//!
//! `api` is one connection and the two requests over it, `object` the JSON of them, `watch` follows the services. What
//! always holds: any fault ends the connection, and the next one reads the whole object anew; each service is asked
//! for by name, so that no other object of the namespace costs anything, and has a connection of its own.
//!
//! `Endpoints` of v1 and not `EndpointSlice`: it is what OpenIM reads, and what its own role lets a pod read
//! (`services` and `endpoints`), so that nobody has to be given more. Nobody registers: a pod that is ready is found.
//!
//! Own code on hyper, which is here anyway, and not the crate `kube`: for these two GET requests kube 5.0 brings 37
//! more crates (YAML, JSONPath and time zones among them) and 45 s of CPU to a cold debug build, measured on the
//! machine that has to keep its checks below half an hour.

pub(super) mod api;
mod object;
pub(super) mod watch;
