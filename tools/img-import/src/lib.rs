//! Make an image of a root file system.
#![forbid(unsafe_code)]

mod layer;

use cli::progress::Progress;
use cli::{Common, Context, Explain, Fault, ProgressArgs, Result};
use layer::{Layer, read_layer};
use oci::manifest::media_type;
use oci::{Digest, Platform};
use record::Record;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use store::{NewImage, Settle, Store};

/// Make an image of a root file system
///
/// Reads a tar of a root file system, plain or packed with gzip, zstd or xz, from a file or stdin, and stores it as an image of one
/// layer. The layer is the archive as it came (of xz: unpacked), checked and hashed in one pass. With SOURCE_DATE_EPOCH set the same
/// archive gives the same image.
#[derive(Debug, clap::Parser)]
#[command(
    name = "img-import",
    version,
    override_usage = "img-import [OPTIONS] FILE [NAME]\n       ... | img-import [OPTIONS] [- [NAME]]",
    after_help = "Examples:\n  debootstrap bookworm tree && tar -C tree -c . | img-import - debian:mine\n  img-import -c 'CMD [\"/bin/sh\"]' -c 'ENV LANG=C.UTF-8' alpine-minirootfs.tar.gz alpine:mini\n  curl -sL https://example.org/rootfs.tar.xz | img-import --platform linux/arm64 - board:1\n  docker export c1 | img-import | img-unpack | ctr-create -- sh | ctr-start --attach"
)]
pub struct Args {
    /// The archive; without one or with `-`, stdin
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,

    /// Name of the image; without one it is known by its digest
    #[arg(value_name = "NAME")]
    pub name: Option<String>,

    /// Apply an instruction of a Dockerfile: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, SHELL, STOPSIGNAL, USER, VOLUME, WORKDIR
    #[arg(short, long, value_name = "INSTRUCTION")]
    pub change: Vec<String>,

    /// Comment of the image's one step in its history
    #[arg(short, long, value_name = "TEXT")]
    pub message: Option<String>,

    /// Who made it
    #[arg(short, long, value_name = "TEXT")]
    pub author: Option<String>,

    /// What it runs on [default: this machine's]
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

cli::tool!(Args, "img-import", common, quiet);

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let name = args.name.as_deref().map(image::new_name).transpose()?;
    let platform = args.platform.as_deref().map_or_else(|| Ok(Platform::host()), Platform::parse)?;
    // What is wrong with the command line is said before anything is read.
    let mut config = json!({
        "created": img_edit::value::now()?, "architecture": platform.architecture, "os": platform.os, "config": {},
    });
    if let Some(variant) = &platform.variant {
        config["variant"] = json!(variant);
    }
    if let Some(author) = &args.author {
        config["author"] = json!(author);
    }
    img_edit::change::apply(&args.change, &mut config)?;
    let (input, subject) = open(args.file.as_deref())?;
    let store = Store::from_env()?;
    let settle = Settle::new();
    let progress = Progress::new(context.tool(), args.progress, args.quiet)?;
    let layer = {
        let mut item = progress.start(&subject, "layer", "import", None);
        let layer = read_layer(&store, input, &settle, &mut |bytes| item.set(bytes));
        if layer.is_ok() {
            item.done();
        }
        layer
    };
    progress.clear();
    let layer = layer.map_err(|fault| fault.on(&subject))?;
    let (manifest, config) = documents(config, &layer, args, &subject);
    let new = NewImage {
        manifest: manifest.as_bytes(),
        media_type: None,
        config: Some(config.as_bytes()),
        name: name.as_ref(),
        index_digest: None,
    };
    let entry = store.put_image(&new, &settle)?;
    let details = store.image_details(&entry)?;
    let mut record = Record::new();
    record.set("image", &details.image)?;
    let who = store::Who::image(&details.image.digest, &details.image.reference);
    store.event(&who, "import", serde_json::Value::Null);
    context.print_result(&record, details.id.as_str(), &format!("imported {}", details.image.reference))?;
    settle.finish();
    Ok(())
}

/// The archive with what to call it.
fn open(file: Option<&Path>) -> Result<(Box<dyn Read>, String)> {
    let Some(path) = file.filter(|path| *path != Path::new("-")) else {
        let stdin = std::io::stdin();
        if stdin.is_terminal() {
            return Err(
                Fault::usage("stdin is a terminal").hint("img-import FILE NAME, or … | img-import - NAME")
            );
        }
        return Ok((Box::new(stdin), "stdin".to_owned()));
    };
    let subject = path.display().to_string();
    if subject.starts_with("http://") || subject.starts_with("https://") {
        return Err(Fault::usage("addresses are not fetched")
            .on(&subject)
            .hint(format!("curl -fL {subject} | img-import - NAME")));
    }
    let file = File::open(path).explain(|| format!("open {subject}"))?;
    Ok((Box::new(file), subject))
}

fn documents(mut config: Value, layer: &Layer, args: &Args, subject: &str) -> (String, String) {
    let comment = args.message.clone().unwrap_or_else(|| format!("imported from {subject}"));
    config["rootfs"] = json!({"type": "layers", "diff_ids": [layer.diff_id]});
    config["history"] =
        json!([{"created": config["created"], "created_by": "img-import", "comment": comment}]);
    let config = config.to_string();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
        "config": {"mediaType": media_type::OCI_CONFIG, "digest": Digest::of(config.as_bytes()), "size": config.len()},
        "layers": [{"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size}],
    });
    (manifest.to_string(), config)
}
