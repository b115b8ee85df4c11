//! `process`: what runs, as whom, with what around it.

use super::Generator;
use crate::capabilities::CapSet;
use crate::users;
use crate::wishes::{PidMode, UNLIMITED, env, ulimit_name};
use fault::{Fault, Result};
use oci_spec::runtime::{LinuxCapabilities, PosixRlimit, PosixRlimitBuilder, Process, User};
use std::path::PathBuf;

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where the init program is seen in the container.
pub(super) const INIT_PATH: &str = "/sbin/staves-init";

impl Generator<'_> {
    pub(super) fn process(
        &self,
        user: &users::Identity,
        hostname: &str,
        capabilities: CapSet,
    ) -> Result<Process> {
        let mut process = Process::default();
        process
            .set_terminal(Some(self.config.tty))
            .set_user(spec_user(user, self.wishes.umask))
            .set_args(Some(self.arguments()?))
            .set_env(Some(self.environment(user, hostname)?))
            .set_cwd(self.working_directory()?)
            .set_capabilities(Some(capability_sets(user.uid, capabilities)))
            .set_rlimits(self.rlimits()?)
            .set_no_new_privileges(Some(self.wishes.security.no_new_privileges))
            .set_oom_score_adj(self.wishes.resources.oom_score_adj)
            .set_apparmor_profile(self.apparmor()?);
        Ok(process)
    }

    /// Whether the init program goes before the command: only a process 1 has orphans to look after.
    pub(super) fn has_init(&self) -> bool {
        self.config.init && self.wishes.pid == PidMode::Private
    }

    fn arguments(&self) -> Result<Vec<String>> {
        let image = &self.image;
        let (entrypoint, default_command): (&[String], &[String]) = match self.config.entrypoint.as_deref() {
            // Another program would not know what to do with the image's arguments.
            Some([]) => (&[], &[]),
            Some([empty]) if empty.is_empty() => (&[], &[]),
            Some(words) => (words, &[]),
            None => (&image.entrypoint, &image.cmd),
        };
        let command = match self.config.command.as_deref() {
            Some(words) if !words.is_empty() => words,
            _ => default_command,
        };
        let mut arguments = Vec::with_capacity(2 + entrypoint.len() + command.len());
        if self.has_init() {
            arguments.extend([INIT_PATH.to_owned(), "--".to_owned()]);
        }
        let before = arguments.len();
        arguments.extend(entrypoint.iter().chain(command).cloned());
        if arguments.get(before).is_none_or(String::is_empty) {
            return Err(Fault::usage("no command to run: none was given and the image has none")
                .hint("put it at the end of the line, or in the record's config.command"));
        }
        if arguments.iter().any(|word| word.contains('\0')) {
            return Err(Fault::input("the command holds a zero byte"));
        }
        Ok(arguments)
    }

    /// docker's order: its own variables, the image's, the user's; a later one takes the place of an earlier one. Between
    /// them, as podman has it: the caller's under the image's, then those made of the image's.
    fn environment(&self, user: &users::Identity, hostname: &str) -> Result<Vec<String>> {
        let config = self.config;
        let mut environment = Vec::new();
        if !config.unsetenv_all {
            environment.extend([DEFAULT_PATH.to_owned(), format!("HOSTNAME={hostname}")]);
            if config.tty {
                environment.push("TERM=xterm".to_owned());
            }
            env::set_all(&mut environment, &config.env_host);
            let of_image = self.image.env.iter().filter(|text| text.find('=').is_some_and(|at| at > 0));
            env::set_all(&mut environment, of_image);
        }
        let before = environment.clone();
        environment.retain(|variable| !config.unsetenv.iter().any(|name| env::is_named(variable, name)));
        let merged: Vec<String> = config.env_merge.iter().map(|text| env::expand(text, &before)).collect();
        env::set_all(&mut environment, merged.iter().chain(&config.env).chain(&self.injected.env));
        let wants_home = !config.unsetenv_all && !config.unsetenv.iter().any(|name| name == "HOME");
        if wants_home && !env::has(&environment, "HOME") {
            environment.push(format!("HOME={}", user.home));
        }
        match environment.iter().find(|variable| variable.contains('\0')) {
            Some(_) => Err(Fault::input("an environment variable holds a zero byte")),
            None => Ok(environment),
        }
    }

    fn working_directory(&self) -> Result<PathBuf> {
        let wanted =
            self.config.workdir.as_deref().filter(|dir| !dir.is_empty()).unwrap_or(&self.image.working_dir);
        match wanted {
            "" | "/" => Ok(PathBuf::from("/")),
            dir if !dir.starts_with('/') => {
                Err(Fault::input(format!("the working directory \"{dir}\" is not an absolute path")))
            }
            // Text only; what symbolic links make of it is the runtime's to settle.
            dir => match crate::wishes::mount::clean_target(dir) {
                Ok(clean) => Ok(PathBuf::from(clean)),
                Err(_) if dir.contains('\0') => Err(Fault::input("the working directory holds a zero byte")),
                Err(_) => Ok(PathBuf::from("/")),
            },
        }
    }

    fn rlimits(&self) -> Result<Option<Vec<PosixRlimit>>> {
        let mut limits: Vec<PosixRlimit> = Vec::new();
        for wish in &self.wishes.ulimits {
            let highest = self
                .facts
                .hard_limits
                .iter()
                .find(|(kind, _)| *kind == wish.kind)
                .map_or(UNLIMITED, |(_, hard)| *hard);
            if wish.hard > highest && !self.facts.capabilities.has("SYS_RESOURCE") {
                let name = ulimit_name(wish.kind);
                return Err(Fault::denied(format!(
                    "the limit {name} cannot be raised above {highest} without CAP_SYS_RESOURCE"
                ))
                .hint(format!("ask for at most {highest}, or raise this process's own hard limit")));
            }
            let limit = PosixRlimitBuilder::default()
                .typ(wish.kind)
                .soft(wish.soft)
                .hard(wish.hard)
                .build()
                .map_err(|error| Fault::failed("write the limits").because(error))?;
            // The last of several of one kind counts.
            limits.retain(|present| present.typ() != wish.kind);
            limits.push(limit);
        }
        Ok((!limits.is_empty()).then_some(limits))
    }

    fn apparmor(&self) -> Result<Option<String>> {
        let Some(profile) = &self.wishes.security.apparmor else { return Ok(None) };
        if self.facts.apparmor {
            return Ok(Some(profile.clone()));
        }
        if profile == "unconfined" {
            return Ok(None);
        }
        Err(Fault::failed(format!(
            "the apparmor profile \"{profile}\" cannot be applied: AppArmor is not enabled on this machine"
        )))
    }
}

fn spec_user(user: &users::Identity, umask: Option<u32>) -> User {
    let mut spec = User::default();
    spec.set_umask(umask);
    spec.set_uid(user.uid).set_gid(user.gid).set_additional_gids(Some(user.groups.clone()));
    spec
}

/// Only root keeps effective capabilities over an exec (capabilities(7)); for others the bounding set remains, which
/// set-uid programs can use. Nothing is inheritable or ambient (CVE-2022-24769).
fn capability_sets(uid: u32, bounding: CapSet) -> LinuxCapabilities {
    let given = if uid == 0 { bounding } else { CapSet::EMPTY };
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(Some(bounding.to_spec()))
        .set_permitted(Some(given.to_spec()))
        .set_effective(Some(given.to_spec()))
        .set_inheritable(None)
        .set_ambient(None);
    sets
}
