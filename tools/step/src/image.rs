//! In a pipe of images: the command runs in a container and what it changes is a layer.

use crate::Args;
use crate::files::Files;
use crate::words;
use cli::{Context, Fault, Result};
use dockerfile::instruction::{Network, Security};
use dockerfile::mount::{Ownership, Sharing};
use dockerfile::scope::{Copy, Mount, Placement, Run};
use dockerfile::{Action, Inherited, Lines, Source, Step};
use img_build::{Chain, Ended, Images, Options, Report};
use oci::{Platform, Reference};
use record::{Image, Record};
use std::sync::Arc;
use store::{Holds, Settle, Store};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Where an agent's socket is, as BuildKit has it.
const AGENT: &str = "/run/buildkit/ssh_agent.0";

pub fn run(args: &Args, context: &mut Context, report: &Report) -> Result<()> {
    if args.command.is_empty() && args.copy.is_empty() && args.change.is_empty() {
        return Err(Fault::usage("there is nothing to do: give a command, --copy or --change"));
    }
    let store = Store::from_env()?;
    let records = match &args.from {
        Some(name) => vec![from(args, &store, name)?],
        None => context.require_records().map_err(|fault| {
            fault.hint(
                "IMAGE records come from img-pull or --from IMAGE; --host runs the command on this machine",
            )
        })?,
    };
    let settle = Arc::new(Settle::new());
    context.each(records, |context, record| one(args, context, report, &store, &settle, record));
    if let Ok(settle) = Arc::try_unwrap(settle) {
        settle.finish();
    }
    Ok(())
}

fn from(args: &Args, store: &Store, name: &str) -> Result<Record> {
    let reference = Reference::parse(name)?;
    let images = Images::new(store, args.steps.pull, Vec::new(), &Arc::new(Holds::new(store)));
    let mut record = Record::new();
    record.set("image", &images.find(&reference, &Platform::host())?.image)?;
    Ok(record)
}

fn one(
    args: &Args,
    context: &mut Context,
    report: &Report,
    store: &Store,
    settle: &Arc<Settle>,
    mut record: Record,
) -> Result<()> {
    let image: Image = record.require("image")?;
    let subject = image.reference.clone();
    let wanted = Wanted::new(args, store, &image).map_err(|fault| fault.on(subject.clone()))?;
    let chain = Chain {
        store,
        name: "step",
        steps: &wanted.steps,
        contexts: wanted.contexts,
        options: options(args)?,
        changes: &args.change,
        compression: args.steps.compression,
        report,
    };
    if args.dry_run {
        for mut line in chain.plan(image, settle)? {
            // Of Dockerfiles.
            if let Some(members) = line.as_object_mut() {
                members.retain(|name, _| !matches!(name.as_str(), "stage" | "lines"));
            }
            context.print(&format!("{line}\n"))?;
        }
        return Ok(());
    }
    match chain.run(image, settle)? {
        Ended::Failed(code, fault) => {
            context.report_as(&fault, u8::try_from(code).unwrap_or(1));
            Ok(())
        }
        Ended::Image(details) => {
            let had_files = record.contains("rootfs");
            record.set("image", &details.image)?;
            if had_files {
                let unpacked =
                    img_unpack::unpack_with(store, &details.image, &img_unpack::Options::default(), settle)?;
                record.set("rootfs", &unpacked.rootfs)?;
            }
            let id = details.id.as_str();
            context.print_result(&record, id, &format!("{}  {id}", args.title()))
        }
    }
}

fn options(args: &Args) -> Result<Options> {
    let mut options =
        Options { no_cache: args.steps.no_cache, keys: args.key.clone(), ..args.run.options()? };
    options.time = img_build::time(args.steps.timestamp.as_deref())?;
    Ok(options)
}

/// The steps with all words final, and the files they name.
struct Wanted {
    steps: Vec<Step>,
    contexts: Vec<(String, context::Context)>,
}

impl Wanted {
    fn new(args: &Args, store: &Store, image: &Image) -> Result<Wanted> {
        let base = Inherited::of(&image.config).map_err(Fault::from)?;
        let of_image = words::resolve("/", &base.workdir);
        let workdir = words::resolve(&of_image, args.workdir.as_deref().unwrap_or(""));
        let mut wanted = Wanted { steps: Vec::new(), contexts: Vec::new() };
        for text in &args.copy {
            wanted.copy(store, text, &workdir)?;
        }
        if args.command.is_empty() {
            if let Some(text) = args.input.first() {
                return Err(Fault::usage(format!("--input {text}: there is no command that reads it")));
            }
            return Ok(wanted);
        }
        let mut mounts = Vec::new();
        for text in &args.input {
            mounts.push(wanted.input(store, text, &workdir)?);
        }
        mounts.extend(more_mounts(args, &workdir)?);
        let title = args.title();
        let (argv, env) = (args.command.clone(), environment(args, &base)?);
        let user = args.user.clone().unwrap_or(base.user);
        let network = network(args);
        let run = Run {
            argv,
            env,
            proxies: Vec::new(),
            workdir,
            user,
            mounts,
            network,
            security: Security::default(),
            devices: Vec::new(),
            script: None,
        };
        let history = format!("RUN {} # step", words::line(&args.command));
        wanted.steps.push(step(title, history, Action::Run(run)));
        Ok(wanted)
    }

    fn files(&mut self, store: &Store, text: &str) -> Result<(Source, Files)> {
        let files = Files::open(store, text, true)?;
        let name = format!("files-{}", self.contexts.len());
        self.contexts.push((name.clone(), files.context.clone()));
        Ok((Source::Context(name), files))
    }

    fn copy(&mut self, store: &Store, text: &str, workdir: &str) -> Result<()> {
        let (source, destination) = words::copy(text)?;
        let (from, files) = self.files(store, source).map_err(|fault| fault.within("--copy"))?;
        let is_directory = matches!(destination.rsplit('/').next(), Some("" | "." | ".."));
        let mut absolute = words::resolve(workdir, destination);
        if is_directory && !absolute.ends_with('/') {
            absolute.push('/');
        }
        let sources = vec![words::literal(&files.choice)];
        let placement = Placement {
            inline: Vec::new(),
            destination: absolute,
            chown: None,
            chmod: None,
            link: false,
            exclude: Vec::new(),
        };
        let copy = Copy { from, sources, parents: false, placement };
        let title = words::line(&["copy".to_owned(), source.to_owned(), destination.to_owned()]);
        let history = format!("COPY {source} {destination} # step");
        self.steps.push(step(title, history, Action::Copy(copy)));
        Ok(())
    }

    fn input(&mut self, store: &Store, text: &str, workdir: &str) -> Result<Mount> {
        let (path, target) = words::input(text)?;
        let (source, files) = self.files(store, path).map_err(|fault| fault.within("--input"))?;
        let target = words::resolve(workdir, target.unwrap_or(path));
        if target == "/" {
            return Err(Fault::usage(format!("--input {path}: it would hide the whole image"))
                .hint(format!("say where it is shown: --input {path}:/src")));
        }
        let path = if files.is_directory { "/".to_owned() } else { format!("/{}", files.choice) };
        Ok(Mount::Bind { source, path, target, read_only: true })
    }
}

fn step(title: String, history: String, action: Action) -> Step {
    Step { lines: Lines::default(), title, history: Some(history), layer: true, action, findings: Vec::new() }
}

fn network(args: &Args) -> Network {
    match args.run.network.as_deref() {
        Some("none") => Network::None,
        Some("host") => Network::Host,
        _ => Network::Default,
    }
}

/// The image's, and on top of it what was given.
fn environment(args: &Args, base: &Inherited) -> Result<Vec<String>> {
    let given = words::environment(&args.env, |name| std::env::var(name).ok())?;
    let name = |pair: &str| pair.split_once('=').map_or(pair, |(name, _)| name).to_owned();
    let mut all = base.env.clone();
    if !all.iter().any(|pair| name(pair) == "PATH") {
        all.push(PATH.to_owned());
    }
    all.retain(|pair| !given.iter().any(|(known, _)| *known == name(pair)));
    all.extend(given.iter().map(|(name, value)| format!("{name}={value}")));
    Ok(all)
}

/// Caches, secrets, agents.
fn more_mounts(args: &Args, workdir: &str) -> Result<Vec<Mount>> {
    let mut mounts = Vec::new();
    for text in &args.cache {
        let (id, target) = words::cache(text)?;
        mounts.push(Mount::Cache {
            id: id.to_owned(),
            sharing: Sharing::Shared,
            source: Source::Scratch,
            path: "/".to_owned(),
            target: words::resolve(workdir, target),
            read_only: false,
            ownership: None,
        });
    }
    let options = args.run.options()?;
    let only_root = |mode| Ownership { uid: 0, gid: 0, mode };
    for id in options.secrets.keys() {
        mounts.push(Mount::Secret {
            id: id.clone(),
            target: Some(format!("/run/secrets/{}", id.rsplit('/').next().unwrap_or(id))),
            env: None,
            required: true,
            ownership: only_root(0o400),
        });
    }
    for (place, id) in options.ssh.keys().enumerate() {
        mounts.push(Mount::Ssh {
            id: id.clone(),
            target: AGENT.replace('0', &place.to_string()),
            env: (place == 0).then(|| "SSH_AUTH_SOCK".to_owned()),
            required: true,
            ownership: only_root(0o600),
        });
    }
    Ok(mounts)
}
