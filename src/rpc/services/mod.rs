//! The services behind the gRPC port, one file each.

mod openim;

#[cfg(test)]
pub(super) use openim::ADMINS_ONLY;
pub(super) use openim::answer;
