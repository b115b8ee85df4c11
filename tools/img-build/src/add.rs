//! ADD: what COPY does, and files of web servers and git repositories, and archives unpacked.

use crate::build::Builder;
use crate::copy::{self, From, Part};
use crate::key::Key;
use crate::report::Vertex;
use crate::stage::Stage;
use cli::{Fault, Kind, Result};
use context::git::{self, GitUrl};
use context::{Context, Ignore, Memory, Options};
use dockerfile::Step;
use dockerfile::scope::{Add, AddSource};
use oci::Digest;

pub fn add(stage: &mut Stage<'_, '_>, add: &Add, step: &Step, vertex: &Vertex<'_>) -> Result<()> {
    let parts = match stage.kept_parts() {
        Some(kept) => kept,
        None => parts(stage, add)?,
    };
    // Local archives are unpacked unless one does not want that, others if one does.
    let is_remote = add.sources.iter().any(|source| !matches!(source, AddSource::Local(_)));
    let unpack = add.unpack.unwrap_or(!is_remote);
    copy::place(stage, parts, Key::new("add"), &add.placement, unpack, step, vertex)
}

fn parts(stage: &Stage<'_, '_>, add: &Add) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    let mut local = Vec::new();
    let options = |wildcards| Options { parents: false, exclude: add.placement.exclude.clone(), wildcards };
    for source in &add.sources {
        match source {
            AddSource::Local(pattern) => local.push(pattern.clone()),
            AddSource::Http(url) => {
                let checksum = add.checksum.as_deref().map(Digest::parse).transpose()?;
                let page = stage.builder.contexts.web.fetch(url, checksum.as_ref())?;
                let context = page.context()?;
                parts.push(Part::new(From::Context(context), vec![page.name.clone()], options(false)));
            }
            AddSource::Git(url) => {
                let repository = Repository::new(wanted(add, url)?)?;
                parts.push(Part::new(From::Git(Box::new(repository)), vec!["/".to_owned()], options(false)));
            }
        }
    }
    if !local.is_empty() {
        let context = stage.builder.contexts.main()?.clone();
        parts.insert(0, Part::new(From::Context(context), local, options(true)));
    }
    if !add.placement.inline.is_empty() {
        parts.push(Part::inline(&add.placement.inline));
    }
    Ok(parts)
}

fn wanted(add: &Add, url: &str) -> Result<GitUrl> {
    let mut wanted =
        GitUrl::parse(url)?.ok_or_else(|| Fault::input(format!("{url} is no git repository")))?;
    if let Some(keep) = add.keep_git_dir {
        wanted.keep_git_dir = Some(keep);
    }
    if let Some(checksum) = &add.checksum {
        wanted.checksum = Some(checksum.clone());
    }
    Ok(wanted)
}

/// A commit, whose files are fetched when they are needed.
pub struct Repository {
    url: GitUrl,
    commit: String,
}

impl Repository {
    /// Asks which commit is meant, unless the URL says it.
    pub fn new(url: GitUrl) -> Result<Repository> {
        let commit = git::resolve(&url)?;
        Ok(Repository { url, commit })
    }

    /// What of it is copied, without knowing the files: a commit has the same for ever.
    pub fn digest(&self, exclude: &[String]) -> Digest {
        let GitUrl { reference, subdir, keep_git_dir, submodules, commit_times, .. } = &self.url;
        let keeps = *keep_git_dir == Some(true) && subdir.is_none();
        Key::new("git")
            .with("commit", &self.commit)
            .with("subdir", subdir.as_deref().unwrap_or_default())
            // Submodules may be found beside it, and `.git` tells where it came from and by what name.
            .with("remote", self.url.shown())
            .with("reference", reference.as_deref().filter(|_| keeps).unwrap_or_default())
            .with("options", format!("{keeps} {submodules:?} {commit_times}"))
            .with_all("exclude", exclude)
            .finish()
    }

    /// Its files.
    pub fn fetch(&self, builder: &Builder<'_>) -> Result<Context> {
        let checkout = git::checkout(builder.store, &self.url)?;
        if checkout.commit != self.commit && !self.url.is_pinned() {
            let moved = format!("it was commit {} and is {}", self.commit, checkout.commit);
            return Err(Fault::new(Kind::Retryable, moved).hint("build again").on(self.url.shown()));
        }
        let context = Context::directory(&checkout.path, Ignore::none(), Memory::none())?;
        builder.contexts.keep(checkout.scratch);
        Ok(context)
    }
}
