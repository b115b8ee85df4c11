//! Copy images between registries, layouts, archives, directories and the store.
#![forbid(unsafe_code)]

mod args;

pub use args::{Args, FormatName};

use cli::progress::Progress;
use cli::{Context, Explain, Fault, Kind, Result};
use image::{Bars, Choice, Copy, Format, Location, Plan, Raw, Source, destination, source};
use oci::{Digest, Reference};
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
        progress: Progress::new(context.tool(), args.progress, args.quiet)?,
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
            context.print_steps(None, &self.steps(&plan, &*source, to)?)?;
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
        if matches!(to, Location::Store(_)) && !plan.root.is_artifact() {
            // Before anything is copied.
            plan.root.document()?;
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
            parallel: self.args.transfer.lanes(),
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

    /// What is at the destination already is asked for, and nothing is made there.
    fn steps(&self, plan: &Plan, source: &dyn Source, to: &Location) -> Result<Vec<Value>> {
        let there = match to {
            Location::Layout(dir, _) if !dir.join("oci-layout").exists() => None,
            Location::Directory(dir) if !dir.exists() => None,
            // Written anew whatever they hold.
            Location::LayoutArchive(..) | Location::DockerArchive(..) => None,
            Location::Registry(_) | Location::Store(_) | Location::Layout(..) | Location::Directory(_) => {
                Some(destination::create(to, &source.names(), &self.store, &self.settle, &self.destination)?)
            }
        };
        let name = to.to_string();
        let step = |step: &str, digest: &Digest, size: u64, media_type: &str| json!({"step": step, "to": name, "digest": digest, "size": size, "media_type": media_type});
        let mut steps = Vec::new();
        for blob in &plan.blobs {
            let present = there.as_ref().map_or(Ok(false), |there| there.has(blob))?;
            let what = if present { "present" } else { "copy" };
            steps.push(step(what, &blob.digest, blob.size, &blob.media_type));
        }
        let manifest = |raw: &Raw, what| step(what, &raw.digest, raw.bytes.len() as u64, &raw.media_type);
        steps.extend(plan.children.iter().map(|(raw, _)| manifest(raw, "copy")));
        steps.push(manifest(&plan.root, "name"));
        Ok(steps)
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
