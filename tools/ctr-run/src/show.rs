//! The pipeline that does what ctr-run does, in shell.

use crate::{Args, Pull};
use cli::words::quoted;
use oci::wishes::{NetworkMode, network_text};
use record::{Config, Mount, MountWish, Port, PortWish, Quantity};

/// One line a stage, ready to paste into a POSIX shell.
pub fn pipeline(args: &Args, image: Option<&str>, config: &Config) -> String {
    let mut stages = Vec::new();
    if let Some(image) = image {
        let mut pull = vec!["img-pull".to_owned()];
        match args.pull {
            Pull::Missing => pull.extend(words("--policy missing")),
            Pull::Never => pull.extend(words("--policy never")),
            Pull::Newer => pull.extend(words("--policy newer")),
            Pull::Always => {}
        }
        if let Some(platform) = &config.platform {
            pull.extend(["--platform".to_owned(), platform.clone()]);
        }
        pull.extend(args.pulling.words());
        pull.push(image.to_owned());
        let login = args.pulling.authfile.as_ref();
        let login = login.map(|file| format!("REGISTRY_AUTH_FILE={} ", quoted(&file.display().to_string())));
        stages.push(login.unwrap_or_default() + &line(&pull));
        stages.push("img-unpack".to_owned());
    }
    stages.push(line(&create(args, config)));
    let network = NetworkMode::of(config).unwrap_or_default();
    if matches!(network, NetworkMode::Bridge | NetworkMode::Private) {
        let mut attach = vec!["net-attach".to_owned()];
        for port in &config.ports {
            attach.extend(["-p".to_owned(), port_text(port)]);
        }
        stages.push(line(&attach));
    }
    let with_input = args.flags.interactive && !args.flags.tty && !args.detach;
    stages.push(line(&start(args, with_input)));
    let mut pipeline = stages.join(" |\n  ");
    if !args.detach {
        for (wanted, redirection) in args.outputs().into_iter().zip([" >/dev/null", " 2>/dev/null"]) {
            pipeline.push_str(if wanted { "" } else { redirection });
        }
    }
    // Only the first stage sees the shell's stdin, and the container wants it.
    let pipeline = if with_input { format!("{{ {pipeline}; }} 3<&0") } else { pipeline };
    // --rootfs needs no record; an empty stdin would be waited for.
    let first = if image.is_none() { "echo '{}' |\n  " } else { "" };
    let afterwards = image
        .filter(|_| args.rmi)
        .map(|image| format!("{}\n", line(&["img-rm".to_owned(), image.to_owned()])));
    format!("{first}{pipeline}\n{}", afterwards.unwrap_or_default())
}

fn start(args: &Args, with_input: bool) -> Vec<String> {
    let mut start = vec!["ctr-start".to_owned()];
    if args.detach {
        start.push("-q".to_owned());
        return start;
    }
    start.push("--attach".to_owned());
    if args.flags.tty && args.flags.interactive {
        start.push("--interactive".to_owned());
    }
    if with_input {
        start.extend(words("--stdin-fd 3"));
    }
    if args.flags.tty && args.detach_keys != ctr_start::terminal::DetachKeys::DEFAULT {
        start.extend(["--detach-keys".to_owned(), args.detach_keys.clone()]);
    }
    if args.no_sig_proxy || !args.sig_proxy {
        start.push("--no-sig-proxy".to_owned());
    }
    start
}

fn create(args: &Args, config: &Config) -> Vec<String> {
    let mut create = vec!["ctr-create".to_owned()];
    let mut flag = |name: &str, value: &str| create.extend([name.to_owned(), value.to_owned()]);
    let singles = [
        ("--name", &config.name),
        ("--workdir", &config.workdir),
        ("--user", &config.user),
        ("--hostname", &config.hostname),
        ("--cpuset-cpus", &config.cpuset_cpus),
        ("--cpuset-mems", &config.cpuset_mems),
        ("--network", &config.network),
        ("--pid", &config.pid),
        ("--ipc", &config.ipc),
        ("--uts", &config.uts),
        ("--userns", &config.userns),
        ("--subuidname", &config.subuidname),
        ("--subgidname", &config.subgidname),
        ("--stop-signal", &config.stop_signal),
        ("--restart", &config.restart),
        ("--log-driver", &config.log_driver),
        ("--runtime", &config.runtime),
        ("--rootfs", &config.rootfs),
        ("--platform", &config.platform),
        ("--volume-driver", &config.volume_driver),
        ("--passwd-entry", &config.passwd_entry),
        ("--group-entry", &config.group_entry),
        ("--umask", &config.umask),
        ("--domainname", &config.domainname),
        ("--tz", &config.tz),
        ("--rdt-class", &config.rdt_class),
        ("--personality", &config.personality),
        ("--cgroupns", &config.cgroupns),
        ("--cgroup-parent", &config.cgroup_parent),
        ("--pidfile", &config.pidfile),
    ];
    for (name, value) in singles {
        if let Some(value) = value {
            flag(name, value);
        }
    }
    for wish in &config.networks {
        flag("--network", &network_text(wish));
    }
    if let Some(entrypoint) = config.entrypoint.as_ref().and_then(|words| words.first()) {
        flag("--entrypoint", entrypoint);
    }
    let lists = [
        ("-e", &config.env),
        ("--group-add", &config.group_add),
        ("--uidmap", &config.uidmap),
        ("--gidmap", &config.gidmap),
        ("--device", &config.devices),
        ("--cap-add", &config.cap_add),
        ("--cap-drop", &config.cap_drop),
        ("--security-opt", &config.security_opt),
        ("--ulimit", &config.ulimits),
        ("--volumes-from", &config.volumes_from),
        ("--secret", &config.secrets),
        ("--env-merge", &config.env_merge),
        ("--unsetenv", &config.unsetenv),
        ("--device-cgroup-rule", &config.device_cgroup_rules),
        ("--blkio-weight-device", &config.blkio_weight_devices),
        ("--device-read-bps", &config.device_read_bps),
        ("--device-write-bps", &config.device_write_bps),
        ("--device-read-iops", &config.device_read_iops),
        ("--device-write-iops", &config.device_write_iops),
        ("--add-host", &config.add_host),
        ("--dns", &config.dns),
        ("--dns-search", &config.dns_search),
        ("--dns-option", &config.dns_option),
        ("--expose", &config.expose),
        ("--hooks-dir", &config.hooks_dir),
    ];
    for (name, values) in lists {
        for value in values {
            flag(name, value);
        }
    }
    let maps = [
        ("--label", &config.labels),
        ("--annotation", &config.annotations),
        ("--sysctl", &config.sysctls),
        ("--log-opt", &config.log_opts),
        ("--cgroup-conf", &config.cgroup_conf),
        ("--storage-opt", &config.storage_opts),
    ];
    for (name, values) in maps {
        for (key, value) in values {
            flag(name, &format!("{key}={value}"));
        }
    }
    for wish in &config.mounts {
        let (name, value) = mount_text(wish);
        flag(name, &value);
    }
    let quantities = [
        ("--memory", &config.memory),
        ("--memory-reservation", &config.memory_reservation),
        ("--memory-swap", &config.memory_swap),
        ("--cpus", &config.cpus),
        ("--shm-size", &config.shm_size),
    ];
    for (name, value) in quantities {
        if let Some(value) = value {
            flag(name, &quantity(value));
        }
    }
    let numbers = [
        ("--cpu-shares", config.cpu_shares.map(|n| n.to_string())),
        ("--cpu-period", config.cpu_period.map(|n| n.to_string())),
        ("--cpu-quota", config.cpu_quota.map(|n| n.to_string())),
        ("--blkio-weight", config.blkio_weight.map(|n| n.to_string())),
        ("--pids-limit", config.pids_limit.map(|n| n.to_string())),
        ("--stop-timeout", config.stop_timeout.map(|n| n.to_string())),
        ("--memory-swappiness", config.memory_swappiness.map(|n| n.to_string())),
        ("--oom-score-adj", config.oom_score_adj.map(|n| n.to_string())),
        ("--cpu-rt-period", config.cpu_rt_period.map(|n| n.to_string())),
        ("--cpu-rt-runtime", config.cpu_rt_runtime.map(|n| n.to_string())),
        ("--timeout", config.timeout.map(|n| n.to_string())),
        ("--cidfile", args.flags.cidfile.as_ref().map(|path| path.display().to_string())),
    ];
    for (name, value) in numbers {
        if let Some(value) = value {
            flag(name, &value);
        }
    }
    if let Some(check) = &config.healthcheck {
        create.extend(ctr_create::args::health::words(check));
    }
    let switches = [
        ("--tty", config.tty),
        ("--interactive", config.interactive),
        ("--rm", config.auto_remove),
        ("--init", config.init),
        ("--read-only", config.read_only),
        ("--privileged", config.privileged),
        ("--unsetenv-all", config.unsetenv_all),
        ("--read-only-tmpfs", config.read_only_tmpfs),
        ("--oom-kill-disable", config.oom_kill_disable),
        ("--publish-all", config.publish_all),
        // Its variables are those of whoever runs the pipeline, too.
        ("--env-host", !config.env_host.is_empty()),
        ("--replace", args.flags.rest.replace),
    ];
    create.extend(switches.iter().filter(|(_, on)| *on).map(|(name, _)| (*name).to_owned()));
    if let Some(command) = config.command.as_ref().filter(|command| !command.is_empty()) {
        create.push("--".to_owned());
        create.extend(command.iter().cloned());
    }
    create
}

fn mount_text(wish: &MountWish) -> (&'static str, String) {
    let mount = match wish {
        MountWish::Text(text) if text.starts_with("type=") => return ("--mount", text.clone()),
        MountWish::Text(text) => return ("--volume", text.clone()),
        MountWish::Mount(mount) => mount,
    };
    if let Some(text) = long_text(mount) {
        return ("--mount", text);
    }
    let is_tmpfs = mount.kind.as_deref() == Some("tmpfs");
    let options = mount_options(mount);
    let joined = options.join(",");
    if is_tmpfs {
        let colon = if joined.is_empty() { "" } else { ":" };
        return ("--tmpfs", format!("{}{colon}{joined}", mount.target));
    }
    let source = mount.source.as_ref().map(|source| format!("{source}:")).unwrap_or_default();
    if mount.kind.as_deref() == Some("bind") && !mount.create_source {
        return ("--mount", long_bind(mount));
    }
    let colon = if joined.is_empty() { "" } else { ":" };
    ("--volume", format!("{source}{}{colon}{joined}", mount.target))
}

/// What the short forms have no words for.
fn long_text(mount: &Mount) -> Option<String> {
    let says_more = mount.kind.as_deref() == Some("image")
        || mount.subpath.is_some()
        || mount.driver.is_some()
        || !mount.driver_options.is_empty()
        || !mount.labels.is_empty();
    if !says_more {
        return None;
    }
    let kind = mount.kind.as_deref().unwrap_or("volume");
    let mut fields = vec![format!("type={kind}"), format!("target={}", mount.target)];
    fields.extend(mount.source.as_ref().map(|source| format!("source={source}")));
    fields.extend(mount.subpath.as_ref().map(|path| format!("{kind}-subpath={path}")));
    fields.extend(mount.driver.as_ref().map(|driver| format!("volume-driver={driver}")));
    fields.extend(mount.driver_options.iter().map(|(key, value)| format!("volume-opt={key}={value}")));
    fields.extend(mount.labels.iter().map(|(key, value)| format!("volume-label={key}={value}")));
    fields.extend(mount.propagation.as_ref().map(|propagation| format!("bind-propagation={propagation}")));
    fields.extend(mount.no_copy.then(|| "volume-nocopy".to_owned()));
    fields.extend(mount.read_only.then(|| "readonly".to_owned()));
    fields.extend(mount.chown.then(|| "U".to_owned()));
    fields.extend(mount.options.iter().cloned());
    let quoted = |field: &String| {
        if field.contains([',', '"']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field.clone() }
    };
    Some(fields.iter().map(quoted).collect::<Vec<_>>().join(","))
}

/// `--volume` would make a missing source.
fn long_bind(mount: &Mount) -> String {
    let mut text =
        format!("type=bind,source={},target={}", mount.source.as_deref().unwrap_or_default(), mount.target);
    if mount.read_only {
        text.push_str(",readonly");
    }
    if let Some(propagation) = &mount.propagation {
        text.push_str(",bind-propagation=");
        text.push_str(propagation);
    }
    if mount.non_recursive {
        text.push_str(",bind-recursive=disabled");
    }
    for (word, on) in [("U", mount.chown), ("O", mount.overlay)] {
        if on {
            text.push(',');
            text.push_str(word);
        }
    }
    for (key, path) in [("upperdir", &mount.upper), ("workdir", &mount.work)] {
        if let Some(path) = path {
            text.extend([",", key, "=", path.as_str()]);
        }
    }
    text
}

fn mount_options(mount: &Mount) -> Vec<String> {
    let mut options = mount.options.clone();
    if mount.read_only {
        options.push("ro".to_owned());
    }
    options.extend(mount.propagation.clone());
    if mount.no_copy {
        options.push("nocopy".to_owned());
    }
    options.extend(mount.chown.then(|| "U".to_owned()));
    options.extend(mount.overlay.then(|| "O".to_owned()));
    options.extend(mount.upper.as_ref().map(|path| format!("upperdir={path}")));
    options.extend(mount.work.as_ref().map(|path| format!("workdir={path}")));
    if let Some(size) = &mount.size {
        options.push(format!("size={}", quantity(size)));
    }
    if let Some(mode) = &mount.mode {
        options.push(format!("mode={mode}"));
    }
    options
}

fn port_text(wish: &PortWish) -> String {
    match wish {
        PortWish::Text(text) => text.clone(),
        PortWish::Number(number) => number.to_string(),
        PortWish::Port(port) => port_of(port),
    }
}

fn port_of(port: &Port) -> String {
    let range = |first: u16| match port.count {
        Some(count) if count > 1 => format!("{first}-{}", u32::from(first) + u32::from(count) - 1),
        _ => first.to_string(),
    };
    let ip = port.ip.as_ref().map(|ip| format!("{ip}:")).unwrap_or_default();
    let host = port.host.map(|host| format!("{}:", range(host)));
    // An address without a port still needs its colon.
    let host = host.unwrap_or_else(|| if ip.is_empty() { String::new() } else { ":".to_owned() });
    format!("{ip}{host}{}/{}", range(port.container), port.protocol)
}

fn quantity(quantity: &Quantity) -> String {
    match quantity {
        Quantity::Integer(number) => number.to_string(),
        Quantity::Float(number) => number.to_string(),
        Quantity::Text(text) => text.clone(),
    }
}

fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(' ').map(str::to_owned)
}

fn line(words: &[String]) -> String {
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn show(arguments: &[&str]) -> String {
        let args = Args::parse_from([&["ctr-run"], arguments].concat());
        let (image, command) = args.image_and_command();
        let mut config = Config::default();
        args.flags.apply(&command, &mut config).unwrap();
        pipeline(&args, image, &config)
    }

    #[test]
    fn stages_in_order() {
        assert_eq!(
            show(&["debian:12", "bash", "-c", "echo 'hi'"]),
            "img-pull --policy missing debian:12 |\n  img-unpack |\n  ctr-create -- bash -c 'echo '\\''hi'\\''' |\n  \
             net-attach |\n  ctr-start --attach\n"
        );
    }

    #[test]
    fn stdin_finds_its_way_past_the_records() {
        let text = show(&["-i", "--rm", "--network", "none", "busybox", "wc", "-l"]);
        assert!(text.starts_with("{ img-pull"), "{text}");
        assert!(text.ends_with("ctr-start --attach --stdin-fd 3; } 3<&0\n"), "{text}");
        assert!(!text.contains("net-attach"), "{text}");
    }

    #[test]
    fn what_was_asked_for_comes_back_as_flags() {
        let asked = [
            "-d",
            "--name",
            "w",
            "-p",
            "127.0.0.1:8080:80",
            "-v",
            "/srv:/data:ro",
            "--mount",
            "type=volume,source=vol,target=/v",
            "--tmpfs",
            "/t:size=1m",
            "-m",
            "64m",
            "--cpus",
            "1.5",
            "-e",
            "A=b c",
            "--read-only",
            "--ulimit",
            "nofile=10:20",
            "x",
        ];
        let text = show(&asked);
        for wanted in [
            "-p 127.0.0.1:8080:80",
            "/srv:/data:ro",
            "vol:/v",
            "--tmpfs /t:size=1m",
            "--memory 64m",
            "--cpus 1.5",
            "-e 'A=b c'",
            "--read-only",
            "nofile=10:20",
            "ctr-start -q",
        ] {
            assert!(text.contains(wanted), "{wanted}: {text}");
        }
    }
}
