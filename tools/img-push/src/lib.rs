//! Push images from the store to a registry.
#![forbid(unsafe_code)]

mod apply;
mod args;
mod lanes;
mod plan;
mod repack;
mod rewrite;
mod sources;

pub use args::{Args, Format};

use apply::Pushed;
use args::{Packing, Wanted};
use cli::{Context, Explain, Fault, Progress, Result};
use oci::{Digest, Reference};
use plan::Plan;
use record::{Image, Record};
use std::collections::HashSet;
use std::os::fd::AsFd;
use std::sync::Mutex;
use store::{Entry, Settle, Store, Subject};

/// Each takes as long as the layer does.
const MAX_REPACKS: u32 = 2;

/// What one run works with.
struct Push<'a> {
    store: &'a Store,
    client: registry::Client,
    settle: &'a Settle,
    progress: &'a Progress,
    wanted: Wanted,
    packing: Option<Packing>,
    parallel: usize,
    /// How often a layer is packed once more whose upload was lost.
    repacks: u32,
    /// Repositories that blobs could not be mounted from.
    refused: Mutex<HashSet<String>>,
}

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let wanted = args.wanted()?;
    let packing = args.packing()?;
    let client = args.transfer.connection.client()?;
    let (subjects, to) = subjects(args, context)?;
    let to = to.map(|text| Reference::parse(text).map_err(|fault| fault.on(text))).transpose()?;
    let store = Store::from_env()?;
    let settle = Settle::new();
    let progress = Progress::new(context.tool(), args.progress, args.quiet)?;
    let push = Push {
        store: &store,
        client,
        settle: &settle,
        progress: &progress,
        wanted,
        packing,
        parallel: args.transfer.lanes(),
        repacks: args.transfer.connection.retry.min(MAX_REPACKS),
        refused: Mutex::default(),
    };
    let mut digests = String::new();
    context.each(subjects, |context, subject| {
        let result = push_one(&push, context, subject, to.as_ref(), args.dry_run);
        progress.clear();
        if let Some(digest) = result? {
            digests += digest.as_str();
            digests.push('\n');
        }
        Ok(())
    });
    settle.finish();
    if let Some(file) = &args.digest_file
        && !digests.is_empty()
    {
        std::fs::write(file, digests).explain(|| format!("write {}", file.display()))?;
    }
    Ok(())
}

/// What is pushed, and where to if that was said.
fn subjects<'a>(args: &'a Args, context: &mut Context) -> Result<(Vec<Subject>, Option<&'a str>)> {
    let to = match args.names.as_slice() {
        [image, to] => return Ok((vec![Subject::Name(image.clone())], Some(to))),
        [name] if !records_can_come() => return Ok((vec![Subject::Name(name.clone())], None)),
        [to] => Some(to.as_str()),
        _ => None,
    };
    let subjects: Vec<Subject> =
        context.require_records().map_err(hint_at_names)?.into_iter().map(Subject::from).collect();
    if subjects.len() > 1 && to.is_some() {
        return Err(
            Fault::input("several images, which cannot have one name").hint("one img-push for each of them")
        );
    }
    Ok((subjects, to))
}

fn hint_at_names(fault: Fault) -> Fault {
    if fault.hint_text().is_some() {
        return fault;
    }
    fault.hint("one name is where records go; for an image of the store: img-push IMAGE DESTINATION")
}

/// Whether stdin is something another program can write to.
fn records_can_come() -> bool {
    use rustix::fs::{FileType, fstat};
    let stdin = std::io::stdin();
    fstat(stdin.as_fd())
        .is_ok_and(|status| FileType::from_raw_mode(status.st_mode) != FileType::CharacterDevice)
}

/// The digest that the destination names now; `None` of a dry run.
fn push_one(
    push: &Push<'_>,
    context: &mut Context,
    subject: Subject,
    to: Option<&Reference>,
    dry_run: bool,
) -> Result<Option<Digest>> {
    let entry = push.store.find_subject(&subject)?;
    let to = match to {
        Some(to) => to.clone(),
        None => own_name(&subject, &entry)?,
    };
    let on = |fault: Fault| fault.on(to.familiar());
    let plan = plan::plan(push, &entry, &to).map_err(on)?;
    if dry_run {
        context.print_steps(None, &plan.steps())?;
        return Ok(None);
    }
    let pushed = apply::apply(push, &plan).map_err(on)?;
    let image = image(push, &plan, &pushed).map_err(on)?;
    let layers = plan.parts.first().map_or(0, |part| part.artifact.blobs.len().saturating_sub(1));
    let words = format!(
        "{}  {}  {layers} layers, {} sent",
        to.familiar(),
        pushed.named,
        cli::progress::bytes(pushed.sent)
    );
    let mut record = match subject {
        Subject::Record(record) => *record,
        Subject::Name(_) => Record::new(),
    };
    let extra = record.image()?.map(|old| old.extra).unwrap_or_default();
    record.set("image", &Image { extra, ..image })?;
    let who = store::Who::image(pushed.named.as_str(), &to.stored_name());
    push.store.event(&who, "push", serde_json::Value::Null);
    context.print_result(&record, pushed.named.as_str(), &words)?;
    Ok(Some(pushed.named))
}

/// Where an image goes that nobody said a destination for.
fn own_name(subject: &Subject, entry: &Entry) -> Result<Reference> {
    let nameless = || {
        Fault::usage("the image has no name that says where it goes")
            .hint("img-push IMAGE DESTINATION says where")
    };
    match subject {
        Subject::Record(record) => {
            let image: Image = record.require("image")?;
            Reference::parse(&image.reference)
        }
        // Named by an id, it may be called something else altogether.
        Subject::Name(name) => Reference::parse(name)
            .ok()
            .filter(|reference| entry.name() == Some(reference.stored_name().as_str()))
            .ok_or_else(|| nameless().on(name)),
    }
}

/// The image as it is at the registry.
fn image(push: &Push<'_>, plan: &Plan, pushed: &Pushed) -> Result<Image> {
    let name = plan.to.stored_name();
    let Some(manifest) = plan.parts.first().and_then(|part| part.image.as_ref()) else {
        // Of an artifact there is nothing more to tell.
        return Ok(Image { reference: name, digest: pushed.manifest.to_string(), ..Image::default() });
    };
    let config = push.store.read_config(manifest)?;
    let mut image =
        store::index::to_record(&name, &pushed.manifest, pushed.index.as_ref(), manifest, config)?;
    for layer in &mut image.layers {
        if let Some(new) = Digest::parse(&layer.digest).ok().and_then(|old| pushed.changes.get(&old)) {
            layer.digest = new.digest.to_string();
            layer.size = new.size;
            layer.media_type.clone_from(&new.media_type);
        }
    }
    Ok(image)
}
