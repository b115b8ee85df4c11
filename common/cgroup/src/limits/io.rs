//! `linux.resources.blockIO`.

use super::{Setting, unsupported};
use fault::Result;
use oci_spec::runtime::{LinuxBlockIo, LinuxThrottleDevice};

pub fn version_1(io: &LinuxBlockIo, list: &mut Vec<Setting>) {
    if let Some(weight) = io.weight().filter(|weight| *weight != 0) {
        list.push(Setting::new("blockIO.weight", "blkio.weight", weight).or("blkio.bfq.weight", weight));
    }
    if let Some(weight) = io.leaf_weight().filter(|weight| *weight != 0) {
        list.push(Setting::new("blockIO.leafWeight", "blkio.leaf_weight", weight));
    }
    for device in io.weight_device().iter().flatten() {
        let line = |weight: u16| format!("{}:{} {weight}", device.major(), device.minor());
        if let Some(weight) = device.weight() {
            list.push(
                Setting::new("blockIO.weightDevice", "blkio.weight_device", line(weight))
                    .or("blkio.bfq.weight_device", line(weight)),
            );
        }
        if let Some(weight) = device.leaf_weight() {
            list.push(Setting::new("blockIO.weightDevice", "blkio.leaf_weight_device", line(weight)));
        }
    }
    for (member, file, _, devices) in throttles(io) {
        for device in devices.iter().flatten() {
            let line = format!("{}:{} {}", device.major(), device.minor(), device.rate());
            list.push(Setting::new(format!("blockIO.{member}"), format!("blkio.throttle.{file}"), line));
        }
    }
}

pub fn version_2(io: &LinuxBlockIo, list: &mut Vec<Setting>) -> Result<()> {
    if let Some(weight) = io.weight().filter(|weight| *weight != 0) {
        list.push(Setting::new("blockIO.weight", "io.bfq.weight", weight).or("io.weight", io_weight(weight)));
    }
    if io.leaf_weight().is_some_and(|weight| weight != 0) {
        return unsupported("blockIO.leafWeight", 2);
    }
    for device in io.weight_device().iter().flatten() {
        if device.leaf_weight().is_some_and(|weight| weight != 0) {
            return unsupported("blockIO.weightDevice.leafWeight", 2);
        }
        if let Some(weight) = device.weight() {
            let line = |weight: u64| format!("{}:{} {weight}", device.major(), device.minor());
            list.push(
                Setting::new("blockIO.weightDevice", "io.bfq.weight", line(weight.into()))
                    .or("io.weight", line(io_weight(weight))),
            );
        }
    }
    for (member, _, key, devices) in throttles(io) {
        for device in devices.iter().flatten() {
            // 0 takes a limit away.
            let rate = if device.rate() == 0 { "max".to_owned() } else { device.rate().to_string() };
            let line = format!("{}:{} {key}={rate}", device.major(), device.minor());
            list.push(Setting::new(format!("blockIO.{member}"), "io.max", line));
        }
    }
    Ok(())
}

/// bfq's 10 to 1000 mapped onto 1 to 10000 (the kernel's documentation has no table; all runtimes do it so).
pub fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight).clamp(10, 1000) - 10) * 9999 / 990
}

type Throttles<'a> = [(&'static str, &'static str, &'static str, &'a Option<Vec<LinuxThrottleDevice>>); 4];

/// Member, version 1's file, version 2's key.
fn throttles(io: &LinuxBlockIo) -> Throttles<'_> {
    [
        ("throttleReadBpsDevice", "read_bps_device", "rbps", io.throttle_read_bps_device()),
        ("throttleWriteBpsDevice", "write_bps_device", "wbps", io.throttle_write_bps_device()),
        ("throttleReadIOPSDevice", "read_iops_device", "riops", io.throttle_read_iops_device()),
        ("throttleWriteIOPSDevice", "write_iops_device", "wiops", io.throttle_write_iops_device()),
    ]
}
