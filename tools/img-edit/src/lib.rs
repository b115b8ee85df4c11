//! Change images' configuration.
#![forbid(unsafe_code)]

mod args;
pub mod change;
mod config;
mod edit;
mod manifest;
mod rebase;
pub mod value;

pub use args::{Args, Format};

use cli::{Context, Fault, Result};
use edit::{Edited, Parts};
use oci::{Digest, Reference};
use record::Record;
use serde_json::json;
use store::{Entry, NewImage, Settle, Store, Subject};

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    if args.image.is_none() && args.config.as_ref().is_some_and(|path| path.as_os_str() == "-") {
        return Err(
            Fault::usage("stdin cannot be both the records and the configuration").hint("name the image")
        );
    }
    let name = args.tag.as_deref().map(oci::reference::new_name).transpose()?;
    let subjects: Vec<Subject> = match &args.image {
        Some(image) => vec![Subject::Name(image.clone())],
        None => context.require_records()?.into_iter().map(Subject::from).collect(),
    };
    if name.is_some() && subjects.len() > 1 {
        return Err(
            Fault::input("several images, which cannot have one name").hint("one img-edit for each of them")
        );
    }
    let store = Store::from_env()?;
    let settle = Settle::new();
    context.each(subjects, |context, subject| one(args, &store, &settle, subject, name.as_ref(), context));
    settle.finish();
    Ok(())
}

fn one(
    args: &Args,
    store: &Store,
    settle: &Settle,
    subject: Subject,
    name: Option<&Reference>,
    context: &mut Context,
) -> Result<()> {
    let entry = store.find_subject(&subject)?;
    let called = entry.name().unwrap_or(entry.digest().as_str()).to_owned();
    let before = Parts::of(store, &entry).map_err(|fault| fault.on(&called))?;
    let edited = edit::edit(args, store, &subject, &before).map_err(|fault| fault.on(&called))?;
    if args.dry_run {
        return context.print_steps(None, &steps(edited.as_ref(), &before, name));
    }
    let entry = match edited {
        Some(edited) => {
            let new = NewImage {
                manifest: edited.manifest.as_bytes(),
                media_type: None,
                config: Some(edited.config.as_bytes()),
                name,
                index_digest: None,
            };
            store.put_image(&new, settle).map_err(|fault| fault.on(&called))?
        }
        None => renamed(store, entry, name)?,
    };
    let details = store.image_details(&entry)?;
    let mut record = match subject {
        Subject::Record(record) => *record,
        Subject::Name(_) => Record::new(),
    };
    if args.new_base.is_some() {
        // Directories of other layers.
        record.remove("rootfs");
    }
    record.set("image", &details.image)?;
    let words = format!("edited {}", details.image.reference);
    context.print_result(&record, details.id.as_str(), &words)
}

/// The image as it is, under the new name if there is one.
fn renamed(store: &Store, entry: Entry, name: Option<&Reference>) -> Result<Entry> {
    let Some(name) = name else { return Ok(entry) };
    store.tag(&entry, name)?;
    store.find_reference(name)
}

fn steps(edited: Option<&Edited>, before: &Parts, name: Option<&Reference>) -> Vec<serde_json::Value> {
    let mut steps = Vec::new();
    let mut image = before.digest.clone();
    if let Some(edited) = edited {
        let change = |(member, value)| json!({"step": "change", "member": member, "value": value});
        steps.extend(edited.changes.iter().cloned().map(change));
        image = Digest::of(edited.manifest.as_bytes());
        steps.push(json!({"step": "store", "image": image}));
    }
    if let Some(name) = name {
        steps.push(json!({"step": "tag", "image": image, "name": name.stored_name()}));
    }
    steps
}
