//! From names to stages, images and contexts.

use super::arguments;
use super::{Base, Globals, Plan, PlannedInstruction, PlannedStage, Request, Source};
use crate::instruction::{Instruction, triggers};
use crate::shell::{Lex, Nothing};
use crate::{Dockerfile, Located, Problem, Stage, limits, suggest};
use oci::{Platform, Reference};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What a trigger costs beside its text.
const TRIGGER: usize = 512;

/// # Errors
/// A target or a base that is not there, stages that need later ones, malformed names, platforms and mounts.
pub fn plan(dockerfile: &Dockerfile, request: &Request) -> Result<Plan, Problem> {
    Planner::new(dockerfile, request)?.plan(false)
}

/// With all stages, needed or not.
pub(crate) fn plan_all(dockerfile: &Dockerfile, request: &Request) -> Result<Plan, Problem> {
    Planner::new(dockerfile, request)?.plan(true)
}

/// Places here are those of the file.
struct Planner<'a> {
    stages: &'a [Stage],
    dockerfile: &'a Dockerfile,
    request: &'a Request,
    globals: Globals,
    target: usize,
    bases: Vec<Base>,
    platforms: Vec<Platform>,
}

impl<'a> Planner<'a> {
    fn new(dockerfile: &'a Dockerfile, request: &'a Request) -> Result<Planner<'a>, Problem> {
        let target = target(dockerfile, request)?;
        let name = match &request.target {
            Some(name) => name.as_str(),
            None => dockerfile.stages[target].name.as_deref().unwrap_or("default"),
        };
        let mut planner = Planner {
            stages: &dockerfile.stages,
            dockerfile,
            request,
            globals: arguments::globals(dockerfile, request, name)?,
            target,
            bases: Vec::new(),
            platforms: Vec::new(),
        };
        for (index, stage) in dockerfile.stages.iter().enumerate() {
            let locate = |problem: Problem| problem.at(stage.lines).of(&stage.text);
            let (base, platform) = planner.base(index, stage).map_err(locate)?;
            planner.bases.push(base);
            planner.platforms.push(platform);
        }
        Ok(planner)
    }

    fn plan(&self, all: bool) -> Result<Plan, Problem> {
        let mut bytes = 0;
        let mut instructions = Vec::new();
        for index in 0..self.stages.len() {
            instructions.push(self.instructions(index, &mut bytes)?);
        }
        let needed = if all { (0..self.stages.len()).collect() } else { self.needed(&instructions) };
        let place = |index: &usize| needed.iter().position(|needed| needed == index).unwrap_or(0);
        let places: Vec<usize> = (0..self.stages.len()).map(|index| place(&index)).collect();
        let mut stages = Vec::new();
        for (index, mut instructions) in instructions.into_iter().enumerate() {
            if !needed.contains(&index) {
                continue;
            }
            let mut depends_on = BTreeSet::new();
            let base = match &self.bases[index] {
                Base::Stage(index) => {
                    depends_on.insert(places[*index]);
                    Base::Stage(places[*index])
                }
                base => base.clone(),
            };
            for source in instructions.iter_mut().flat_map(|instruction| &mut instruction.sources) {
                if let Source::Stage(index) = source {
                    *index = places[*index];
                    depends_on.insert(*index);
                }
            }
            self.check_mounts(&instructions)?;
            stages.push(PlannedStage {
                index,
                name: self.name(index),
                lines: self.stages[index].lines,
                text: self.stages[index].text.clone(),
                base,
                platform: self.platforms[index].clone(),
                instructions,
                depends_on: depends_on.into_iter().collect(),
            });
        }
        let planned = stages.iter().flat_map(|stage| &stage.instructions).map(|i| &i.located.value);
        Ok(Plan {
            warnings: arguments::warnings(self.dockerfile, self.request, planned),
            source_date_epoch: arguments::source_date_epoch(&self.globals),
            globals: Arc::new(self.globals.clone()),
            stages,
        })
    }

    fn name(&self, index: usize) -> String {
        self.stages[index].name.clone().unwrap_or_else(|| format!("stage-{index}"))
    }

    /// The target and what it needs, in the order of the file: stages need earlier ones alone.
    fn needed(&self, instructions: &[Vec<PlannedInstruction>]) -> BTreeSet<usize> {
        let mut needed = BTreeSet::new();
        let mut open = vec![self.target];
        while let Some(index) = open.pop() {
            if !needed.insert(index) {
                continue;
            }
            if let Base::Stage(base) = self.bases[index] {
                open.push(base);
            }
            open.extend(instructions[index].iter().flat_map(|i| &i.sources).filter_map(
                |source| match source {
                    Source::Stage(index) => Some(*index),
                    _ => None,
                },
            ));
        }
        needed
    }

    fn base(&self, index: usize, stage: &Stage) -> Result<(Base, Platform), Problem> {
        let lex = Lex::new(self.dockerfile.escape);
        let base = lex.word(&stage.base, &self.globals.args)?;
        let platform = match &stage.platform {
            Some(platform) => self.platform(platform)?,
            None => self.request.platform.clone(),
        };
        // A context with the stage's own name stands in for it.
        if let Some(context) = stage.name.as_deref().and_then(|name| self.context(name)) {
            return Ok((Base::Context(context), platform));
        }
        if base.text.is_empty() {
            let problem = Problem::new(format!("the base is empty: {}", stage.base));
            return Err(match base.unset.iter().find_map(|name| self.meant(name)) {
                Some(hint) => problem.hint(hint),
                None => problem.hint("an ARG before the first FROM gives it a value"),
            });
        }
        if let Some(earlier) = self.earlier(&base.text, index) {
            return Ok(match &self.bases[earlier] {
                Base::Context(context) if self.is_replaced(earlier) => {
                    (Base::Context(context.clone()), self.platforms[earlier].clone())
                }
                _ => (Base::Stage(earlier), self.platforms[earlier].clone()),
            });
        }
        if base.text == "scratch" {
            return Ok((Base::Scratch, platform));
        }
        if let Some(context) = self.context(&base.text) {
            return Ok((Base::Context(context), platform));
        }
        let reference = self.image(&base.text, index)?;
        Ok((Base::Image { reference, platform: platform.clone() }, platform))
    }

    fn platform(&self, text: &str) -> Result<Platform, Problem> {
        let platform = Lex::new(self.dockerfile.escape).word(text, &self.globals.args)?;
        let suggested = |problem: Problem| match platform.unset.iter().find_map(|name| self.meant(name)) {
            Some(hint) => problem.hint(hint),
            None => problem,
        };
        if platform.text.is_empty() {
            return Err(suggested(Problem::new(format!("the platform is empty: {text}"))));
        }
        Platform::parse(&platform.text).map_err(|fault| suggested(Problem::new(fault.to_string())))
    }

    fn meant(&self, variable: &str) -> Option<String> {
        suggest::hint(variable, self.globals.args.names().take(1000))
    }

    /// The nearest stage of a name before another.
    fn earlier(&self, name: &str, before: usize) -> Option<usize> {
        self.stages[..before].iter().rposition(|stage| is_named(stage, name))
    }

    /// Whether a context has the name of the stage itself: then the stage is not built.
    fn is_replaced(&self, index: usize) -> bool {
        self.stages[index].name.as_deref().is_some_and(|name| self.context(name).is_some())
    }

    /// The `--build-context` of a name, which is read as an image's is.
    fn context(&self, name: &str) -> Option<String> {
        if name.eq_ignore_ascii_case("scratch") || name.eq_ignore_ascii_case("context") {
            return None;
        }
        let wanted = canonical(name);
        self.request.contexts.iter().find(|context| canonical(context) == wanted).cloned()
    }

    /// An image's name, or what may have been meant for one.
    fn image(&self, name: &str, before: usize) -> Result<Reference, Problem> {
        let names = self.stages[..before].iter().filter_map(|stage| stage.name.as_deref());
        Reference::parse(name).map_err(|fault| {
            let problem = Problem::new(fault.to_string());
            match suggest::hint(&name.to_lowercase(), names) {
                Some(hint) => problem.hint(hint),
                None => problem,
            }
        })
    }

    /// The instructions of a stage, those of its base's `ONBUILD` first. `bytes`: of all triggers so far, because many stages may
    /// have the same.
    fn instructions(&self, index: usize, bytes: &mut usize) -> Result<Vec<PlannedInstruction>, Problem> {
        if self.is_replaced(index) {
            return Ok(Vec::new());
        }
        let stage = &self.stages[index];
        let locate = |problem: Problem| problem.at(stage.lines).of(&stage.text);
        let mut expressions = self.request.triggers.get(&index).cloned().unwrap_or_default();
        if let Base::Stage(base) = self.bases[index] {
            expressions.extend(self.stages[base].instructions.iter().filter_map(|i| match &i.value {
                Instruction::Onbuild(expression) => Some(expression.clone()),
                _ => None,
            }));
        }
        *bytes += expressions.iter().map(|expression| expression.len() + TRIGGER).sum::<usize>();
        if *bytes > limits::FILE_BYTES {
            return Err(locate(Problem::new("there are too many ONBUILD triggers")));
        }
        let triggers = triggers(&expressions).map_err(locate)?;
        let triggers = triggers.into_iter().map(|trigger| (Located { lines: stage.lines, ..trigger }, true));
        let own = stage.instructions.iter().map(|located| (located.clone(), false));
        let planned = |(located, trigger): (Located<Instruction>, bool)| {
            let sources = self
                .sources(&located.value, index)
                .map_err(|problem| problem.at(located.lines).of(&located.text))?;
            Ok(PlannedInstruction { located, trigger, sources })
        };
        triggers.chain(own).map(planned).collect()
    }

    fn sources(&self, instruction: &Instruction, index: usize) -> Result<Vec<Source>, Problem> {
        match instruction {
            Instruction::Copy(copy) => {
                let from = copy.from.as_deref();
                if let Some(from) = from {
                    let expanded = Lex::new(self.dockerfile.escape).word(from, &Nothing)?;
                    if expanded.text != from {
                        return Err(Problem::new("--from doesn't support variables")
                            .hint("define a stage for it: FROM $IMAGE AS name, then --from=name"));
                    }
                }
                Ok(vec![from.map_or(Ok(Source::Main), |from| self.source(from, index))?])
            }
            Instruction::Run(run) => {
                let from = run.mounts.iter().map(|mount| mount.from.as_deref());
                from.map(|from| from.map_or(Ok(Source::Main), |from| self.source(from, index))).collect()
            }
            _ => Ok(Vec::new()),
        }
    }

    /// A stage by name or number, a context, or an image.
    fn source(&self, from: &str, index: usize) -> Result<Source, Problem> {
        let number = from.bytes().all(|b| b.is_ascii_digit()).then(|| from.parse::<usize>().ok());
        let stage = match number {
            None => self.earlier(from, index),
            Some(number) => match number.filter(|number| *number < self.stages.len()) {
                Some(number) if number < index => Some(number),
                Some(number) => {
                    return Err(Problem::new(format!("stage {number} is not there yet"))
                        .hint("stages are counted from 0 and come before those that use them"));
                }
                None => return Err(Problem::new(format!("there is no stage {from}"))),
            },
        };
        if let Some(stage) = stage {
            return Ok(match &self.bases[stage] {
                Base::Context(context) if self.is_replaced(stage) => Source::Context(context.clone()),
                _ => Source::Stage(stage),
            });
        }
        if self.stages[index..].iter().any(|stage| is_named(stage, from)) {
            return Err(Problem::new(format!("the stage {from:?} is not there yet"))
                .hint("stages come before those that use them"));
        }
        if from == "scratch" {
            return Ok(Source::Scratch);
        }
        if let Some(context) = self.context(from) {
            return Ok(Source::Context(context));
        }
        let reference = self.image(from, index)?;
        Ok(Source::Image { reference, platform: self.request.platform.clone() })
    }

    /// Mounts that mean the same in every scope are wrong now or never.
    fn check_mounts(&self, instructions: &[PlannedInstruction]) -> Result<(), Problem> {
        for instruction in instructions {
            let Instruction::Run(run) = &instruction.located.value else { continue };
            for mount in run.mounts.iter().filter(|mount| mount.is_constant(self.dockerfile.escape)) {
                mount
                    .resolve(&mut |value| Ok(value.to_owned()))
                    .map_err(|problem| problem.at(instruction.located.lines).of(&instruction.located.text))?;
            }
        }
        Ok(())
    }
}

fn is_named(stage: &Stage, name: &str) -> bool {
    stage.name.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(name))
}

/// The name of a context as docker compares them.
fn canonical(name: &str) -> String {
    match Reference::parse(name) {
        Ok(reference) => {
            let familiar = reference.familiar();
            familiar.strip_suffix(":latest").unwrap_or(&familiar).to_owned()
        }
        Err(_) => name.to_lowercase(),
    }
}

fn target(dockerfile: &Dockerfile, request: &Request) -> Result<usize, Problem> {
    let Some(name) = &request.target else {
        let last = dockerfile.stages.len().checked_sub(1);
        return last.ok_or_else(|| Problem::new("the Dockerfile has no FROM"));
    };
    let by_number = || name.parse::<usize>().ok().filter(|number| *number < dockerfile.stages.len());
    let by_name = dockerfile.stages.iter().rposition(|stage| is_named(stage, name));
    by_name.or_else(by_number).ok_or_else(|| {
        let problem = Problem::new(format!("the target stage {name:?} is not in the Dockerfile"));
        let names: Vec<&str> = dockerfile.stages.iter().filter_map(|stage| stage.name.as_deref()).collect();
        match suggest::hint(&name.to_lowercase(), names.iter().copied()) {
            Some(hint) => problem.hint(hint),
            None if names.is_empty() => problem.hint("FROM image AS name names a stage"),
            None => problem.hint(format!("there are {}", names.join(", "))),
        }
    })
}
