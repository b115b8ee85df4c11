//! Give images further names.
#![forbid(unsafe_code)]

use cli::{Common, Context, Fault, Result};
use oci::Reference;
use record::{Image, Record};
use serde_json::json;
use store::{Store, Subject};

/// Give an image further names
///
/// With one name, the image is that of the records on stdin; with more, the first says which image. A name another image has is
/// taken from it; that one stays, and without any other name it is dangling. Nothing is copied.
#[derive(Debug, clap::Parser)]
#[command(
    name = "img-tag",
    version,
    override_usage = "img-tag [OPTIONS] IMAGE NAME...\n       ... | img-tag [OPTIONS] NAME",
    after_help = "Examples:\n  img-tag debian:12 debian:stable registry.example/base:1\n  img-pull debian:12 | img-tag registry.example/base:1\n  img-ls 'team/*' | jq -r .image.reference | sed 'p; s,^[^/]*,registry.example,' | xargs -n 2 img-tag"
)]
pub struct Args {
    /// The image, by reference, id or a beginning of it, and its new names; or the one new name
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,

    /// Print what would be done as one step a line, and do nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Print ids only
    #[arg(short, long)]
    pub quiet: bool,

    #[command(flatten)]
    pub common: Common,
}

cli::tool!(Args, "img-tag", common, quiet);

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let (image, names) = match args.names.as_slice() {
        [name] => (None, std::slice::from_ref(name)),
        [image, names @ ..] => (Some(image), names),
        [] => return Err(Fault::usage("no name is given")),
    };
    let names: Vec<Reference> = names.iter().map(|name| new_name(name)).collect::<Result<_>>()?;
    let subjects: Vec<Subject> = match image {
        Some(image) => vec![Subject::Name(image.clone())],
        None => context.require_records()?.into_iter().map(Subject::from).collect(),
    };
    if subjects.len() > 1 {
        return Err(
            Fault::input("several images, which cannot have one name").hint("one img-tag for each of them")
        );
    }
    let store = Store::from_env()?;
    context.each(subjects, |context, subject| tag(args, &store, subject, &names, context));
    Ok(())
}

/// A digest is no name that can be given: it is the content's own.
fn new_name(text: &str) -> Result<Reference> {
    let reference = Reference::parse(text).map_err(|fault| fault.on(text))?;
    if reference.digest().is_some() {
        return Err(
            Fault::usage("a name with a digest cannot be given: the digest is the content's").on(text)
        );
    }
    Ok(reference)
}

fn tag(
    args: &Args,
    store: &Store,
    subject: Subject,
    names: &[Reference],
    context: &mut Context,
) -> Result<()> {
    let entry = store.find_subject(&subject)?;
    if args.dry_run {
        let steps: Vec<_> = names
            .iter()
            .map(|name| json!({"step": "tag", "image": entry.digest(), "name": name.stored_name()}))
            .collect();
        return context.print_steps(None, &steps);
    }
    for name in names {
        store.tag(&entry, name)?;
        let who = store::Who::image(entry.digest().as_str(), &name.stored_name());
        store.event(&who, "tag", serde_json::Value::Null);
    }
    let details = store.image_details(&entry)?;
    let (mut record, mut image) = match subject {
        // What a stage before changed in it stays.
        Subject::Record(record) => {
            let image: Image = record.require("image")?;
            (*record, image)
        }
        Subject::Name(_) => (Record::new(), details.image),
    };
    // What comes next in the pipe works under the name that was given last.
    image.reference = names.last().map(Reference::stored_name).unwrap_or_default();
    let mut all = store.other_names(&entry)?;
    all.extend(entry.name().map(str::to_owned));
    image.extra.insert("names".into(), json!(all));
    record.set("image", &image)?;
    let words: Vec<String> = names.iter().map(|name| format!("tagged {}", name.familiar())).collect();
    context.print_result(&record, details.id.as_str(), &words.join("\n"))
}
