//! Limits beside those that `ctr-update` changes.

use super::pairs;
use clap::{ArgAction, Args};
use cli::Result;
use record::{Config, Quantity};

#[derive(Clone, Debug, Default, Args)]
pub struct MoreLimitFlags {
    /// How readily memory is swapped out, 0 to 100 (version 1 control groups)
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, help_heading = "Limits")]
    pub memory_swappiness: Option<i64>,

    /// Let it wait when it is out of memory instead of killing (version 1 control groups)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false,
        hide_default_value = true, hide_possible_values = true, action = ArgAction::Set, help_heading = "Limits")]
    pub oom_kill_disable: bool,

    /// How likely the kernel kills it when memory runs out, -1000 to 1000
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, help_heading = "Limits")]
    pub oom_score_adj: Option<i32>,

    /// Period of real-time scheduling in microseconds (version 1 control groups)
    #[arg(long, value_name = "MICROSECONDS", help_heading = "Limits")]
    pub cpu_rt_period: Option<u64>,

    /// Real-time CPU time in a period in microseconds (version 1 control groups)
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true, help_heading = "Limits")]
    pub cpu_rt_runtime: Option<i64>,

    /// Share of a device's block I/O, 10 to 1000
    #[arg(long, value_name = "DEVICE:WEIGHT", help_heading = "Limits")]
    pub blkio_weight_device: Vec<String>,

    /// Most bytes read from a device in a second
    #[arg(long, value_name = "DEVICE:BYTES", help_heading = "Limits")]
    pub device_read_bps: Vec<String>,

    /// Most bytes written to a device in a second
    #[arg(long, value_name = "DEVICE:BYTES", help_heading = "Limits")]
    pub device_write_bps: Vec<String>,

    /// Most reads from a device in a second
    #[arg(long, value_name = "DEVICE:NUMBER", help_heading = "Limits")]
    pub device_read_iops: Vec<String>,

    /// Most writes to a device in a second
    #[arg(long, value_name = "DEVICE:NUMBER", help_heading = "Limits")]
    pub device_write_iops: Vec<String>,

    /// Write a value to a file of the control group (version 2)
    #[arg(long, value_name = "FILE=VALUE", help_heading = "Limits")]
    pub cgroup_conf: Vec<String>,

    /// Class of the kernel's resctrl
    #[arg(long, value_name = "CLASS", help_heading = "Limits")]
    pub rdt_class: Option<String>,

    /// Size of /dev/shm [default: 64m]
    #[arg(long, value_name = "BYTES", help_heading = "Limits")]
    pub shm_size: Option<String>,
}

impl MoreLimitFlags {
    pub(super) fn put(&self, config: &mut Config) -> Result<()> {
        let quantity = |text: &Option<String>| text.clone().map(Quantity::Text);
        config.memory_swappiness = self.memory_swappiness;
        config.oom_kill_disable = self.oom_kill_disable;
        config.oom_score_adj = self.oom_score_adj;
        config.cpu_rt_period = self.cpu_rt_period;
        config.cpu_rt_runtime = self.cpu_rt_runtime;
        config.blkio_weight_devices.clone_from(&self.blkio_weight_device);
        config.device_read_bps.clone_from(&self.device_read_bps);
        config.device_write_bps.clone_from(&self.device_write_bps);
        config.device_read_iops.clone_from(&self.device_read_iops);
        config.device_write_iops.clone_from(&self.device_write_iops);
        config.cgroup_conf = pairs("control group file", &self.cgroup_conf, false)?;
        config.rdt_class.clone_from(&self.rdt_class);
        config.shm_size = quantity(&self.shm_size);
        Ok(())
    }
}
