//! The build's context and the named ones.

use crate::copy::From;
use crate::images::{Found, Images};
use crate::layer::Files;
use crate::layout::Place;
use cli::{Explain, Fault, Kind, Result};
use context::web::Web;
use context::{Context, Fetched, Fetching, Ignore, Memory, Source};
use oci::{Platform, Reference};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use store::{Scratch, Store};

/// Longest Dockerfile.
pub const MAX_DOCKERFILE: u64 = 16 << 20;

/// Where files come from that are no stage's.
pub struct Contexts {
    pub main: Option<Context>,
    /// By name, as the user gave it.
    named: BTreeMap<String, String>,
    opened: Mutex<BTreeMap<String, Context>>,
    /// Images in layouts, by platform and name: the same as long as the build lasts.
    layouts: Mutex<BTreeMap<String, Arc<Found>>>,
    store: Store,
    pub web: Web,
    platform: Platform,
    /// What was fetched, as long as the build lasts.
    fetched: Mutex<Vec<Scratch>>,
}

/// What was asked for, fetched: the Dockerfile and the context.
pub struct Opened {
    pub context: Option<Context>,
    pub dockerfile: Vec<u8>,
    /// What messages call it.
    pub name: String,
    /// Of one that was fetched, gone with this.
    _scratch: Option<Scratch>,
}

/// Brings the context here and reads the Dockerfile.
///
/// # Errors
/// When either is not there.
pub fn open(argument: Option<&str>, file: Option<&str>, store: &Store, web: &Web) -> Result<Opened> {
    let argument = argument.unwrap_or(".");
    let mut stdin = std::io::stdin().lock();
    if file == Some("-") && argument == "-" {
        return Err(Fault::usage("stdin can be the context or the Dockerfile, not both"));
    }
    let source = Source::of(argument)?;
    let fetched = source.fetch(Fetching { store, web, stdin: &mut stdin })?;
    let (path, scratch) = match fetched {
        Fetched::Dockerfile(text) => {
            if file.is_some() {
                return Err(Fault::usage("the context is a Dockerfile already").hint("leave -f out"));
            }
            let name = "Dockerfile".to_owned();
            return Ok(Opened { context: None, dockerfile: text, name, _scratch: None });
        }
        Fetched::Directory { path, scratch, .. } => (path, scratch),
    };
    // Of a fetched context the Dockerfile is in it, of a directory it may be anywhere.
    let is_fetched = !matches!(source, Source::Directory(_));
    let (text, name, place) = if file == Some("-") {
        let mut text = Vec::new();
        stdin.take(MAX_DOCKERFILE + 1).read_to_end(&mut text).explain(|| "read stdin".into())?;
        (text, "Dockerfile".to_owned(), None)
    } else {
        find_dockerfile(&path, file, is_fetched)?
    };
    if text.len() as u64 > MAX_DOCKERFILE {
        return Err(Fault::input(format!("the Dockerfile is longer than {MAX_DOCKERFILE} bytes")));
    }
    let ignore = Ignore::find(&path, place.as_deref())?;
    // What is fetched is new each time.
    let memory = if is_fetched { Memory::none() } else { Memory::of(store, &path) };
    let context = Context::directory(&path, ignore, memory)?;
    Ok(Opened { context: Some(context), dockerfile: text, name, _scratch: scratch })
}

fn find_dockerfile(
    context: &Path,
    file: Option<&str>,
    is_fetched: bool,
) -> Result<(Vec<u8>, String, Option<PathBuf>)> {
    let names: Vec<&str> = match file {
        Some(name) => vec![name],
        None => vec!["Dockerfile", "Containerfile", "dockerfile"],
    };
    for name in &names {
        // As docker: relative to where one is; in a fetched context, and by default, to that.
        let inside = is_fetched || file.is_none();
        if inside {
            let reader = Context::directory(context, Ignore::none(), Memory::none())?;
            if let Some(text) = reader.read(name, MAX_DOCKERFILE)? {
                return Ok((text, (*name).to_owned(), Some(context.join(name))));
            }
            continue;
        }
        for path in [PathBuf::from(name), context.join(name)] {
            match std::fs::File::open(&path) {
                Ok(open) if open.metadata().is_ok_and(|status| status.is_dir()) => {
                    return Err(Fault::input(format!("{} is a directory", path.display())));
                }
                Ok(open) => {
                    let mut text = Vec::new();
                    open.take(MAX_DOCKERFILE + 1)
                        .read_to_end(&mut text)
                        .explain(|| format!("read {}", path.display()))?;
                    return Ok((text, (*name).to_owned(), Some(path)));
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).explain(|| format!("open {}", path.display())),
            }
        }
    }
    Err(Fault::not_found(format!("there is no {} in {}", names[0], context.display()))
        .hint("-f FILE names it; -f - reads it from stdin"))
}

impl Contexts {
    pub fn new(
        opened: Option<Context>,
        named: BTreeMap<String, String>,
        store: &Store,
        web: Web,
        platform: Platform,
    ) -> Contexts {
        Contexts {
            main: opened,
            named,
            opened: Mutex::default(),
            layouts: Mutex::default(),
            store: store.clone(),
            web,
            platform,
            fetched: Mutex::default(),
        }
    }

    /// The build's own.
    pub fn main(&self) -> Result<&Context> {
        self.main.as_ref().ok_or_else(|| {
            Fault::new(Kind::NotFound, "the build has no context to copy from: it is a Dockerfile alone")
                .hint("give a directory")
        })
    }

    /// One that is at hand.
    pub fn give(&self, name: &str, context: Context) {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), context);
    }

    /// A `--build-context`.
    ///
    /// # Errors
    /// When it cannot be brought here.
    pub fn named(&self, name: &str, images: &Images<'_>) -> Result<From> {
        if let Some(context) = self.opened.lock().unwrap_or_else(PoisonError::into_inner).get(name) {
            return Ok(From::Context(context.clone()));
        }
        let value = self
            .named
            .get(name)
            .ok_or_else(|| Fault::not_found(format!("there is no build context {name}")))?;
        if let Some(found) = self.image(name, images, &self.platform)? {
            return Ok(From::Files(Files::of(found)));
        }
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(context) = opened.get(name) {
            return Ok(From::Context(context.clone()));
        }
        let source = Source::of(value)?;
        if source == Source::Stdin {
            return Err(Fault::usage(format!("--build-context {name}: stdin is the build's own context")));
        }
        let with = Fetching { store: &self.store, web: &self.web, stdin: &mut std::io::empty() };
        let context = match source.fetch(with)? {
            Fetched::Dockerfile(_) => {
                return Err(Fault::input(format!("--build-context {name} is a file and no archive")));
            }
            Fetched::Directory { path, scratch, .. } => {
                let is_local = scratch.is_none();
                self.fetched.lock().unwrap_or_else(PoisonError::into_inner).extend(scratch);
                let memory = if is_local { Memory::of(&self.store, &path) } else { Memory::none() };
                Context::directory(&path, Ignore::find(&path, None)?, memory)?
            }
        };
        opened.insert(name.to_owned(), context.clone());
        Ok(From::Context(context))
    }

    /// A `--build-context` that is an image: `docker-image://REFERENCE`, `oci-layout://DIR`.
    ///
    /// # Errors
    /// When it is not where it says.
    pub fn image(&self, name: &str, images: &Images<'_>, platform: &Platform) -> Result<Option<Arc<Found>>> {
        let Some(value) = self.named.get(name) else { return Ok(None) };
        if let Some(reference) = value.strip_prefix("docker-image://") {
            return images.find(&Reference::parse(reference)?, platform).map(Some);
        }
        let says = |fault: Fault| fault.within(format!("--build-context {name}"));
        let Some(place) = Place::parse(value).map_err(says)? else { return Ok(None) };
        let mut layouts = self.layouts.lock().unwrap_or_else(PoisonError::into_inner);
        let key = format!("{platform} {name}");
        if let Some(found) = layouts.get(&key) {
            return Ok(Some(Arc::clone(found)));
        }
        let (image, layout) = place.open(platform).map_err(says)?;
        let found = images.in_layout(image, layout)?;
        layouts.insert(key, Arc::clone(&found));
        Ok(Some(found))
    }

    /// Keeps what was learnt of files.
    pub fn remember(&self) {
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        for context in self.main.iter().chain(opened.values()) {
            // What is forgotten is read again.
            let _ = context.remember();
        }
    }

    pub fn keep(&self, scratch: Scratch) {
        self.fetched.lock().unwrap_or_else(PoisonError::into_inner).push(scratch);
    }
}
