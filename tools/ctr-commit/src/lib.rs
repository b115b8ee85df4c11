//! Make images of containers.
#![forbid(unsafe_code)]

mod config;
pub mod layer;
mod pause;

use clap::ValueEnum;
use cli::progress::Progress;
use cli::{Common, Context, Explain, Fault, Result};
use config::Base;
use layer::NewLayer;
use oci::manifest::media_type as mt;
use oci::{Digest, Format, Reference};
use pause::Pause;
use record::Record;
use rootfs::{Access, Changes, Root};
use serde_json::{Value, json};
use std::path::PathBuf;
use store::{ContainerDir, NewImage, Settle, Store, Subject, Who};

/// Make images of containers
///
/// The image is the container's own with one more layer: what was changed in its files. It is run as the container was: its command, variables, user,
/// ports and labels become the image's. What is mounted in the container (volumes, /etc/hosts …) is no part of it. A container that runs is paused while
/// its files are read.
#[derive(Debug, clap::Parser)]
#[command(
    name = "ctr-commit",
    version,
    override_usage = "ctr-commit [OPTIONS] CONTAINER [NAME]\n       ... | ctr-commit [OPTIONS] [- [NAME]]",
    after_help = "Examples:\n  ctr-commit web me/web:1 | img-push\n  ctr-commit -c 'CMD [\"nginx\", \"-g\", \"daemon off;\"]' -c 'EXPOSE 80' -m 'as of today' web web:now\n  ctr-commit --squash web web:flat\n  img-pull debian:12 | img-unpack | ctr-create -- sh -c 'apt-get update' | net-attach | ctr-start --attach && ctr-ls -l | ctr-commit - apt:1"
)]
pub struct Args {
    /// Id, name, or a beginning of an id; without one or with `-`, records on stdin
    #[arg(value_name = "CONTAINER")]
    pub container: Option<String>,

    /// Name of the image; without one it is known by its digest
    #[arg(value_name = "NAME")]
    pub name: Option<String>,

    /// Apply an instruction of a Dockerfile: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, SHELL, STOPSIGNAL, USER, VOLUME, WORKDIR
    #[arg(short, long, value_name = "INSTRUCTION")]
    pub change: Vec<String>,

    /// Who made it
    #[arg(short, long, value_name = "TEXT")]
    pub author: Option<String>,

    /// Comment of this step in the image's history
    #[arg(short, long, value_name = "TEXT")]
    pub message: Option<String>,

    /// Stop the container's processes while its files are read; --pause=false lets them run
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub pause: bool,

    /// Let the container's processes run while its files are read
    #[arg(long, conflicts_with = "pause")]
    pub no_pause: bool,

    /// All of the container's files in one layer, instead of one more on the image's
    #[arg(long)]
    pub squash: bool,

    /// Media types of the manifest, its configuration and layers; by default those of the container's image
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub format: Option<Dialect>,

    /// How the new layer is packed
    #[arg(long, value_enum, value_name = "PACKING", default_value_t = Compression::Gzip)]
    pub compression: Compression,

    /// Write the image's id to this file
    #[arg(long, value_name = "FILE")]
    pub iidfile: Option<PathBuf>,

    /// Print what would be done as one step a line, and do nothing
    #[arg(long)]
    pub dry_run: bool,

    #[command(flatten)]
    pub progress: cli::ProgressArgs,

    /// No progress bars; print ids only
    #[arg(short, long)]
    pub quiet: bool,

    #[command(flatten)]
    pub common: Common,
}

/// Whose media types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Dialect {
    Oci,
    Docker,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Compression {
    Gzip,
    Zstd,
    None,
}

cli::tool!(Args, "ctr-commit", common, quiet);

/// Sections of a record that tell of the container, and nothing of the image made of it.
const OF_THE_CONTAINER: [&str; 7] =
    ["rootfs", "config", "spec", "container", "networks", "volumes", "exit_code"];

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let name = args.name.as_deref().map(oci::reference::new_name).transpose()?;
    // What is wrong with the command line is said before anything is read.
    img_edit::change::apply(&args.change, &mut json!({"config": {}}))?;
    let subjects: Vec<Subject> = match args.container.as_deref().filter(|container| *container != "-") {
        Some(container) => vec![Subject::from(container.to_owned())],
        None => context.require_records()?.into_iter().map(Subject::from).collect(),
    };
    if subjects.len() > 1 && (name.is_some() || args.iidfile.is_some()) {
        return Err(Fault::input(
            "several containers, whose images cannot have one name or one file for their ids",
        )
        .hint("one ctr-commit for each of them"));
    }
    let store = Store::from_env()?;
    let settle = Settle::new();
    rootfs::allow_many_files();
    context.each(subjects, |context, subject| {
        let dir = subject.find(&store)?;
        one(args, context, &store, &settle, &subject, &dir, name.as_ref())
            .map_err(|fault| fault.on(dir.id.as_str()))
    });
    settle.finish();
    Ok(())
}

fn one(
    args: &Args,
    context: &mut Context,
    store: &Store,
    settle: &Settle,
    subject: &Subject,
    dir: &ContainerDir,
    name: Option<&Reference>,
) -> Result<()> {
    let stored = dir.load()?;
    let base = Base::of(&stored, args.squash)?;
    if args.dry_run {
        return context.print_steps(Some(&dir.id), &steps(args, dir, name)?);
    }
    let layer = read_layer(args, context, store, settle, dir)?;
    if layer.misnamed > 0 {
        context.warn(
            &dir.id,
            &format!(
                "{} files were left out whose names begin with .wh., which in a layer means deleted",
                layer.misnamed
            ),
        );
    }
    let (manifest, config) = documents(args, &stored, &base, &layer)?;
    let new = NewImage {
        manifest: manifest.as_bytes(),
        media_type: None,
        config: Some(config.as_bytes()),
        name,
        index_digest: None,
    };
    let entry = store.put_image(&new, settle)?;
    let details = store.image_details(&entry)?;
    let made = json!({"image": details.id.as_str(), "reference": details.image.reference});
    store.event(&Who::container(&stored), "commit", made);
    if let Some(path) = &args.iidfile {
        std::fs::write(path, details.id.as_str()).explain(|| format!("write {}", path.display()))?;
    }
    let mut record = match subject {
        Subject::Record(record) => (**record).clone(),
        Subject::Name(_) => Record::new(),
    };
    for section in OF_THE_CONTAINER {
        record.remove(section);
    }
    record.set("image", &details.image)?;
    context.print_result(&record, details.id.as_str(), &format!("committed {}", details.image.reference))
}

/// Reads what the layer is to hold into a blob, with the container stopped if that is wanted.
fn read_layer(
    args: &Args,
    context: &Context,
    store: &Store,
    settle: &Settle,
    dir: &ContainerDir,
) -> Result<NewLayer> {
    let pause = if args.pause && !args.no_pause { Pause::start(dir)? } else { None };
    let progress = Progress::new(context.tool(), args.progress, args.quiet)?;
    let mut item = progress.start(&dir.id, "layer", "commit", None);
    let mut told = |bytes| item.set(bytes);
    let mut writer = layer::Writer::new(store.unnamed_blob()?, args.compression, &mut told)?;
    let read = if args.squash {
        Root::open(store, dir, Access::Own).and_then(|root| writer.whole(&root))
    } else {
        Changes::of(dir).and_then(|changes| writer.changes(&changes))
    };
    // Running again before the last bytes are packed.
    let resumed = pause.map_or(Ok(()), Pause::end);
    let layer = read.and_then(|()| writer.finish(settle));
    if layer.is_ok() {
        item.done();
    }
    progress.clear();
    resumed.and(layer)
}

fn steps(args: &Args, dir: &ContainerDir, name: Option<&Reference>) -> Result<Vec<Value>> {
    let mut steps = Vec::new();
    if args.pause && !args.no_pause && dir.status()? == store::Status::Running {
        steps.push(json!({"step": "pause"}));
    }
    steps.push(json!({"step": "pack", "what": if args.squash { "all files" } else { "changed files" }}));
    steps.push(json!({"step": "store"}));
    if let Some(name) = name {
        steps.push(json!({"step": "tag", "name": name.stored_name()}));
    }
    Ok(steps)
}

/// Manifest and configuration.
fn documents(args: &Args, stored: &Record, base: &Base, layer: &NewLayer) -> Result<(String, String)> {
    let now = img_edit::value::now()?;
    let mut config = base.config(stored, &now)?;
    if let Some(author) = &args.author {
        config["author"] = json!(author);
    }
    img_edit::change::apply(&args.change, &mut config)?;
    let is_empty = layer.members == 0 && !base.layers.is_empty();
    let mut diff_ids: Vec<Value> = base.layers.iter().map(|layer| json!(layer.diff_id)).collect();
    let mut step = json!({"created": now, "created_by": config::words(&config)});
    if let Some(author) = &args.author {
        step["author"] = json!(author);
    }
    if let Some(message) = &args.message {
        step["comment"] = json!(message);
    }
    if is_empty {
        step["empty_layer"] = json!(true);
    } else {
        diff_ids.push(json!(layer.diff_id));
    }
    config["rootfs"] = json!({"type": "layers", "diff_ids": diff_ids});
    config::add_step(&mut config, step, base.layers.len());
    let config = config.to_string();
    let format = match args.format {
        Some(Dialect::Oci) => Format::Oci,
        Some(Dialect::Docker) => Format::Docker,
        None => base.format,
    };
    let own = json!({"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size});
    let mut layers: Vec<Value> = base
        .layers
        .iter()
        .map(|layer| json!({"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size}))
        .chain((!is_empty).then_some(own))
        .collect();
    for layer in &mut layers {
        layer["mediaType"] = json!(format.translate(layer["mediaType"].as_str().unwrap_or_default()));
    }
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": format.translate(mt::OCI_MANIFEST),
        "config": {"mediaType": format.translate(mt::OCI_CONFIG), "digest": Digest::of(config.as_bytes()), "size": config.len()},
        "layers": layers,
    });
    Ok((manifest.to_string(), config))
}
