//! Words with few meanings: namespaces, restart policies.

use super::networks::is_name;
use fault::{Fault, Result};
use record::Config;
use std::path::PathBuf;

/// `--network`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NetworkMode {
    /// The default bridge or other networks: a namespace of its own, for `net-attach` to connect.
    #[default]
    Bridge,
    /// A namespace of its own that nothing connects unless told to.
    Private,
    /// A namespace of its own with loopback only.
    None,
    Host,
    /// That of another container, by name or id.
    Container(String),
    /// One that somebody else has made, by its file.
    Path(PathBuf),
}

impl NetworkMode {
    /// Of a record's `network` and `networks`.
    pub fn of(config: &Config) -> Result<NetworkMode> {
        let mode = NetworkMode::parse(config.network.as_deref().unwrap_or_default())?;
        if config.networks.is_empty() {
            return Ok(mode);
        }
        match &config.network {
            None => Ok(NetworkMode::Bridge),
            Some(network) => Err(Fault::input(format!("network={network} and networks exclude each other"))),
        }
    }

    pub fn parse(text: &str) -> Result<NetworkMode> {
        Ok(match text {
            "" | "default" | "bridge" => NetworkMode::Bridge,
            "private" => NetworkMode::Private,
            "none" => NetworkMode::None,
            "host" => NetworkMode::Host,
            other => match (container(other), other.strip_prefix("ns:")) {
                (Some(name), _) => NetworkMode::Container(name),
                (None, Some(path)) if path.starts_with('/') => NetworkMode::Path(PathBuf::from(path)),
                // There may be a network of this name.
                (None, None) if is_name(other) => NetworkMode::Bridge,
                _ => {
                    let known = "a network's name, bridge, none, host, private, container:NAME, ns:/PATH";
                    return Err(unknown("network", other, known));
                }
            },
        })
    }

    /// Whether the container gets a network namespace of its own.
    pub fn is_private(&self) -> bool {
        !matches!(self, NetworkMode::Host | NetworkMode::Container(_) | NetworkMode::Path(_))
    }
}

/// `--pid`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PidMode {
    #[default]
    Private,
    Host,
    Container(String),
}

impl PidMode {
    pub fn parse(text: &str) -> Result<PidMode> {
        Ok(match text {
            "" | "private" => PidMode::Private,
            "host" => PidMode::Host,
            other => match container(other) {
                Some(name) => PidMode::Container(name),
                None => return Err(unknown("pid mode", other, "private, host, container:NAME")),
            },
        })
    }
}

/// `--ipc`. Every private one can be joined, so `shareable` is `private`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum IpcMode {
    #[default]
    Private,
    /// A namespace of its own, without `/dev/shm`.
    None,
    Host,
    Container(String),
}

impl IpcMode {
    pub fn parse(text: &str) -> Result<IpcMode> {
        Ok(match text {
            "" | "private" | "shareable" => IpcMode::Private,
            "none" => IpcMode::None,
            "host" => IpcMode::Host,
            other => match container(other) {
                Some(name) => IpcMode::Container(name),
                None => {
                    return Err(unknown("ipc mode", other, "private, shareable, none, host, container:NAME"));
                }
            },
        })
    }
}

/// `--uts`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum UtsMode {
    #[default]
    Private,
    Host,
    Container(String),
}

impl UtsMode {
    pub fn parse(text: &str) -> Result<UtsMode> {
        Ok(match text {
            "" | "private" => UtsMode::Private,
            "host" => UtsMode::Host,
            other => match container(other) {
                Some(name) => UtsMode::Container(name),
                None => return Err(unknown("uts mode", other, "private, host, container:NAME")),
            },
        })
    }
}

/// `--cgroupns`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CgroupMode {
    /// docker's: a namespace of its own with version 2 control groups, the machine's with version 1.
    #[default]
    Default,
    Private,
    Host,
}

impl CgroupMode {
    pub fn parse(text: &str) -> Result<CgroupMode> {
        match text {
            "" => Ok(CgroupMode::Default),
            "private" => Ok(CgroupMode::Private),
            "host" => Ok(CgroupMode::Host),
            other => Err(unknown("cgroup namespace mode", other, "private, host")),
        }
    }
}

fn container(text: &str) -> Option<String> {
    text.strip_prefix("container:").filter(|name| !name.is_empty()).map(str::to_owned)
}

pub(super) fn unknown(what: &str, text: &str, known: &str) -> Fault {
    Fault::input(format!("there is no {what} \"{text}\"")).hint(format!("one of: {known}"))
}

/// `--restart`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RestartPolicy {
    #[default]
    No,
    /// After a status other than 0, at most so many times.
    OnFailure(Option<u32>),
    Always,
    UnlessStopped,
}

impl RestartPolicy {
    pub fn parse(text: &str) -> Result<RestartPolicy> {
        let wrong = || unknown("restart policy", text, "no, on-failure[:TIMES], always, unless-stopped");
        Ok(match text.split_once(':').map_or((text, None), |(name, times)| (name, Some(times))) {
            ("" | "no", None) => RestartPolicy::No,
            ("always", None) => RestartPolicy::Always,
            ("unless-stopped", None) => RestartPolicy::UnlessStopped,
            ("on-failure", None) => RestartPolicy::OnFailure(None),
            // docker's 0 means without end.
            ("on-failure", Some(times)) => {
                RestartPolicy::OnFailure(Some(times.parse().map_err(|_| wrong())?).filter(|times| *times > 0))
            }
            _ => return Err(wrong()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces() {
        assert_eq!(NetworkMode::parse("host").unwrap(), NetworkMode::Host);
        assert_eq!(NetworkMode::parse("container:web").unwrap(), NetworkMode::Container("web".into()));
        assert_eq!(IpcMode::parse("shareable").unwrap(), IpcMode::Private);
        assert_eq!(PidMode::parse("").unwrap(), PidMode::Private);
        assert!(NetworkMode::parse("container:").is_err());
        assert_eq!(NetworkMode::parse("mynet").unwrap(), NetworkMode::Bridge);
        assert_eq!(NetworkMode::parse("ns:/run/netns/a").unwrap(), NetworkMode::Path("/run/netns/a".into()));
        assert!(NetworkMode::parse("my/net").is_err() && NetworkMode::parse("ns:a").is_err());
        assert!(PidMode::parse("none").is_err());
        assert!(IpcMode::parse("Host").is_err());
        assert_eq!(UtsMode::parse("container:x").unwrap(), UtsMode::Container("x".into()));
        assert!(UtsMode::parse("none").is_err() && CgroupMode::parse("none").is_err());
    }

    #[test]
    fn restart_policies() {
        for (text, policy) in [
            ("no", RestartPolicy::No),
            ("always", RestartPolicy::Always),
            ("unless-stopped", RestartPolicy::UnlessStopped),
            ("on-failure", RestartPolicy::OnFailure(None)),
            ("on-failure:3", RestartPolicy::OnFailure(Some(3))),
            ("on-failure:0", RestartPolicy::OnFailure(None)),
        ] {
            assert_eq!(RestartPolicy::parse(text).unwrap(), policy);
        }
        for text in ["yes", "always:3", "on-failure:", "on-failure:-1", "no:1"] {
            assert!(RestartPolicy::parse(text).is_err(), "{text}");
        }
    }
}
