//! Pull images from a registry into the store.
#![forbid(unsafe_code)]

mod all_platforms;
mod apply;
mod args;
mod connection;
mod follow;
mod plan;

pub use args::{Args, Policy};
pub use connection::{Connection, Transfer};

use cli::{Context, Fault, Kind, OutputMode, Progress, Result};
use oci::{Platform, Reference};
use record::Record;
use std::sync::{Mutex, PoisonError};
use store::{Entry, Settle, Store};

/// What one run works with.
struct Pull<'a> {
    store: &'a Store,
    client: registry::Client,
    settle: &'a Settle,
    progress: &'a Progress,
    platform: Platform,
    /// The user named it, rather than this machine being it.
    platform_asked_for: bool,
    policy: Policy,
    parallel: usize,
    all_platforms: bool,
    /// Unpack while downloading.
    unpack: bool,
    warnings: Warnings,
}

/// Told to the user once the bars are gone.
#[derive(Default)]
struct Warnings(Mutex<Vec<(String, String)>>);

impl Warnings {
    fn push(&self, reference: &Reference, text: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((reference.familiar(), text));
    }

    fn tell(&self, context: &Context) {
        for (subject, text) in self.0.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            context.warn(&subject, &text);
        }
    }
}

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let (platform, platform_asked_for) = args.wanted_platform()?;
    let client = args.transfer.connection.client()?;
    let subjects: Vec<(String, Record)> = if args.references.is_empty() {
        let records = context.require_records()?;
        let mut subjects = Vec::with_capacity(records.len());
        context.each(records, |_, record| {
            let image: record::Image = record.require("image")?;
            subjects.push((image.reference, record));
            Ok(())
        });
        subjects
    } else {
        args.references.iter().map(|text| (text.clone(), Record::new())).collect()
    };
    let store = Store::from_env()?;
    let settle = Settle::new();
    let progress = Progress::new("img-pull", args.progress, args.quiet)?;
    let pull = Pull {
        store: &store,
        client,
        settle: &settle,
        progress: &progress,
        platform,
        platform_asked_for,
        policy: args.policy,
        parallel: args.transfer.lanes(),
        all_platforms: args.all_platforms,
        unpack: args.unpack,
        warnings: Warnings::default(),
    };
    let subjects = if args.all_tags {
        with_all_tags(&pull, context, subjects, !args.references.is_empty())
    } else {
        subjects
    };
    context.each(subjects, |context, (text, record)| {
        let result = pull_one(&pull, context, &text, record, args.dry_run);
        progress.clear();
        pull.warnings.tell(context);
        result.map_err(|fault| fault.on(text))
    });
    // After the results are out.
    settle.finish();
    Ok(())
}

/// Each subject once for every tag its repository has.
fn with_all_tags(
    pull: &Pull<'_>,
    context: &mut Context,
    subjects: Vec<(String, Record)>,
    named: bool,
) -> Vec<(String, Record)> {
    let mut all = Vec::new();
    context.each(subjects, |_, (text, record)| {
        let tags = Reference::parse(&text).and_then(|reference| {
            // A record always says which tag.
            let has_tag = reference.digest().is_some()
                || reference.tag().is_some_and(|tag| text.ends_with(&format!(":{tag}")));
            if named && has_tag {
                return Err(Fault::usage("a tag or a digest, where --all-tags pulls them all"));
            }
            let tags = pull.client.repository(&reference).tags()?;
            tags.iter().map(|tag| Ok(reference.with_tag(tag)?.familiar())).collect::<Result<Vec<_>>>()
        });
        let tags = tags.map_err(|fault| fault.on(&text))?;
        if tags.is_empty() {
            return Err(Fault::not_found("the repository has no tags").on(text));
        }
        all.extend(tags.into_iter().map(|name| (name, record.clone())));
        Ok(())
    });
    all
}

fn pull_one(
    pull: &Pull<'_>,
    context: &mut Context,
    text: &str,
    mut record: Record,
    dry_run: bool,
) -> Result<()> {
    let reference = Reference::parse(text)?;
    let mut image = if pull.all_platforms {
        match all_platforms::pull(pull, &reference, dry_run)? {
            all_platforms::Outcome::Steps(steps) => return print_steps(context, &steps),
            all_platforms::Outcome::Pulled(image) => *image,
        }
    } else {
        let plan = plan::plan(pull, &reference)?;
        if dry_run {
            return print_steps(context, &plan.steps(&reference));
        }
        apply::apply(pull, &reference, plan)?
    };
    if pull.unpack {
        // Whatever was not unpacked on its way.
        let options = img_unpack::Options { progress: Some(pull.progress), ..img_unpack::Options::default() };
        let unpacked = img_unpack::unpack_with(pull.store, &image, &options, pull.settle)?;
        record.set("rootfs", &unpacked.rootfs)?;
    }
    if let Some(old) = record.image()? {
        image.extra = old.extra;
    }
    let bytes: u64 = image.layers.iter().map(|layer| layer.size).sum();
    let for_people = format!(
        "{}  {}  {} layers, {}",
        image.reference,
        image.digest,
        image.layers.len(),
        cli::progress::bytes(bytes)
    );
    record.set("image", &image)?;
    pull.store.event(&store::Who::image(&image.digest, &image.reference), "pull", serde_json::Value::Null);
    context.print_result(&record, &image.digest, &for_people)
}

fn print_steps(context: &mut Context, steps: &[serde_json::Value]) -> Result<()> {
    let as_json = context.mode() != OutputMode::Table;
    for step in steps {
        let member = |name: &str| {
            step.get(name).map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        };
        let line = if as_json {
            step.to_string()
        } else {
            let of = ["step", "reference", "digest", "size"].into_iter().filter_map(member);
            of.collect::<Vec<_>>().join("  ")
        };
        context.print(&format!("{line}\n"))?;
    }
    Ok(())
}

impl Pull<'_> {
    /// Whether layers are unpacked on their way: because of --unpack, or because they will be at once, by whom the record
    /// is for.
    fn unpacks_on_the_way(&self) -> bool {
        self.unpack || sys::pipe::is_announced(std::io::stdout(), sys::pipe::Reader::Unpacks)
    }

    /// The image the store has under this name, if it is whole and for the platform.
    fn local(&self, reference: &Reference) -> Result<Option<(Entry, record::Image)>> {
        match self.store.find_reference(reference) {
            Ok(entry) => Ok(self.complete(&entry)?.map(|image| (entry, image))),
            Err(fault) if fault.kind() == Kind::NotFound => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// The image of an entry, if all its parts are there and it suits the platform.
    fn complete(&self, entry: &Entry) -> Result<Option<record::Image>> {
        let image = match self.store.load_image(entry, &self.platform) {
            Ok(image) => image,
            // Whatever is wrong with it, pulling it again mends it.
            Err(fault) if matches!(fault.kind(), Kind::NotFound | Kind::Input) => return Ok(None),
            Err(fault) => return Err(fault),
        };
        if !self.suits(&image) {
            return Ok(None);
        }
        for layer in &image.layers {
            let digest = oci::Digest::parse(&layer.digest)?;
            if !self.store.has_blob(&digest, Some(layer.size), self.settle)? {
                return Ok(None);
            }
        }
        Ok(Some(image))
    }

    /// Exactly for the platform asked for: what a machine would also run is not what was named. Without a wish, what
    /// this machine runs, or the only one the reference stands for.
    fn suits(&self, image: &record::Image) -> bool {
        let Some(platform) = image.platform.as_ref().filter(|platform| !platform.architecture.is_empty())
        else {
            return true;
        };
        let of = Platform::of(&platform.os, &platform.architecture, platform.variant.as_deref());
        match self.platform.rank(&of) {
            Some(rank) => rank == 0 || !self.platform_asked_for,
            None => !self.platform_asked_for && image.index_digest.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn flags_are_checked_before_anything_is_done() {
        let parse = |words: &[&str]| Args::try_parse_from(std::iter::once(&"img-pull").chain(words));
        assert!(parse(&["x"]).unwrap().transfer.connection.tls_verify);
        assert!(!parse(&["--tls-verify=false", "x"]).unwrap().transfer.connection.tls_verify);
        assert!(parse(&["--tls-verify", "x"]).unwrap().references == ["x"]);
        for timeout in ["0", "-1", "NaN", "inf", "1e9"] {
            let args = parse(&[&format!("--timeout={timeout}"), "x"]).unwrap();
            assert_eq!(args.transfer.connection.options().unwrap_err().kind(), Kind::Usage, "{timeout}");
        }
        let bad = Fault::usage("x").kind();
        assert_eq!(
            parse(&["--platform", "a/b/c/d", "x"]).unwrap().wanted_platform().unwrap_err().kind(),
            bad
        );
    }
}
