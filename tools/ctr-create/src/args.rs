//! The flags that say what a container is to be like, docker's names and meanings, and how they become a record's
//! `config`. `ctr-create`, `ctr-run` and `ctr-spec` share them.

pub mod health;
mod more_limits;
mod network;
mod process;
mod refused;
mod rest;
mod users;

pub use more_limits::MoreLimitFlags;
pub use network::NameFlags;
pub use process::ProcessFlags;
pub use refused::Refused;
pub use rest::RestFlags;
pub use users::UserFlags;

use crate::limits::{self, LimitFlags};
use clap::{ArgAction, Args};
use cli::words::pairs;
use cli::{Explain, Fault, Kind, Result};
use oci::wishes::{self, MountPlan, Wishes, mount};
use record::{Config, Mount, MountWish, PortWish};
use std::path::{Path, PathBuf};

/// The words after the flags. The first one ends the flags: what follows belongs to the command.
#[derive(Clone, Debug, Default, Args)]
pub struct CommandWords {
    /// Command and arguments to run instead of the image's
    #[arg(value_name = "COMMAND", trailing_var_arg = true)]
    pub command: Vec<String>,
}

/// What the container is to be like. `-h` is the host name, as in docker; help is `--help` alone.
#[derive(Clone, Debug, Default, Args)]
#[command(disable_help_flag = true, args_override_self = true)]
pub struct CreateFlags {
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,

    /// Name of the container
    #[arg(long, value_name = "NAME", help_heading = "Container")]
    pub name: Option<String>,

    /// Host name inside
    #[arg(short = 'h', long, value_name = "NAME", help_heading = "Container")]
    pub hostname: Option<String>,

    /// Set an environment variable; without a value it is taken from here
    #[arg(short, long, value_name = "NAME[=VALUE]", help_heading = "Container")]
    pub env: Vec<String>,

    /// Read environment variables from a file
    #[arg(long, value_name = "FILE", help_heading = "Container")]
    pub env_file: Vec<PathBuf>,

    /// Working directory
    #[arg(short, long, value_name = "DIR", help_heading = "Container")]
    pub workdir: Option<String>,

    /// User and group to run as, names or numbers
    #[arg(short, long, value_name = "USER[:GROUP]", help_heading = "Container")]
    pub user: Option<String>,

    /// Additional group
    #[arg(long, value_name = "GROUP", help_heading = "Container")]
    pub group_add: Vec<String>,

    /// Program to run instead of the image's entrypoint; empty: none
    #[arg(long, value_name = "PROGRAM", help_heading = "Container")]
    pub entrypoint: Option<String>,

    /// Give the container a terminal
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false,
        hide_default_value = true, hide_possible_values = true, action = ArgAction::Set, help_heading = "Container")]
    pub tty: bool,

    /// Keep the container's stdin open
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false,
        hide_default_value = true, hide_possible_values = true, action = ArgAction::Set, help_heading = "Container")]
    pub interactive: bool,

    /// Remove the container when it ends
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false,
        hide_default_value = true, hide_possible_values = true, action = ArgAction::Set, help_heading = "Container")]
    pub rm: bool,

    /// Run an init as process 1 that forwards signals and reaps
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false,
        hide_default_value = true, hide_possible_values = true, action = ArgAction::Set, help_heading = "Container")]
    pub init: bool,

    /// Label the container
    #[arg(short, long, value_name = "NAME[=VALUE]", help_heading = "Container")]
    pub label: Vec<String>,

    /// Annotation for the OCI runtime
    #[arg(long, value_name = "NAME=VALUE", help_heading = "Container")]
    pub annotation: Vec<String>,

    /// Signal that stops it
    #[arg(long, value_name = "SIGNAL", help_heading = "Container")]
    pub stop_signal: Option<String>,

    /// Seconds between the stop signal and SIGKILL; -1: never
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, help_heading = "Container")]
    pub stop_timeout: Option<i64>,

    /// When to start it again: no, on-failure[:N], always, unless-stopped
    #[arg(long, value_name = "POLICY", help_heading = "Container")]
    pub restart: Option<String>,

    /// Where its output is kept: json-file, local, journald, syslog, passthrough, none
    #[arg(long, value_name = "DRIVER", help_heading = "Container")]
    pub log_driver: Option<String>,

    /// Option of the log driver, max-size=10m say; ctr-shim's README.md lists them
    #[arg(long, value_name = "NAME=VALUE", help_heading = "Container")]
    pub log_opt: Vec<String>,

    /// The image must be for this platform
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", help_heading = "Container")]
    pub platform: Option<String>,

    /// Name or path of another OCI runtime
    #[arg(long, value_name = "RUNTIME", help_heading = "Container")]
    pub runtime: Option<String>,

    /// Write the container's id to a file that does not exist
    #[arg(long, value_name = "FILE", help_heading = "Container")]
    pub cidfile: Option<PathBuf>,

    /// A directory as the root file system instead of an image
    #[arg(long, value_name = "DIR", help_heading = "Files")]
    pub rootfs: Option<PathBuf>,

    /// Mount a directory, file or volume
    #[arg(short, long, value_name = "[SOURCE:]TARGET[:OPTIONS]", help_heading = "Files")]
    pub volume: Vec<String>,

    /// Mount: type=bind|volume|tmpfs|image,source=…,target=…
    #[arg(long, value_name = "KEY=VALUE,…", help_heading = "Files")]
    pub mount: Vec<String>,

    /// Mount a temporary file system
    #[arg(long, value_name = "TARGET[:OPTIONS]", help_heading = "Files")]
    pub tmpfs: Vec<String>,

    /// Mount what another container has mounted, but for tmpfs
    #[arg(long, value_name = "CONTAINER[:ro|rw]", help_heading = "Files")]
    pub volumes_from: Vec<String>,

    /// Driver of the volumes that are made
    #[arg(long, value_name = "DRIVER", help_heading = "Files")]
    pub volume_driver: Option<String>,

    /// Give a secret as a file below /run/secrets or, with type=env, as a variable; read at the start and written nowhere
    #[arg(long, value_name = "NAME[,KEY=VALUE,…]", help_heading = "Files")]
    pub secret: Vec<String>,

    /// Make the root file system read-only
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false,
        hide_default_value = true, hide_possible_values = true, action = ArgAction::Set, help_heading = "Files")]
    pub read_only: bool,

    /// Give a device of the host, or one by its CDI name
    #[arg(long, value_name = "HOST[:TARGET[:rwm]]|VENDOR/CLASS=NAME", help_heading = "Files")]
    pub device: Vec<String>,

    /// Add a capability, or ALL
    #[arg(long, value_name = "CAP", help_heading = "Security")]
    pub cap_add: Vec<String>,

    /// Drop a capability, or ALL
    #[arg(long, value_name = "CAP", help_heading = "Security")]
    pub cap_drop: Vec<String>,

    /// Give every capability and device, hide nothing
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false,
        hide_default_value = true, hide_possible_values = true, action = ArgAction::Set, help_heading = "Security")]
    pub privileged: bool,

    /// no-new-privileges, seccomp=unconfined|builtin|FILE, apparmor=PROFILE, systempaths=unconfined, mask=PATH:…,
    /// unmask=PATH:…|ALL, proc-opts=OPTION,…, writable-cgroups, label=disable
    #[arg(long, value_name = "OPTION", help_heading = "Security")]
    pub security_opt: Vec<String>,

    #[command(flatten)]
    pub limits: LimitFlags,

    /// Resource limit: nofile=1024:4096
    #[arg(long, value_name = "NAME=SOFT[:HARD]", help_heading = "Limits")]
    pub ulimit: Vec<String>,

    /// Kernel parameter of the container's namespaces
    #[arg(long, value_name = "NAME=VALUE", help_heading = "Limits")]
    pub sysctl: Vec<String>,

    /// Publish a port
    #[arg(short, long, value_name = "[[IP:]HOST:]PORT[/udp]", help_heading = "Namespaces")]
    pub publish: Vec<String>,

    /// private, host, container:NAME
    #[arg(long, value_name = "MODE", help_heading = "Namespaces")]
    pub pid: Option<String>,

    /// private, shareable, none, host, container:NAME
    #[arg(long, value_name = "MODE", help_heading = "Namespaces")]
    pub ipc: Option<String>,

    /// private, host, container:NAME
    #[arg(long, value_name = "MODE", help_heading = "Namespaces")]
    pub uts: Option<String>,

    #[command(flatten)]
    pub more_limits: MoreLimitFlags,

    #[command(flatten)]
    pub names: NameFlags,

    #[command(flatten)]
    pub process: ProcessFlags,

    #[command(flatten)]
    pub rest: RestFlags,

    #[command(flatten)]
    pub users: UserFlags,

    #[command(flatten)]
    pub refused: Refused,

    #[command(flatten)]
    pub health: health::HealthFlags,
}

/// What the meaning of a flag depends on beside its text.
struct Caller<'a> {
    variable: &'a dyn Fn(&str) -> Option<String>,
    /// All of the environment's that are UTF-8, `NAME=value` each.
    environment: &'a dyn Fn() -> Vec<String>,
    /// Makes a path absolute.
    absolute: &'a dyn Fn(&Path) -> Result<PathBuf>,
}

impl CreateFlags {
    /// Puts what the flags and the command say over a record's `config`: a flag wins, lists are appended to, a mount
    /// takes the place of one at the same target.
    ///
    /// Fails with usage on anything that is wrong by itself. What contradicts the record is found when the
    /// specification is made.
    pub fn apply(&self, command: &[String], config: &mut Config) -> Result<()> {
        let caller = Caller {
            variable: &|name| std::env::var(name).ok(),
            environment: &|| {
                let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
                    Some(format!("{}={}", name.into_string().ok()?, value.into_string().ok()?))
                };
                std::env::vars_os().filter_map(text).collect()
            },
            absolute: &|path| std::path::absolute(path).explain(|| format!("find {}", path.display())),
        };
        self.apply_for(&caller, command, config)
    }

    fn apply_for(&self, caller: &Caller<'_>, command: &[String], config: &mut Config) -> Result<()> {
        self.refused.check()?;
        let asked = self.asked(caller, command).map_err(as_usage)?;
        let wishes = Wishes::parse(&asked).map_err(as_usage)?;
        merge(config, asked, &wishes.mounts);
        Ok(())
    }

    /// What the flags alone ask for.
    fn asked(&self, caller: &Caller<'_>, command: &[String]) -> Result<Config> {
        let path = |path: &Path| (caller.absolute)(path).and_then(into_text);
        let mut config = Config {
            name: self.name.clone(),
            command: (!command.is_empty()).then(|| command.to_vec()),
            entrypoint: self.entrypoint.as_ref().map(|program| vec![program.clone()]),
            env: self.environment(caller)?,
            workdir: self.workdir.clone(),
            user: self.user.clone(),
            group_add: self.group_add.clone(),
            hostname: self.hostname.clone(),
            tty: self.tty,
            interactive: self.interactive,
            auto_remove: self.rm,
            init: self.init,
            mounts: self.mounts(caller)?,
            volumes_from: self.volumes_from.clone(),
            volume_driver: self.volume_driver.clone(),
            secrets: self.secret.iter().map(|text| secret(text, &path)).collect::<Result<_>>()?,
            read_only: self.read_only,
            devices: self.device.clone(),
            cap_add: self.cap_add.clone(),
            cap_drop: self.cap_drop.clone(),
            privileged: self.privileged,
            security_opt: self
                .security_opt
                .iter()
                .map(|option| security_option(option, &path))
                .collect::<Result<_>>()?,
            ulimits: self.ulimit.clone(),
            sysctls: pairs("sysctl", &self.sysctl, false)?,
            pid: self.pid.clone(),
            ipc: self.ipc.clone(),
            uts: self.uts.clone(),
            ports: self.publish.iter().cloned().map(PortWish::Text).collect(),
            labels: self.process.labels(&self.label)?,
            annotations: pairs("annotation", &self.annotation, false)?,
            stop_signal: self.stop_signal.clone(),
            stop_timeout: self.stop_timeout,
            restart: self.restart.clone(),
            healthcheck: self.health.asked()?,
            log_driver: self.log_driver.clone(),
            log_opts: pairs("log option", &self.log_opt, false)?,
            runtime: self.runtime.as_deref().map(|runtime| runtime_path(runtime, &path)).transpose()?,
            rootfs: self.rootfs.as_deref().map(path).transpose()?,
            platform: self.platform.clone(),
            ..self.limits.asked()
        };
        self.more_limits.put(&mut config)?;
        self.names.put(&mut config)?;
        self.process.put(caller, &mut config)?;
        self.rest.put(&path, &mut config)?;
        self.users.put(&mut config);
        Ok(config)
    }

    /// Files first, then `-e`, so that the latter wins.
    fn environment(&self, caller: &Caller<'_>) -> Result<Vec<String>> {
        let mut variables = self.process.proxies(caller);
        for file in &self.env_file {
            let text = read_text(file)?;
            variables.extend(wishes::env::env_file(&text, &file.display().to_string())?);
        }
        for variable in &self.env {
            wishes::env::env(variable)?;
            variables.push(variable.clone());
        }
        for variable in variables.iter_mut().filter(|variable| !variable.contains('=')) {
            // One that is not set here stays a bare name: it takes the image's variable away, as in docker.
            if let Some(value) = (caller.variable)(variable) {
                *variable = format!("{variable}={value}");
            }
        }
        Ok(variables)
    }

    /// As objects, which `jq` can edit, sources made absolute.
    fn mounts(&self, caller: &Caller<'_>) -> Result<Vec<MountWish>> {
        let volumes = self.volume.iter().map(|text| mount::parse_volume(text));
        let mounts = self.mount.iter().map(|text| mount::parse_mount(text));
        let tmpfs = self.tmpfs.iter().map(|text| mount::parse_tmpfs(text));
        volumes
            .chain(mounts)
            .chain(tmpfs)
            .map(|mount| Ok(MountWish::Mount(with_absolute_source(mount?, caller)?)))
            .collect()
    }
}

/// As an argument it is the command line that is wrong, not the input.
fn as_usage(fault: Fault) -> Fault {
    if fault.kind() == Kind::Input { fault.as_kind(Kind::Usage) } else { fault }
}

fn with_absolute_source(mut mount: Mount, caller: &Caller<'_>) -> Result<Mount> {
    if mount.kind.as_deref() == Some("bind")
        && let Some(source) = &mount.source
        && source.starts_with('.')
    {
        mount.source = Some((caller.absolute)(Path::new(source)).and_then(into_text)?);
    }
    Ok(mount)
}

fn into_text(path: PathBuf) -> Result<String> {
    path.into_os_string()
        .into_string()
        .map_err(|path| Fault::usage(format!("the path {} is not UTF-8, and records are", path.display())))
}

/// A secret's file is named so that it is found from anywhere later.
fn secret(text: &str, absolute: &dyn Fn(&Path) -> Result<String>) -> Result<String> {
    let wishes::SecretSource::File(path) = wishes::secret(text)?.source else { return Ok(text.to_owned()) };
    let absolute = absolute(Path::new(&path))?;
    let field = |field: &str| match field.split_once('=') {
        Some((key, value))
            if value == path && matches!(key.to_ascii_lowercase().as_str(), "src" | "source") =>
        {
            format!("{key}={absolute}")
        }
        _ => field.to_owned(),
    };
    Ok(text.split(',').map(field).collect::<Vec<_>>().join(","))
}

/// A profile's file is named so that it is found from anywhere later.
fn security_option(option: &str, absolute: &dyn Fn(&Path) -> Result<String>) -> Result<String> {
    match option.strip_prefix("seccomp=") {
        Some("unconfined" | "builtin" | "") | None => Ok(option.to_owned()),
        Some(profile) if profile.trim_start().starts_with('{') => Ok(option.to_owned()),
        Some(file) => absolute(Path::new(file)).map(|file| format!("seccomp={file}")),
    }
}

/// A bare name is looked for in PATH later; a path is fixed now.
fn runtime_path(runtime: &str, absolute: &dyn Fn(&Path) -> Result<String>) -> Result<String> {
    if runtime.contains('/') { absolute(Path::new(runtime)) } else { Ok(runtime.to_owned()) }
}

/// Largest env file read.
const MAX_ENV_FILE: u64 = 4 << 20;

fn read_text(path: &Path) -> Result<String> {
    use std::io::Read;
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| {
        let kind =
            if error.kind() == std::io::ErrorKind::NotFound { Kind::NotFound } else { Kind::of_io(&error) };
        Fault::new(kind, format!("open {}", path.display())).because(error)
    })?;
    let read = file
        .take(MAX_ENV_FILE + 1)
        .read_to_string(&mut text)
        .explain(|| format!("read {}", path.display()))?;
    if read as u64 > MAX_ENV_FILE {
        return Err(Fault::input(format!("{} is longer than {MAX_ENV_FILE} bytes", path.display())));
    }
    Ok(text)
}

/// Puts `asked` over `config`. `asked`'s mounts are `plans`, in the same order.
fn merge(config: &mut Config, asked: Config, plans: &[MountPlan]) {
    macro_rules! wins {
        ($($member:ident)*) => { $(if asked.$member.is_some() { config.$member = asked.$member; })* };
    }
    macro_rules! joins {
        ($($member:ident)*) => { $(config.$member.extend(asked.$member);)* };
    }
    macro_rules! switches {
        ($($member:ident)*) => { $(config.$member |= asked.$member;)* };
    }
    limits::merge(config, &asked);
    health::merge(&mut config.healthcheck, asked.healthcheck);
    if !plans.is_empty() {
        config.mounts.retain(|present| {
            let target = match present {
                MountWish::Mount(mount) => Some(mount.target.clone()),
                MountWish::Text(text) => mount::parse(text).ok().map(|mount| mount.target),
            };
            let target = target.and_then(|target| mount::clean_target(&target).ok());
            // What is malformed stays, to be complained about.
            target.is_none_or(|target| plans.iter().all(|plan| plan.target != target))
        });
    }
    switches!(tty interactive auto_remove init read_only privileged unsetenv_all read_only_tmpfs oom_kill_disable publish_all);
    // So are networks, which may be asked for in either way.
    if asked.network.is_some() || !asked.networks.is_empty() {
        (config.network, config.networks) = (asked.network, asked.networks);
    }
    // A namespace is asked for as a whole.
    if asked.userns.is_some()
        || asked.subuidname.is_some()
        || asked.subgidname.is_some()
        || !(asked.uidmap.is_empty() && asked.gidmap.is_empty())
    {
        (config.userns, config.uidmap, config.gidmap) = (asked.userns, asked.uidmap, asked.gidmap);
        (config.subuidname, config.subgidname) = (asked.subuidname, asked.subgidname);
    }
    wins!(name command entrypoint workdir user hostname pid ipc uts
        stop_signal stop_timeout restart log_driver runtime rootfs platform volume_driver);
    wins!(passwd_entry group_entry umask domainname tz shm_size memory_swappiness oom_score_adj cpu_rt_period cpu_rt_runtime rdt_class personality cgroupns
        cgroup_parent timeout pidfile);
    joins!(env group_add mounts volumes_from secrets devices cap_add cap_drop security_opt ulimits sysctls ports labels annotations log_opts storage_opts);
    joins!(env_host env_merge unsetenv device_cgroup_rules blkio_weight_devices device_read_bps
        device_write_bps device_read_iops device_write_iops cgroup_conf expose add_host dns dns_search dns_option hooks_dir);
}

#[cfg(test)]
mod tests;
