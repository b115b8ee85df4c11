//! Which hosts a repository's requests go to: mirrors in their order, then the registry itself.

use crate::endpoint::{self, Endpoint};
use crate::repository::{Repository, lock};
use crate::retry::Failed;
use crate::transport::Transport;
use fault::{Fault, Kind, Result};
use oci::Reference;
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};
use ureq::Body;
use ureq::http::{Method, Response};

/// A mirror that failed is left alone for this long: waiting for one that does not answer costs its timeout each time.
const REST: Duration = Duration::from_mins(1);
/// More blobs than an image has.
const MAX_BEGUN: usize = 1024;

/// Found out when first needed.
#[derive(Debug)]
pub(crate) struct Route {
    goal: Goal,
    found: OnceLock<Result<Found, Fault>>,
    /// Something that came was wrong: no mirror is asked any more, and no cache on the way may answer by itself.
    is_doubted: AtomicBool,
}

#[derive(Debug)]
enum Goal {
    /// Wherever it is to be read from.
    Read(Reference),
    /// The registry itself: to write, to list what it has.
    Itself { domain: String, path: String },
    /// One place, whatever is configured.
    Known,
}

#[derive(Debug)]
struct Found {
    own: Endpoint,
    mirrors: Vec<Mirror>,
}

#[derive(Debug)]
struct Mirror {
    repository: Repository,
    failed: Mutex<Option<Instant>>,
    /// Blobs it began to send. Who asks for one again got it cut.
    begun: Mutex<HashSet<String>>,
}

impl Mirror {
    /// Whether it may be asked for this now.
    fn is_ready(&self, method: &Method, what: &str) -> bool {
        let is_resting = lock(&self.failed).is_some_and(|since| since.elapsed() < REST);
        let was_cut = *method == Method::GET && lock(&self.begun).contains(what);
        !is_resting && !was_cut
    }

    fn did_answer(&self, method: &Method, what: &str) {
        *lock(&self.failed) = None;
        if *method == Method::GET && what.starts_with("blobs/") {
            let mut begun = lock(&self.begun);
            if begun.len() >= MAX_BEGUN {
                begun.clear();
            }
            begun.insert(what.to_owned());
        }
    }
}

impl Route {
    pub(crate) fn of(reference: &Reference) -> Route {
        Route::new(Goal::Read(reference.clone()), OnceLock::new())
    }

    fn itself(domain: &str, path: &str) -> Route {
        Route::new(Goal::Itself { domain: domain.to_owned(), path: path.to_owned() }, OnceLock::new())
    }

    fn new(goal: Goal, found: OnceLock<Result<Found, Fault>>) -> Route {
        Route { goal, found, is_doubted: AtomicBool::new(false) }
    }

    pub(crate) fn is_doubted(&self) -> bool {
        self.is_doubted.load(Ordering::Relaxed)
    }

    pub(crate) fn doubt(&self) {
        self.is_doubted.store(true, Ordering::Relaxed);
    }

    /// What a cache on the way may do with a request (RFC 9111, section 5.2.1).
    ///
    /// A blob or a manifest named by its digest never changes, so that whatever is kept of it will do, unless something that
    /// came was wrong. What a name stands for, and what a registry to be written to has, is asked of the registry: of a cache
    /// only if it makes sure that what it keeps is still so.
    fn cache_control(&self, what: &str) -> Option<&'static str> {
        let is_fixed = what.split_once('/').is_some_and(|(_, identifier)| identifier.contains(':'));
        match &self.goal {
            _ if self.is_doubted() => Some("no-cache"),
            Goal::Read(_) if is_fixed => None,
            _ => Some("max-age=0"),
        }
    }

    /// To one place only.
    fn to(own: Endpoint) -> Route {
        Route::new(Goal::Known, OnceLock::from(Ok(Found { own, mirrors: Vec::new() })))
    }

    /// The registry itself.
    pub(crate) fn endpoint(&self, transport: &Arc<Transport>) -> Result<&Endpoint> {
        self.found(transport).map(|found| &found.own)
    }

    /// What is written goes to the registry itself. Where one reads from another place under its name, writing there
    /// would be a surprise.
    pub(crate) fn check_is_itself(&self, transport: &Arc<Transport>, domain: &str, path: &str) -> Result<()> {
        if !matches!(self.goal, Goal::Read(_)) {
            return Ok(());
        }
        let own = self.endpoint(transport)?;
        if *own == endpoint::itself(transport, domain, path)? {
            return Ok(());
        }
        Err(Fault::failed(format!("{domain}/{path} is opened for reading, from {}/{}", own.domain, own.path)))
    }

    fn found(&self, transport: &Arc<Transport>) -> Result<&Found> {
        let found = self.found.get_or_init(|| match &self.goal {
            Goal::Read(reference) => find(transport, reference),
            Goal::Itself { domain, path } => {
                endpoint::itself(transport, domain, path).map(|own| Found { own, mirrors: Vec::new() })
            }
            Goal::Known => Err(Fault::failed("the registry has no address")),
        });
        found.as_ref().map_err(|fault| {
            let same = Fault::new(fault.kind(), fault.to_string());
            fault.hint_text().map(str::to_owned).into_iter().fold(same, Fault::hint)
        })
    }
}

fn find(transport: &Arc<Transport>, reference: &Reference) -> Result<Found> {
    let places = endpoint::places(transport, reference)?;
    let mirrors = places.mirrors.into_iter().map(|endpoint| Mirror {
        repository: Repository::at(Arc::clone(transport), endpoint),
        failed: Mutex::default(),
        begun: Mutex::default(),
    });
    Ok(Found { own: places.own, mirrors: mirrors.collect() })
}

impl Repository {
    /// The repository at one place, whatever is configured.
    pub(crate) fn at(transport: Arc<Transport>, endpoint: Endpoint) -> Repository {
        let (domain, path) = (endpoint.domain.clone(), endpoint.path.clone());
        Repository::by(transport, &domain, &path, Route::to(endpoint))
    }

    /// The repository at the registry itself; what belongs to no repository of it, its catalog, if `path` is empty.
    pub(crate) fn itself(transport: Arc<Transport>, domain: &str, path: &str) -> Repository {
        Repository::by(transport, domain, path, Route::itself(domain, path))
    }

    /// Takes it for the repository at the registry itself, which is going to be written to, so that the first token already
    /// allows that. What is read from it comes from there, too.
    #[must_use]
    pub fn for_writing(self) -> Repository {
        let repository = Repository::itself(self.transport, &self.domain, &self.path);
        repository.will("pull,push");
        repository
    }

    /// Something that came was wrong, which may be a mirror's fault or a cache's: from now on only the registry itself is
    /// asked, and caches on the way are told not to answer from what they keep.
    pub fn ask_anew(&self) {
        self.route.doubt();
    }

    /// One request below `/v2/<repository>/`, to the mirrors that are for it and then to the registry itself; the answer is
    /// a success (2xx).
    pub(crate) fn request(
        &self,
        method: &Method,
        what: &str,
        headers: &[(&'static str, String)],
    ) -> Result<Response<Body>, Failed> {
        let mut failures = Vec::new();
        let mut headers = headers.to_vec();
        if let Some(control) = self.route.cache_control(what)
            && !headers.iter().any(|(name, _)| *name == "cache-control")
        {
            headers.push(("cache-control", control.to_owned()));
        }
        let mirrors = self.route.found(&self.transport)?.mirrors.iter();
        for mirror in mirrors.take_while(|_| !self.route.is_doubted()) {
            let place = mirror.repository.route.endpoint(&self.transport)?;
            if !place.serves(method, what) || !mirror.is_ready(method, what) {
                continue;
            }
            let fault = match mirror.repository.request_here(method, what, &headers) {
                Ok(response) => {
                    mirror.did_answer(method, what);
                    return Ok(response);
                }
                Err(Failed::Finally(fault) | Failed::Again { fault, .. }) => fault,
            };
            // What it does not have is no fault of its.
            if fault.kind() != Kind::NotFound {
                *lock(&mirror.failed) = Some(Instant::now());
            }
            let why: String = fault.to_string().chars().take(160).collect();
            failures.push(format!("mirror {}: {why}", mirror.repository.domain));
        }
        let answer = self.request_here(method, what, &headers);
        if failures.is_empty() {
            return answer;
        }
        let within = |fault: Fault| fault.within(format!("{}; the registry itself", failures.join("; ")));
        answer.map_err(|failed| match failed {
            Failed::Finally(fault) => Failed::Finally(within(fault)),
            Failed::Again { fault, after } => Failed::Again { fault: within(fault), after },
        })
    }
}
