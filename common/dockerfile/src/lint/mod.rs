//! What BuildKit warns of.

mod config;
mod names;
mod rules;
mod stages;
#[cfg(test)]
mod tests;

pub use rules::Rule;

use crate::instruction::Instruction;
use crate::plan::plan_all;
use crate::scope::{Action, AddSource, Change};
use crate::{
    Base, Dockerfile, File, Inherited, Lines, PlannedStage, Problem, Request, Scope, Source, Step, plan, text,
};
use config::Config;
use oci::{Platform, Reference};
use serde::Serialize;

/// The build argument that says which rules count, before the file's own `# check=`.
const CHECK: &str = "BUILDKIT_DOCKERFILE_CHECK";

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// BuildKit's name for it: `StageNameCasing`.
    pub rule: &'static str,
    pub description: &'static str,
    pub message: String,
    pub lines: Lines,
}

/// What a check cannot know from the file alone.
pub struct Facts<'a> {
    /// Whether the context's ignore file hides a path, so that `COPY` cannot find it. Paths are relative to the context and
    /// clean; `.` is the whole of it. False where exceptions (`!pattern`) make that undecidable.
    pub is_ignored: &'a dyn Fn(&str) -> bool,
    /// What stages have from an image. Where that is not known, variables are not said to be undefined.
    pub image: &'a dyn Fn(&Reference, &Platform) -> Option<Inherited>,
    /// All stages, or what the target needs.
    pub all_stages: bool,
}

/// What a check came to.
#[derive(Clone, Debug, Serialize)]
pub struct Checked {
    /// By line.
    pub findings: Vec<Finding>,
    /// Why it cannot be built at all.
    pub problem: Option<Problem>,
    /// `# check=error=true`: findings fail the build.
    pub error: bool,
}

/// Looks for everything BuildKit would warn of that these facts show.
pub fn check(file: &File, request: &Request, facts: &Facts<'_>) -> Checked {
    let mut check = Check { config: Config::default(), findings: Vec::new() };
    let problem = check.file(file, request, facts).err();
    check.findings.sort_by_key(|finding| finding.lines);
    Checked { findings: check.findings, problem, error: check.config.error }
}

/// A base image for another platform than was asked for, which only its configuration shows.
pub fn base_platform(name: &str, expected: &Platform, actual: &Platform, lines: Lines) -> Option<Finding> {
    let differs = expected.os != actual.os || expected.architecture != actual.architecture;
    let message = || {
        format!(
            "Base image {name} was pulled with platform \"{actual}\", expected \"{expected}\" for current build"
        )
    };
    differs.then(|| Rule::InvalidBaseImagePlatform.finding(lines, message()))
}

struct Check {
    config: Config,
    findings: Vec<Finding>,
}

impl Check {
    fn file(&mut self, file: &File, request: &Request, facts: &Facts<'_>) -> Result<(), Problem> {
        self.config = match (request.build_args.get(CHECK), &file.check) {
            (Some(text), _) => Config::parse(text)?,
            (None, Some((text, lines))) => Config::parse(text).map_err(|problem| problem.at(*lines))?,
            (None, None) => Config::default(),
        };
        for line in &file.empty_continuations {
            self.report(Rule::NoEmptyContinuation, Lines::one(*line), &[], "Empty continuation line");
        }
        self.nodes(file);
        let dockerfile = Dockerfile::of(file)?;
        self.stages(&dockerfile, request)?;
        let plan =
            if facts.all_stages { plan_all(&dockerfile, request)? } else { plan(&dockerfile, request)? };
        // Of each stage its scope, and whether its variables are all known.
        let mut scopes: Vec<(Scope, bool)> = Vec::new();
        for stage in &plan.stages {
            let (mut scope, known) = match &stage.base {
                Base::Stage(base) => scopes
                    .get(*base)
                    .map(|(scope, known)| (Scope::on(scope), *known))
                    .ok_or_else(|| Problem::new("a stage stands before its base").at(stage.lines))?,
                Base::Scratch => (Scope::new(&plan, &Inherited::scratch())?, true),
                Base::Context(_) => (Scope::new(&plan, &Inherited::default())?, false),
                Base::Image { reference, platform } => {
                    let inherited = (facts.image)(reference, platform);
                    let known = inherited.is_some();
                    (Scope::new(&plan, &inherited.unwrap_or_default())?, known)
                }
            };
            self.stage(stage, &mut scope, known, facts)?;
            scopes.push((scope, known));
        }
        Ok(())
    }

    fn report(&mut self, rule: Rule, lines: Lines, comments: &[String], message: impl Into<String>) {
        self.add(rule.finding(lines, message), comments);
    }

    fn add(&mut self, finding: Finding, comments: &[String]) {
        if self.config.wants(&finding, comments) {
            self.findings.push(finding);
        }
    }

    fn stage(
        &mut self,
        stage: &PlannedStage,
        scope: &mut Scope,
        known: bool,
        facts: &Facts<'_>,
    ) -> Result<(), Problem> {
        let mut last: [Option<Lines>; 3] = [None; 3];
        for instruction in &stage.instructions {
            let located = &instruction.located;
            let comments = located.comments.as_slice();
            let step = scope.step(instruction)?;
            for finding in &step.findings {
                if known || finding.rule != Rule::UndefinedVar.name() {
                    self.add(finding.clone(), comments);
                }
            }
            let once = match &located.value {
                Instruction::Cmd(_) => Some(0),
                Instruction::Entrypoint(_) => Some(1),
                Instruction::Healthcheck(_) => Some(2),
                _ => None,
            };
            if let Some(before) = once.and_then(|once| last[once].replace(located.lines)) {
                let message = format!(
                    "Multiple {} instructions should not be used in the same stage because only the last one will be used",
                    located.keyword
                );
                self.report(Rule::MultipleInstructionsDisallowed, before, comments, message);
            }
            self.pairs(&located.value, &located.keyword, &step, comments);
            self.ignored(&step, comments, facts);
        }
        Ok(())
    }

    /// `ENV name value`, and names that speak of secrets.
    fn pairs(&mut self, instruction: &Instruction, keyword: &str, step: &Step, comments: &[String]) {
        let (pairs, names): (&[_], Vec<&str>) = match (instruction, &step.action) {
            (Instruction::Env(pairs), Action::Config(Change::Env(set))) => {
                (pairs, set.iter().map(|(name, _)| name.as_str()).collect())
            }
            (Instruction::Label(pairs), _) => (pairs, Vec::new()),
            (Instruction::Arg(args), _) => (&[], args.iter().map(|arg| arg.name.as_str()).collect()),
            _ => return,
        };
        for _ in pairs.iter().filter(|pair| pair.legacy) {
            let message = format!(
                "\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format"
            );
            self.report(Rule::LegacyKeyValueFormat, step.lines, comments, message);
        }
        let kind = if matches!(instruction, Instruction::Arg(_)) { "ARG" } else { "ENV" };
        for name in names.into_iter().filter(|name| is_secret(name)) {
            let message = format!(
                "Do not use ARG or ENV instructions for sensitive data ({kind} {})",
                text::quote(name)
            );
            self.report(Rule::SecretsUsedInArgOrEnv, step.lines, comments, message);
        }
    }

    /// Sources in the context that the context leaves out.
    fn ignored(&mut self, step: &Step, comments: &[String], facts: &Facts<'_>) {
        let (keyword, sources): (_, Vec<&str>) = match &step.action {
            Action::Copy(copy) if copy.from == Source::Main => {
                ("Copy", copy.sources.iter().map(String::as_str).collect())
            }
            Action::Add(add) => ("Add", add.sources.iter().filter_map(local).collect()),
            _ => return,
        };
        for source in sources {
            let path = text::clean(source);
            let path = path.trim_start_matches('/');
            if (facts.is_ignored)(if path.is_empty() { "." } else { path }) {
                let message = format!(
                    "Attempting to {keyword} file {} that is excluded by .dockerignore",
                    text::quote(&text::clean(source))
                );
                self.report(Rule::CopyIgnoredFile, step.lines, comments, message);
            }
        }
    }
}

fn local(source: &AddSource) -> Option<&str> {
    match source {
        AddSource::Local(path) => Some(path),
        AddSource::Http(_) | AddSource::Git(_) => None,
    }
}

/// One of the words between `_` says so, and none says that it is only about one.
fn is_secret(name: &str) -> bool {
    const SECRET: [&str; 10] = [
        "apikey",
        "auth",
        "credential",
        "credentials",
        "key",
        "password",
        "pword",
        "passwd",
        "secret",
        "token",
    ];
    const ALLOWED: [&str; 3] = ["public", "file", "version"];
    let has = |words: &[&str]| name.split('_').any(|part| words.iter().any(|w| w.eq_ignore_ascii_case(part)));
    has(&SECRET) && !has(&ALLOWED)
}
