//! What tests of this folder share.

use crate::cluster::protocol::frame::Device;
use crate::hub::mail::{DeviceOutcome, DeviceVerdict};
use crate::ids::Platform;

/// One connection.
pub(super) fn device(number: u64, platform: Platform, outcome: DeviceOutcome) -> Vec<(u64, Device)> {
    vec![(number, DeviceVerdict { number, platform, connection_id: [7; 16], outcome }.into())]
}
