//! Remove images.
#![forbid(unsafe_code)]

use cli::{Common, Context, Fault, Kind, Result};
use oci::{Digest, Reference};
use record::{Image, Record};
use serde_json::json;
use std::fmt::Write;
use store::{Entry, ImageUsers, Store, Subject};

/// Remove images
///
/// Takes the given name from an image. With its last name the image goes, with every blob and unpacked layer that no other
/// image and no container needs. Named by id, an image goes if it has no more than one name, or with --force.
#[derive(Debug, clap::Parser)]
#[command(
    name = "img-rm",
    version,
    after_help = "Examples:\n  img-rm debian:12\n  img-ls --filter dangling=true | img-rm\n  img-ls -q 'team/*' | xargs img-rm -f"
)]
pub struct Args {
    /// References, ids or beginnings of them; without any, records are read from stdin
    #[arg(value_name = "IMAGE")]
    pub images: Vec<String>,

    /// Also if a container uses the image (its layers stay then) or it has several names; an image that does not exist is no
    /// failure
    #[arg(short, long)]
    pub force: bool,

    /// Print what would be done as one step a line, and do nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Print ids only
    #[arg(short, long)]
    pub quiet: bool,

    #[command(flatten)]
    pub common: Common,
}

cli::tool!(Args, "img-rm", common, quiet);

/// What is to be done about one subject.
struct Plan {
    entry: Entry,
    /// Names it loses; `None` stands for an entry without a name.
    names: Vec<String>,
    /// Nothing is left of the image afterwards.
    delete: bool,
}

/// An image that lost a name.
struct Removed {
    record: Record,
    id: String,
    names: Vec<String>,
    deleted: bool,
}

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let store = Store::from_env()?;
    let subjects: Vec<Subject> = context.input(&args.images)?.into_subjects();
    if subjects.is_empty() {
        return Ok(());
    }
    let users = store.image_users()?;
    let mut done = Vec::new();
    let mut layers = Vec::new();
    context.each(subjects, |context, subject| {
        let plan = match plan(&store, &subject, &users, args.force) {
            Err(fault) if args.force && fault.kind() == Kind::NotFound => {
                context.warn(fault.subject().unwrap_or_default(), "no such image");
                return Ok(());
            }
            other => other?,
        };
        if args.dry_run {
            return context.print(&describe(&plan));
        }
        done.extend(apply(&store, subject, plan, &mut layers)?);
        Ok(())
    });
    // Once for all of them: what the images had in common goes only when the last of them is gone.
    if done.iter().any(|removed| removed.deleted) {
        store.sweep_blobs()?;
        store.sweep_layers(Some(&layers))?;
    }
    for removed in done {
        let words = if removed.deleted { "removed" } else { "untagged" };
        let line = format!("{words} {}", removed.names.first().unwrap_or(&removed.id));
        context.print_result(&removed.record, &removed.id, &line)?;
    }
    Ok(())
}

fn plan(store: &Store, subject: &Subject, users: &ImageUsers, force: bool) -> Result<Plan> {
    let entry = store.find_subject(subject)?;
    let others = store.other_names(&entry)?;
    let plan = if others.is_empty() || is_by_name(subject, &entry) {
        Plan {
            names: entry.name().map(str::to_owned).into_iter().collect(),
            delete: others.is_empty(),
            entry,
        }
    } else if force {
        let names = entry.name().map(str::to_owned).into_iter().chain(others).collect();
        Plan { entry, names, delete: true }
    } else {
        let names: Vec<&str> = entry.name().into_iter().chain(others.iter().map(String::as_str)).collect();
        return Err(Fault::conflict("the image has several names")
            .on(entry.digest().to_string())
            .hint(format!("name one of {}, or remove them all with --force", names.join(", "))));
    };
    if plan.delete && !force {
        check_unused(&plan.entry, users)?;
    }
    Ok(plan)
}

/// Whether the subject names this very entry, and not its content.
fn is_by_name(subject: &Subject, entry: &Entry) -> bool {
    match (subject, entry.name()) {
        (_, None) => false,
        (Subject::Name(text), Some(name)) => {
            text == name || Reference::parse(text).is_ok_and(|reference| reference.stored_name() == name)
        }
        (Subject::Record(record), Some(name)) => {
            record.image().ok().flatten().is_some_and(|image| image.reference == name)
        }
    }
}

fn check_unused(entry: &Entry, users: &ImageUsers) -> Result<()> {
    let index = entry.index_digest();
    let digests = [Some(entry.digest()), index.as_ref()];
    let Some(user) = digests.into_iter().flatten().find_map(|d| users.get(d.as_str())?.first()) else {
        return Ok(());
    };
    Err(Fault::conflict(format!("container {} uses the image", user.name))
        .on(entry.name().unwrap_or(entry.digest().as_str()))
        .hint(format!("remove it with ctr-rm {}, or the image all the same with --force", user.name)))
}

fn apply(store: &Store, subject: Subject, plan: Plan, layers: &mut Vec<Digest>) -> Result<Option<Removed>> {
    // Before it goes; an image with parts missing has to be removable as well.
    let details = store.image_details(&plan.entry).ok();
    let (gone, deleted) = if plan.delete && plan.names.len() != 1 {
        (store.remove_image(plan.entry.digest())?, true)
    } else {
        let name = plan.names.first().map(String::as_str).unwrap_or_default();
        match store.remove_name(name)? {
            Some((entry, gone)) => (vec![entry], gone),
            // Somebody was faster.
            None => return Ok(None),
        }
    };
    if gone.is_empty() {
        return Ok(None);
    }
    let image = match details {
        Some(details) => details.image,
        None => Image {
            reference: plan.entry.name().unwrap_or_default().to_owned(),
            digest: plan.entry.digest().to_string(),
            ..Image::default()
        },
    };
    let tell = |action, name: &str| {
        store.event(&store::Who::image(plan.entry.digest().as_str(), name), action, serde_json::Value::Null);
    };
    plan.names.iter().for_each(|name| tell("untag", name));
    if deleted {
        tell("delete", plan.names.first().map(String::as_str).unwrap_or_default());
        layers.extend(image.layers.iter().filter_map(|layer| Digest::parse(&layer.diff_id).ok()));
    }
    let id = image.extra.get("id").and_then(|id| id.as_str()).unwrap_or(&image.digest).to_owned();
    let mut record = match subject {
        Subject::Record(record) => *record,
        Subject::Name(_) => Record::new(),
    };
    record.set("image", &image)?;
    record.set("removed", &json!({"names": plan.names, "deleted": deleted}))?;
    Ok(Some(Removed { record, id, names: plan.names, deleted }))
}

fn describe(plan: &Plan) -> String {
    let image = plan.entry.digest().as_str();
    let mut text = String::new();
    for name in &plan.names {
        let _ = writeln!(text, "{}", json!({"step": "untag", "image": image, "name": name}));
    }
    if plan.delete {
        let _ = writeln!(text, "{}", json!({"step": "delete", "image": image}));
    }
    text
}
