//! `FROM`: names and platforms made of variables.

use super::{Check, Rule};
use crate::plan::arguments::global_args;
use crate::shell::{Expanded, Lex, Variables};
use crate::{Dockerfile, Problem, Request, Stage, suggest};
use oci::{Platform, Reference};
use std::collections::{BTreeMap, BTreeSet};

impl Check {
    pub(super) fn stages(&mut self, dockerfile: &Dockerfile, request: &Request) -> Result<(), Problem> {
        self.stage_names(dockerfile);
        self.casing(dockerfile);
        self.defaults(dockerfile, request);
        let args = global_args(dockerfile, request, "", &request.build_args)?;
        let declared = dockerfile.global_args.iter().flat_map(|located| &located.value);
        let known: BTreeSet<&str> = declared.map(|arg| arg.name.as_str()).chain(args.names()).collect();
        let lex = Lex::new(dockerfile.escape);
        for stage in &dockerfile.stages {
            let locate = |problem: Problem| problem.at(stage.lines).of(&stage.text);
            let base = lex.word(&stage.base, &args).map_err(locate)?;
            self.undeclared(stage, &base, &known);
            let Some(platform) = &stage.platform else { continue };
            let expanded = lex.word(platform, &args).map_err(locate)?;
            self.undeclared(stage, &expanded, &known);
            self.platform(stage, platform, &expanded, args.value("TARGETPLATFORM"));
        }
        Ok(())
    }

    /// A base that is no image's name unless the user gives an argument.
    fn defaults(&mut self, dockerfile: &Dockerfile, request: &Request) {
        // What fails here fails again where it is told.
        let Ok(args) = global_args(dockerfile, request, "", &BTreeMap::new()) else { return };
        for stage in &dockerfile.stages {
            let Ok(base) = Lex::new(dockerfile.escape).word(&stage.base, &args) else { return };
            let is_stage = dockerfile
                .stages
                .iter()
                .any(|other| other.name.as_deref().is_some_and(|name| name.eq_ignore_ascii_case(&base.text)));
            if !is_stage && Reference::parse(&base.text).is_err() {
                let message = format!(
                    "Default value for ARG {} results in empty or invalid base image name",
                    stage.base
                );
                self.report(Rule::InvalidDefaultArgInFrom, stage.lines, &[], message);
            }
        }
    }

    fn undeclared(&mut self, stage: &Stage, word: &Expanded, known: &BTreeSet<&str>) {
        for name in word.unset.iter().filter(|name| !known.contains(name.as_str())) {
            let meant = suggest::nearest(name, known.iter().copied().take(1000));
            let meant = meant.map(|meant| format!(" (did you mean {meant}?)")).unwrap_or_default();
            let message = format!("FROM argument '{name}' is not declared{meant}");
            self.report(Rule::UndefinedArgInFrom, stage.lines, &stage.comments, message);
        }
    }

    fn platform(&mut self, stage: &Stage, text: &str, expanded: &Expanded, target: Option<&str>) {
        let is_target = expanded.used.len() == 1 && expanded.used.contains("TARGETPLATFORM");
        if is_target && expanded.unset.is_empty() && target == Some(expanded.text.as_str()) {
            let message = format!(
                "Setting platform to predefined {text} in FROM is redundant as this is the default behavior"
            );
            self.report(Rule::RedundantTargetPlatform, stage.lines, &stage.comments, message);
        }
        if !expanded.used.is_empty() || !expanded.unset.is_empty() {
            return;
        }
        let Ok(platform) = Platform::parse(&expanded.text) else { return };
        // A stage that is called after its platform is meant to have it.
        let name = stage.name.as_deref().unwrap_or_default();
        if !name.contains(&platform.os) && !name.contains(&platform.architecture) {
            let message = format!(
                "FROM --platform flag should not use constant value {}",
                crate::text::quote(&expanded.text)
            );
            self.report(Rule::FromPlatformFlagConstDisallowed, stage.lines, &stage.comments, message);
        }
    }
}
