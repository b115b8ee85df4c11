//! COPY.

use crate::add::Repository;
use crate::chosen;
use crate::key::Key;
use crate::layer::Files;
use crate::report::Vertex;
use crate::stage::{Clock, Stage};
use cli::{Explain, Fault, Result};
use context::{Chmod, Context, Options, Ownership, Selection, Target, Times};
use dockerfile::scope::{Copy, InlineFile, Placement};
use dockerfile::{Source, Step};
use oci::Digest;
use oci::users::UserFiles;
use record::Rootfs;
use rustix::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

/// Files to copy from.
pub enum From {
    /// The user's. They become root's.
    Context(Context),
    /// A stage's or an image's, with their owners.
    Files(Files),
    /// A repository's, fetched when they are needed. They become root's.
    Git(Box<Repository>),
}

/// Something to be copied, looked at no further than its key needs.
pub struct Part {
    from: From,
    sources: Vec<String>,
    options: Options,
    /// Kept from when its digest was asked for.
    selection: Option<Selection>,
}

impl Part {
    pub fn new(from: From, sources: Vec<String>, options: Options) -> Part {
        Part { from, sources, options, selection: None }
    }

    /// Files that are written in the Dockerfile.
    pub fn inline(files: &[InlineFile]) -> Part {
        let files: Vec<(Vec<u8>, Vec<u8>)> = files
            .iter()
            .map(|file| (file.path.clone().into_bytes(), file.content.clone().into_bytes()))
            .collect();
        let sources = files.iter().map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect();
        Part::new(From::Context(Context::inline(files)), sources, Options::default())
    }

    /// What copying it depends on. What a stage's files are is remembered, so that they need not be read to find that nothing
    /// has changed: by its layers and, for when those are not here, by the steps that made them.
    pub fn digest(&mut self, stage: &Stage<'_, '_>) -> Result<Digest> {
        let files = match &self.from {
            From::Git(repository) => return Ok(repository.digest(&self.options.exclude)),
            From::Context(_) => return self.selection(stage)?.digest(),
            From::Files(files) => files.clone(),
        };
        let by_steps = self.memo(&files.key);
        if files.is_missing {
            let digest =
                chosen::find(stage, &by_steps).ok_or_else(|| Fault::failed("its files are not made"))?;
            chosen::note(stage, &by_steps, &digest);
            return Ok(digest);
        }
        // The same steps may have made something else another time.
        let by_layers = files.content().map(|key| self.memo(&key));
        let known = by_layers.as_ref().and_then(|memo| chosen::find(stage, memo));
        let digest = if let Some(known) = known {
            known
        } else {
            let digest = self.selection(stage)?.digest()?;
            match &by_layers {
                Some(memo) => chosen::remember(stage, memo, &digest),
                None => chosen::remember_later(stage, self.choice(), files, &digest),
            }
            digest
        };
        chosen::remember(stage, &by_steps, &digest);
        chosen::note(stage, &by_steps, &digest);
        Ok(digest)
    }

    /// What it is remembered by, of files with this key.
    fn memo(&self, files: &Digest) -> Digest {
        chosen::key(files, &self.choice())
    }

    /// What of its files it takes.
    fn choice(&self) -> Digest {
        Key::new("choice")
            .with_all("source", &self.sources)
            .with_all("exclude", &self.options.exclude)
            .with("options", format!("{} {}", self.options.parents, self.options.wildcards))
            .finish()
    }

    /// Whether its files are not made and never were, so that nobody knows what they are.
    pub fn is_unknown(&self, stage: &Stage<'_, '_>) -> bool {
        match &self.from {
            From::Files(files) if files.is_missing => chosen::find(stage, &self.memo(&files.key)).is_none(),
            _ => false,
        }
    }

    /// Whether its files are not made.
    pub fn is_missing(&self) -> bool {
        matches!(&self.from, From::Files(files) if files.is_missing)
    }

    fn selection(&mut self, stage: &Stage<'_, '_>) -> Result<&Selection> {
        if self.selection.is_none() {
            let builder = stage.builder;
            let selection = match &self.from {
                From::Context(context) => context.select(&self.sources, &self.options)?,
                From::Git(repository) => repository.fetch(builder)?.select(&self.sources, &self.options)?,
                From::Files(files) => {
                    let root = files.open(builder.store, &builder.finish.settle)?;
                    Context::root(root).select(&self.sources, &self.options)?
                }
            };
            self.selection = Some(selection);
        }
        self.selection.as_ref().ok_or_else(|| Fault::failed("nothing was chosen"))
    }

    /// Copies it.
    pub fn write(&mut self, stage: &Stage<'_, '_>, target: &Target<'_>) -> Result<()> {
        // Files of images and stages keep their times: those are settled.
        let times = match &self.from {
            From::Context(_) | From::Git(_) => target.times,
            From::Files(_) => Times::Keep,
        };
        let written = self.selection(stage)?.write(&Target { times, ..*target })?;
        if let Some(changed) = written.changed.first() {
            return Err(Fault::new(
                cli::Kind::Retryable,
                format!("{changed} was changed while it was copied"),
            )
            .hint("build again when nobody writes to the context"));
        }
        if written.skipped > 0 {
            stage.builder.report.warn(&format!("{} sockets were not copied", written.skipped));
        }
        Ok(())
    }
}

pub fn copy(stage: &mut Stage<'_, '_>, copy: &Copy, step: &Step, vertex: &Vertex<'_>) -> Result<()> {
    let parts = match stage.kept_parts() {
        Some(kept) => kept,
        None => parts(stage, copy)?,
    };
    let key = Key::new("copy").with("parents", copy.parents.to_string());
    place(stage, parts, key, &copy.placement, false, step, vertex)
}

fn parts(stage: &Stage<'_, '_>, copy: &Copy) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    if !copy.sources.is_empty() {
        let options =
            Options { parents: copy.parents, exclude: copy.placement.exclude.clone(), wildcards: true };
        parts.push(Part::new(source(stage, &copy.from)?, copy.sources.clone(), options));
    }
    if !copy.placement.inline.is_empty() {
        parts.push(Part::inline(&copy.placement.inline));
    }
    Ok(parts)
}

/// Where `COPY --from` and mounts find files.
pub fn source(stage: &Stage<'_, '_>, source: &Source) -> Result<From> {
    let builder = stage.builder;
    Ok(match source {
        Source::Main => From::Context(builder.contexts.main()?.clone()),
        Source::Scratch => From::Context(Context::empty()),
        Source::Stage(place) => From::Files(stage.other(*place)?.files.clone()),
        Source::Image { reference, platform } => {
            let found = builder.images.find(reference, platform).map_err(|fault| {
                let name = reference.familiar();
                // What is misspelt is an image like any other.
                if fault.hint_text().is_some() || name.contains('/') {
                    return fault;
                }
                fault.hint(format!("{name} is taken for an image, as no stage before is called so"))
            })?;
            From::Files(Files::of(found))
        }
        Source::Context(name) => builder.contexts.named(name, builder.images)?,
    })
}

/// The rest of COPY and ADD.
pub fn place(
    stage: &mut Stage<'_, '_>,
    mut parts: Vec<Part>,
    key: Key,
    placement: &Placement,
    unpack: bool,
    step: &Step,
    vertex: &Vertex<'_>,
) -> Result<()> {
    if parts.iter().any(|part| part.is_unknown(stage)) {
        return stage.unknown(step);
    }
    let mut key = key;
    for part in &mut parts {
        let digest = part.digest(stage)?;
        key = key.with("chosen", digest.as_str());
    }
    let chmod = placement.chmod.as_ref().map(chmod).transpose()?;
    let key = key
        .with("destination", &placement.destination)
        .with("chown", placement.chown.as_deref().unwrap_or_default())
        .with("chmod", format!("{:?}", placement.chmod))
        .with("unpack", unpack.to_string())
        .with("time", stage.built.clock.text());
    // A layer that is linked to knows nothing of those below.
    let key = if placement.link { key } else { key.with("files", stage.built.files.key.as_str()) };
    let key = key.finish();
    let clock = stage.built.clock;
    stage.layer(&key, step, vertex, placement.link, |stage, unfinished, lower| {
        let ownership = ownership(placement.chown.as_deref(), lower).map_err(|fault| {
            if placement.link {
                fault.hint("--link knows nothing of the files below: numbers, or no --link")
            } else {
                fault
            }
        })?;
        let root = unfinished.mount(lower)?;
        let target = Target {
            root: root.as_fd(),
            destination: placement.destination.as_bytes(),
            ownership,
            chmod: chmod.as_ref(),
            times: times(clock),
            unpack,
        };
        for part in &mut parts {
            part.write(stage, &target)?;
        }
        Ok(Vec::new())
    })?;
    stage.keep_parts(parts);
    Ok(())
}

/// When files of the user's were made: two checkouts of the same have different times.
pub fn times(clock: Clock) -> Times {
    match clock {
        Clock::Real => Times::Keep,
        // They are one step's, see `Stage::layer`.
        Clock::Ticking { base, ticks } => Times::At(base.saturating_add(ticks + 1)),
        Clock::Stopped(time) => Times::At(time),
    }
}

fn chmod(chmod: &dockerfile::scope::Chmod) -> Result<Chmod> {
    match chmod {
        dockerfile::scope::Chmod::Octal(mode) => Chmod::parse(&format!("{mode:o}")),
        dockerfile::scope::Chmod::Symbolic(text) => Chmod::parse(text),
    }
}

/// Names are those of the files below.
pub fn ownership(chown: Option<&str>, lower: &[PathBuf]) -> Result<Ownership> {
    let Some(chown) = chown else { return Ok(Ownership::Keep) };
    let (uid, gid) = user(chown, lower)?;
    Ok(Ownership::To { uid, gid })
}

/// `USER[:GROUP]` as numbers. A user alone has the group of its own, a number without one the same number's.
pub fn user(text: &str, lower: &[PathBuf]) -> Result<(u32, u32)> {
    let number = |text: &str| text.parse::<u32>().ok();
    match text.split_once(':') {
        // As docker has it: a number stands for the group, too.
        None => {
            if let Some(id) = number(text) {
                return Ok((id, id));
            }
        }
        Some((user, group)) => {
            if let (Some(uid), Some(gid)) = (number(user), number(group)) {
                return Ok((uid, gid));
            }
        }
    }
    let layers = lower.iter().map(|path| path.display().to_string()).collect();
    let files = if lower.is_empty() {
        UserFiles::default()
    } else {
        ctr_create::userfiles::read(&Rootfs { layers, driver: "overlay".to_owned(), ..Rootfs::default() })?
    };
    let identity = oci::users::resolve(text, &[], &files).explain(|| format!("find the user {text}"))?;
    Ok((identity.uid, identity.gid))
}

/// Copies a part into an empty directory, for a mount.
pub fn materialise(
    stage: &Stage<'_, '_>,
    part: &mut Part,
    root: BorrowedFd<'_>,
    destination: &str,
) -> Result<()> {
    let target = Target {
        root,
        destination: destination.as_bytes(),
        ownership: Ownership::Keep,
        chmod: None,
        times: Times::Keep,
        unpack: false,
    };
    part.write(stage, &target)
}
