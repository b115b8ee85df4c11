//! How the kernel schedules this process: processor, I/O and memory policies, and its personality.

use std::io;

/// Members of `struct sched_attr` up to those for utilisation clamping, which Linux 5.3 added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchedulingAttributes {
    /// `SCHED_*` of sched(7).
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    /// Nanoseconds, as are the next two.
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

/// `struct sched_attr` as the kernel reads it.
#[repr(C)]
struct RawAttributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
    util_min: u32,
    util_max: u32,
}

/// Sets the scheduling policy of this thread (sched_setattr(2)).
pub fn set_attributes(attributes: &SchedulingAttributes) -> io::Result<()> {
    let raw = RawAttributes {
        size: size_of::<RawAttributes>() as u32,
        policy: attributes.policy,
        flags: attributes.flags,
        nice: attributes.nice,
        priority: attributes.priority,
        runtime: attributes.runtime,
        deadline: attributes.deadline,
        period: attributes.period,
        util_min: 0,
        util_max: 0,
    };
    // SAFETY: the kernel reads as many bytes as `size` says, and the structure is that long.
    result(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const raw, 0) })
}

/// Binds this thread to the processors whose bits are set; of those the kernel takes the ones its cpuset allows.
///
/// Any number of bits will do, unlike with sched_setaffinity(3).
pub fn set_affinity(processors: &[usize]) -> io::Result<()> {
    // SAFETY: the kernel reads at most the bytes given.
    result(unsafe {
        libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(processors), processors.as_ptr())
    })
}

/// Sets the I/O priority of this process's group (ioprio_set(2)): class 1 to 3, level 0 to 7.
pub fn set_group_io_priority(class: u16, level: u16) -> io::Result<()> {
    const IOPRIO_WHO_PGRP: libc::c_int = 2;
    const CLASS_SHIFT: u32 = 13;
    let priority = (libc::c_int::from(class) << CLASS_SHIFT) | libc::c_int::from(level);
    // SAFETY: only numbers are passed.
    result(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PGRP, 0, priority) })
}

/// Sets the memory policy of this thread (set_mempolicy(2)): a mode with its flags, and the nodes whose bits are set.
pub fn set_memory_policy(mode: u32, nodes: &[usize]) -> io::Result<()> {
    // The kernel looks at one bit less than it is told.
    let bits = if nodes.is_empty() { 0 } else { nodes.len() * usize::BITS as usize + 1 };
    let mask = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    // SAFETY: the kernel reads the words that hold `bits - 1` bits, which are those of the slice; or none.
    result(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) })
}

/// Sets the execution domain of this process (personality(2)).
pub fn set_personality(domain: u32) -> io::Result<()> {
    // SAFETY: a number is passed. It changes how programs executed later see the system, and no memory of this one.
    result(unsafe { libc::syscall(libc::SYS_personality, libc::c_ulong::from(domain)) })
}

fn result(value: libc::c_long) -> io::Result<()> {
    if value == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In threads of their own, which end with what was set for them.
    fn in_a_thread(test: impl FnOnce() + Send + 'static) {
        std::thread::spawn(test).join().unwrap();
    }

    fn own_status(name: &str) -> String {
        let text = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_start_matches(':').trim().to_owned()
    }

    #[test]
    fn a_thread_is_bound_to_a_processor_by_a_mask_of_any_length() {
        in_a_thread(|| {
            let first =
                own_status("Cpus_allowed_list").split(['-', ',']).next().unwrap().parse::<usize>().unwrap();
            let mut mask = vec![0usize; 1024];
            mask[first / usize::BITS as usize] = 1 << (first % usize::BITS as usize);
            set_affinity(&mask).unwrap();
            assert_eq!(own_status("Cpus_allowed_list"), first.to_string());
            assert_eq!(set_affinity(&[0]).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        });
    }

    #[test]
    fn a_policy_is_set() {
        in_a_thread(|| {
            let batch = SchedulingAttributes { policy: 3, nice: 7, ..SchedulingAttributes::default() };
            set_attributes(&batch).unwrap();
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
            // Fields 19 (nice) and 41 (policy) of proc_pid_stat(5); the first two are cut off.
            assert_eq!((fields[16], fields[38]), ("7", "3"));
            let none = SchedulingAttributes { policy: 99, ..batch };
            assert_eq!(set_attributes(&none).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        });
    }

    #[test]
    #[allow(clippy::print_stderr)]
    fn a_memory_policy_is_set() {
        in_a_thread(|| {
            // A node that no machine has, and no node where there must be one.
            const MPOL_BIND: u32 = 2;
            assert!(set_memory_policy(MPOL_BIND, &[]).is_err());
            match set_memory_policy(MPOL_BIND, &[1, 0]) {
                Ok(()) => {
                    let maps = std::fs::read_to_string("/proc/thread-self/numa_maps").unwrap();
                    assert!(maps.lines().next().unwrap().contains("bind:0"), "{maps}");
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
                    eprintln!("SKIPPED: this kernel has no memory policies");
                }
                Err(error) => panic!("{error}"),
            }
        });
    }
}
