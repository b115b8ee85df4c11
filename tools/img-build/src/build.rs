//! All stages of a plan, those that need nothing of each other side by side.

use crate::cache::{self, Imports};
use crate::contexts::Contexts;
use crate::copy::Part;
use crate::images::{Found, Images};
use crate::layer::{Files, Finish};
use crate::report::Report;
use crate::stage::{Built, Clock, NO_TIME, Stage};
use crate::survey::Survey;
use cli::{Explain, Fault, Kind, Result};
use dockerfile::instruction::Instruction;
use dockerfile::{Base, Inherited, Lines, Plan, PlannedStage, Problem, Scope};
use oci::Digest;
use record::Config;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use store::{Step, Store};

/// What the user asks for beside the plan.
#[derive(Debug, Default)]
pub struct Options {
    pub no_cache: bool,
    /// Stages that are built anew.
    pub no_cache_filter: Vec<String>,
    /// `--allow`.
    pub allow: Vec<String>,
    /// `--network`.
    pub network: Option<String>,
    /// `src=…` or `env=…` by id.
    pub secrets: BTreeMap<String, String>,
    /// Sockets of agents by id.
    pub ssh: BTreeMap<String, PathBuf>,
    /// What commands are run with: limits, hosts, devices.
    pub run: Config,
    pub time: Time,
    /// Words that are part of every command's key, for whatever they stand for.
    pub keys: Vec<String>,
}

/// What time things are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Time {
    /// Worked out from the base image, so that it is the same everywhere.
    #[default]
    Base,
    At(i64),
    Now,
}

/// A line of `--print`, and where it belongs: the stage's place and the step's number in it.
pub type Printed = ((usize, usize), Value);

/// What all stages share.
pub struct Builder<'a> {
    pub store: &'a Store,
    pub plan: &'a Plan,
    pub images: &'a Images<'a>,
    pub contexts: &'a Contexts,
    pub finish: Finish,
    pub options: &'a Options,
    pub report: &'a Report,
    pub slots: Slots,
    /// What messages call the Dockerfile.
    pub dockerfile: &'a str,
    /// Nothing is made: what would be, by the place of its stage and its number in that.
    pub printed: Option<Mutex<Vec<Printed>>>,
    /// `--cache-from`.
    pub imports: Imports,
    /// How the command ended that failed.
    pub failed: OnceLock<i32>,
    pub notes: Notes,
    /// All that there is of other caches is brought here, for a cache that is to have all of it.
    pub keeps_all: bool,
}

/// What is noted on the way.
#[derive(Default)]
pub struct Notes {
    /// The steps that were found or made: the place of the stage, the key.
    pub used: Mutex<Vec<(usize, Digest)>>,
    /// What steps chose of other stages and of images, see [`crate::chosen`]: by the place of the stage that chose and the key, the digest.
    pub chosen: Mutex<BTreeMap<(usize, String), String>>,
    /// What steps take files from, by the place of the stage and the number of the step, from when they were looked at.
    pub parts: Mutex<HashMap<(usize, usize), Vec<Part>>>,
    /// What was chosen of files that are not stored yet: the files, what of them, its digest.
    pub later: Mutex<Vec<(Files, Digest, Digest)>>,
    /// Stages that are needed though nobody thought so.
    pub missed: Mutex<BTreeSet<usize>>,
    /// Whether all stages were looked at before.
    surveyed: OnceLock<()>,
}

impl Builder<'_> {
    /// Builds all of it that is needed; returns the target.
    ///
    /// # Errors
    /// What went wrong first. Stages that do not need the one that failed are finished.
    pub fn build(&self) -> Result<Arc<Built>> {
        let places: BTreeSet<usize> = (0..self.plan.stages.len()).collect();
        // What the target stands on is needed in any case.
        if self.printed.is_none() && self.chain() == places {
            return self.make(&places, vec![None; places.len()]);
        }
        let survey = Survey::of(self)?;
        let _ = self.notes.surveyed.set(());
        if let Some(printed) = &self.printed {
            return survey.print(self, &mut lock(printed));
        }
        let mut needed = survey.needed(self);
        survey.tell(self, &needed)?;
        loop {
            let result = self.make(&needed, survey.built_without(&needed));
            // A cache had less than it said.
            let missed = std::mem::take(&mut *lock(&self.notes.missed));
            if result.is_ok() || missed.is_subset(&needed) {
                return result;
            }
            needed.extend(missed);
            needed = survey.with(self, needed);
        }
    }

    /// The places of the target and of the stages it stands on.
    pub fn chain(&self) -> BTreeSet<usize> {
        let stages = &self.plan.stages;
        let mut places = BTreeSet::new();
        let mut next = stages.len().checked_sub(1);
        while let Some(place) = next.filter(|place| places.insert(*place)) {
            next = match stages.get(place).map(|stage| &stage.base) {
                Some(Base::Stage(base)) => Some(*base),
                _ => None,
            };
        }
        places
    }

    pub fn is_surveyed(&self) -> bool {
        self.notes.surveyed.get().is_some()
    }

    /// Builds these; others are as they are given.
    fn make(&self, needed: &BTreeSet<usize>, given: Vec<Option<Arc<Built>>>) -> Result<Arc<Built>> {
        let board = Board::new(given);
        std::thread::scope(|scope| {
            for place in needed.iter().copied() {
                let board = &board;
                let run = move || {
                    let mut outcome = Outcome { board, place, built: None, fault: None };
                    if let Some(others) = board.wait_for(&self.plan.stages[place].depends_on) {
                        match self.stage(place, &others, true, |mut stage| {
                            stage.build()?;
                            Ok(stage.built)
                        }) {
                            Ok(built) => outcome.built = Some(Arc::new(built)),
                            Err(fault) => outcome.fault = Some(fault),
                        }
                    }
                };
                // A stage more needs a thread more; what it does is mostly to wait.
                let started = std::thread::Builder::new().name("stage".to_owned()).spawn_scoped(scope, run);
                if let Err(error) = started {
                    drop(Outcome {
                        board,
                        place,
                        built: None,
                        fault: Some(Fault::failed("start a thread").because(error)),
                    });
                }
            }
        });
        board.target()
    }

    /// How many steps will be told of.
    pub fn told(&self) -> usize {
        let of_stage = |stage: &PlannedStage| {
            let list = stage.instructions.iter().map(|instruction| &instruction.located.value);
            let told = list.filter(|value| {
                matches!(
                    value,
                    Instruction::Run(_)
                        | Instruction::Copy(_)
                        | Instruction::Add(_)
                        | Instruction::Workdir(_)
                )
            });
            told.count() + usize::from(matches!(stage.base, Base::Image { .. }))
        };
        self.plan.stages.iter().map(of_stage).sum()
    }

    /// Does something with a stage at whose first step one is.
    pub fn stage<T>(
        &self,
        place: usize,
        others: &[Option<Arc<Built>>],
        makes: bool,
        work: impl FnOnce(Stage<'_, '_>) -> Result<T>,
    ) -> Result<T> {
        let planned = &self.plan.stages[place];
        let others: Vec<Arc<Built>> = {
            // Those it does not need are stood in for by nothing.
            let nothing = Arc::new(self.nothing(place)?);
            others.iter().map(|other| other.clone().unwrap_or_else(|| Arc::clone(&nothing))).collect()
        };
        let built = match &planned.base {
            Base::Scratch => self.nothing(place)?,
            Base::Stage(base) => {
                let base = others
                    .get(*base)
                    .ok_or_else(|| Fault::failed("a stage stands on one that is not built"))?;
                Built { scope: Scope::on(&base.scope), ..(**base).clone() }
            }
            Base::Image { reference, platform } => {
                let name = format!("[{}] FROM {}", planned.name, reference.familiar());
                let is_told = !self.is_surveyed() && self.printed.is_none();
                let vertex = if is_told { self.report.start(&name) } else { self.report.nobody() };
                let found = self.images.find(reference, platform).map_err(|fault| {
                    vertex.failed(&fault);
                    fault.within(format!("{}: FROM {}", self.place(planned.lines), reference.familiar()))
                })?;
                vertex.done();
                self.on_image(found)?
            }
            Base::Context(name) => match self.contexts.image(name, self.images, &planned.platform)? {
                Some(found) => self.on_image(found)?,
                None => {
                    return Err(Fault::input(format!("the build context {name} is no image to build on"))
                        .hint("docker-image://REFERENCE and oci-layout://DIR are"));
                }
            },
        };
        work(Stage {
            builder: self,
            planned,
            place,
            number: 0,
            others: &others,
            built,
            makes,
            is_open: false,
        })
    }

    /// From scratch.
    fn nothing(&self, place: usize) -> Result<Built> {
        let platform = &self.plan.stages[place].platform;
        let mut config = json!({"architecture": platform.architecture, "os": platform.os, "config": {}});
        if let Some(variant) = &platform.variant {
            config["variant"] = json!(variant);
        }
        let scope = Scope::new(self.plan, &Inherited::default()).map_err(|problem| self.blame(problem))?;
        config["config"]["Env"] = json!(scope.env());
        // As docker says of an image from scratch; of others what their base says.
        config["config"]["WorkingDir"] = json!("/");
        Ok(Built { files: Files::none(), config, history: Vec::new(), scope, clock: self.clock(None) })
    }

    pub fn on_image(&self, found: Arc<Found>) -> Result<Built> {
        let inherited = Inherited::of(&found.image.config).map_err(|problem| self.blame(problem))?;
        let scope = Scope::new(self.plan, &inherited).map_err(|problem| self.blame(problem))?;
        let mut config = found.image.config.clone();
        let members = config
            .as_object_mut()
            .ok_or_else(|| Fault::input("the base image's configuration is no object"))?;
        // Of the base itself, and of docker's old builds.
        for stale in
            ["container", "container_config", "parent", "id", "created", "docker_version", cache::INLINE]
        {
            members.shift_remove(stale);
        }
        if !members.get("config").is_some_and(Value::is_object) {
            members.insert("config".to_owned(), json!({}));
        }
        // Used up by this build.
        config["config"].as_object_mut().map(|process| process.shift_remove("OnBuild"));
        config["config"]["Env"] = json!(scope.env());
        let clock = self.clock(found.image.config.get("created").and_then(Value::as_str));
        let files = Files::of(found);
        Ok(Built { files, config, history: Vec::new(), scope, clock })
    }

    fn clock(&self, created: Option<&str>) -> Clock {
        match self.options.time {
            Time::Now => Clock::Real,
            Time::At(time) => Clock::Stopped(time),
            Time::Base => {
                let created = created.and_then(|text| text.parse::<jiff::Timestamp>().ok());
                let base = created.map_or(NO_TIME, jiff::Timestamp::as_second);
                Clock::Ticking { base: base.max(NO_TIME), ticks: 0 }
            }
        }
    }

    /// What the cache has for a step, or another cache; `fetches`: that may be brought here.
    pub fn cached(&self, key: &Digest, fetches: bool) -> Result<Option<Step>> {
        let settle = &self.finish.settle;
        match self.stored(key)? {
            Some(step) => Ok(Some(step)),
            None if !fetches => Ok(None),
            None => match self.imports.find(key, self.store, settle, self.report)? {
                // Unless it was swept in this moment.
                Some(_) => self.stored(key),
                None => Ok(None),
            },
        }
    }

    /// What the own cache has, from now on held.
    fn stored(&self, key: &Digest) -> Result<Option<Step>> {
        let holding = self.finish.holds.share()?;
        let step = self.store.step(key, &self.finish.settle)?;
        if let Some(layer) = step.as_ref().and_then(|step| step.layer.as_ref()) {
            holding.add([Digest::parse(&layer.diff_id)?, Digest::parse(&layer.digest)?])?;
        }
        Ok(step)
    }

    pub fn uses_cache(&self, stage: &PlannedStage) -> bool {
        !self.options.no_cache
            && !self.options.no_cache_filter.iter().any(|name| name.eq_ignore_ascii_case(&stage.name))
    }

    /// `Dockerfile:7`.
    pub fn place(&self, lines: Lines) -> String {
        format!("{}:{}", self.dockerfile, lines.first)
    }

    pub fn blame(&self, problem: Problem) -> Fault {
        Fault::from(problem).within(self.dockerfile.to_owned())
    }
}

/// Which stages are done.
struct Board {
    state: Mutex<Progress>,
    changed: Condvar,
}

struct Progress {
    built: Vec<Option<Arc<Built>>>,
    failed: Vec<bool>,
    first: Option<Fault>,
}

impl Board {
    fn new(built: Vec<Option<Arc<Built>>>) -> Board {
        let state = Progress { failed: vec![false; built.len()], built, first: None };
        Board { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// `None` when one of them failed. Of the others, those that happen to be done are in the list.
    fn wait_for(&self, needed: &[usize]) -> Option<Vec<Option<Arc<Built>>>> {
        let mut state = lock(&self.state);
        loop {
            if needed.iter().any(|place| state.failed.get(*place) != Some(&false)) {
                return None;
            }
            if needed.iter().all(|place| state.built[*place].is_some()) {
                return Some(state.built.clone());
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn target(self) -> Result<Arc<Built>> {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(fault) = state.first {
            return Err(fault);
        }
        state.built.into_iter().next_back().flatten().ok_or_else(|| Fault::failed("no stage was built"))
    }
}

/// How a stage's thread ended, told even if it panicked: others wait for it.
struct Outcome<'a> {
    board: &'a Board,
    place: usize,
    built: Option<Arc<Built>>,
    fault: Option<Fault>,
}

impl Drop for Outcome<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.board.state);
        state.failed[self.place] = self.built.is_none();
        state.built[self.place] = self.built.take();
        if let (Some(fault), None) = (self.fault.take(), &state.first) {
            state.first = Some(fault);
        }
        self.board.changed.notify_all();
    }
}

/// What a panic elsewhere left is as good as before.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many commands run at once.
pub struct Slots {
    free: Mutex<usize>,
    changed: Condvar,
}

/// Given back when dropped.
pub struct Slot<'a>(&'a Slots);

impl Slots {
    pub fn new(count: usize) -> Slots {
        Slots { free: Mutex::new(count.max(1)), changed: Condvar::new() }
    }

    pub fn take(&self) -> Slot<'_> {
        let free = lock(&self.free);
        let mut free =
            self.changed.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Slot(self)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        *lock(&self.0.free) += 1;
        self.0.changed.notify_one();
    }
}

/// `SOURCE_DATE_EPOCH`.
///
/// # Errors
/// [`Kind::Usage`] for what is no number of seconds.
pub fn epoch(text: &str) -> Result<i64> {
    text.trim()
        .parse::<i64>()
        .ok()
        .filter(|seconds| (0..=253_402_300_799).contains(seconds))
        .ok_or_else(|| Fault::new(Kind::Usage, format!("\"{text}\" is no time in seconds since 1970")))
        .explain(|| "SOURCE_DATE_EPOCH".into())
}
