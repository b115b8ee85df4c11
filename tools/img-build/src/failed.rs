//! A command that failed: what is said, and a record with which one enters the container as it was.

use crate::layer::{Named, Unfinished};
use crate::report::Vertex;
use crate::run::Ended;
use crate::stage::Stage;
use cli::{Explain, Fault, Result};
use dockerfile::Step;
use dockerfile::scope::Run;
use oci::Digest;
use record::{Config, Image, Record, Rootfs};
use std::path::PathBuf;

/// Lines of output that an error repeats.
const LAST_LINES: usize = 10;

pub fn fault(
    stage: &Stage<'_, '_>,
    run: &Run,
    step: &Step,
    vertex: &Vertex<'_>,
    unfinished: &mut Unfinished,
    ended: &Ended,
) -> Fault {
    let _ = stage.builder.failed.set(ended.code);
    let why = match ended.code {
        _ if ended.out_of_memory => "was killed for want of memory".to_owned(),
        code @ 129..=192 => format!("was killed by signal {}", code - 128),
        code => format!("ended with status {code}"),
    };
    let mut message = format!("the command {why}");
    // All of it is on the terminal already, unless that was not wanted.
    let last = vertex.last_lines(LAST_LINES);
    if let Some(line) = last.iter().rev().find(|line| !line.trim().is_empty()) {
        message = format!("{message}: {}", line.trim());
    }
    stage.builder.report.repeat(&step.title, &last);
    let fault = Fault::failed(message);
    match keep(stage, run, step, unfinished, ended) {
        Ok(path) => fault.hint(format!(
            "to look around in it as it was: ctr-create -it --init -- sh < {} | net-attach | ctr-start --attach",
            path.display()
        )),
        Err(kept) => fault.hint(format!("its files could not be kept: {kept}")),
    }
}

/// The files as they are become a layer, which the cache holds like others, under a key nothing has.
fn keep(
    stage: &Stage<'_, '_>,
    run: &Run,
    step: &Step,
    unfinished: &mut Unfinished,
    ended: &Ended,
) -> Result<PathBuf> {
    let builder = stage.builder;
    let key = Digest::of(ctr_create::names::new_id()?.as_bytes());
    let named = Named { key: &key, instruction: &step.title, lock: None };
    let whole = std::mem::replace(unfinished, Unfinished::new(builder.store, None)?);
    let below = whole.finish(&stage.built.files, None, &ended.mounted_on, named, &builder.finish)?;
    let changed = below.layer()?;
    let mut layers = stage.built.files.lower(builder.store, &builder.finish.settle)?;
    // Those this build has made have names that end with it.
    for (path, made) in layers.iter_mut().rev().zip(stage.built.files.made.iter().rev()) {
        if let Some(layer) = made.layer()? {
            *path = builder.store.layer_fs(&Digest::parse(&layer.diff_id)?);
        } else {
            path.clear();
        }
    }
    layers.retain(|path| !path.as_os_str().is_empty());
    if let Some(layer) = &changed {
        layers.push(builder.store.layer_fs(&Digest::parse(&layer.diff_id)?));
    }
    let mut record = Record::new();
    let image = Image {
        reference: format!("build:{}", stage.planned.name),
        config: stage.built.config.clone(),
        layers: stage.built.files.layers()?.into_iter().chain(changed).collect(),
        ..Image::default()
    };
    record.set("image", &image)?;
    let layers = layers.iter().map(|path| path.display().to_string()).collect();
    record.set("rootfs", &Rootfs { layers, driver: "overlay".to_owned(), ..Rootfs::default() })?;
    let config = Config {
        command: Some(run.argv.clone()),
        entrypoint: Some(Vec::new()),
        env: run.env.clone(),
        workdir: Some(run.workdir.clone()),
        user: Some(run.user.clone()).filter(|user| !user.is_empty()),
        ..Config::default()
    };
    record.set("config", &config)?;
    let dir = builder.store.root().join("cache/failed");
    builder.store.make_dir(&dir)?;
    let path = dir.join(format!("{}.json", key.short()));
    let mut text = Vec::new();
    record.write_to(&mut text).explain(|| "write a record".into())?;
    store::atomic::write_unflushed(&path, &text, 0o600)?;
    Ok(path)
}
