//! The settings of a quadlet's `[Container]` (podman-container.unit(5)) and the flags of `ctr-create` they stand for.

/// How the values of a setting become values of a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// The last one counts, one pair of quotes around it is taken away; empty: not set.
    Last,
    /// The last one as yes or no; only yes is said.
    Switch,
    /// The same, and no is said, too.
    Bool,
    /// Each value as it is; an empty one takes away those before.
    Each,
    /// The words of each value, backslashes kept.
    Names,
    /// The words of each value, as in ExecStart=.
    Words,
}

/// Setting, how it is taken, flag, what is put before the value.
pub const FLAGS: &[(&str, Take, &str, &str)] = &[
    ("AddCapability", Take::Names, "--cap-add", ""),
    ("AddDevice", Take::Names, "--device", ""),
    ("AddHost", Take::Each, "--add-host", ""),
    ("Annotation", Take::Words, "--annotation", ""),
    ("AppArmor", Take::Last, "--security-opt", "apparmor="),
    ("AutoUpdate", Take::Last, "--label", "io.containers.autoupdate="),
    ("CgroupsMode", Take::Last, "--cgroups", ""),
    ("ContainerName", Take::Last, "--name", ""),
    ("DNS", Take::Each, "--dns", ""),
    ("DNSOption", Take::Each, "--dns-option", ""),
    ("DNSSearch", Take::Each, "--dns-search", ""),
    ("DropCapability", Take::Names, "--cap-drop", ""),
    ("Environment", Take::Words, "--env", ""),
    ("EnvironmentFile", Take::Words, "--env-file", ""),
    ("EnvironmentHost", Take::Switch, "--env-host", ""),
    ("ExposeHostPort", Take::Each, "--expose", ""),
    ("GIDMap", Take::Names, "--gidmap", ""),
    ("GroupAdd", Take::Each, "--group-add", ""),
    ("HealthInterval", Take::Last, "--health-interval", ""),
    ("HealthLogDestination", Take::Last, "--health-log-destination", ""),
    ("HealthMaxLogCount", Take::Last, "--health-max-log-count", ""),
    ("HealthMaxLogSize", Take::Last, "--health-max-log-size", ""),
    ("HealthOnFailure", Take::Last, "--health-on-failure", ""),
    ("HealthRetries", Take::Last, "--health-retries", ""),
    ("HealthStartPeriod", Take::Last, "--health-start-period", ""),
    ("HealthStartupCmd", Take::Last, "--health-startup-cmd", ""),
    ("HealthStartupInterval", Take::Last, "--health-startup-interval", ""),
    ("HealthStartupRetries", Take::Last, "--health-startup-retries", ""),
    ("HealthStartupSuccess", Take::Last, "--health-startup-success", ""),
    ("HealthStartupTimeout", Take::Last, "--health-startup-timeout", ""),
    ("HealthTimeout", Take::Last, "--health-timeout", ""),
    ("HostName", Take::Last, "--hostname", ""),
    ("HttpProxy", Take::Bool, "--http-proxy", ""),
    ("IP", Take::Last, "--ip", ""),
    ("IP6", Take::Last, "--ip6", ""),
    ("Label", Take::Words, "--label", ""),
    ("LogDriver", Take::Last, "--log-driver", ""),
    ("LogOpt", Take::Names, "--log-opt", ""),
    ("Mask", Take::Words, "--security-opt", "mask="),
    ("Memory", Take::Last, "--memory", ""),
    ("Mount", Take::Words, "--mount", ""),
    ("Network", Take::Each, "--network", ""),
    ("NetworkAlias", Take::Each, "--network-alias", ""),
    ("NoNewPrivileges", Take::Switch, "--security-opt", "no-new-privileges"),
    ("PidsLimit", Take::Last, "--pids-limit", ""),
    ("PublishPort", Take::Each, "--publish", ""),
    ("ReadOnly", Take::Switch, "--read-only", ""),
    ("ReadOnlyTmpfs", Take::Switch, "--read-only-tmpfs", ""),
    ("Rootfs", Take::Last, "--rootfs", ""),
    ("RunInit", Take::Switch, "--init", ""),
    ("SeccompProfile", Take::Last, "--security-opt", "seccomp="),
    ("Secret", Take::Words, "--secret", ""),
    ("SecurityLabelDisable", Take::Switch, "--security-opt", "label=disable"),
    ("SecurityLabelFileType", Take::Last, "--security-opt", "label=filetype:"),
    ("SecurityLabelLevel", Take::Last, "--security-opt", "label=level:"),
    ("SecurityLabelNested", Take::Switch, "--security-opt", "label=nested"),
    ("SecurityLabelType", Take::Last, "--security-opt", "label=type:"),
    ("ShmSize", Take::Last, "--shm-size", ""),
    ("StopSignal", Take::Last, "--stop-signal", ""),
    ("StopTimeout", Take::Last, "--stop-timeout", ""),
    ("SubGIDMap", Take::Last, "--subgidname", ""),
    ("SubUIDMap", Take::Last, "--subuidname", ""),
    ("Sysctl", Take::Names, "--sysctl", ""),
    ("Timezone", Take::Last, "--tz", ""),
    ("Tmpfs", Take::Each, "--tmpfs", ""),
    ("UIDMap", Take::Names, "--uidmap", ""),
    ("Ulimit", Take::Each, "--ulimit", ""),
    ("Unmask", Take::Words, "--security-opt", "unmask="),
    ("UserNS", Take::Last, "--userns", ""),
    ("Volume", Take::Each, "--volume", ""),
    ("WorkingDir", Take::Last, "--workdir", ""),
];

/// Those that are read by a rule of their own.
pub const OTHERS: &[&str] = &[
    "Entrypoint",
    "Exec",
    "Group",
    "HealthCmd",
    "Image",
    "Notify",
    "PodmanArgs",
    "Pull",
    "ReloadCmd",
    "ReloadSignal",
    "Retry",
    "ServiceName",
    "User",
];

/// Those that are known and not taken: why, and what instead.
pub const REFUSED: &[(&str, &str, &str)] = &[
    ("ContainersConfModule", "there is no containers.conf", "a setting for each of its members"),
    ("GlobalArgs", "they are for podman itself", "leave it out"),
    ("Pod", "there are no pods", "Network=container:NAME, PodmanArgs=--ipc container:NAME"),
    ("RetryDelay", "the pauses are the registry's, or grow by themselves", "Retry="),
    ("StartWithPod", "there are no pods", "leave it out"),
    ("RemapUsers", "podman itself has given it up", "UserNS="),
    ("RemapUid", "podman itself has given it up", "UIDMap="),
    ("RemapGid", "podman itself has given it up", "GIDMap="),
    ("RemapUidSize", "podman itself has given it up", "UserNS=auto:size=N"),
    ("VolatileTmp", "podman itself has given it up", "Tmpfs=/tmp"),
];

/// Flags that say nothing a record could keep.
pub const NOT_KEPT: &[&str] = &["--cidfile", "--replace"];
