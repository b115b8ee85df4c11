//! Write images into an archive.
#![forbid(unsafe_code)]

mod plan;

use cli::progress::Progress;
use cli::{Common, Context, Fault, ProgressArgs, Result};
use image::archive::{Writer, blob_path};
use plan::Plan;
use serde_json::json;
use std::io::{IsTerminal, stdout};
use std::path::PathBuf;
use store::{Settle, Store, Subject};

/// Write images into an archive
///
/// A tar on stdout, or a file with --into. It is an OCI image layout and a docker archive at once: docker load, podman load, ctr images
/// import, and skopeo's oci-archive: and docker-archive: read it. Blobs are as the registry sent them, each once, however many of the
/// images have it; nothing is compressed again.
#[derive(Debug, clap::Parser)]
#[command(
    name = "img-save",
    version,
    after_help = "Examples:\n  img-save debian:12 | ssh host docker load\n  img-pull app:1 app:2 | img-save --into app.tar\n  img-save $(img-ls -q 'team/*') | zstd >team.tar.zst"
)]
pub struct Args {
    /// References, ids or beginnings of them; without any, records are read from stdin
    #[arg(value_name = "IMAGE")]
    pub images: Vec<String>,

    /// Write to this file, which is there when it is complete; stdout then has the records
    #[arg(short = 'o', long = "into", value_name = "FILE")]
    pub into: Option<PathBuf>,

    /// Print what would be written as one step a line, and write nothing
    #[arg(long)]
    pub dry_run: bool,

    #[command(flatten)]
    pub progress: ProgressArgs,

    /// No progress bars; with --into print ids only
    #[arg(short, long)]
    pub quiet: bool,

    #[command(flatten)]
    pub common: Common,
}

cli::tool!(Args, "img-save", common, quiet);

/// An archive lacks no image that was asked for: the first failure ends it.
pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    if args.into.is_none() && !args.dry_run && stdout().is_terminal() {
        return Err(Fault::usage("stdout is a terminal, which an archive would garble")
            .hint("--into FILE, or | or >"));
    }
    let store = Store::from_env()?;
    let subjects: Vec<Subject> = if args.images.is_empty() {
        context.require_records()?.into_iter().map(Subject::from).collect()
    } else {
        args.images.iter().cloned().map(Subject::from).collect()
    };
    if subjects.is_empty() {
        // A record that could not be read was reported.
        return Ok(());
    }
    let settle = Settle::new();
    let mut plan = Plan::default();
    for subject in &subjects {
        plan.add(&store, subject, &settle)?;
    }
    if args.dry_run {
        let steps: Vec<_> = plan
            .members()
            .iter()
            .map(|(path, size)| json!({"step": "write", "path": path, "size": size}))
            .collect();
        return context.print_steps(None, &steps);
    }
    let progress = Progress::new(context.tool(), args.progress, args.quiet)?;
    let mut archive = Writer::create(args.into.as_deref())?;
    let result = write(&plan, &store, &settle, &mut archive, &progress);
    progress.clear();
    result?;
    archive.finish()?;
    settle.finish();
    let images = plan.into_images();
    for saved in &images {
        let who = store::Who::image(&saved.image.digest, &saved.image.reference);
        store.event(&who, "save", serde_json::Value::Null);
    }
    let Some(into) = &args.into else { return Ok(()) };
    let archive = into.to_string_lossy();
    for (subject, saved) in subjects.into_iter().zip(images) {
        let mut record = match subject {
            Subject::Record(record) => *record,
            Subject::Name(_) => {
                let mut record = record::Record::new();
                record.set("image", &saved.image)?;
                record
            }
        };
        record.set("archive", &archive)?;
        context.print_result(&record, saved.id.as_str(), &format!("saved {}", saved.image.reference))?;
    }
    Ok(())
}

fn write(
    plan: &Plan,
    store: &Store,
    settle: &Settle,
    archive: &mut Writer,
    progress: &Progress,
) -> Result<()> {
    for (path, text) in plan.documents() {
        archive.document(path, text.as_bytes())?;
    }
    for (digest, size) in plan.blobs() {
        // A blob that is open is what it is called.
        let blob = store.open_blob(digest, settle)?;
        let mut item = progress.start("", digest.as_str(), "save", Some(*size));
        archive.file(&blob_path(digest), *size, &blob, &mut |copied| item.set(copied))?;
        item.done();
    }
    Ok(())
}
