//! RUN: the command with its mounts, and what its key is.

use crate::copy::{self, From, Part};
use crate::key::Key;
use crate::layer::Unfinished;
use crate::report::Vertex;
use crate::run::{self, Wanted};
use crate::stage::{Clock, Stage};
use crate::{cache_mount, ssh};
use cli::{Explain, Fault, Result};
use context::Options;
use dockerfile::instruction::{Device, Network, Security};
use dockerfile::mount::{Ownership, Sharing};
use dockerfile::scope::{InlineFile, Mount, Run};
use dockerfile::{Source, Step};
use record::MountWish;
use rustix::fd::AsFd;
use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The variable that tells programs what time to write into files (reproducible-builds.org).
const EPOCH: &str = "SOURCE_DATE_EPOCH";
/// What is copied to be mounted, a directory or a file.
const SHOWN: &str = "/shown";
/// The network of commands that wish for none in particular.
const BRIDGE: &str = "bridge";

pub fn run(stage: &mut Stage<'_, '_>, run: &Run, step: &Step, vertex: &Vertex<'_>) -> Result<()> {
    check_allowed(stage, run)?;
    let mut sources: Vec<Option<Part>> = Vec::new();
    let mut kept = stage.kept_parts().map(Vec::into_iter);
    let clock = stage.built.clock;
    let mut key = Key::new("run")
        .with("files", stage.built.files.key.as_str())
        .with_all("argv", &run.argv)
        .with_all("env", &run.env)
        .with("workdir", &run.workdir)
        .with("user", &run.user)
        .with("network", reach(stage, run).text())
        .with("security", format!("{:?}", run.security))
        .with_all("host", &stage.builder.options.run.add_host)
        .with_all("ulimit", &stage.builder.options.run.ulimits)
        .with("time", clock.text());
    for device in devices(run)? {
        key = key.with("device", device);
    }
    let keys = &stage.builder.options.keys;
    if !keys.is_empty() {
        key = key.with_all("key", keys);
    }
    if let Some(script) = &run.script {
        key = key.with("script", &script.content).with("script mode", script.mode.to_string());
    }
    for mount in &run.mounts {
        key = key.with("mount", describe(mount));
        let mut part = match (source(mount), &mut kept) {
            (None, _) => None,
            (Some(_), Some(kept)) => kept.next(),
            (Some((from, path)), None) => Some(part(stage, from, path)?),
        };
        if part.as_ref().is_some_and(|part| part.is_unknown(stage)) {
            return stage.unknown(step);
        }
        if let Some(part) = &mut part {
            key = key.with("chosen", part.digest(stage)?.as_str());
        }
        sources.push(part);
    }
    let key = key.finish();
    let mut sources = Some(sources);
    stage.layer(&key, step, vertex, false, |stage, unfinished, lower| {
        let sources = sources.take().unwrap_or_default();
        execute(stage, run, step, vertex, sources, unfinished, lower, clock)
    })?;
    stage.keep_parts(sources.into_iter().flatten().flatten().collect());
    Ok(())
}

fn check_allowed(stage: &Stage<'_, '_>, run: &Run) -> Result<()> {
    let allowed = &stage.builder.options.allow;
    let refuse = |what: &str, entitlement: &str| {
        Err(Fault::new(cli::Kind::Denied, format!("{what} is not allowed to a Dockerfile by itself"))
            .hint(format!("--allow {entitlement} allows it")))
    };
    if run.security == Security::Insecure && !allowed.iter().any(|name| name == "security.insecure") {
        return refuse("--security=insecure", "security.insecure");
    }
    let host = stage.builder.options.network.as_deref() == Some("host");
    if run.network == Network::Host && !host && !allowed.iter().any(|name| name == "network.host") {
        return refuse("--network=host", "network.host");
    }
    for Device { name, .. } in &run.devices {
        // A path would be one of this machine's, which no Dockerfile knows.
        if !oci::wishes::is_cdi_name(name) {
            return Err(Fault::input(format!("--device={name} is no device of a CDI specification"))
                .hint("--device=VENDOR/CLASS=NAME, as the files in /etc/cdi have it"));
        }
        let entitlement = format!("device={name}");
        if !allowed.iter().any(|allowed| allowed == "device" || *allowed == entitlement) {
            return refuse(&format!("--device={name}"), &entitlement);
        }
    }
    Ok(())
}

/// Names of the devices a command gets: those that are there, and those it cannot do without.
fn devices(run: &Run) -> Result<Vec<&str>> {
    let mut names = Vec::new();
    for Device { name, required } in &run.devices {
        let is_there = || -> Result<bool> {
            let files = ctr_create::facts::cdi_files();
            match oci::cdi::edits(std::slice::from_ref(name), &files) {
                Err(fault) if fault.kind() == cli::Kind::NotFound => Ok(false),
                // Whatever is wrong with it is told by who makes the container.
                _ => Ok(true),
            }
        };
        if *required || is_there()? {
            names.push(name.as_str());
        }
    }
    Ok(names)
}

/// What network a command is on.
enum Reach {
    None,
    Host,
    Named(String),
}

impl Reach {
    fn text(&self) -> &str {
        match self {
            Reach::None => "none",
            Reach::Host => "host",
            Reach::Named(name) => name,
        }
    }
}

/// The instruction's wish, or else the user's.
fn reach(stage: &Stage<'_, '_>, run: &Run) -> Reach {
    match (run.network, stage.builder.options.network.as_deref()) {
        (Network::None, _) | (Network::Default, Some("none")) => Reach::None,
        (Network::Host, _) | (Network::Default, Some("host")) => Reach::Host,
        (Network::Default, None | Some("default")) => Reach::Named(BRIDGE.to_owned()),
        (Network::Default, Some(name)) => Reach::Named(name.to_owned()),
    }
}

/// What a mount's key is, without what it has in it. Of secrets only the name: another value is no reason to run a command again.
fn describe(mount: &Mount) -> String {
    let owned = |Ownership { uid, gid, mode }: &Ownership| format!("{uid}:{gid} {mode:o}");
    match mount {
        Mount::Bind { path, target, read_only, .. } => format!("bind {path:?} {target:?} {read_only}"),
        Mount::Cache { id, target, read_only, ownership, .. } => {
            format!(
                "cache {id:?} {target:?} {read_only} {}",
                ownership.as_ref().map(owned).unwrap_or_default()
            )
        }
        Mount::Tmpfs { target, size, read_only } => format!("tmpfs {target:?} {size:?} {read_only}"),
        Mount::Secret { id, target, env, ownership, .. } => {
            format!("secret {id:?} {target:?} {env:?} {}", owned(ownership))
        }
        Mount::Ssh { id, target, env, ownership, .. } => {
            format!("ssh {id:?} {target:?} {env:?} {}", owned(ownership))
        }
    }
}

/// What a bind mount shows and a cache begins with.
fn source(mount: &Mount) -> Option<(&Source, &str)> {
    match mount {
        Mount::Cache { source: Source::Scratch, .. } => None,
        Mount::Bind { source, path, .. } | Mount::Cache { source, path, .. } => Some((source, path)),
        _ => None,
    }
}

fn part(stage: &Stage<'_, '_>, source: &Source, path: &str) -> Result<Part> {
    Ok(Part::new(copy::source(stage, source)?, vec![path.to_owned()], Options::default()))
}

/// Mounts as they are collected.
struct Mounts<'s, 'a, 'b> {
    stage: &'s Stage<'a, 'b>,
    scratch: PathBuf,
    wanted: Wanted,
    agents: Vec<ssh::Agent>,
}

#[allow(clippy::too_many_arguments)]
fn execute(
    stage: &Stage<'_, '_>,
    run: &Run,
    step: &Step,
    vertex: &Vertex<'_>,
    mut sources: Vec<Option<Part>>,
    unfinished: &mut Unfinished,
    lower: &[PathBuf],
    clock: Clock,
) -> Result<Vec<Vec<u8>>> {
    let builder = stage.builder;
    let scratch = unfinished.scratch.path().join("mounts");
    std::fs::create_dir(&scratch).explain(|| format!("make directory {}", scratch.display()))?;
    let mut mounts = Mounts { stage, scratch, wanted: wanted(stage, run, clock)?, agents: Vec::new() };
    // Until the command has ended.
    let caches = hold_caches(stage, &run.mounts, &mut sources).map_err(|fault| fault.within("--mount"))?;
    for (number, (mount, part)) in run.mounts.iter().zip(sources).enumerate() {
        let cache = caches.get(&number).map(Arc::as_ref);
        mounts.add(mount, part, cache).map_err(|fault| fault.within("--mount"))?;
    }
    if let Some(script) = &run.script {
        mounts.script(script)?;
    }
    let Mounts { wanted, agents, .. } = mounts;
    let slot = builder.slots.take();
    let mut output = |bytes: &[u8]| vertex.output(bytes);
    let ended = run::run(builder.store, lower, unfinished, wanted, &mut output)?;
    drop((slot, caches, agents));
    if ended.code == 0 {
        return Ok(ended.mounted_on);
    }
    Err(crate::failed::fault(stage, run, step, vertex, unfinished, &ended))
}

fn wanted(stage: &Stage<'_, '_>, run: &Run, clock: Clock) -> Result<Wanted> {
    let options = &stage.builder.options;
    let mut config = options.run.clone();
    config.command = Some(run.argv.clone());
    config.env = run.env.iter().chain(&run.proxies).cloned().collect();
    config.workdir = Some(run.workdir.clone());
    config.user = Some(run.user.clone()).filter(|user| !user.is_empty());
    config.devices.extend(devices(run)?.into_iter().map(str::to_owned));
    config.privileged = run.security == Security::Insecure;
    let has_epoch = run.env.iter().any(|pair| pair.starts_with("SOURCE_DATE_EPOCH="));
    let epoch = match clock {
        Clock::Ticking { base, ticks } => Some(base.saturating_add(ticks + 1)),
        Clock::Stopped(time) => Some(time),
        Clock::Real => None,
    };
    if let (Some(epoch), false) = (epoch, has_epoch) {
        config.env.push(format!("{EPOCH}={epoch}"));
    }
    let network = match reach(stage, run) {
        Reach::Named(name) => Some(name),
        here => {
            config.network = Some(here.text().to_owned());
            None
        }
    };
    Ok(Wanted { config, images: HashMap::new(), network })
}

/// The caches of a command, by the numbers of its mounts, each held once: a command that has one in two places would wait for
/// itself. In the order of what tells them apart, so that no two commands wait for each other.
fn hold_caches(
    stage: &Stage<'_, '_>,
    mounts: &[Mount],
    sources: &mut [Option<Part>],
) -> Result<BTreeMap<usize, Arc<cache_mount::Held>>> {
    let mut wanted: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (number, (mount, source)) in mounts.iter().zip(&mut *sources).enumerate() {
        if let Mount::Cache { id, ownership, .. } = mount {
            let owner = ownership.as_ref().map(|owner| (owner.uid, owner.gid, owner.mode));
            let begins_with = source.as_mut().map(|part| part.digest(stage)).transpose()?;
            let begins_with = begins_with.map(|digest| digest.to_string());
            wanted.entry((id.as_str(), owner, begins_with)).or_default().push(number);
        }
    }
    let mut held = BTreeMap::new();
    for ((id, ..), places) in wanted {
        let (mut strictest, mut fill, mut owner) = (Sharing::Shared, None, None);
        for place in &places {
            let Some(Mount::Cache { sharing, ownership, .. }) = mounts.get(*place) else { continue };
            owner = ownership.as_ref();
            strictest = match (*sharing, strictest) {
                (Sharing::Locked, _) | (_, Sharing::Locked) => Sharing::Locked,
                (Sharing::Private, _) | (_, Sharing::Private) => Sharing::Private,
                (Sharing::Shared, Sharing::Shared) => Sharing::Shared,
            };
            fill = fill.or_else(|| sources.get_mut(*place).and_then(Option::take));
        }
        let cache = Arc::new(cache_mount::hold(stage, id, strictest, fill, owner)?);
        held.extend(places.into_iter().map(|place| (place, Arc::clone(&cache))));
    }
    Ok(held)
}

impl Mounts<'_, '_, '_> {
    fn add(&mut self, mount: &Mount, part: Option<Part>, cache: Option<&cache_mount::Held>) -> Result<()> {
        match mount {
            Mount::Bind { target, read_only, source, path } => {
                let part = part.ok_or_else(|| Fault::failed("a bind mount without a source"))?;
                self.bind(part, source, path, target, *read_only)
            }
            Mount::Cache { id, target, read_only, .. } => {
                let held = cache.ok_or_else(|| Fault::failed(format!("the cache {id} is not there")))?;
                self.host(&held.path, target, *read_only);
                Ok(())
            }
            Mount::Tmpfs { target, size, read_only } => {
                self.push(record::Mount {
                    kind: Some("tmpfs".to_owned()),
                    target: target.clone(),
                    size: size.and_then(|size| i64::try_from(size).ok()).map(record::Quantity::Integer),
                    read_only: *read_only,
                    ..record::Mount::default()
                });
                Ok(())
            }
            Mount::Secret { id, target, env, required, ownership } => {
                self.secret(id, target.as_deref(), env.as_deref(), *required, ownership)
            }
            Mount::Ssh { id, target, env, required, ownership } => {
                self.ssh(id, target, env.as_deref(), *required, ownership)
            }
        }
    }

    fn push(&mut self, mount: record::Mount) {
        self.wanted.config.mounts.push(MountWish::Mount(mount));
    }

    fn host(&mut self, source: &Path, target: &str, read_only: bool) {
        self.push(record::Mount {
            kind: Some("bind".to_owned()),
            source: Some(source.display().to_string()),
            target: target.to_owned(),
            read_only,
            ..record::Mount::default()
        });
    }

    /// What is only read of a stage or an image is shown as it is; all else is copied, so that what is ignored is not seen and
    /// what is written is lost.
    fn bind(
        &mut self,
        mut part: Part,
        source: &Source,
        path: &str,
        target: &str,
        read_only: bool,
    ) -> Result<()> {
        let builder = self.stage.builder;
        if read_only && let From::Files(files) = copy::source(self.stage, source)? {
            let name = format!("files-{}", self.wanted.images.len());
            let subpath = path.trim_matches('/');
            self.wanted.images.insert(name.clone(), files.lower(builder.store, &builder.finish.settle)?);
            self.push(record::Mount {
                kind: Some("image".to_owned()),
                source: Some(name),
                target: target.to_owned(),
                subpath: Some(subpath.to_owned()).filter(|path| !path.is_empty()),
                read_only: true,
                ..record::Mount::default()
            });
            return Ok(());
        }
        let place = self.place()?;
        let root = crate::normalise::open_directory(&place)?;
        copy::materialise(self.stage, &mut part, root.as_fd(), SHOWN)?;
        self.host(&place.join(SHOWN.trim_start_matches('/')), target, read_only);
        Ok(())
    }

    /// An empty directory.
    fn place(&self) -> Result<PathBuf> {
        let number = self.wanted.config.mounts.len();
        let place = self.scratch.join(number.to_string());
        std::fs::create_dir(&place).explain(|| format!("make directory {}", place.display()))?;
        std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o755))
            .explain(|| format!("set the mode of {}", place.display()))?;
        Ok(place)
    }

    fn script(&mut self, script: &InlineFile) -> Result<()> {
        let path = self.place()?.join("script");
        std::fs::write(&path, &script.content)
            .and_then(|()| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(script.mode)))
            .explain(|| format!("write {}", path.display()))?;
        self.host(&path, &script.path, true);
        Ok(())
    }

    fn secret(
        &mut self,
        id: &str,
        target: Option<&str>,
        env: Option<&str>,
        required: bool,
        ownership: &Ownership,
    ) -> Result<()> {
        let Some(source) = self.stage.builder.options.secrets.get(id) else {
            if required {
                return Err(Fault::not_found(format!("there is no secret {id}"))
                    .hint(format!("--secret id={id},src=FILE or --secret id={id},env=VARIABLE")));
            }
            return Ok(());
        };
        if let Some(target) = target {
            if target.contains(',') {
                return Err(Fault::input(format!("the secret's target {target} has a comma in it")));
            }
            let Ownership { uid, gid, mode } = ownership;
            self.wanted
                .config
                .secrets
                .push(format!("id={id},{source},target={target},uid={uid},gid={gid},mode={mode:o}"));
        }
        if let Some(variable) = env {
            self.wanted.config.secrets.push(format!("id={id},{source},type=env,target={variable}"));
        }
        Ok(())
    }

    fn ssh(
        &mut self,
        id: &str,
        target: &str,
        env: Option<&str>,
        required: bool,
        ownership: &Ownership,
    ) -> Result<()> {
        let Some(upstream) = self.stage.builder.options.ssh.get(id) else {
            if required {
                return Err(Fault::not_found(format!("there is no ssh agent {id}"))
                    .hint(format!("--ssh {id}, with $SSH_AUTH_SOCK set, or --ssh {id}=SOCKET")));
            }
            return Ok(());
        };
        let socket = self.place()?.join("agent");
        self.agents.push(ssh::Agent::new(&socket, upstream, ownership)?);
        self.host(&socket, target, false);
        if let Some(variable) = env {
            self.wanted.config.env.push(format!("{variable}={target}"));
        }
        Ok(())
    }
}
