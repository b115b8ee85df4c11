//! Read images from an archive into the store.
#![forbid(unsafe_code)]

mod input;

use cli::progress::{Item, Progress};
use cli::{Common, Context, Fault, ProgressArgs, Result};
use image::{Loaded, Loader};
use input::Input;
use oci::{Platform, Reference};
use record::Record;
use serde_json::json;
use std::collections::HashMap;
use std::path::PathBuf;
use store::{Settle, Store};

/// Read images from an archive into the store
///
/// The archive is an OCI image layout in a tar or what docker save, podman save and skopeo write, plain or packed with gzip, zstd or
/// xz; it is read once, from a pipe too, and what the store has already is not written again. Prints one record for each name of an
/// image. Records that img-save --into printed can be piped in in place of an archive.
#[derive(Debug, clap::Parser)]
#[command(
    name = "img-load",
    version,
    after_help = "Examples:\n  docker save app:1 | img-load\n  ssh host img-save app:1 | img-load | img-unpack | ctr-create | ctr-start --attach\n  img-load --input app.tar.xz --name registry.example/app:2\n  curl -s https://example.org/images.tar.zst | img-load -q"
)]
pub struct Args {
    /// Read this file instead of stdin
    #[arg(short, long, value_name = "FILE")]
    pub input: Option<PathBuf>,

    /// Give the one image of the archive this name instead of its own
    #[arg(short = 't', long, value_name = "REF")]
    pub name: Option<String>,

    /// Choose the image for this platform where there are several [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<String>,

    #[command(flatten)]
    pub progress: ProgressArgs,

    /// No progress bars; print ids only
    #[arg(short, long)]
    pub quiet: bool,

    #[command(flatten)]
    pub common: Common,
}

cli::tool!(Args, "img-load", common, quiet);

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let platform = args.platform.as_deref().map_or_else(|| Ok(Platform::host()), Platform::parse)?;
    let name = args.name.as_deref().map(image::new_name).transpose()?;
    let store = Store::from_env()?;
    let settle = Settle::new();
    let progress = Progress::new(context.tool(), args.progress, args.quiet)?;
    let load = Load { store: &store, settle: &settle, platform: &platform, progress: &progress, name };
    match Input::open(args.input.as_deref())? {
        Input::Archive(archive, subject) => {
            let loaded = load.archive(archive, &subject, context);
            progress.clear();
            for loaded in loaded.map_err(|fault| fault.on(subject))? {
                print(&Record::new(), &loaded, context)?;
            }
        }
        Input::Records(records) => {
            let records: Vec<Record> = records.collect::<Result<_>>()?;
            let mut known: HashMap<PathBuf, Vec<Loaded>> = HashMap::new();
            context.each(records, |context, record| {
                let path = input::archive_of(&record)?;
                // img-save prints a record for each image of one archive.
                if !known.contains_key(&path) {
                    let subject = path.display().to_string();
                    let loaded = load.archive(input::open_file(&path)?, &subject, context);
                    progress.clear();
                    known.insert(path.clone(), loaded.map_err(|fault| fault.on(subject))?);
                }
                let wanted = record.image()?.map(|image| image.digest);
                let loaded = known.get(&path).into_iter().flatten();
                loaded
                    .filter(|loaded| wanted.as_ref().is_none_or(|digest| *digest == loaded.image.digest))
                    .try_for_each(|loaded| print(&record, loaded, context))
            });
        }
    }
    settle.finish();
    Ok(())
}

struct Load<'a> {
    store: &'a Store,
    settle: &'a Settle,
    platform: &'a Platform,
    progress: &'a Progress,
    name: Option<Reference>,
}

impl Load<'_> {
    /// What is wrong with one image is told, and the others are loaded; what is wrong with the archive ends it.
    fn archive(&self, archive: input::Archive, subject: &str, context: &mut Context) -> Result<Vec<Loaded>> {
        let mut current: Option<(String, Item<'_>)> = None;
        let mut tell = |path: &str, written: u64| {
            if current.as_ref().is_none_or(|(known, _)| known != path) {
                if let Some((_, item)) = current.take() {
                    item.done();
                }
                let label = path.rsplit('/').next().unwrap_or(path).get(..12).unwrap_or(path);
                current = Some((path.to_owned(), self.progress.start(subject, path, label, None)));
            }
            if let Some((_, item)) = &mut current {
                item.set(written);
            }
        };
        let mut loader =
            Loader { store: self.store, settle: self.settle, platform: self.platform, progress: &mut tell };
        let found = loader.read(archive)?;
        if self.name.is_some() && found.len() > 1 {
            return Err(Fault::conflict(format!(
                "the archive has {} images, which cannot have one name",
                found.len()
            )));
        }
        let mut all = Vec::new();
        for one in found {
            let listed = one.and_then(|image| {
                let subject = image.subject();
                loader.list(&image, self.name.as_ref()).map_err(|fault| fault.on(subject))
            });
            match listed {
                Ok(loaded) => {
                    for Loaded { image, .. } in &loaded {
                        let who = store::Who::image(&image.digest, &image.reference);
                        self.store.event(&who, "load", serde_json::Value::Null);
                    }
                    all.extend(loaded);
                }
                Err(fault) => context.report(&fault),
            }
        }
        if let Some((_, item)) = current.take() {
            item.done();
        }
        self.progress.clear();
        Ok(all)
    }
}

fn print(record: &Record, loaded: &Loaded, context: &mut Context) -> Result<()> {
    let mut record = record.clone();
    record.remove("archive");
    let mut image = loaded.image.clone();
    image.extra.insert("id".into(), json!(loaded.id));
    record.set("image", &image)?;
    context.print_result(&record, loaded.id.as_str(), &format!("loaded {}", image.reference))
}
