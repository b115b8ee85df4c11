//! A stage, step by step: each is found in the cache or made.

use crate::build::{Builder, lock};
use crate::copy::Part;
use crate::key::Key;
use crate::layer::{Below, Files, Named, Unfinished};
use crate::report::Vertex;
use crate::{add, copy, run_step, workdir};
use cli::{Fault, Result};
use dockerfile::{Action, PlannedInstruction, PlannedStage, Scope, Source, Step};
use oci::Digest;
use serde_json::Value;
use std::path::PathBuf;
use std::sync::Arc;

/// 1980-01-01: what has no time of its own and no base that has one. Earlier times are not to be had in ZIP archives.
pub const NO_TIME: i64 = 315_532_800;

/// A stage whose steps are all done.
#[derive(Clone, Debug)]
pub struct Built {
    pub files: Files,
    /// The image's configuration, but for its layers and its time.
    pub config: Value,
    pub history: Vec<Past>,
    pub scope: Scope,
    pub clock: Clock,
}

/// A line of the image's history.
#[derive(Clone, Debug)]
pub struct Past {
    pub created: i64,
    pub created_by: String,
    /// The place of its layer among [`Files::made`]; `None`: it has none.
    pub layer: Option<usize>,
}

/// What time it is for what a build makes: the same in every build of the same.
///
/// Every step that makes a layer is a second later than the one before, because `make`, `cargo` and their like compare times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Seconds since 1970 of the base, and how many steps have made files since.
    Ticking { base: i64, ticks: i64 },
    /// One time for all (`SOURCE_DATE_EPOCH`).
    Stopped(i64),
    /// This machine's: files keep the times they have.
    Real,
}

impl Clock {
    /// The time for the image and, unless they keep their own, for files.
    pub fn now(self) -> i64 {
        match self {
            Clock::Ticking { base, ticks } => base.saturating_add(ticks),
            Clock::Stopped(time) => time,
            Clock::Real => jiff::Timestamp::now().as_second(),
        }
    }

    /// The latest time a file may have.
    pub fn latest(self) -> Option<i64> {
        match self {
            Clock::Real => None,
            other => Some(other.now()),
        }
    }

    #[must_use]
    fn tick(self) -> Clock {
        match self {
            Clock::Ticking { base, ticks } => Clock::Ticking { base, ticks: ticks + 1 },
            other => other,
        }
    }

    /// For keys.
    pub fn text(self) -> String {
        self.latest().map_or_else(|| "real".to_owned(), |latest| latest.to_string())
    }
}

/// A stage on its way.
pub struct Stage<'a, 'b> {
    pub builder: &'a Builder<'b>,
    pub planned: &'a PlannedStage,
    /// Its place in the plan, and of the step at hand in it.
    pub place: usize,
    pub number: usize,
    /// Stages that are done, by their places in the plan.
    pub others: &'a [Arc<Built>],
    pub built: Built,
    /// Whether what is not found is made, or only looked at.
    pub makes: bool,
    /// Of the step at hand: it would have to be made.
    pub is_open: bool,
}

impl Stage<'_, '_> {
    /// All of its steps.
    pub fn build(&mut self) -> Result<()> {
        for (number, instruction) in self.planned.instructions.iter().enumerate() {
            let step = self.built.scope.step(instruction).map_err(|problem| self.builder.blame(problem))?;
            if !self.builder.is_surveyed() {
                self.warn(&step);
            }
            self.number = number + 1;
            if is_quick(&step) {
                let nobody = self.builder.report.nobody();
                self.step(&step, &nobody).map_err(|fault| self.blamed(instruction, &step, fault))?;
            } else {
                let vertex = self.builder.report.start(&self.title(&step));
                if let Err(fault) = self.step(&step, &vertex) {
                    let fault = self.blamed(instruction, &step, fault);
                    // It is tried again when what it misses is there.
                    if lock(&self.builder.notes.missed).is_empty() {
                        vertex.failed(&fault);
                    }
                    return Err(fault);
                }
            }
        }
        Ok(())
    }

    /// Looks at all of its steps and makes nothing. `seen` is told of each what it is called, unless it takes no time, and whether it would have to be made.
    pub fn look(&mut self, mut seen: impl FnMut(Option<String>, bool)) -> Result<()> {
        for (number, instruction) in self.planned.instructions.iter().enumerate() {
            let step = self.built.scope.step(instruction).map_err(|problem| self.builder.blame(problem))?;
            self.warn(&step);
            self.number = number + 1;
            self.is_open = false;
            let nobody = self.builder.report.nobody();
            self.step(&step, &nobody).map_err(|fault| self.blamed(instruction, &step, fault))?;
            seen((!is_quick(&step)).then(|| self.title(&step)), self.is_open);
        }
        Ok(())
    }

    fn warn(&self, step: &Step) {
        for finding in &step.findings {
            let place = self.builder.place(finding.lines);
            self.builder.report.warn(&format!("{place}: {} ({})", finding.message, finding.rule));
        }
    }

    fn title(&self, step: &Step) -> String {
        let total = self.planned.instructions.len();
        format!("[{} {}/{total}] {}", self.planned.name, self.number, step.title)
    }

    /// One of them, done.
    pub fn step(&mut self, step: &Step, vertex: &Vertex<'_>) -> Result<()> {
        let before = self.built.files.made.len();
        match &step.action {
            Action::Run(run) => run_step::run(self, run, step, vertex)?,
            Action::Copy(copy) => copy::copy(self, copy, step, vertex)?,
            Action::Add(add) => add::add(self, add, step, vertex)?,
            Action::Workdir(path) => {
                self.built.config["config"]["WorkingDir"] = Value::from(path.as_str());
                workdir::workdir(self, path, step, vertex)?;
            }
            Action::Config(change) => {
                crate::config::apply(&mut self.built.config, change, self.built.scope.env());
                self.print(step, None, true, "it changes no file");
                vertex.done();
            }
            Action::Arg => {}
        }
        if let Some(created_by) = &step.history {
            let layer = (self.built.files.made.len() > before).then_some(before);
            let created = self.built.clock.now();
            self.built.history.push(Past { created, created_by: created_by.clone(), layer });
        }
        Ok(())
    }

    /// In the error of a step: where it is and what.
    fn blamed(&self, instruction: &PlannedInstruction, step: &Step, fault: Fault) -> Fault {
        let place = self.builder.place(step.lines);
        fault.within(format!("{place}: {}", dockerfile_line(&instruction.located.text)))
    }

    /// Looks a step up, or makes it.
    ///
    /// `make` writes into the layer and returns where something was mounted; without `lower` the layer stands alone.
    pub fn layer(
        &mut self,
        key: &Digest,
        step: &Step,
        vertex: &Vertex<'_>,
        alone: bool,
        make: impl FnOnce(&mut Self, &mut Unfinished, &[PathBuf]) -> Result<Vec<Vec<u8>>>,
    ) -> Result<()> {
        let builder = self.builder;
        lock(&builder.notes.used).push((self.place, key.clone()));
        if self.find(key, step, vertex, alone)? {
            return Ok(());
        }
        if !self.makes {
            self.built.files.is_missing = true;
            self.unchanged(key);
            let is_elsewhere = builder.uses_cache(self.planned) && builder.imports.has(key);
            self.is_open = !is_elsewhere;
            let why = if is_elsewhere {
                "another cache has it (--cache-from)"
            } else {
                "the cache has nothing of this key"
            };
            self.print(step, Some(key), is_elsewhere, why);
            return Ok(());
        }
        self.require_sources()?;
        // Of several builds that want the same step one makes it, and the others find it.
        let lock = builder.store.lock_step(key)?;
        if self.find(key, step, vertex, alone)? {
            return Ok(());
        }
        let below = if alone { Files::none() } else { self.built.files.clone() };
        let lower = below.lower(builder.store, &builder.finish.settle)?;
        let mut unfinished = Unfinished::new(builder.store, lower.last().map(PathBuf::as_path))?;
        let mounted_on = make(self, &mut unfinished, &lower)?;
        let named = Named { key, instruction: &step.title, lock: Some(lock) };
        let latest = self.built.clock.tick().latest();
        let made = unfinished.finish(&below, latest, &mounted_on, named, &builder.finish)?;
        self.push(made, key);
        vertex.done();
        Ok(())
    }

    /// Takes what the cache has of a step.
    fn find(&mut self, key: &Digest, step: &Step, vertex: &Vertex<'_>, alone: bool) -> Result<bool> {
        let builder = self.builder;
        if !builder.uses_cache(self.planned) {
            return Ok(false);
        }
        let Some(found) = builder.cached(key, self.makes)? else { return Ok(false) };
        if let Some(mut layer) = found.layer {
            let below = if alone { &Files::none() } else { &self.built.files };
            if !below.carries(&mut layer)? {
                return Ok(false);
            }
            self.push(Below::stored(builder.store, layer)?, key);
        } else {
            self.unchanged(key);
        }
        self.print(step, Some(key), true, "nothing it depends on has changed");
        vertex.cached();
        Ok(true)
    }

    /// A step whose key depends on files that are not made yet, when nothing is to be made.
    ///
    /// # Errors
    /// When something is to be made.
    pub fn unknown(&mut self, step: &Step) -> Result<()> {
        self.require_sources()?;
        self.is_open = true;
        self.spoil(&step.title);
        self.print(step, None, false, "it depends on files that are not made yet");
        Ok(())
    }

    /// From here on nobody knows what files there are.
    pub fn spoil(&mut self, why: &str) {
        self.built.files.is_missing = true;
        self.unchanged(&Digest::of(why.as_bytes()));
    }

    /// A stage that was thought not to be needed is, if a cache has less than it said; see [`crate::survey`].
    fn require_sources(&self) -> Result<()> {
        let instruction = self.number.checked_sub(1).and_then(|number| self.planned.instructions.get(number));
        let Some(instruction) = instruction.filter(|_| self.makes) else { return Ok(()) };
        let mut is_whole = true;
        for source in &instruction.sources {
            if let Source::Stage(place) = source
                && self.other(*place)?.files.is_missing
            {
                lock(&self.builder.notes.missed).insert(*place);
                is_whole = false;
            }
        }
        if is_whole { Ok(()) } else { Err(Fault::failed("a stage it copies from is not built")) }
    }

    /// What the step at hand takes files from, as it was looked at before.
    pub fn kept_parts(&self) -> Option<Vec<Part>> {
        lock(&self.builder.notes.parts).remove(&(self.place, self.number))
    }

    /// Keeps it for when the step is done, so that nothing is fetched or read twice.
    pub fn keep_parts(&self, parts: Vec<Part>) {
        if !self.makes && !parts.iter().any(Part::is_missing) {
            lock(&self.builder.notes.parts).insert((self.place, self.number), parts);
        }
    }

    fn print(&self, step: &Step, key: Option<&Digest>, cached: bool, why: &str) {
        if let Some(printed) = &self.builder.printed {
            let line = crate::print::line(&self.planned.name, self.number, step, key, cached, why);
            lock(printed).push(((self.place, self.number), line));
        }
    }

    fn push(&mut self, layer: Below, key: &Digest) {
        self.built.files.made.push(layer);
        self.unchanged(key);
    }

    /// Time has gone on all the same, so that it is the same whether the layer is known to be empty or not.
    fn unchanged(&mut self, key: &Digest) {
        self.built.files.key = Key::new("files")
            .with("below", self.built.files.key.as_str())
            .with("step", key.as_str())
            .finish();
        self.built.clock = self.built.clock.tick();
    }

    /// The files of another stage, an image or a named context that is an image.
    pub fn other(&self, place: usize) -> Result<&Arc<Built>> {
        self.others.get(place).ok_or_else(|| Fault::failed(format!("stage {place} is not built yet")))
    }
}

/// What takes no time is not told of.
fn is_quick(step: &Step) -> bool {
    matches!(step.action, Action::Arg | Action::Config(_))
}

fn dockerfile_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(100) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}
