//! Steps on an image that nobody wrote a Dockerfile for: what `step` runs.

use crate::build::{Builder, Notes, Options, Slots, lock};
use crate::cache::Imports;
use crate::contexts::Contexts;
use crate::image::{self, Sayings};
use crate::images::Images;
use crate::layer::Finish;
use crate::report::Report;
use crate::stage::Stage;
use cli::{Fault, Result};
use context::Context;
use context::web::Web;
use ctr_commit::Compression;
use dockerfile::{Dockerfile, Plan, Request, Step};
use oci::{Format, Platform};
use record::Image;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use store::{Holds, ImageDetails, Settle, Store};

/// What is to be done, and with what.
pub struct Chain<'a> {
    pub store: &'a Store,
    /// What messages call it.
    pub name: &'a str,
    /// Words final, as [`dockerfile::Scope`] would have made them.
    pub steps: &'a [Step],
    /// What [`dockerfile::Source::Context`] means.
    pub contexts: Vec<(String, Context)>,
    pub options: Options,
    /// Instructions that change the configuration when all is done.
    pub changes: &'a [String],
    pub compression: Compression,
    pub report: &'a Report,
}

/// How it ended.
pub enum Ended {
    Image(Box<ImageDetails>),
    /// A command failed, with this status.
    Failed(i32, Fault),
}

impl Chain<'_> {
    /// Does all steps, or finds them done, and stores the image they make, which has no name.
    ///
    /// # Errors
    /// When something else than a command failed.
    pub fn run(self, image: Image, settle: &Arc<Settle>) -> Result<Ended> {
        let changes = self.changes;
        self.with(image, settle, false, |builder, stage, steps| {
            for step in steps {
                let vertex = builder.report.start(&step.title);
                if let Err(fault) = stage.step(step, &vertex) {
                    vertex.failed(&fault);
                    return match builder.failed.get() {
                        Some(code) => Ok(Ended::Failed(*code, fault)),
                        None => Err(fault),
                    };
                }
            }
            let mut built = stage.built.clone();
            img_edit::change::apply(changes, &mut built.config)?;
            let layers = built.files.layers()?;
            let (labels, annotations) = (BTreeMap::new(), BTreeMap::new());
            let sayings = Sayings { labels, annotations, format: Format::Oci, inline: None };
            let documents = image::documents(&built, &layers, &sayings)?;
            let details = image::store(builder.store, &documents, &[], settle)?;
            Ok(Ended::Image(Box::new(details)))
        })
    }

    /// What it would do, a JSON object a step: its key, whether it is cached and why.
    ///
    /// # Errors
    /// When a key cannot be told.
    pub fn plan(self, image: Image, settle: &Arc<Settle>) -> Result<Vec<Value>> {
        self.with(image, settle, true, |builder, stage, steps| {
            for (place, step) in steps.iter().enumerate() {
                stage.number = place + 1;
                stage.step(step, &builder.report.nobody())?;
            }
            let printed = builder.printed.as_ref().map(|printed| std::mem::take(&mut *lock(printed)));
            Ok(printed.unwrap_or_default().into_iter().map(|(_, line)| line).collect())
        })
    }

    fn with<T>(
        self,
        image: Image,
        settle: &Arc<Settle>,
        prints: bool,
        work: impl FnOnce(&Builder<'_>, &mut Stage<'_, '_>, &[Step]) -> Result<T>,
    ) -> Result<T> {
        let Chain { store, name, steps, contexts, options, compression, report, .. } = self;
        let plan = plan(name)?;
        let holds = Arc::new(Holds::new(store));
        let images = Images::new(store, crate::images::Pull::Never, Vec::new(), &holds);
        let web = Web::new(store, registry::Client::new(registry::Options::default()));
        let files = Contexts::new(None, BTreeMap::new(), store, web, Platform::host());
        for (name, context) in contexts {
            files.give(&name, context);
        }
        let builder = Builder {
            store,
            plan: &plan,
            images: &images,
            contexts: &files,
            finish: Finish { store: store.clone(), settle: Arc::clone(settle), holds, compression },
            options: &options,
            report,
            slots: Slots::new(1),
            dockerfile: name,
            printed: prints.then(Default::default),
            imports: Imports::none(),
            failed: OnceLock::new(),
            notes: Notes::default(),
            keeps_all: false,
        };
        let planned = plan.stages.first().ok_or_else(|| Fault::failed("there is no stage"))?;
        let built = builder.on_image(images.at_hand(image)?)?;
        let mut stage = Stage {
            builder: &builder,
            planned,
            place: 0,
            number: 0,
            others: &[],
            built,
            makes: !prints,
            is_open: false,
        };
        let result = work(&builder, &mut stage, steps);
        files.remember();
        result
    }
}

/// One stage in which nothing is to be done.
fn plan(name: &str) -> Result<Plan> {
    let request = Request::new(Platform::host(), Platform::host());
    let nothing = Dockerfile::parse(b"FROM scratch\n").map_err(Fault::from)?;
    let mut plan = dockerfile::plan(&nothing, &request).map_err(Fault::from)?;
    for stage in &mut plan.stages {
        name.clone_into(&mut stage.name);
    }
    Ok(plan)
}
