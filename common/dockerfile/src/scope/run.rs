//! `RUN`.

use super::{Action, InlineFile, Mount, Run, Scope, Words};
use crate::instruction::{self, Command, Heredoc};
use crate::mount::{Fields, Kind};
use crate::parser::heredoc;
use crate::shell::Variables;
use crate::{Problem, Source, text};

/// Where the script of a heredoc is mounted.
const SCRIPTS: &str = "/dev/pipes";
/// The shell of images that say nothing.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];

impl Scope {
    pub(super) fn run(
        &self,
        run: &instruction::Run,
        sources: &[Source],
        words: &mut Words,
    ) -> Result<(Action, Option<String>), Problem> {
        let (command, script) = match &run.command {
            Command::Exec(argv) => (argv.clone(), None),
            Command::Shell(line) => {
                let (line, script) = shell_line(line, &run.heredocs);
                (self.shell_form(&line), script)
            }
        };
        let mut mounts = Vec::new();
        for (place, flag) in run.mounts.iter().enumerate() {
            let fields = flag.resolve(&mut |value| self.word(value, words))?;
            let source = sources.get(place).cloned().unwrap_or(Source::Main);
            let ssh_before = mounts.iter().filter(|mount| matches!(mount, Mount::Ssh { .. })).count();
            mounts.push(self.mount(fields, source, ssh_before)?);
        }
        let history = format!("RUN {}{} # buildkit", self.args_of_history(), command.join(" "));
        let run = Run {
            argv: command,
            env: self.variables.list(),
            proxies: self.globals.proxies.clone(),
            workdir: self.directory().to_owned(),
            user: self.user.clone(),
            mounts,
            network: run.network,
            security: run.security,
            devices: run.devices.clone(),
            script,
        };
        Ok((Action::Run(run), Some(history)))
    }

    /// A line with the shell that reads it.
    pub(super) fn shell_form(&self, line: &str) -> Vec<String> {
        let shell = self.shell.iter().cloned();
        let default = SHELL.iter().filter(|_| self.shell.is_empty()).map(|word| (*word).to_owned());
        shell.chain(default).chain([line.to_owned()]).collect()
    }

    /// `|2 a=b c= `: the `ARG`s a command could see, with the values it saw.
    fn args_of_history(&self) -> String {
        if self.args.is_empty() {
            return String::new();
        }
        let arg = |(name, value): &(String, String)| {
            format!("{name}={} ", self.variables.value(name).unwrap_or(value))
        };
        let args: String = self.args.iter().map(arg).collect();
        format!("|{} {args}", self.args.len())
    }

    fn mount(&self, fields: Fields, source: Source, ssh_before: usize) -> Result<Mount, Problem> {
        let ownership_asked = fields.has_ownership();
        let path = text::clean(&format!("/{}", fields.source));
        Ok(match fields.kind {
            Kind::Bind => Mount::Bind {
                source,
                path,
                target: self.mount_target(&fields.target)?,
                read_only: fields.read_only,
            },
            Kind::Cache => Mount::Cache {
                id: if fields.id.is_empty() { text::clean(&fields.target) } else { fields.id.clone() },
                sharing: fields.sharing.unwrap_or_default(),
                // A cache begins empty if nothing else is said, not with the build's context.
                source: if fields.from.is_empty() { Source::Scratch } else { source },
                path,
                target: self.mount_target(&fields.target)?,
                read_only: fields.read_only,
                ownership: ownership_asked.then(|| fields.ownership(0o755)),
            },
            Kind::Tmpfs => Mount::Tmpfs {
                target: self.mount_target(&fields.target)?,
                size: fields.size,
                read_only: fields.read_only,
            },
            Kind::Secret => self.secret(&fields)?,
            Kind::Ssh => {
                let default = format!("/run/buildkit/ssh_agent.{ssh_before}");
                Mount::Ssh {
                    ownership: fields.ownership(0o600),
                    id: if fields.id.is_empty() { "default".to_owned() } else { fields.id },
                    target: if fields.target.is_empty() {
                        default
                    } else {
                        self.mount_target(&fields.target)?
                    },
                    env: (ssh_before == 0).then(|| "SSH_AUTH_SOCK".to_owned()),
                    required: fields.required,
                }
            }
        })
    }

    fn secret(&self, fields: &Fields) -> Result<Mount, Problem> {
        let id = [&fields.source, &fields.id].into_iter().find(|id| !id.is_empty()).cloned();
        let id = id.unwrap_or_else(|| base_name(&fields.target).to_owned());
        let target = match fields.target.as_str() {
            "" if fields.env.is_some() => None,
            "" => Some(format!("/run/secrets/{}", base_name(&id))),
            target => Some(self.mount_target(target)?),
        };
        Ok(Mount::Secret {
            id,
            target,
            env: fields.env.clone(),
            required: fields.required,
            ownership: fields.ownership(0o400),
        })
    }

    fn mount_target(&self, target: &str) -> Result<String, Problem> {
        let target = text::clean(&text::resolve(self.directory(), target));
        if target == "/" {
            return Err(Problem::new("a mount needs a target that is not /").hint("target=/some/directory"));
        }
        Ok(target)
    }
}

/// What the shell is given: the line, the content of the one heredoc that is all of it, or the line with its heredocs. A content
/// that begins with `#!` is a program of its own.
fn shell_line(line: &str, heredocs: &[Heredoc]) -> (String, Option<InlineFile>) {
    let Some(first) = heredocs.first() else { return (line.to_owned(), None) };
    if !matches!(heredoc(line), Ok(Some(_))) {
        let mut whole = line.to_owned();
        for heredoc in heredocs {
            whole.extend(["\n", &heredoc.content, &heredoc.name]);
        }
        return (whole, None);
    }
    let content = first.chomped();
    if !content.starts_with("#!") {
        return (content, None);
    }
    let path = format!("{SCRIPTS}/{}", file_name(&first.name));
    (path.clone(), Some(InlineFile { path, mode: 0o755, content }))
}

/// The name of a heredoc as that of one file.
fn file_name(name: &str) -> String {
    match name {
        "." | ".." => "script".to_owned(),
        name => name.replace(['/', '\0'], "_"),
    }
}

pub(super) fn base_name(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}

/// The beginning of what a heredoc holds, for people.
pub(super) fn summary(run: &instruction::Run) -> String {
    let (Command::Shell(line), Some(first)) = (&run.command, run.heredocs.first()) else {
        return String::new();
    };
    if !matches!(heredoc(line), Ok(Some(_))) {
        return String::new();
    }
    let content = first.content.trim();
    let more = if content.lines().nth(1).is_some() { "..." } else { "" };
    format!(" ({}{more})", crate::problem::shorten(content))
}
