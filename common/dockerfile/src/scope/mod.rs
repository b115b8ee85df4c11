//! A stage on its way: its variables, its directory and its shell, and what each instruction means under them.

mod config;
mod expose;
mod files;
mod inherited;
mod run;
mod step;
#[cfg(test)]
mod tests;

pub use inherited::Inherited;
pub use step::{Action, Add, AddSource, Change, Chmod, Copy, InlineFile, Mount, Placement, Run, Step};

use crate::instruction::{Arg, Instruction};
use crate::lint::Rule;
use crate::plan::Globals;
use crate::plan::environment::Environment;
use crate::shell::{Lex, Variables, Work};
use crate::{Finding, Lines, Plan, PlannedInstruction, Problem, limits, suggest, text};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Where programs are looked for when an image does not say.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// `ARG`s that speak to the builder and are no variables.
const NO_VARIABLES: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// Names among which a similar one is looked for.
const SIMILAR_AMONG: usize = 1000;

/// Characters of a title.
const TITLE: usize = 1000;

/// The state a stage's instructions are read in, one after the other.
#[derive(Clone, Debug)]
pub struct Scope {
    globals: Arc<Globals>,
    lex: Lex,
    /// Of the image and of `ARG`s. Of an `ENV` and an `ARG` of the same name the later one counts, as in BuildKit.
    variables: Environment,
    /// Of the image alone, `NAME=value`.
    env: Vec<String>,
    env_places: HashMap<String, usize>,
    /// The `ARG`s in the order they were declared, with the values they had.
    args: Vec<(String, String)>,
    arg_places: HashMap<String, usize>,
    shell: Vec<String>,
    /// As the image's configuration has it: may be empty.
    workdir: String,
    user: String,
    has_workdir: bool,
    has_cmd: bool,
    history_bytes: usize,
}

impl Scope {
    /// Of a stage whose base is an image, a context or scratch.
    ///
    /// # Errors
    /// An environment that is too large.
    pub fn new(plan: &Plan, base: &Inherited) -> Result<Scope, Problem> {
        let mut scope = Scope {
            lex: Lex::new(plan.globals.escape),
            globals: Arc::clone(&plan.globals),
            variables: Environment::default(),
            env: Vec::new(),
            env_places: HashMap::new(),
            args: Vec::new(),
            arg_places: HashMap::new(),
            shell: base.shell.clone(),
            workdir: String::new(),
            user: base.user.clone(),
            has_workdir: false,
            has_cmd: false,
            history_bytes: 0,
        };
        for variable in &base.env {
            let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
            scope.set_env(name, value)?;
        }
        if scope.variables.value("PATH").is_none() {
            let (name, value) = PATH.split_once('=').unwrap_or_default();
            scope.set_env(name, value)?;
        }
        if !base.workdir.is_empty() {
            scope.workdir = text::resolve("/", &base.workdir);
        }
        Ok(scope)
    }

    /// Of a stage whose base is another, which `base` has come to the end of. It has the `ARG`s of that stage, too.
    #[must_use]
    pub fn on(base: &Scope) -> Scope {
        Scope { has_cmd: false, ..base.clone() }
    }

    /// Reads the next instruction. They are taken in order, each once.
    ///
    /// # Errors
    /// What docker finds out when it gets there: expansions that fail, malformed mounts, modes, ports and signals.
    pub fn step(&mut self, instruction: &PlannedInstruction) -> Result<Step, Problem> {
        let located = &instruction.located;
        let done = self.resolve(instruction).and_then(|step| {
            self.history_bytes += step.history.as_ref().map_or(0, String::len);
            if self.history_bytes > limits::HISTORY_BYTES {
                return Err(Problem::new("the image's history grows too large"));
            }
            Ok(step)
        });
        done.map_err(|problem| problem.at(located.lines).of(&located.text))
    }

    /// `Env` of the image: what the base had and `ENV` set, `PATH` in any case. `ARG`s are not in it.
    pub fn env(&self) -> &[String] {
        &self.env
    }

    /// `WorkingDir` of the image; empty if nothing set it.
    pub fn workdir(&self) -> &str {
        &self.workdir
    }

    /// `User` of the image.
    pub fn user(&self) -> &str {
        &self.user
    }

    fn resolve(&mut self, instruction: &PlannedInstruction) -> Result<Step, Problem> {
        let located = &instruction.located;
        let mut words = Words {
            keyword: located.keyword.clone(),
            lines: located.lines,
            unset: BTreeSet::new(),
            findings: Vec::new(),
            bytes: 0,
        };
        let (action, history) = match &located.value {
            Instruction::Run(run) => self.run(run, &instruction.sources, &mut words)?,
            Instruction::Copy(copy) => self.copy(copy, instruction.sources.first(), &mut words)?,
            Instruction::Add(add) => self.add(add, &mut words)?,
            Instruction::Arg(args) => self.arg(args, &mut words)?,
            other => self.config(other, &mut words)?,
        };
        let mut title = self.title(instruction);
        if let (Instruction::Run(run), Action::Run(_)) = (&located.value, &action) {
            title.push_str(&run::summary(run));
        }
        let layer = match &action {
            Action::Run(_) | Action::Copy(_) | Action::Add(_) => true,
            Action::Workdir(path) => path != "/",
            Action::Config(_) | Action::Arg => false,
        };
        let findings = self.findings(words);
        Ok(Step { lines: located.lines, title, history, layer, action, findings })
    }

    /// One word of an instruction, expanded.
    fn word(&self, word: &str, words: &mut Words) -> Result<String, Problem> {
        self.expand(self.lex, word, words)
    }

    fn expand(&self, lex: Lex, word: &str, words: &mut Words) -> Result<String, Problem> {
        // Scopes of one plan may be read at the same time; what they lose count of does not matter.
        let mut work = Work(self.globals.work.load(Ordering::Relaxed));
        let expanded = lex.word_within(word, &self.variables, &mut work);
        self.globals.work.store(work.0, Ordering::Relaxed);
        let expanded = expanded?;
        words.unset.extend(expanded.unset);
        words.grow(expanded.text.len())?;
        Ok(expanded.text)
    }

    fn optional(&self, word: Option<&String>, words: &mut Words) -> Result<Option<String>, Problem> {
        let expanded = word.map(|word| self.word(word, words)).transpose()?;
        Ok(expanded.filter(|word| !word.is_empty()))
    }

    fn all(&self, list: &[String], words: &mut Words) -> Result<Vec<String>, Problem> {
        list.iter().map(|word| self.word(word, words)).collect()
    }

    /// The directory that relative paths begin at.
    fn directory(&self) -> &str {
        if self.workdir.is_empty() { "/" } else { &self.workdir }
    }

    fn set_env(&mut self, name: &str, value: &str) -> Result<(), Problem> {
        self.variables.set(name, value.to_owned())?;
        let variable = format!("{name}={value}");
        if let Some(place) = self.env_places.get(name) {
            self.env[*place] = variable;
        } else {
            self.env_places.insert(name.to_owned(), self.env.len());
            self.env.push(variable);
        }
        Ok(())
    }

    /// A value comes from the user, from the default, or from the `ARG` before the first `FROM`.
    fn arg(&mut self, args: &[Arg], words: &mut Words) -> Result<(Action, Option<String>), Problem> {
        let mut history = String::from("ARG");
        for arg in args {
            let value = match (self.globals.build_args.get(&arg.name), &arg.default) {
                (Some(value), _) => Some(value.clone()),
                (None, Some(default)) => Some(self.word(default, words)?),
                (None, None) => self.globals.args.value(&arg.name).map(str::to_owned),
            };
            history.push(' ');
            history.push_str(&arg.name);
            if let Some(value) = &value {
                history.push('=');
                history.push_str(value);
                if !NO_VARIABLES.contains(&arg.name.as_str()) {
                    self.variables.set(&arg.name, value.clone())?;
                }
            }
            let value = value.unwrap_or_default();
            if let Some(place) = self.arg_places.get(&arg.name) {
                self.args[*place].1 = value;
            } else {
                self.arg_places.insert(arg.name.clone(), self.args.len());
                self.args.push((arg.name.clone(), value));
            }
        }
        Ok((Action::Arg, Some(history)))
    }

    /// The instruction as people wrote it, with the values of the variables that have any.
    fn title(&self, instruction: &PlannedInstruction) -> String {
        let text = &instruction.located.text;
        let is_run = matches!(instruction.located.value, Instruction::Run(_));
        let lex = Lex { raw_quotes: is_run, skip_unset: true, ..self.lex };
        let title = lex.word(text, &self.variables).map_or_else(|_| text.clone(), |word| word.text);
        let (keyword, rest) = title.split_at(title.find(char::is_whitespace).unwrap_or(title.len()));
        let trigger = if instruction.trigger { "ONBUILD " } else { "" };
        let title = format!("{trigger}{}{rest}", keyword.to_uppercase());
        match title.char_indices().nth(TITLE) {
            Some((end, _)) => format!("{}…", &title[..end]),
            None => title,
        }
    }

    fn findings(&self, words: Words) -> Vec<Finding> {
        let undeclared = words.unset.iter().filter(|name| {
            !self.arg_places.contains_key(name.as_str()) && !NO_VARIABLES.contains(&name.as_str())
        });
        let undefined = undeclared.map(|name| {
            let few = self.variables.len() <= SIMILAR_AMONG;
            let meant = suggest::nearest(name, self.variables.names().filter(|_| few));
            let meant = meant.map(|meant| format!(" (did you mean ${meant}?)")).unwrap_or_default();
            Rule::UndefinedVar.finding(words.lines, format!("Usage of undefined variable '${name}'{meant}"))
        });
        let undefined: Vec<Finding> = undefined.collect();
        [words.findings, undefined].concat()
    }
}

/// What comes to light while the words of an instruction are expanded.
struct Words {
    keyword: String,
    lines: Lines,
    unset: BTreeSet<String>,
    findings: Vec<Finding>,
    bytes: usize,
}

impl Words {
    /// Many short words may name one long variable.
    fn grow(&mut self, bytes: usize) -> Result<(), Problem> {
        self.bytes += bytes;
        if self.bytes > limits::WORD_BYTES {
            return Err(Problem::new(format!("its words grow beyond {} bytes", limits::WORD_BYTES)));
        }
        Ok(())
    }
}
