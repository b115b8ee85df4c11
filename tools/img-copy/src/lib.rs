//! Copy images between registries, layouts, archives, directories and the store.
#![forbid(unsafe_code)]

mod args;

pub use args::{Args, FormatName};

use cli::progress::Progress;
use cli::{Context, Explain, Fault, Kind, Result};
use image::{Bars, Choice, Copy, Format, Location, Plan, Raw, destination, source};
use oci::{Descriptor, Reference};
use record::Record;
use registry::Client;
use serde_json::{Value, json};
use store::{Settle, Store};

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let from = Location::parse(&args.source)?;
    let to = Location::parse(&args.destination)?;
    let work = Work {
        args,
        choice: args.choice(&to)?,
        source: args.client(args.src_tls_verify)?,
        destination: args.client(args.dest_tls_verify)?,
        store: Store::from_env()?,
        settle: Settle::new(),
        progress: Progress::new(context.tool(), args.progress_fd, args.quiet)?,
    };
    let pairs = if args.all_tags { work.all_tags(&from, &to)? } else { vec![(from, to)] };
    let mut digests = Vec::new();
    context.each(pairs, |context, (from, to)| {
        let copied = work.copy(&from, &to, context);
        work.progress.clear();
        digests.extend(copied.map_err(|fault| fault.on(from.to_string()))?);
        Ok(())
    });
    if let Some(path) = args.digest_file.as_ref().filter(|_| !digests.is_empty()) {
        // As skopeo: nothing but the digest.
        std::fs::write(path, digests.join("\n")).explain(|| format!("write {}", path.display()))?;
    }
    work.settle.finish();
    Ok(())
}

struct Work<'a> {
    args: &'a Args,
    choice: Choice,
    source: Client,
    destination: Client,
    store: Store,
    settle: Settle,
    progress: Progress,
}

impl Work<'_> {
    fn all_tags(&self, from: &Location, to: &Location) -> Result<Vec<(Location, Location)>> {
        let Location::Registry(repository) = from else {
            return Err(Fault::usage("--all-tags is for a source in a registry, docker://REPOSITORY"));
        };
        if repository.digest().is_some() || args_have_tag(&self.args.source) {
            return Err(Fault::usage("--all-tags and a tag contradict each other").on(&self.args.source));
        }
        let mut pairs = Vec::new();
        for tag in self.source.repository(repository).tags().map_err(|fault| fault.on(from.to_string()))? {
            let target = match to {
                Location::Registry(name) => Location::Registry(name.with_tag(&tag)?),
                Location::Store(name) if name.is_empty() => Location::Store(name.clone()),
                Location::Store(name) => Location::Store(Reference::parse(name)?.with_tag(&tag)?.to_string()),
                Location::Layout(dir, None) => Location::Layout(dir.clone(), Some(tag.clone())),
                _ => {
                    return Err(Fault::usage("that place cannot hold all tags")
                        .on(&self.args.destination)
                        .hint("a repository of a registry, the store or oci:DIR can"));
                }
            };
            pairs.push((Location::Registry(repository.with_tag(&tag)?), target));
        }
        Ok(pairs)
    }

    /// The digest of the copy.
    fn copy(&self, from: &Location, to: &Location, context: &mut Context) -> Result<Option<String>> {
        let source = source::open(from, &self.store, &self.settle, &self.source)?;
        let plan = Plan::of(&*source, &self.choice, self.args.format())?;
        if self.args.dry_run {
            context.print_steps(None, &steps(&plan, to))?;
            return Ok(None);
        }
        if let Location::Layout(..) | Location::LayoutArchive(..) = to
            && Format::Oci.is_other(&plan.root.media_type)
        {
            context.warn(
                &to.to_string(),
                "the manifest is in docker's format, which some readers of layouts do not take; --format oci converts it",
            );
        }
        // Before anything has a name: an image whose configuration is another one's is told of in time. The archive has stdout.
        let image = if is_stdout(to) { None } else { Some(plan.describe(&*source, "")?) };
        let names = source.names();
        let destination = destination::create(to, &names, &self.store, &self.settle, &self.destination)?;
        let subject = from.to_string();
        let watch = Bars { progress: &self.progress, subject: &subject };
        let copy = Copy {
            source: &*source,
            destination: &*destination,
            parallel: usize::from(self.args.parallel),
            watch: &watch,
        };
        let copied = copy.apply(&plan).map_err(|fault| match fault.kind() {
            // Of two places it has to say which.
            Kind::Denied | Kind::Retryable => fault.within(format!("to {to}")),
            _ => fault,
        })?;
        self.progress.clear();
        let digest = plan.root.digest.to_string();
        if let Some(mut image) = image {
            let name = destination.name().or_else(|| names.first().map(Reference::stored_name));
            image.reference = name.unwrap_or_else(|| to.to_string());
            let mut record = Record::new();
            record.set("image", &image)?;
            record.set(
                "copied",
                &json!({"from": from.to_string(), "to": to.to_string(), "digest": digest, "media_type": plan.root.media_type,
                    "blobs": copied.blobs, "bytes": copied.bytes, "present": copied.present}),
            )?;
            let words = format!(
                "{to}  {digest}  {} blobs copied, {}; {} there already",
                copied.blobs,
                cli::progress::bytes(copied.bytes),
                copied.present
            );
            context.print_result(&record, &digest, &words)?;
        }
        Ok(Some(digest))
    }
}

fn args_have_tag(source: &str) -> bool {
    source.rsplit('/').next().is_some_and(|last| last.contains(':'))
}

fn is_stdout(location: &Location) -> bool {
    match location {
        Location::LayoutArchive(file, _) | Location::DockerArchive(file, _) => file.as_os_str() == "-",
        _ => false,
    }
}

fn steps(plan: &Plan, to: &Location) -> Vec<Value> {
    let to = to.to_string();
    let blob = |blob: &Descriptor| json!({"step": "copy", "to": to, "digest": blob.digest, "size": blob.size, "media_type": blob.media_type});
    let manifest = |raw: &Raw, step: &str| json!({"step": step, "to": to, "digest": raw.digest, "size": raw.bytes.len(), "media_type": raw.media_type});
    let children = plan.children.iter().map(|(raw, _)| manifest(raw, "copy"));
    plan.blobs.iter().map(blob).chain(children).chain([manifest(&plan.root, "name")]).collect()
}
