//! Make one image of several, one for each platform.
#![forbid(unsafe_code)]

mod args;
mod list;
mod members;

pub use args::Args;

use args::Start;
use cli::{Context, Fault, Kind, Progress, Result};
use contents::Places;
use image::Bars;
use image::destination::{Place, StoreDestination};
use image::{Copy, Destination, Parts, Raw};
use list::List;
use members::{Nameless, Source};
use oci::manifest::MAX_MANIFEST_BYTES;
use oci::{Digest, Reference};
use record::Record;
use serde_json::{Value, json};
use store::{Entry, Settle, Store, Subject};

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let name = Reference::parse(&args.name).map_err(|fault| fault.on(&args.name).as_kind(Kind::Usage))?;
    if name.digest().is_some() {
        return Err(
            Fault::usage("a name with a digest cannot be given: the digest is the content's").on(&args.name)
        );
    }
    let start = args.start()?;
    let subjects: Vec<Subject> = if args.reads_records() {
        context.require_records()?.into_iter().map(Subject::from).collect()
    } else {
        args.images.iter().chain(&args.add).cloned().map(Subject::Name).collect()
    };
    if args.describes_entries() && args.annotate.is_empty() && subjects.is_empty() {
        return Err(
            Fault::usage("which entry that is about is not said").hint("--annotate PLATFORM or DIGEST does")
        );
    }
    let places = Places::new(args.transfer.connection.client()?, None)?;
    let old = old(places.store(), &name, start)?;
    let mut sources = Vec::with_capacity(subjects.len());
    for subject in &subjects {
        sources.push(members::find(args, &places, subject)?);
    }
    let settle = Settle::new();
    let work = Work { args, store: places.store(), settle: &settle, name, old };
    let made = work.make(&sources).map_err(|fault| fault.on(&args.name))?;
    if args.dry_run {
        return context.print_steps(None, &work.steps(&sources, &made));
    }
    let progress = Progress::new(context.tool(), args.progress, args.quiet)?;
    let stored = work.store_all(&sources, &made, &progress);
    progress.clear();
    let printed = stored.and_then(|()| work.print(&made, context));
    settle.finish();
    printed.map_err(|fault| fault.on(&args.name))
}

/// The index to go on with.
fn old(store: &Store, name: &Reference, start: Start) -> Result<Option<(Entry, Raw)>> {
    let entry = match store.find_reference(name) {
        Err(fault) if fault.kind() == Kind::NotFound => {
            return match start {
                Start::Change => Err(Fault::not_found("no such index")
                    .on(name.familiar())
                    .hint(format!("img-index {} IMAGE... makes one", name.familiar()))),
                _ => Ok(None),
            };
        }
        other => other?,
    };
    if start == Start::Replace {
        return Ok(None);
    }
    let bytes = store.read_blob(entry.digest(), MAX_MANIFEST_BYTES)?;
    let raw = Raw::new(bytes, entry.digest().clone(), Some(&entry.descriptor.media_type))?;
    let is_index = matches!(raw.parts()?, Parts::Index(_));
    let taken = |what: &str, hint: &str| Err(Fault::conflict(what).on(name.familiar()).hint(hint));
    match (start, is_index) {
        (_, false) => taken(
            "the name is that of an image, not of an index",
            "--replace takes it away; the image stays without a name",
        ),
        (Start::New, true) => {
            taken("there is such an index", "--add IMAGE or --amend change it, --replace makes a new one")
        }
        (_, true) => Ok(Some((entry, raw))),
    }
}

struct Work<'a> {
    args: &'a Args,
    store: &'a Store,
    settle: &'a Settle,
    name: Reference,
    old: Option<(Entry, Raw)>,
}

/// What the index is going to be.
struct Made {
    raw: Raw,
    /// Manifests that are written in another format.
    converted: Vec<Raw>,
    removed: Vec<String>,
}

impl Work<'_> {
    fn make(&self, sources: &[Source<'_>]) -> Result<Made> {
        let mut list = match &self.old {
            Some((_, raw)) => List::of(raw)?,
            None => List::new(),
        };
        let mut removed = Vec::new();
        for which in &self.args.remove {
            removed.extend(list.remove(which)?);
        }
        list.add(sources.iter().flat_map(|source| source.entries.clone()).collect())?;
        for which in &self.args.annotate {
            list.describe(which, self.args)?;
        }
        list.annotate(&self.args.annotation)?;
        let format = self.args.format();
        let mut children: Vec<Raw> = sources.iter().flat_map(|source| source.manifests.clone()).collect();
        if format.is_some() {
            for digest in list.digests() {
                if children.iter().any(|child| child.digest == digest) {
                    continue;
                }
                let bytes = self.store.read_blob(&digest, MAX_MANIFEST_BYTES)?;
                children.push(Raw::new(bytes, digest, None)?);
            }
        }
        let (raw, converted) = list.finish(format, &children)?;
        // Only an image can stand for all of it.
        match raw.document()? {
            oci::Document::Index(index) if index.first_image().is_some() => {}
            _ => return Err(Fault::conflict("there would be no image in the index")),
        }
        Ok(Made { raw, converted, removed })
    }

    fn steps(&self, sources: &[Source<'_>], made: &Made) -> Vec<Value> {
        let mut steps = Vec::new();
        for source in sources {
            let blobs = source.plans.iter().flat_map(|plan| &plan.blobs);
            let missing = blobs.filter(|blob| !self.store.blob_path(&blob.digest).is_file());
            steps.extend(missing.map(|blob| json!({"step": "copy", "from": source.found.name, "digest": blob.digest, "size": blob.size, "media_type": blob.media_type})));
            steps.extend(source.entries.iter().map(
                |entry| json!({"step": "add", "digest": entry["digest"], "platform": entry["platform"]}),
            ));
        }
        steps.extend(made.removed.iter().map(|digest| json!({"step": "remove", "digest": digest})));
        steps.push(json!({"step": "name", "digest": made.raw.digest, "media_type": made.raw.media_type, "name": self.name.stored_name()}));
        steps
    }

    /// Everything the index consists of, then the index under its name.
    fn store_all(&self, sources: &[Source<'_>], made: &Made, progress: &Progress) -> Result<()> {
        let destination = Nameless(StoreDestination::new(self.store, self.settle, &self.name));
        let mut blobs: Vec<&Digest> = Vec::new();
        for source in sources {
            let subject = source.found.location.as_ref().unwrap_or(&source.found.name);
            let watch = Bars { progress, subject };
            for plan in &source.plans {
                let copy = Copy {
                    source: &*source.found.source,
                    destination: &destination,
                    parallel: self.args.transfer.lanes(),
                    watch: &watch,
                };
                copy.apply(plan)?;
                blobs.extend(plan.blobs.iter().map(|blob| &blob.digest));
            }
        }
        for child in &made.converted {
            destination.put_manifest(child, Place::Child(None))?;
        }
        destination.0.put_manifest(&made.raw, Place::Root { index: None })?;
        destination.0.finish()?;
        // From here on a sweep knows of them.
        if let Some(lost) = blobs.into_iter().find(|digest| !self.store.blob_path(digest).is_file()) {
            return Err(Fault::conflict(format!("blob {lost} was swept away while the index was made"))
                .hint("make it again with --amend when the sweep is over"));
        }
        self.forget_old(made)
    }

    /// An index that was changed is not kept beside what it has become, unless a container stands on it.
    fn forget_old(&self, made: &Made) -> Result<()> {
        let Some((old, _)) = &self.old else { return Ok(()) };
        if *old.digest() == made.raw.digest || self.store.image_users()?.contains_key(old.digest().as_str()) {
            return Ok(());
        }
        let left = self.store.find_digest(old.digest())?;
        if left.iter().all(|entry| entry.digest() == old.digest() && entry.name().is_none()) {
            self.store.remove_image(old.digest())?;
        }
        Ok(())
    }

    fn print(&self, made: &Made, context: &mut Context) -> Result<()> {
        let entry = self.store.find_reference(&self.name)?;
        let mut image = self.store.image_details(&entry)?.image;
        let platforms = contents::platforms(&made.raw)?.unwrap_or_default();
        let count = platforms.as_array().map_or(0, Vec::len);
        image.extra.insert("platforms".into(), platforms);
        let mut record = Record::new();
        record.set("image", &image)?;
        record.set(
            "index",
            &json!({"digest": made.raw.digest, "media_type": made.raw.media_type, "size": made.raw.bytes.len(), "removed": made.removed}),
        )?;
        let words = format!("{}  {}  {count} images", self.name.familiar(), made.raw.digest);
        context.print_result(&record, made.raw.digest.as_str(), &words)
    }
}
