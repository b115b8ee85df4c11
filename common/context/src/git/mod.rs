//! git repositories as sources: one commit, fetched by the program git, which is told nothing of this machine's configuration and asks nobody
//! anything.

mod program;
mod url;

pub use url::GitUrl;

use crate::Login;
use crate::ignore::rules::Rules;
use crate::resolve::{open_plain, split};
use crate::walk::{Filter, walk};
use fault::{Explain, Fault, Kind, Result};
use layer::ItemKind;
use program::Git;
use rustix::fd::AsFd;
use rustix::fs::{AtFlags, OFlags, Timespec, Timestamps, unlinkat, utimensat};
use std::path::{Path, PathBuf};
use store::{Scratch, Store};
use url::{check_hash, is_commit};

/// Files of one commit.
#[derive(Debug)]
pub struct Checkout {
    /// The whole directory; removed when this is dropped.
    pub scratch: Scratch,
    /// In it, what was asked for.
    pub path: PathBuf,
    /// The commit's hash.
    pub commit: String,
}

/// What a URL stands for now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Found {
    /// Hash of the commit, or of the tag that names it.
    hash: String,
    /// Of a tag that is an object of its own: the commit.
    commit: Option<String>,
    /// In full; `None` for a hash.
    reference: Option<String>,
}

impl Found {
    fn commit(&self) -> &str {
        self.commit.as_deref().unwrap_or(&self.hash)
    }
}

/// The commit a URL stands for now, without fetching files: what a cache's key depends on. One named by its whole hash is not asked for.
///
/// # Errors
/// When git is missing, or says no; [`Kind::NotFound`] for a reference that is not there, [`Kind::Input`] when the commit is not the one demanded.
pub fn resolve(url: &GitUrl) -> Result<String> {
    resolve_as(url, None)
}

/// The same as somebody the server knows.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_as(url: &GitUrl, login: Option<&Login>) -> Result<String> {
    let git = Git::new(url, login);
    find(&git, url).map(|found| found.commit().to_owned())
}

/// Fetches one commit, no more history than is needed.
///
/// # Errors
/// As [`resolve`].
pub fn checkout(store: &Store, url: &GitUrl) -> Result<Checkout> {
    checkout_as(store, url, None)
}

/// The same as somebody the server knows.
///
/// # Errors
/// As [`resolve`].
pub fn checkout_as(store: &Store, url: &GitUrl, login: Option<&Login>) -> Result<Checkout> {
    let git = Git::new(url, login);
    let found = find(&git, url)?;
    let scratch = Scratch::new(store)?;
    let tree = scratch.path().join("tree");
    std::fs::create_dir_all(&tree).explain(|| format!("make {}", tree.display()))?;
    // Of a subdirectory there is no repository to keep.
    let keeps = url.keep_git_dir == Some(true) && url.subdir.is_none();
    let git_dir = if keeps { tree.join(".git") } else { scratch.path().join("git") };
    let git = git.within(&git_dir, &tree);
    let format = if found.hash.len() == 64 { "--object-format=sha256" } else { "--object-format=sha1" };
    git.run(&["init", "--quiet", "--template=", format])?;
    let fetched = fetch(&git, url, &found, keeps)?;
    let commit = format!("{fetched}^{{commit}}");
    let commit = git.run(&["rev-parse", "--verify", "--end-of-options", &commit])?.trim().to_owned();
    if found.reference.is_some() && commit != found.commit() {
        return Err(Fault::retryable(format!("it became {commit} while it was fetched")).on(url.shown()));
    }
    git.run(&["checkout", "--quiet", "--force", "--detach", &commit])?;
    if url.submodules != Some(false) && tree.join(".gitmodules").symlink_metadata().is_ok() {
        git.run(&["submodule", "--quiet", "update", "--init", "--recursive", "--depth=1"])?;
    }
    if keeps {
        git.run(&["remote", "add", "origin", &url.shown()])?;
        git.run(&["reflog", "expire", "--all", "--expire=now"])?;
        let _ = std::fs::remove_file(git_dir.join("FETCH_HEAD"));
    } else {
        forget_submodules(&tree)?;
    }
    if url.commit_times {
        let seconds = git.run(&["show", "--no-patch", "--format=%ct", &commit])?;
        date(&tree, seconds.trim().parse().unwrap_or(0))?;
    }
    let path = match &url.subdir {
        None => tree,
        Some(subdir) => inside(&tree, subdir, url)?,
    };
    Ok(Checkout { scratch, path, commit })
}

fn find(git: &Git, url: &GitUrl) -> Result<Found> {
    let found = match &url.reference {
        Some(reference) if is_commit(reference) => Found { hash: reference.clone(), ..Found::default() },
        _ if url.fetch_by_commit => match &url.checksum {
            Some(checksum) if is_commit(checksum) => Found { hash: checksum.clone(), ..Found::default() },
            _ => {
                return Err(
                    Fault::input("fetch-by-commit needs a whole hash as its checksum").on(url.shown())
                );
            }
        },
        Some(reference) => ask(git, url, reference)?,
        None => ask_default(git, url)?,
    };
    let Some(wanted) = &url.checksum else { return Ok(found) };
    check_hash(wanted).map_err(|fault| fault.on(url.shown()))?;
    let fits = |hash: &str| hash.starts_with(&wanted.to_ascii_lowercase());
    if fits(&found.hash) || fits(found.commit()) {
        return Ok(found);
    }
    Err(Fault::input(format!("it is commit {} where {wanted} was demanded", found.commit())).on(url.shown()))
}

/// What the server says of a reference. Of a branch and a tag of one name the branch is meant, as for docker.
fn ask(git: &Git, url: &GitUrl, reference: &str) -> Result<Found> {
    let peeled = format!("{reference}^{{}}");
    let text = git.run(&["ls-remote", "--quiet", "--", &url.remote, reference, &peeled])?;
    let lines: Vec<(&str, &str)> = text.lines().filter_map(|line| line.split_once('\t')).collect();
    let hash_of =
        |name: &str| lines.iter().find(|(_, other)| *other == name).map(|(hash, _)| (*hash).to_owned());
    let names = [
        format!("refs/{}", reference.strip_prefix("refs/").unwrap_or(reference)),
        format!("refs/heads/{}", reference.strip_prefix("refs/heads/").unwrap_or(reference)),
        format!("refs/tags/{}", reference.strip_prefix("refs/tags/").unwrap_or(reference)),
    ];
    for name in names {
        if let Some(hash) = hash_of(&name).filter(|hash| is_commit(hash)) {
            let commit = hash_of(&format!("{name}^{{}}")).filter(|hash| is_commit(hash));
            return Ok(Found { hash, commit, reference: Some(name) });
        }
    }
    Err(Fault::not_found(format!("the repository has no reference {reference}"))
        .hint("a branch, a tag, a reference from refs/ on, or the whole hash of a commit")
        .on(url.shown()))
}

fn ask_default(git: &Git, url: &GitUrl) -> Result<Found> {
    let text = git.run(&["ls-remote", "--quiet", "--symref", "--", &url.remote, "HEAD"])?;
    let mut found = Found::default();
    for line in text.lines() {
        let (first, name) = line.split_once('\t').unwrap_or((line, ""));
        match first.strip_prefix("ref: ") {
            Some(reference) if name == "HEAD" => found.reference = Some(reference.to_owned()),
            None if name == "HEAD" && is_commit(first) => first.clone_into(&mut found.hash),
            _ => {}
        }
    }
    if found.hash.is_empty() {
        return Err(Fault::not_found("the repository has no default branch")
            .hint("name one: URL#BRANCH")
            .on(url.shown()));
    }
    found.reference.get_or_insert_with(|| "HEAD".to_owned());
    Ok(found)
}

/// Brings the commit; tells by what name git knows it now.
fn fetch<'a>(git: &Git, url: &GitUrl, found: &'a Found, keeps: bool) -> Result<&'a str> {
    let spec = match &found.reference {
        // Who keeps the repository finds the reference in it.
        Some(reference) if keeps && reference.starts_with("refs/") => format!("+{reference}:{reference}"),
        Some(reference) => reference.clone(),
        None => found.hash.clone(),
    };
    let shallow =
        ["fetch", "--quiet", "--update-head-ok", "--no-tags", "--depth=1", "--", &url.remote, &spec];
    let Err(fault) = git.run(&shallow) else { return Ok("FETCH_HEAD") };
    let said = fault.to_string();
    if said.contains("shallow") || said.contains("--depth") {
        let whole: Vec<&str> = shallow.iter().copied().filter(|word| *word != "--depth=1").collect();
        match git.run(&whole) {
            Ok(_) => return Ok("FETCH_HEAD"),
            Err(fault) if found.reference.is_some() => return Err(fault),
            Err(_) => {}
        }
    } else if !(said.contains("not our ref") || said.contains("unadvertised object")) {
        return Err(fault);
    }
    // A server that gives nothing but what has a name: everything that has one, and then it is here or nowhere.
    let (heads, tags) = ("+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*");
    git.run(&["fetch", "--quiet", "--no-tags", "--", &url.remote, heads, tags])?;
    let commit = format!("{}^{{commit}}", found.hash);
    git.run(&["cat-file", "-e", &commit]).map_err(|_| {
        Fault::not_found(format!("the repository has no commit {}", found.hash)).on(url.shown())
    })?;
    Ok(&found.hash)
}

/// A subdirectory, which no link leads to.
fn inside(tree: &Path, subdir: &str, url: &GitUrl) -> Result<PathBuf> {
    let root = std::fs::File::open(tree).explain(|| format!("open {}", tree.display()))?;
    match open_plain(root.as_fd(), subdir.as_bytes(), OFlags::PATH | OFlags::DIRECTORY) {
        Ok(_) => Ok(tree.join(subdir)),
        Err(error) => Err(Fault::new(Kind::NotFound, format!("the repository has no directory {subdir}"))
            .because(std::io::Error::from(error))
            .on(url.shown())),
    }
}

/// Removes the files by which submodules find their repositories. Nothing that is committed is called so.
fn forget_submodules(tree: &Path) -> Result<()> {
    each(tree, |dir, name, kind| {
        if name == b".git" && kind == ItemKind::File {
            unlinkat(dir, name, AtFlags::empty()).explain_errno()?;
        }
        Ok(())
    })
}

/// Dates everything, what is in a directory before it.
fn date(tree: &Path, seconds: i64) -> Result<()> {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    each(tree, |dir, name, _| utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW).explain_errno())
}

/// Calls for everything below a directory with the directory it is in, innermost first.
fn each(tree: &Path, mut act: impl FnMut(&rustix::fd::OwnedFd, &[u8], ItemKind) -> Result<()>) -> Result<()> {
    let root = std::fs::File::open(tree).explain(|| format!("open {}", tree.display()))?;
    let nothing = Rules::default();
    let filter = Filter { ignore: &nothing, exclude: &nothing, include: None };
    for entry in walk(root.as_fd(), b"", &filter)?.iter().skip(1).rev() {
        let (dir, name) = split(&entry.path);
        let dir = open_plain(root.as_fd(), dir, OFlags::RDONLY | OFlags::DIRECTORY).explain_errno()?;
        if let Some(kind) = entry.kind {
            act(&dir, name, kind)?;
        }
    }
    Ok(())
}

trait ExplainErrno<T> {
    fn explain_errno(self) -> Result<T>;
}

impl<T> ExplainErrno<T> for rustix::io::Result<T> {
    fn explain_errno(self) -> Result<T> {
        self.map_err(std::io::Error::from).explain(|| "tidy the checkout".into())
    }
}
