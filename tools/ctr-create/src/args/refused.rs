//! Flags of docker's and podman's that are known and not done: the error says why, and what does it instead.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use cli::{Fault, Result};

/// Flag, whether it takes a value, why not, what instead.
const FLAGS: [(&str, bool, &str, &str); 26] = [
    (
        "link",
        true,
        "links are not made",
        "containers of one network reach each other by name; --add-host NAME:ADDRESS",
    ),
    ("kernel-memory", true, "the kernel has no limit for its own memory any more", "--memory counts it too"),
    ("init-path", true, "the init is ctr-shim itself", "--init"),
    ("init-binary", true, "the init is ctr-shim itself", "--init"),
    (
        "systemd",
        true,
        "nothing is prepared for systemd as the first process",
        "--tmpfs /run --tmpfs /run/lock --stop-signal SIGRTMIN+3",
    ),
    ("sdnotify", true, "no readiness is passed on", "ctr-start --attach --sdnotify, ctr-unit"),
    (
        "preserve-fds",
        true,
        "the container gets stdin, stdout and stderr alone",
        "-v of a named pipe, or ctr-start --stdin-fd",
    ),
    (
        "preserve-fd",
        true,
        "the container gets stdin, stdout and stderr alone",
        "-v of a named pipe, or ctr-start --stdin-fd",
    ),
    (
        "conmon-pidfile",
        true,
        "there is no conmon",
        "--pidfile, and shim_pid in $STAVES_RUN/containers/ID/state.json",
    ),
    ("isolation", true, "only \"default\" exists outside Windows", "leave it out"),
    ("disable-content-trust", false, "there is no content trust to switch off", "leave it out"),
    ("use-api-socket", false, "there is no engine's socket to give", "-v of the socket of an engine you run"),
    ("cpu-count", true, "it is for Windows", "--cpus"),
    ("cpu-percent", true, "it is for Windows", "--cpus"),
    ("io-maxbandwidth", true, "it is for Windows", "--device-read-bps, --device-write-bps"),
    ("io-maxiops", true, "it is for Windows", "--device-read-iops, --device-write-iops"),
    ("requires", true, "containers are started in the order they are piped", "ctr-start FIRST SECOND"),
    ("pod", true, "there are no pods", "--network, --ipc and --pid container:NAME"),
    ("pod-id-file", true, "there are no pods", "--network, --ipc and --pid container:NAME"),
    ("hostuser", true, "users of the host are not looked up", "--passwd-entry with its line of /etc/passwd"),
    ("shm-size-systemd", true, "nothing is prepared for systemd as the first process", "--tmpfs /run:size=…"),
    ("chrootdirs", true, "it is not supported", "-v"),
    ("seccomp-policy", true, "images' own system call filters are not used", "--security-opt seccomp=FILE"),
    (
        "decryption-key",
        true,
        "encrypted images are not read",
        "decrypt it first: skopeo copy --decryption-key",
    ),
    ("no-hostname", false, "/etc/hostname is always the container's", "-v of a file of your own over it"),
    ("no-hosts", false, "/etc/hosts is always the container's", "-v of a file of your own over it"),
];

/// The first one that was given.
#[derive(Clone, Debug, Default)]
pub struct Refused(Option<(&'static str, Option<String>)>);

impl Refused {
    /// Fails with usage if one was given.
    pub fn check(&self) -> Result<()> {
        let Some((name, value)) = &self.0 else { return Ok(()) };
        if (*name, value.as_deref()) == ("isolation", Some("default")) {
            return Ok(());
        }
        let (why, instead) =
            FLAGS.iter().find(|flag| flag.0 == *name).map_or(("", ""), |flag| (flag.2, flag.3));
        Err(Fault::usage(format!("--{name}: {why}")).hint(format!("instead: {instead}")))
    }
}

impl FromArgMatches for Refused {
    fn from_arg_matches(matches: &ArgMatches) -> std::result::Result<Refused, clap::Error> {
        let given = FLAGS.iter().find(|(name, ..)| matches.try_contains_id(name).unwrap_or(false));
        Ok(Refused(given.map(|(name, ..)| (*name, matches.get_one::<String>(name).cloned()))))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> std::result::Result<(), clap::Error> {
        *self = Refused::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Refused {
    fn augment_args(command: Command) -> Command {
        FLAGS.iter().fold(command, |command, (name, takes_value, ..)| {
            let flag = Arg::new(*name).long(*name).hide(true).action(ArgAction::Append);
            // A switch may be given as docker's, `--disable-content-trust=false`.
            command.arg(if *takes_value {
                flag.allow_hyphen_values(true)
            } else {
                flag.num_args(0..=1).require_equals(true).default_missing_value("true")
            })
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Refused::augment_args(command)
    }
}
