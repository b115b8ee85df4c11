//! Which stages have to be built. One whose files nobody needs, as all that is copied from it is cached, is not: a cache that has nothing of
//! it (`mode=min`) does for a build that does nothing.
//!
//! All stages are looked at, as by `--print`. What is found out is a guess: steps that another cache says it has are not fetched yet.

use crate::build::{Builder, Printed};
use crate::stage::Built;
use cli::{Fault, Result};
use dockerfile::{Base, Source};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;

pub struct Survey {
    /// By place.
    stages: Vec<Looked>,
}

struct Looked {
    /// As far as it is known without making anything.
    built: Arc<Built>,
    /// Its steps' names, but for those nobody is told of.
    titles: Vec<String>,
    /// By instruction, whether it would have to be made.
    open: Vec<bool>,
    /// Why it cannot be built.
    fault: Option<Fault>,
}

impl Survey {
    /// # Errors
    /// When what a stage stands on cannot be had.
    pub fn of(builder: &Builder<'_>) -> Result<Survey> {
        let mut stages: Vec<Looked> = Vec::new();
        for (place, planned) in builder.plan.stages.iter().enumerate() {
            let mut others: Vec<Option<Arc<Built>>> =
                stages.iter().map(|looked| Some(Arc::clone(&looked.built))).collect();
            others.resize(builder.plan.stages.len(), None);
            let looked = builder.stage(place, &others, false, |mut stage| {
                let (mut titles, mut open) = (Vec::new(), Vec::new());
                let fault = stage.look(|title, is_open| {
                    titles.extend(title);
                    open.push(is_open);
                });
                let fault = fault.err();
                if let Some(fault) = &fault {
                    stage.spoil(&fault.to_string());
                }
                open.resize(planned.instructions.len(), true);
                Ok(Looked { built: Arc::new(stage.built), titles, open, fault })
            })?;
            stages.push(looked);
        }
        Ok(Survey { stages })
    }

    /// The places of stages that have to be built.
    pub fn needed(&self, builder: &Builder<'_>) -> BTreeSet<usize> {
        let planned = builder.plan.stages.iter().enumerate();
        // Those that fail have to say so, and those without a cache are built because somebody wants that.
        let wanted = planned.zip(&self.stages).filter(|((place, stage), looked)| {
            place + 1 == self.stages.len() || looked.fault.is_some() || !builder.uses_cache(stage)
        });
        self.with(builder, wanted.map(|((place, _), _)| place).collect())
    }

    /// These, and all that they need.
    pub fn with(&self, builder: &Builder<'_>, mut needed: BTreeSet<usize>) -> BTreeSet<usize> {
        // A stage needs earlier ones only.
        for (place, stage) in builder.plan.stages.iter().enumerate().rev() {
            if !needed.contains(&place) {
                continue;
            }
            if let Base::Stage(base) = &stage.base {
                needed.insert(*base);
            }
            for (instruction, _) in
                stage.instructions.iter().zip(&self.stages[place].open).filter(|(_, open)| **open)
            {
                needed.extend(instruction.sources.iter().filter_map(|source| match source {
                    Source::Stage(place) => Some(*place),
                    _ => None,
                }));
            }
        }
        needed
    }

    /// By place, what is known of those that are not built.
    pub fn built_without(&self, needed: &BTreeSet<usize>) -> Vec<Option<Arc<Built>>> {
        let stages = self.stages.iter().enumerate();
        stages.map(|(place, looked)| (!needed.contains(&place)).then(|| Arc::clone(&looked.built))).collect()
    }

    /// Tells of those that are not built that nothing is to be done. What other caches have of them is fetched if it is to be passed on.
    ///
    /// # Errors
    /// When the store cannot be written to.
    pub fn tell(&self, builder: &Builder<'_>, needed: &BTreeSet<usize>) -> Result<()> {
        let idle = |place: &usize| !needed.contains(place);
        for (_, looked) in self.stages.iter().enumerate().filter(|(place, _)| idle(place)) {
            looked.titles.iter().for_each(|title| builder.report.start(title).cached());
        }
        if builder.keeps_all {
            let used = crate::build::lock(&builder.notes.used).clone();
            for (_, key) in used.iter().filter(|(place, _)| idle(place)) {
                builder.cached(key, true)?;
            }
        }
        Ok(())
    }

    /// What `--print` says; returns the target.
    ///
    /// # Errors
    /// When a stage cannot be built.
    pub fn print(mut self, builder: &Builder<'_>, printed: &mut [Printed]) -> Result<Arc<Built>> {
        let needed = self.needed(builder);
        if let Some(fault) = self.stages.iter_mut().find_map(|looked| looked.fault.take()) {
            return Err(fault);
        }
        for ((place, _), line) in printed {
            if line["cached"] == false && !needed.contains(place) {
                line["cached"] = json!(true);
                line["why"] = json!("nobody needs it: what is copied from this stage is cached");
            }
        }
        let target = self.stages.pop().ok_or_else(|| Fault::failed("there is no stage"))?;
        Ok(target.built)
    }
}
