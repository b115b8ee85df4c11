//! What one container has used up to now. Some twelve small files each; no process, no thread.

use cgroup::Cgroup;
use cgroup::stats::Usage;
use cli::Result;
use record::Container;
use serde::Serialize;
use std::collections::BTreeMap;
use store::{ContainerDir, LiveState};

/// What does not change while it is there.
pub struct Known {
    pub name: String,
    /// Its interfaces are not the host's, nor another container's.
    own_network: bool,
}

impl Known {
    pub fn of(dir: &ContainerDir) -> Result<Known> {
        let record = dir.load()?;
        let network = record.config()?.network.unwrap_or_default();
        Ok(Known {
            name: record.require::<Container>("container")?.name,
            own_network: network != "host" && !network.starts_with("container:"),
        })
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    pub usage: Usage,
    /// By name in the container, without loopback.
    pub networks: BTreeMap<String, Traffic>,
}

/// Since the interface was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Traffic {
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub rx_errors: u64,
    pub rx_dropped: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
    pub tx_dropped: u64,
}

/// `None` for one that has just ended.
pub fn take(state: &LiveState, known: &Known) -> Option<Sample> {
    // Its number may be another process's by now.
    if state.pid <= 0 || store::start_time(state.pid) != Some(state.pid_started) {
        return None;
    }
    let group = match state.cgroup.as_slice() {
        [] => Cgroup::of_process(state.pid).ok()?,
        directories => Cgroup::open(directories).ok()?,
    };
    let networks = if known.own_network {
        let text = std::fs::read_to_string(format!("/proc/{}/net/dev", state.pid)).unwrap_or_default();
        traffic(&text)
    } else {
        BTreeMap::new()
    };
    Some(Sample { usage: group.usage(), networks })
}

/// proc_pid_net(5): two lines of headings, then `name: ` and sixteen numbers.
fn traffic(text: &str) -> BTreeMap<String, Traffic> {
    let interface = |line: &str| {
        let (name, rest) = line.rsplit_once(':')?;
        let numbers: Vec<u64> = rest.split_whitespace().map_while(|word| word.parse().ok()).collect();
        let at = |index: usize| numbers.get(index).copied().unwrap_or(0);
        let traffic = Traffic {
            rx_bytes: at(0),
            rx_packets: at(1),
            rx_errors: at(2),
            rx_dropped: at(3),
            tx_bytes: at(8),
            tx_packets: at(9),
            tx_errors: at(10),
            tx_dropped: at(11),
        };
        (numbers.len() >= 16).then(|| (name.trim().to_owned(), traffic))
    };
    text.lines().filter_map(interface).filter(|(name, _)| name != "lo").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_without_loopback() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
            face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
            lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0\n  \
            eth0:    1234      12    1    2    0     0          0         0     5678      34    3    4    0     0       0          0\nbad: 1\n";
        let all = traffic(text);
        assert_eq!(all.len(), 1);
        let wanted = Traffic {
            rx_bytes: 1234,
            rx_packets: 12,
            rx_errors: 1,
            rx_dropped: 2,
            tx_bytes: 5678,
            tx_packets: 34,
            tx_errors: 3,
            tx_dropped: 4,
        };
        assert_eq!(all["eth0"], wanted);
    }
}
