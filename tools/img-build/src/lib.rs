//! Build images from Dockerfiles.
//!
//! The Dockerfile becomes a plan (crate `dockerfile`), the plan's stages are built side by side ([`build`]), each step by step ([`stage`]):
//! found in the cache by its [`key`], or made as a layer on top of those before.
#![forbid(unsafe_code)]

mod add;
mod args;
mod build;
mod cache;
mod cache_mount;
mod chain;
mod chosen;
mod config;
mod contexts;
mod copy;
mod export;
mod failed;
mod image;
mod images;
mod keep;
mod key;
mod layer;
mod layout;
mod normalise;
mod print;
mod report;
mod request;
mod run;
mod run_flags;
mod run_step;
mod runner;
mod several;
mod squash;
mod ssh;
mod stage;
mod survey;
mod tool;
mod workdir;

pub use args::{Args, form as output_form};
pub use build::Options;
pub use cache::{Listed, read as read_cache};
pub use chain::{Chain, Ended};
pub use images::{Images, Pull};
pub use keep::{find_kept, keep};
pub use key::Key;
pub use report::{Form, Report, events};
pub use request::time;
pub use run_flags::{RunFlags, StepFlags, TellFlags};
pub use runner::run as run_one;

use build::{Builder, Notes, Slots};
use cli::{Context, Explain, Fault, Result};
use context::web::Web;
use contexts::{Contexts, Opened};
use dockerfile::Dockerfile;
use export::Export;
use image::Sayings;
use layer::Finish;
use oci::{Platform, Reference};
use record::Record;
use serde_json::json;
use std::sync::{Arc, Mutex, OnceLock};
use store::{Holds, ImageDetails, Settle, Store};

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    if args.tell.run_step.is_some() {
        return runner::run();
    }
    request::refuse(args)?;
    let (exports, names) = exports(args)?;
    let platforms = platforms(args)?;
    several::check(&platforms, &exports, &names, !args.cache_to.is_empty())?;
    let caches = Caches::of(args, &exports)?;
    let store = Store::from_env()?;
    rootfs::allow_many_files();
    let web = Web::new(&store, registry::Client::new(registry::Options::default()));
    let opened = contexts::open(args.context.as_deref(), args.file.as_deref(), &store, &web)?;
    if args.check {
        return print::check(args, context, &opened);
    }
    let dockerfile = Dockerfile::parse(&opened.dockerfile)
        .map_err(|problem| Fault::from(problem).within(opened.name.clone()))?;
    request::check_filter(args, &dockerfile)?;
    let settle = Arc::new(Settle::new());
    let holds = Arc::new(Holds::new(&store));
    let form = if args.quiet { Form::Quiet } else { Form::choose(args.progress)? };
    let report = Report::new("img-build", form, report::events(args.tell.progress_fd)?);
    let build = Build {
        args,
        store: &store,
        web: &web,
        opened: &opened,
        dockerfile: &dockerfile,
        exports: &exports,
        settle: &settle,
        holds: &holds,
        caches: &caches,
        report: &report,
    };
    let result = if let [platform] = platforms.as_slice() {
        build.platform(context, platform, &names).and_then(|details| {
            caches.write(&store, &settle, &report)?;
            report.finish(true);
            match details {
                Some(details) => tell(args, context, &details, &names, exports.iter().any(Export::is_stdout)),
                None => Ok(()),
            }
        })
    } else {
        let built = build.platforms(context, &platforms, &names);
        built.and_then(|()| caches.write(&store, &settle, &report))
    };
    // Whoever waits for a thread to pack has waited.
    if let Ok(settle) = Arc::try_unwrap(settle) {
        settle.finish();
    }
    result
}

/// What builds for all platforms share.
struct Build<'a> {
    args: &'a Args,
    store: &'a Store,
    web: &'a Web,
    opened: &'a Opened,
    dockerfile: &'a Dockerfile,
    exports: &'a [Export],
    settle: &'a Arc<Settle>,
    holds: &'a Arc<Holds>,
    caches: &'a Caches,
    report: &'a Report,
}

impl Build<'_> {
    /// Builds for one platform; the image, where one is made.
    fn platform(
        &self,
        context: &mut Context,
        platform: &Platform,
        names: &[Reference],
    ) -> Result<Option<ImageDetails>> {
        let Build { args, store, report, settle, holds, caches, .. } = self;
        let name = &self.opened.name;
        let mut asked = request::request(args, platform)?;
        let images =
            Images::new(store, args.steps.pull, Vec::new(), holds).telling((!args.print).then_some(*report));
        let contexts = Contexts::new(
            self.opened.context.clone(),
            request::contexts(args)?,
            store,
            self.web.clone(),
            platform.clone(),
        );
        let plan = request::plan(self.dockerfile, &mut asked, &images, &contexts)
            .map_err(|fault| fault.within(name.clone()))?;
        let options = request::with_epoch(request::options(args)?, args, &plan)?;
        plan.warnings.iter().for_each(|warning| report.warn(warning));
        let client = registry::Client::new(registry::Options::default());
        let imports = cache::Imports::open(&caches.from, &client, platform, report);
        let jobs = args.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        let builder = Builder {
            store,
            plan: &plan,
            images: &images,
            contexts: &contexts,
            finish: Finish {
                store: (*store).clone(),
                settle: Arc::clone(settle),
                holds: Arc::clone(holds),
                compression: args.steps.compression,
            },
            options: &options,
            report,
            slots: Slots::new(jobs),
            dockerfile: name,
            printed: args.print.then(Default::default),
            imports,
            failed: OnceLock::new(),
            notes: Notes::default(),
            keeps_all: caches.to.iter().any(|to| to.is_whole),
        };
        if args.print {
            return print::plan(context, &builder).map(|()| None);
        }
        report.expect(builder.told());
        let built = builder.build();
        contexts.remember();
        let built = built?;
        self.exports.iter().try_for_each(|export| export.files(&builder, &built))?;
        // Until the last one is stored; in the cache it is then, too.
        let vertex = report.seen("store the layers");
        let layers = built.files.layers()?;
        vertex.done();
        chosen::settle(&builder);
        if !self.exports.iter().any(Export::needs_image) {
            return caches.collect(&builder).map(|()| None);
        }
        let mut sayings = sayings(args)?;
        if caches.are_inline() {
            sayings.inline = Some(cache::inline(&builder)?);
        }
        let documents = match squash::Squash::of(args) {
            None => image::documents(&built, &layers, &sayings)?,
            Some(what) => squash::squash(&builder, &built, &layers, &sayings, what)?,
        };
        if let Some(base) = &built.files.base {
            // One in a layout has none here that nobody has read yet.
            base.bring(store, settle, |layer| documents.manifest.contains(&layer.digest))?;
        }
        let details = image::store(store, &documents, names, settle)?;
        self.exports
            .iter()
            .try_for_each(|export| export.image(details.image.digest.as_str(), names, report))?;
        caches.collect(&builder)?;
        Ok(Some(details))
    }
}

fn platforms(args: &Args) -> Result<Vec<Platform>> {
    let mut platforms: Vec<Platform> = Vec::new();
    for text in &args.platform {
        let platform = Platform::parse(text)?;
        if !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    Ok(if platforms.is_empty() { vec![Platform::host()] } else { platforms })
}

/// Caches of other builds to read from and to write.
struct Caches {
    from: Vec<cache::Place>,
    to: Vec<cache::To>,
    /// What each of `to` will have.
    contents: Vec<Mutex<cache::Contents>>,
}

impl Caches {
    fn of(args: &Args, exports: &[Export]) -> Result<Caches> {
        let to: Vec<cache::To> = args.cache_to.iter().map(|text| cache::to(text)).collect::<Result<_>>()?;
        let caches = Caches {
            contents: to.iter().map(|_| Mutex::default()).collect(),
            to,
            from: args.cache_from.iter().map(|text| cache::from(text)).collect::<Result<_>>()?,
        };
        if caches.are_inline() && squash::Squash::of(args).is_some() {
            return Err(Fault::usage("--cache-to type=inline: a squashed image has no layer of a step's")
                .hint("type=local and type=registry carry the steps beside the image"));
        }
        if caches.are_inline() && !exports.iter().any(Export::needs_image) {
            return Err(Fault::usage("--cache-to type=inline: no image is made that could have it")
                .hint("type=local and type=registry need none"));
        }
        Ok(caches)
    }

    fn are_inline(&self) -> bool {
        self.to.iter().any(|to| to.place == cache::Place::Inline)
    }

    /// What was built, for one of the platforms.
    fn collect(&self, builder: &Builder<'_>) -> Result<()> {
        for (to, contents) in self.to.iter().zip(&self.contents) {
            build::lock(contents).extend(cache::contents(builder, to.is_whole)?);
        }
        Ok(())
    }

    /// When all of it is built.
    fn write(&self, store: &Store, settle: &Settle, report: &Report) -> Result<()> {
        let client = registry::Client::new(registry::Options::default());
        for (to, contents) in self.to.iter().zip(&self.contents) {
            let contents = std::mem::take(&mut *build::lock(contents));
            match cache::export(store, settle, to, contents, &client) {
                Err(fault) if to.ignores_errors => report.warn(&fault.to_string()),
                result => result?,
            }
        }
        Ok(())
    }
}

fn exports(args: &Args) -> Result<(Vec<Export>, Vec<Reference>)> {
    let mut names = args.tag.clone();
    let mut exports = Vec::new();
    for text in args.output.iter().filter(|text| args::form(text).is_none()) {
        exports.push(export::parse(text, &mut names)?);
    }
    if args.push {
        exports.push(Export::Image { push: true });
    }
    if exports.is_empty() || args.load {
        exports.push(Export::Image { push: false });
    }
    if names.is_empty() && exports.contains(&Export::Image { push: true }) {
        return Err(Fault::usage("there is no name to push it by").hint("-t REGISTRY/NAME"));
    }
    if exports.iter().filter(|export| export.is_stdout()).count() > 1 {
        return Err(Fault::usage("--output: stdout can take one archive only"));
    }
    let mut references: Vec<Reference> = Vec::new();
    for name in &names {
        let reference = oci::reference::new_name(name)?;
        if !references.contains(&reference) {
            references.push(reference);
        }
    }
    Ok((exports, references))
}

fn sayings(args: &Args) -> Result<Sayings> {
    Ok(Sayings {
        labels: cli::words::pairs("--label", &args.label, true)?,
        annotations: cli::words::pairs("--annotation", &args.annotation, false)?,
        format: match args.format {
            ctr_commit::Dialect::Oci => oci::Format::Oci,
            ctr_commit::Dialect::Docker => oci::Format::Docker,
        },
        inline: None,
    })
}

fn tell(
    args: &Args,
    context: &mut Context,
    details: &ImageDetails,
    names: &[Reference],
    is_stdout: bool,
) -> Result<()> {
    let id = details.id.as_str();
    let write = |path: &std::path::Path, text: &str| {
        std::fs::write(path, text).explain(|| format!("write {}", path.display()))
    };
    if let Some(path) = &args.iidfile {
        write(path, id)?;
    }
    if let Some(path) = &args.metadata_file {
        let list: Vec<String> = names.iter().map(Reference::stored_name).collect();
        let metadata = json!({
            "containerimage.digest": details.image.digest,
            "containerimage.config.digest": id,
            "image.name": list.join(","),
        });
        write(path, &format!("{metadata:#}\n"))?;
    }
    if is_stdout {
        return Ok(());
    }
    let mut record = Record::new();
    record.set("image", &details.image)?;
    context.print_result(&record, id, &format!("built {}", details.image.reference))
}
