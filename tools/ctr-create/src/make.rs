//! From a record to a container that waits: plan (pure but for look-ups), then apply, then undo if a step fails.

use crate::edited::{self, Difference};
use crate::etc::Etc;
use crate::facts::{identity, specification};
use crate::{exposed, from, hooks, names, quota, volumes};
use cli::{Explain, Fault, Result};
use oci::spec::{BindUse, Tree, TreeUse, UserNamespace, VolumeUse};
use oci::wishes::HealthPlan;
use oci::wishes::IdMap;
use oci::wishes::health::HealthWish;
use record::{Config, Container, Record, Rootfs, Volume};
use rustix::fs::{AtFlags, CWD, Gid, Mode, Uid, chmodat, chownat};
use serde::Serialize;
use serde_json::{Value, json};
use shim::{Client, Prepared, Request};
use std::path::{Path, PathBuf};
use store::{ContainerDir, Lock, Status, Store, Who, atomic};

/// What would be done, for `--dry-run` too.
#[derive(Debug, Serialize)]
pub struct Plan {
    pub id: String,
    pub name: String,
    pub bundle: PathBuf,
    /// Host directories that are made because they are missing.
    pub make_directories: Vec<PathBuf>,
    pub volumes: Vec<String>,
    /// `config.json`.
    pub spec: Value,
    #[serde(skip)]
    config: Config,
    #[serde(skip)]
    rootfs: Rootfs,
    #[serde(skip)]
    uses: Uses,
}

#[derive(Debug, Default)]
struct Uses {
    volumes: Vec<VolumeUse>,
    binds: Vec<BindUse>,
    trees: Vec<TreeUse>,
    /// User and group of the container's command.
    owner: (u32, u32),
    /// The same on this machine; `None` if that is not known.
    owner_outside: Option<(u32, u32)>,
    hostname: String,
    stop_signal: Option<i32>,
    /// Bytes the read-write layer may hold.
    layer_size: Option<u64>,
    /// Further files of the bundle.
    files: Vec<(&'static str, String)>,
    etc: Etc,
    health: Option<HealthPlan>,
}

/// How often another name is looked for when somebody else was quicker.
const NAMES_TRIED: u32 = 20;

/// A warning about one container.
pub type Warn<'a> = &'a mut dyn FnMut(&str);

/// An id for a container to come, with its shim already starting.
pub fn prepare(store: &Store) -> Result<Prepared> {
    Prepared::start(&store.container_dir(&names::new_id()?))
}

/// Makes the container a record describes, with `config` in place of the record's. A record of a container that exists
/// already gives that container, changed if the record was. `prepared`: from [`prepare`], to be faster.
///
/// Returns the record with its `config` and `container` sections set. On failure nothing is left.
pub fn create(
    store: &Store,
    record: Record,
    mut config: Config,
    prepared: Option<&mut Prepared>,
    warn: Warn<'_>,
) -> Result<Record> {
    from::expand(store, &mut config)?;
    if let Some(dir) = existing(store, &record, &config)? {
        return again(store, &dir, record, config, warn);
    }
    let id = match &prepared {
        Some(prepared) => prepared.dir().id.clone(),
        None => names::new_id()?,
    };
    let ids = Ids { store, id: &id };
    crate::users::settle(store, &id, &config)?;
    let made = named(store, &record, &config, &id, prepared, warn)?;
    ids.kept();
    Ok(made)
}

/// Makes it, under another name if the one that was found for it is somebody else's by then.
fn named(
    store: &Store,
    record: &Record,
    config: &Config,
    id: &str,
    mut prepared: Option<&mut Prepared>,
    warn: Warn<'_>,
) -> Result<Record> {
    let mut left = if config.name.is_some() { 0 } else { NAMES_TRIED };
    loop {
        let plan = plan(store, record, config.clone(), id.to_owned(), warn)?;
        match apply(store, record.clone(), &plan, prepared.as_deref_mut()) {
            Err(Unmade::Name(_)) if left > 0 => left -= 1,
            Err(Unmade::Name(fault) | Unmade::Other(fault)) => return Err(fault),
            Ok(made) => return Ok(made),
        }
    }
}

/// Why a container was not made.
enum Unmade {
    /// The name is somebody else's. Nothing was done yet.
    Name(Fault),
    Other(Fault),
}

impl From<Fault> for Unmade {
    fn from(fault: Fault) -> Unmade {
        Unmade::Other(fault)
    }
}

/// The container a record tells of, if it is here and no other name is wished for.
fn existing(store: &Store, record: &Record, config: &Config) -> Result<Option<ContainerDir>> {
    let Some(container) = record.container()? else { return Ok(None) };
    if !store::is_id(&container.id) {
        return Err(Fault::input("container.id is not 64 hexadecimal digits").on(container.id));
    }
    if config.name.as_ref().is_some_and(|name| *name != container.name) {
        return Ok(None);
    }
    let dir = store.container_dir(&container.id);
    Ok(dir.exists().then_some(dir))
}

/// What would be done for a record that describes no container yet.
pub fn dry_run(store: &Store, record: &Record, mut config: Config, warn: Warn<'_>) -> Result<Plan> {
    from::expand(store, &mut config)?;
    plan(store, record, config, names::new_id()?, warn)
}

fn plan(store: &Store, record: &Record, config: Config, id: String, warn: Warn<'_>) -> Result<Plan> {
    crate::networks::exist(store, &config)?;
    let name = match &config.name {
        Some(name) => {
            store::check_name(name)?;
            name.clone()
        }
        None => free_name(store)?,
    };
    let rootfs = rootfs_of(record, &config)?;
    plan_for(store, record, config, rootfs, (id, name), warn)
}

fn free_name(store: &Store) -> Result<String> {
    for attempt in 0..100 {
        let name = names::new_name(attempt)?;
        if std::fs::symlink_metadata(store.root().join("names").join(&name)).is_err() {
            return Ok(name);
        }
    }
    Err(Fault::failed("no free name was found").hint("give one with --name"))
}

/// `--rootfs` or what img-unpack made.
fn rootfs_of(record: &Record, config: &Config) -> Result<Rootfs> {
    if let Some(path) = &config.rootfs {
        if !Path::new(path).is_absolute() {
            return Err(Fault::input(format!("the root directory {path} is not absolute")));
        }
        if !Path::new(path).is_dir() {
            return Err(Fault::not_found(format!("the root directory {path} does not exist")));
        }
        return Ok(Rootfs { driver: "directory".to_owned(), path: Some(path.clone()), ..Rootfs::default() });
    }
    let rootfs = record.rootfs()?.ok_or_else(|| {
        let fault = Fault::input("the record has no \"rootfs\" section");
        fault.hint(if record.contains("image") {
            "put img-unpack before this stage"
        } else {
            "img-pull IMAGE | img-unpack | ctr-create, or --rootfs DIR"
        })
    })?;
    match (rootfs.driver.as_str(), &rootfs.path, rootfs.layers.len()) {
        ("directory", Some(path), _) if Path::new(path).is_absolute() => {}
        ("directory", ..) => return Err(Fault::input("rootfs.path is not an absolute path")),
        ("overlay", _, 0) => return Err(Fault::input("rootfs.layers is empty")),
        ("overlay", ..) => {
            if let Some(bad) = rootfs.layers.iter().find(|layer| !Path::new(layer).is_absolute()) {
                return Err(Fault::input(format!("layer {bad} is not an absolute path")));
            }
        }
        (other, ..) => return Err(Fault::input(format!("rootfs driver {other:?} is unknown"))),
    }
    Ok(rootfs)
}

fn plan_for(
    store: &Store,
    record: &Record,
    mut config: Config,
    rootfs: Rootfs,
    (id, name): (String, String),
    warn: Warn<'_>,
) -> Result<Plan> {
    if !config.storage_opts.is_empty() && rootfs.driver != "overlay" {
        return Err(Fault::input(
            "a storage option, and a directory as the root file system: it has no read-write layer",
        ));
    }
    exposed::publish(record, &mut config, warn)?;
    let who = identity(store, &id, &name);
    let mut generated = specification(store, record, &config, &who)?;
    volumes::find_images(store, &mut generated.trees)?;
    for warning in &generated.warnings {
        warn(warning);
    }
    let spec = match record.raw("spec") {
        // As the user edited it.
        Some(text) => {
            generated.settle(serde_json::from_str(text).explain_as(cli::Kind::Input, || "spec".into())?)?
        }
        None => generated.json()?,
    };
    let owner =
        |key: &str| spec["process"]["user"][key].as_u64().and_then(|id| u32::try_from(id).ok()).unwrap_or(0);
    let owner = (owner("uid"), owner("gid"));
    let spec = hooks::apply(spec, &config, !generated.binds.is_empty())?;
    // An edited specification may name the host otherwise.
    let hostname = spec["hostname"].as_str().map_or(generated.hostname, str::to_owned);
    let health = health(record, &config)?;
    let missing = |bind: &&BindUse| bind.create && std::fs::symlink_metadata(&bind.source).is_err();
    Ok(Plan {
        bundle: store.container_dir(&id).bundle,
        make_directories: generated.binds.iter().filter(missing).map(|bind| bind.source.clone()).collect(),
        volumes: generated.volumes.iter().map(|volume| volume.name.clone()).collect(),
        id,
        name,
        spec,
        config,
        rootfs,
        uses: Uses {
            volumes: generated.volumes,
            binds: generated.binds,
            trees: generated.trees,
            owner,
            owner_outside: outside(generated.users.as_ref(), owner),
            hostname,
            stop_signal: Some(generated.stop_signal),
            layer_size: generated.wishes.layer_size,
            files: generated.files,
            etc: Etc {
                hosts: generated.wishes.hosts,
                resolver: generated.wishes.resolver,
                network: generated.wishes.network,
            },
            health,
        },
    })
}

/// `None` where the namespace has its ids from somewhere else.
fn outside(users: Option<&UserNamespace>, (uid, gid): (u32, u32)) -> Option<(u32, u32)> {
    let of = |maps: &[IdMap], id: u32| {
        maps.iter().find_map(|map| {
            let offset = id.checked_sub(map.container)?;
            (offset < map.size).then(|| map.host + offset)
        })
    };
    match users {
        None => Some((uid, gid)),
        Some(UserNamespace::New { uids, gids }) => Some((of(uids, uid)?, of(gids, gid)?)),
        Some(UserNamespace::Join(_)) => None,
    }
}

fn apply(
    store: &Store,
    mut record: Record,
    plan: &Plan,
    prepared: Option<&mut Prepared>,
) -> std::result::Result<Record, Unmade> {
    let dir = store.container_dir(&plan.id);
    store.make_dir(&store.root().join("containers"))?;
    std::fs::create_dir(&dir.bundle).explain(|| format!("make directory {}", dir.bundle.display()))?;
    // No sooner: ids out of archives are not always new, and what is there already is somebody else's.
    let made = Unfinished { store, dir: &dir, name: &plan.name };
    chmodat(CWD, &dir.bundle, Mode::from_raw_mode(0o700), AtFlags::empty())
        .explain(|| format!("set the mode of {}", dir.bundle.display()))?;
    let lock = Lock::directory(&dir.bundle)?;
    match store.take_name(&plan.name, &plan.id) {
        Err(fault) if fault.kind() == cli::Kind::Conflict => {
            // The run directory is the prepared shim's, for the next try.
            let _ = store::remove_tree(&dir.bundle);
            made.finished();
            return Err(Unmade::Name(fault));
        }
        taken => taken?,
    }
    let created_at = jiff::Timestamp::now().to_string();
    // Until the record says that they are used.
    let held = prepare_mounts(store, &dir, plan)?;
    write_files(&dir, plan)?;
    let container = Container {
        id: plan.id.clone(),
        name: plan.name.clone(),
        status: Some("created".to_owned()),
        bundle: Some(dir.bundle.display().to_string()),
        created_at: Some(created_at),
        extra: for_later(plan),
        ..Container::default()
    };
    set_sections(&mut record, plan, &container)?;
    dir.save(&record)?;
    drop(held);
    let reply = match prepared {
        Some(prepared) => prepared.set_up()?,
        None => shim::start_shim(&dir)?,
    };
    drop(lock);
    made.finished();
    store.event(&Who::container(&record), "create", Value::Null);
    record.set("container", &Container { pid: reply.pid, ..container })?;
    Ok(record)
}

/// Makes what the mounts need, and writes down what the shim is to make of them.
fn prepare_mounts(store: &Store, dir: &ContainerDir, plan: &Plan) -> Result<Vec<volume::Held>> {
    let uses = &plan.uses;
    volumes::prepare_binds(&uses.binds, uses.owner, uses.owner_outside)?;
    let held = volumes::prepare(store, &uses.volumes, &plan.rootfs, uses.owner)?;
    let mut trees = uses.trees.clone();
    volumes::add_trees(&uses.volumes, &held, &mut trees)?;
    volume::trees::write(dir, &trees)?;
    Ok(held)
}

/// What keeps images that are mounted from being removed.
fn mounted_images(plan: &Plan) -> Option<Value> {
    let image = |used: &TreeUse| match &used.tree {
        Tree::Image { reference, digest, layers, .. } => {
            Some(json!({"reference": reference, "digest": digest, "layers": layers, "target": used.target}))
        }
        _ => None,
    };
    let images: Vec<Value> = plan.uses.trees.iter().filter_map(image).collect();
    (!images.is_empty()).then(|| images.into())
}

/// What comes of the wishes and the image's: ctr-stop and ctr-shim need it after the image is gone; img-rm asks for the images.
fn for_later(plan: &Plan) -> record::Extra {
    let mut extra = record::Extra::new();
    if let Some(signal) = plan.uses.stop_signal {
        extra.insert("stop_signal".into(), json!(signal));
    }
    if let Some(images) = mounted_images(plan) {
        extra.insert("mounted_images".into(), images);
    }
    if let Some(health) = &plan.uses.health {
        extra.insert("healthcheck".into(), json!(health));
    }
    extra
}

/// The health check, if there is to be one. With `--rootfs` nothing is the image's.
fn health(record: &Record, config: &Config) -> Result<Option<HealthPlan>> {
    let wish = HealthWish::parse(config.healthcheck.as_ref())?;
    // The usual case, without a look at the image's configuration again.
    if wish == HealthWish::default() && record.raw("image").is_none_or(|image| !image.contains("Healthcheck"))
    {
        return Ok(None);
    }
    let image = if config.rootfs.is_some() { None } else { record.image()? };
    wish.plan(image.as_ref().map(|image| &image.config))
}

fn set_sections(record: &mut Record, plan: &Plan, container: &Container) -> Result<()> {
    let volume = |used: &VolumeUse| Volume {
        name: used.name.clone(),
        anonymous: used.anonymous,
        target: used.target.clone(),
        read_only: used.read_only,
        ..Volume::default()
    };
    let volumes: Vec<Volume> = plan.uses.volumes.iter().map(volume).collect();
    record.set("rootfs", &plan.rootfs)?;
    record.set("config", &plan.config)?;
    // What a copied record tells of the container it was copied from.
    record.remove("exit_code");
    record.remove("container");
    record.remove("networks");
    if volumes.is_empty() {
        record.remove("volumes");
    } else {
        record.set("volumes", &volumes)?;
    }
    record.set("container", container)
}

fn write_files(dir: &ContainerDir, plan: &Plan) -> Result<()> {
    let path = |name: &str| dir.bundle.join(name);
    let spec = serde_json::to_vec(&plan.spec).explain(|| "write the specification".into())?;
    write(&path("config.json"), &spec, 0o600)?;
    write(&path("hostname"), format!("{}\n", plan.uses.hostname).as_bytes(), 0o644)?;
    write(&path("hosts"), plan.uses.etc.hosts().as_bytes(), 0o644)?;
    write(&path("resolv.conf"), plan.uses.etc.resolv_conf().as_bytes(), 0o644)?;
    for (name, text) in &plan.uses.files {
        write(&path(name), text.as_bytes(), 0o644)?;
    }
    if plan.rootfs.driver == "overlay" {
        let top = plan.rootfs.layers.last().map(String::as_str).unwrap_or_default();
        make_writable_layer(dir, Path::new(top))?;
        if let Some(bytes) = plan.uses.layer_size {
            quota::limit(&dir.bundle, &plan.id, bytes)?;
        }
    }
    Ok(())
}

/// Not through a temporary file: the directory is no container yet. The mode is set whatever the umask.
fn write(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    std::fs::write(path, content)
        .and_then(|()| chmodat(CWD, path, Mode::from_raw_mode(mode), AtFlags::empty()).map_err(Into::into))
        .explain(|| format!("write {}", path.display()))
}

/// The root directory's owner and mode are those of the read-write layer, so it gets the image's.
fn make_writable_layer(dir: &ContainerDir, top: &Path) -> Result<()> {
    let stat = rustix::fs::stat(top).map_err(|error| {
        let fault = Fault::not_found(format!("layer {} is not there", top.display()));
        fault.because(std::io::Error::from(error)).hint("img-unpack makes it again")
    })?;
    for name in ["rootfs", "upper", "work"] {
        let path = dir.bundle.join(name);
        std::fs::create_dir(&path).explain(|| format!("make directory {}", path.display()))?;
    }
    let upper = dir.bundle.join("upper");
    if (stat.st_uid, stat.st_gid) != (0, 0) {
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        chownat(CWD, &upper, Some(uid), Some(gid), AtFlags::empty())
            .explain(|| format!("set the owner of {}", upper.display()))?;
    }
    chmodat(CWD, &upper, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty())
        .explain(|| format!("set the mode of {}", upper.display()))
}

/// The users and groups of a container that could not be made are given back.
struct Ids<'a> {
    store: &'a Store,
    id: &'a str,
}

impl Ids<'_> {
    fn kept(self) {
        std::mem::forget(self);
    }
}

impl Drop for Ids<'_> {
    fn drop(&mut self) {
        // Best effort: what stays is taken when there are no others left.
        let _ = self.store.release_ids(self.id);
    }
}

/// Takes a container that could not be finished apart again.
struct Unfinished<'a> {
    store: &'a Store,
    dir: &'a ContainerDir,
    name: &'a str,
}

impl Unfinished<'_> {
    fn finished(self) {
        std::mem::forget(self);
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.store.release_name(self.name, &self.dir.id);
        // Best effort: ctr-prune sweeps what stays.
        let _ = std::fs::remove_dir_all(&self.dir.run);
        let _ = store::remove_tree(&self.dir.bundle);
    }
}

/// A record of a container that exists: set up again if it waits for nothing, changed if the record was edited.
fn again(
    store: &Store,
    dir: &ContainerDir,
    mut record: Record,
    config: Config,
    warn: Warn<'_>,
) -> Result<Record> {
    update(store, dir, &record, config, warn).map_err(|fault| fault.on(dir.id.as_str()))?;
    if dir.status()? == Status::Created && !dir.has_shim() {
        shim::start_shim(dir)?;
    }
    let current = dir.current()?;
    for section in ["config", "container"] {
        if let Some(text) = current.raw(section) {
            record.set_raw(section, text.to_owned())?;
        }
    }
    Ok(record)
}

/// Writes the bundle anew if the wishes are others than those it was made from. Returns whether they were.
///
/// Fails with a conflict if the container runs.
pub fn update(
    store: &Store,
    dir: &ContainerDir,
    record: &Record,
    config: Config,
    warn: Warn<'_>,
) -> Result<bool> {
    let stored = dir.load()?;
    let mut config = config;
    from::expand(store, &mut config)?;
    match edited::difference(&stored, record, &mut config)? {
        Difference::Nothing => return Ok(false),
        Difference::Ports => {
            dir.update(|stored| stored.set("config", &config))?;
            return Ok(false);
        }
        Difference::Bundle => edited::refuse_running(dir)?,
    }
    rewrite(store, dir, stored, Some(record), config, warn)?;
    Ok(true)
}

/// Makes the specification again for a container whose peers may have changed (`--network container:…`).
pub fn refresh(store: &Store, dir: &ContainerDir, warn: Warn<'_>) -> Result<()> {
    let stored = dir.load()?;
    let config = stored.config()?;
    let joins = [&config.network, &config.pid, &config.ipc, &config.uts, &config.userns];
    if joins.into_iter().flatten().any(|mode| mode.starts_with("container:")) {
        rewrite(store, dir, stored, None, config, warn)?;
    }
    Ok(())
}

fn rewrite(
    store: &Store,
    dir: &ContainerDir,
    mut stored: Record,
    edited: Option<&Record>,
    config: Config,
    warn: Warn<'_>,
) -> Result<()> {
    let mut container: Container = stored.require("container")?;
    let old = stored.config()?;
    if let Some(spec) = edited.and_then(|record| record.raw("spec")) {
        stored.set_raw("spec", spec.to_owned())?;
    }
    let rootfs = rootfs_of(&stored, &config)?;
    let name = config.name.clone().unwrap_or_else(|| container.name.clone());
    crate::users::settle(store, &dir.id, &config)?;
    let plan = plan_for(store, &stored, config, rootfs, (dir.id.clone(), name), warn)?;
    if plan.config.storage_opts != old.storage_opts {
        quota::change(&dir.bundle, plan.uses.layer_size)?;
    }
    let held = prepare_mounts(store, dir, &plan)?;
    let spec = serde_json::to_vec(&plan.spec).explain(|| "write the specification".into())?;
    atomic::write(&dir.bundle.join("config.json"), &spec, 0o600)?;
    atomic::write(&dir.bundle.join("hostname"), format!("{}\n", plan.uses.hostname).as_bytes(), 0o644)?;
    plan.uses.etc.rewrite(&old, &dir.bundle)?;
    for (name, text) in &plan.uses.files {
        atomic::write(&dir.bundle.join(name), text.as_bytes(), 0o644)?;
    }
    container.extra.shift_remove("mounted_images");
    container.extra.shift_remove("healthcheck");
    container.extra.extend(for_later(&plan));
    container.health = None;
    dir.update(|stored| {
        let networks = stored.raw("networks").map(str::to_owned);
        set_sections(stored, &plan, &container)?;
        // Kept, or the next change would make the specification without it.
        if let Some(spec) = edited.and_then(|record| record.raw("spec")) {
            stored.set_raw("spec", spec.to_owned())?;
        }
        match networks {
            Some(text) => stored.set_raw("networks", text),
            None => Ok(()),
        }
    })?;
    drop(held);
    if let Some(client) = Client::connect(dir)? {
        client.request(&Request::Recreate, &[])?;
    }
    Ok(())
}
