//! Instructions that change the image's configuration alone.

use super::{Action, Change, Scope, Words, expose};
use crate::instruction::{Command, Healthcheck, Instruction, Pair};
use crate::lint::Rule;
use crate::{Problem, text};

impl Scope {
    /// What becomes of the configuration, and the history's entry.
    pub(super) fn config(
        &mut self,
        instruction: &Instruction,
        words: &mut Words,
    ) -> Result<(Action, Option<String>), Problem> {
        let (change, history) = match instruction {
            Instruction::Workdir(path) => return self.workdir_to(path, words),
            Instruction::Onbuild(expression) => {
                return Ok((Action::Config(Change::Onbuild(expression.clone())), None));
            }
            Instruction::Env(pairs) => {
                let pairs = self.pairs(pairs, words)?;
                for (name, value) in &pairs {
                    self.set_env(name, value)?;
                }
                let history = pairs_text("ENV", &pairs);
                (Change::Env(pairs), history)
            }
            Instruction::Label(pairs) => {
                let pairs = self.pairs(pairs, words)?;
                let history = pairs_text("LABEL", &pairs);
                (Change::Label(pairs), history)
            }
            Instruction::Cmd(command) => {
                let argv = self.argv(command, words);
                self.has_cmd = true;
                let history = format!("CMD {}", text::quoted_list(&argv));
                (Change::Cmd(argv), history)
            }
            Instruction::Entrypoint(command) => {
                let argv = self.argv(command, words);
                let history = format!("ENTRYPOINT {}", text::quoted_list(&argv));
                (Change::Entrypoint { argv, resets_cmd: !self.has_cmd }, history)
            }
            Instruction::Expose(ports) => {
                let mut separate = Vec::new();
                for port in ports {
                    let (more, unset) = self.lex.words(port, &self.variables)?;
                    words.unset.extend(unset);
                    words.grow(more.iter().map(String::len).sum())?;
                    separate.extend(more);
                }
                let ports = expose::ports(&separate, words.lines, &mut words.findings)?;
                let history = format!("EXPOSE {}", text::list(&ports));
                (Change::Expose(ports), history)
            }
            Instruction::User(user) => {
                self.user = self.word(user, words)?;
                (Change::User(self.user.clone()), format!("USER {}", self.user))
            }
            Instruction::Volume(volumes) => {
                let volumes = self.all(volumes, words)?;
                if volumes.iter().any(String::is_empty) {
                    return Err(Problem::new("a VOLUME can not be an empty string"));
                }
                let history = format!("VOLUME {}", text::list(&volumes));
                (Change::Volume(volumes), history)
            }
            Instruction::StopSignal(signal) => {
                let signal = self.word(signal, words)?;
                oci::wishes::signal(&signal).map_err(|fault| {
                    let problem = Problem::new(fault.to_string());
                    match fault.hint_text() {
                        Some(hint) => problem.hint(hint),
                        None => problem,
                    }
                })?;
                let history = format!("STOPSIGNAL {signal}");
                (Change::StopSignal(signal), history)
            }
            Instruction::Shell(shell) => {
                self.shell.clone_from(shell);
                (Change::Shell(shell.clone()), format!("SHELL {}", text::list(shell)))
            }
            Instruction::Healthcheck(check) => (Change::Healthcheck(check.clone()), health_text(check)),
            Instruction::Maintainer(name) => (Change::Maintainer(name.clone()), format!("MAINTAINER {name}")),
            Instruction::Run(_) | Instruction::Copy(_) | Instruction::Add(_) | Instruction::Arg(_) => {
                return Err(Problem::new("the instruction changes more than the configuration"));
            }
        };
        Ok((Action::Config(change), Some(history)))
    }

    fn workdir_to(&mut self, path: &str, words: &mut Words) -> Result<(Action, Option<String>), Problem> {
        let path = self.word(path, words)?;
        if !self.has_workdir && !path.starts_with('/') {
            let message = format!(
                "Relative workdir {} can have unexpected results if the base image changes",
                text::quote(&path)
            );
            words.findings.push(Rule::WorkdirRelativePath.finding(words.lines, message));
        }
        self.has_workdir = true;
        self.workdir = text::resolve(self.directory(), &path);
        if self.workdir.len() > MAX_PATH {
            return Err(Problem::new(format!("the directory's name is longer than {MAX_PATH} bytes")));
        }
        Ok((Action::Workdir(self.workdir.clone()), Some(format!("WORKDIR {}", self.workdir))))
    }

    /// All pairs see the variables as they were before the instruction.
    fn pairs(&self, pairs: &[Pair], words: &mut Words) -> Result<Vec<(String, String)>, Problem> {
        let mut expanded = Vec::new();
        for pair in pairs {
            let (name, value) = (self.word(&pair.name, words)?, self.word(&pair.value, words)?);
            if name.is_empty() {
                return Err(Problem::new(format!("the name {:?} is empty", pair.name)));
            }
            expanded.push((name, value));
        }
        Ok(expanded)
    }

    fn argv(&self, command: &Command, words: &mut Words) -> Vec<String> {
        let line = match command {
            Command::Exec(argv) => return argv.clone(),
            Command::Shell(line) => line,
        };
        // Who chooses a shell means it.
        if self.shell.is_empty() {
            let message = format!(
                "JSON arguments recommended for {} to prevent unintended behavior related to OS signals",
                words.keyword
            );
            words.findings.push(Rule::JsonArgsRecommended.finding(words.lines, message));
        }
        self.shell_form(line)
    }
}

/// The kernel's, where a name cannot be used any more; without a bound it would grow with every instruction.
const MAX_PATH: usize = 4096;

fn pairs_text(keyword: &str, pairs: &[(String, String)]) -> String {
    let mut text = keyword.to_owned();
    for (name, value) in pairs {
        text.extend([" ", name, "=", value]);
    }
    text
}

/// `%+v` of the configuration's structure.
fn health_text(check: &Healthcheck) -> String {
    format!(
        "HEALTHCHECK {{Test:{} Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
        text::list(&check.test),
        text::duration(check.interval),
        text::duration(check.timeout),
        text::duration(check.start_period),
        text::duration(check.start_interval),
        check.retries
    )
}
