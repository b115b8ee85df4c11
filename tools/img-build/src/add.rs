//! ADD: what COPY does, and files of web servers and git repositories, and archives unpacked.

use crate::copy::{self, From, Part};
use crate::key::Key;
use crate::report::Vertex;
use crate::stage::Stage;
use cli::{Fault, Result};
use context::git::{self, GitUrl};
use context::{Context, Ignore, Memory, Options};
use dockerfile::Step;
use dockerfile::scope::{Add, AddSource};
use oci::Digest;

pub fn add(stage: &mut Stage<'_, '_>, add: &Add, step: &Step, vertex: &Vertex<'_>) -> Result<()> {
    let mut parts = Vec::new();
    let mut local = Vec::new();
    let mut key = Key::new("add");
    let options = |wildcards| Options { parents: false, exclude: add.placement.exclude.clone(), wildcards };
    let mut is_remote = false;
    for source in &add.sources {
        match source {
            AddSource::Local(pattern) => local.push(pattern.clone()),
            AddSource::Http(url) => {
                is_remote = true;
                let checksum = add.checksum.as_deref().map(Digest::parse).transpose()?;
                let page = stage.builder.contexts.web.fetch(url, checksum.as_ref())?;
                let context = page.context()?;
                parts.push(Part::new(From::Context(context), vec![page.name.clone()], options(false)));
            }
            AddSource::Git(url) => {
                is_remote = true;
                let (part, commit) = checkout(stage, add, url, options(false))?;
                key = key.with("commit", &commit);
                parts.push(part);
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
    // Local archives are unpacked unless one does not want that, others if one does.
    let unpack = add.unpack.unwrap_or(!is_remote);
    copy::place(stage, parts, key, &add.placement, unpack, step, vertex)
}

fn checkout(stage: &Stage<'_, '_>, add: &Add, url: &str, options: Options) -> Result<(Part, String)> {
    let mut wanted =
        GitUrl::parse(url)?.ok_or_else(|| Fault::input(format!("{url} is no git repository")))?;
    if let Some(keep) = add.keep_git_dir {
        wanted.keep_git_dir = Some(keep);
    }
    if let Some(checksum) = &add.checksum {
        wanted.checksum = Some(checksum.clone());
    }
    let builder = stage.builder;
    let checkout = git::checkout(builder.store, &wanted)?;
    let context = Context::directory(&checkout.path, Ignore::none(), Memory::none())?;
    builder.contexts.keep(checkout.scratch);
    Ok((Part::new(From::Context(context), vec!["/".to_owned()], options), checkout.commit))
}
