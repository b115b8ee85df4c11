use super::cpu::weight_of_shares;
use super::io::io_weight;
use super::*;

fn resources(json: &str) -> LinuxResources {
    serde_json::from_str(json).unwrap()
}

fn lines(list: Result<Vec<Setting>>) -> Vec<String> {
    list.unwrap().into_iter().map(|s| format!("{} {}", s.file, s.value)).collect()
}

#[test]
fn default_shares_are_the_default_weight() {
    assert_eq!(weight_of_shares(1024), 100);
    assert_eq!(weight_of_shares(0), 1);
    assert_eq!(weight_of_shares(2), 1);
    assert_eq!(weight_of_shares(262_144), 10_000);
    assert!(weight_of_shares(512) < 100 && weight_of_shares(2048) > 100);
    assert_eq!((io_weight(10), io_weight(1000), io_weight(100)), (1, 10_000, 910));
}

#[test]
fn memory_and_swap_are_counted_together_or_apart() {
    let both = resources(r#"{"memory":{"limit":1000,"swap":1500,"reservation":500}}"#);
    assert_eq!(
        lines(version_1(&both)),
        ["memory.limit_in_bytes 1000", "memory.memsw.limit_in_bytes 1500", "memory.soft_limit_in_bytes 500"]
    );
    assert_eq!(lines(version_2(&both)), ["memory.swap.max 500", "memory.max 1000", "memory.low 500"]);
    let none = resources(r#"{"memory":{"limit":-1,"swap":-1}}"#);
    assert_eq!(lines(version_2(&none)), ["memory.swap.max max", "memory.max max"]);
    for (json, wanted) in [
        (r#"{"memory":{"limit":-1}}"#, &["memory.swap.max max", "memory.max max"][..]),
        (r#"{"memory":{"limit":-1,"swap":500}}"#, &["memory.swap.max 500", "memory.max max"]),
        (r#"{"memory":{"limit":500,"swap":500}}"#, &["memory.swap.max 0", "memory.max 500"]),
        (r#"{"memory":{"limit":500,"swap":-1}}"#, &["memory.swap.max max", "memory.max 500"]),
        (r#"{"memory":{"swap":-1}}"#, &["memory.swap.max max"]),
        (r#"{"memory":{"limit":500}}"#, &["memory.max 500"]),
        (r#"{"memory":{"kernel":-1,"kernelTCP":-1,"swappiness":18446744073709551615}}"#, &[]),
    ] {
        assert_eq!(lines(version_2(&resources(json))), wanted, "{json}");
    }
    for (json, words) in [
        (r#"{"memory":{"swap":5}}"#, "memory.swap: unable to set swap limit without memory limit"),
        (r#"{"memory":{"limit":9,"swap":5}}"#, "memory.swap: memory+swap limit should be >= memory limit"),
        (r#"{"memory":{"limit":-2}}"#, "memory.limit: -2 is not"),
        (r#"{"memory":{"limit":-2,"swap":5}}"#, "memory.limit: -2 is not"),
        (r#"{"memory":{"limit":9,"swap":-7}}"#, "memory.swap: -7 is not"),
        (r#"{"memory":{"reservation":-3}}"#, "memory.reservation: -3 is not"),
    ] {
        let fault = version_2(&resources(json)).unwrap_err();
        assert!(fault.to_string().starts_with(&format!("linux.resources.{words}")), "{fault}");
        assert_eq!(fault.kind(), fault::Kind::Input);
        // Version 1 has files for both, and the kernel compares them.
        assert_eq!(version_1(&resources(json)).is_ok(), json.contains(r#"{"swap":5}"#), "{json}");
    }
    assert!(lines(version_1(&resources(r#"{"memory":{"limit":0,"swap":0}}"#))).is_empty());
}

#[test]
fn processor_time() {
    let cpu = resources(
        r#"{"cpu":{"shares":1024,"quota":5000,"period":10000,"burst":100,"cpus":"0-1","mems":"0","idle":1}}"#,
    );
    assert_eq!(
        lines(version_1(&cpu)),
        [
            "cpu.shares 1024",
            "cpu.idle 1",
            "cpu.cfs_period_us 10000",
            "cpu.cfs_quota_us 5000",
            "cpu.cfs_burst_us 100",
            "cpuset.cpus 0-1",
            "cpuset.mems 0"
        ]
    );
    assert_eq!(
        lines(version_2(&cpu)),
        [
            "cpu.weight 100",
            "cpu.idle 1",
            "cpu.max 5000 10000",
            "cpu.max.burst 100",
            "cpuset.cpus 0-1",
            "cpuset.mems 0"
        ]
    );
    assert_eq!(lines(version_2(&resources(r#"{"cpu":{"quota":-1}}"#))), ["cpu.max max"]);
    // A group that is idle no longer gets its weight after that.
    let awake = resources(r#"{"cpu":{"shares":512,"idle":0}}"#);
    assert_eq!(lines(version_1(&awake)), ["cpu.idle 0", "cpu.shares 512"]);
    assert_eq!(lines(version_2(&awake)), ["cpu.idle 0", "cpu.weight 59"]);
    assert!(lines(version_1(&resources(r#"{"cpu":{"shares":0}}"#))).is_empty());
    assert_eq!(lines(version_2(&resources(r#"{"cpu":{"shares":1}}"#))), ["cpu.weight 1"]);
    for (json, words) in [
        (r#"{"cpu":{"shares":1}}"#, "cpu.shares: 1: the minimum allowed cpu-shares is 2"),
        (r#"{"cpu":{"shares":262145}}"#, "cpu.shares: 262145: the maximum allowed cpu-shares is 262144"),
        (r#"{"cpu":{"quota":5,"burst":6}}"#, "cpu.burst: 6 is more than the quota of 5"),
        (r#"{"cpu":{"idle":2}}"#, "cpu.idle: 2 is neither 0 nor 1"),
    ] {
        let fault = version_1(&resources(json)).unwrap_err().to_string();
        assert_eq!(fault, format!("linux.resources.{words}"));
    }
}

#[test]
fn what_the_kernel_compares_is_linked() {
    let all = resources(
        r#"{"memory":{"limit":9,"swap":9},"cpu":{"shares":2,"period":1000,"quota":1000,"burst":1,"realtimePeriod":1,"realtimeRuntime":1}}"#,
    );
    let linked = |list: Vec<Setting>| -> Vec<String> {
        list.into_iter().filter(|setting| setting.with_next).map(|setting| setting.file).collect()
    };
    assert_eq!(
        linked(version_1(&all).unwrap()),
        ["memory.limit_in_bytes", "cpu.cfs_period_us", "cpu.cfs_quota_us", "cpu.rt_period_us"]
    );
    let all = resources(
        r#"{"memory":{"limit":9,"swap":9},"cpu":{"period":1000,"quota":1000,"burst":1},"unified":{"a.b":"1","c.d":"2"}}"#,
    );
    assert_eq!(linked(version_2(&all).unwrap()), ["cpu.max", "a.b"]);
}

#[test]
fn no_process_is_a_limit() {
    for (limit, wanted) in [("-1", "max"), ("-5", "max"), ("0", "1"), ("1", "1"), ("7", "7")] {
        let pids = resources(&format!("{{\"pids\":{{\"limit\":{limit}}}}}"));
        assert_eq!(lines(version_1(&pids)), [format!("pids.max {wanted}")]);
        assert_eq!(lines(version_2(&pids)), [format!("pids.max {wanted}")]);
    }
}

#[test]
fn everything_else() {
    let all = resources(
        r#"{"pids":{"limit":-1},"hugepageLimits":[{"pageSize":"2MB","limit":4}],
        "blockIO":{"weight":100,"weightDevice":[{"major":8,"minor":0,"weight":500}],
          "throttleReadBpsDevice":[{"major":8,"minor":1,"rate":600}]},
        "rdma":{"mlx5_1":{"hcaHandles":3,"hcaObjects":10}}}"#,
    );
    assert_eq!(
        lines(version_1(&all)),
        [
            "blkio.weight 100",
            "blkio.weight_device 8:0 500",
            "blkio.throttle.read_bps_device 8:1 600",
            "hugetlb.2MB.limit_in_bytes 4",
            "hugetlb.2MB.rsvd.limit_in_bytes 4",
            "pids.max max",
            "rdma.max mlx5_1 hca_handle=3 hca_object=10"
        ]
    );
    assert_eq!(
        lines(version_2(&all)),
        [
            "io.bfq.weight 100",
            "io.bfq.weight 8:0 500",
            "io.max 8:1 rbps=600",
            "hugetlb.2MB.max 4",
            "hugetlb.2MB.rsvd.max 4",
            "pids.max max",
            "rdma.max mlx5_1 hca_handle=3 hca_object=10"
        ]
    );
}

#[test]
fn what_cannot_be_done_is_named() {
    for (json, member) in [
        (r#"{"memory":{"swappiness":3}}"#, "memory.swappiness"),
        (r#"{"memory":{"disableOOMKiller":true}}"#, "memory.disableOOMKiller"),
        (r#"{"cpu":{"realtimeRuntime":3}}"#, "cpu.realtimeRuntime"),
        (r#"{"network":{"classID":3}}"#, "network"),
        (r#"{"blockIO":{"leafWeight":30}}"#, "blockIO.leafWeight"),
        (r#"{"unified":{"../x":"1"}}"#, "unified.../x: "),
        (r#"{"unified":{"a/b.c":"1"}}"#, "unified.a/b.c: "),
        (r#"{"unified":{"memory":"1"}}"#, "unified.memory: "),
        (r#"{"unified":{"..":"1"}}"#, "unified...: "),
        (r#"{"hugepageLimits":[{"pageSize":"../x","limit":4}]}"#, "hugepageLimits"),
    ] {
        let fault = version_2(&resources(json)).unwrap_err().to_string();
        assert!(fault.contains(&format!("linux.resources.{member}")), "{fault}");
    }
    assert!(lines(version_2(&resources(r#"{"network":{"classID":0,"priorities":[]}}"#))).is_empty());
    assert!(lines(version_1(&resources(r#"{"network":{"classID":0}}"#))).is_empty());
    let fault = version_1(&resources(r#"{"unified":{"memory.high":"1"}}"#)).unwrap_err().to_string();
    assert!(fault.starts_with("invalid configuration: linux.resources.unified: "), "{fault}");
    assert_eq!(
        lines(version_2(&resources(r#"{"unified":{"memory.high":"1","cgroup.freeze":"0"}}"#))),
        ["cgroup.freeze 0", "memory.high 1"]
    );
}
