//! Repositories made by the test, fetched from this machine and from a server that has nothing but files.

use crate::place::{Place, fill, list, mode};
use crate::server::Server;
use context::Login;
use context::git::{GitUrl, checkout, resolve, resolve_as};
use fault::Kind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use store::Store;
use testkit::{find_program, skip};

struct Repository {
    place: Place,
    dir: PathBuf,
}

fn git(dir: &Path, words: &[&str]) -> String {
    let mut command = Command::new("git");
    command.current_dir(dir).args([
        "-c",
        "user.name=a",
        "-c",
        "user.email=a@b",
        "-c",
        "commit.gpgsign=false",
    ]);
    command.args(["-c", "init.defaultBranch=main", "-c", "protocol.file.allow=always"]).args(words);
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_COMMITTER_DATE", "1700000000 +0000");
    let output = command.output().expect("run git");
    assert!(output.status.success(), "git {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

impl Repository {
    /// Three commits: the first has a tag and an annotated one, the second is of the branch `side`, the last the default's.
    fn new() -> Option<Repository> {
        if find_program("git").is_none() {
            skip("there is no program git");
            return None;
        }
        let place = Place::new();
        let dir = place.dir.path().join("repository");
        fill(&dir, &["a", "sub/b", "l -> sub"]);
        git(&dir, &["init", "-q", "."]);
        git(&dir, &["add", "."]);
        git(&dir, &["commit", "-q", "-m", "one"]);
        git(&dir, &["tag", "v1"]);
        git(&dir, &["tag", "-a", "-m", "tagged", "v1-signed"]);
        git(&dir, &["checkout", "-q", "-b", "side"]);
        fill(&dir, &["side"]);
        std::fs::write(dir.join("run"), "#!/bin/sh\n").unwrap();
        crate::place::chmod(&dir.join("run"), 0o755);
        git(&dir, &["add", "."]);
        git(&dir, &["commit", "-q", "-m", "two"]);
        git(&dir, &["checkout", "-q", "main"]);
        fill(&dir, &["c"]);
        git(&dir, &["add", "."]);
        git(&dir, &["commit", "-q", "-m", "three"]);
        Some(Repository { place, dir })
    }

    fn store(&self) -> Store {
        Store::at(self.place.dir.path().join("store"), self.place.dir.path().join("run"))
    }

    fn url(&self, reference: Option<&str>) -> GitUrl {
        GitUrl {
            remote: format!("file://{}", self.dir.display()),
            reference: reference.map(str::to_owned),
            ..GitUrl::default()
        }
    }

    fn hash(&self, name: &str) -> String {
        git(&self.dir, &["rev-parse", &format!("{name}^{{commit}}")])
    }

    /// Files of a checkout; the store has nothing left of it afterwards.
    fn files(&self, url: &GitUrl) -> fault::Result<(String, Vec<String>)> {
        let found = checkout(&self.store(), url)?;
        let files = list(&found.path);
        let commit = found.commit.clone();
        drop(found);
        assert_eq!(list(&self.store().root().join("tmp")), Vec::<String>::new());
        Ok((commit, files))
    }
}

const ONE: [&str; 4] = ["a=a", "l -> sub", "sub/", "sub/b=sub/b"];
const TWO: [&str; 6] = ["a=a", "l -> sub", "run=#!/bin/sh\n", "side=side", "sub/", "sub/b=sub/b"];
const THREE: [&str; 5] = ["a=a", "c=c", "l -> sub", "sub/", "sub/b=sub/b"];

#[test]
fn references_lead_to_their_commits() {
    let Some(repository) = Repository::new() else { return };
    let first = repository.hash("v1");
    let rows: &[(Option<&str>, &str, &[&str])] = &[
        (None, "main", &THREE),
        (Some("main"), "main", &THREE),
        (Some("side"), "side", &TWO),
        (Some("refs/heads/side"), "side", &TWO),
        (Some("heads/side"), "side", &TWO),
        (Some("v1"), "v1", &ONE),
        (Some("refs/tags/v1"), "v1", &ONE),
        (Some("v1-signed"), "v1", &ONE),
        (Some(&first), "v1", &ONE),
    ];
    for (reference, of, files) in rows {
        let url = repository.url(*reference);
        assert_eq!(resolve(&url).unwrap(), repository.hash(of), "{reference:?}");
        let (commit, found) = repository.files(&url).unwrap();
        assert_eq!(
            (commit, found),
            (repository.hash(of), files.iter().map(|f| (*f).to_owned()).collect()),
            "{reference:?}"
        );
    }
    // A branch goes before a tag of the same name.
    git(&repository.dir, &["tag", "side", "v1"]);
    assert_eq!(resolve(&repository.url(Some("side"))).unwrap(), repository.hash("refs/heads/side"));
    assert_eq!(resolve(&repository.url(Some("refs/tags/side"))).unwrap(), first);
    let missing = "0123456789012345678901234567890123456789";
    for (reference, kind) in [("none", Kind::NotFound), (missing, Kind::NotFound)] {
        let fault = repository.files(&repository.url(Some(reference))).unwrap_err();
        assert_eq!(fault.kind(), kind, "{reference}: {fault}");
    }
    let nowhere = GitUrl { remote: format!("file://{}/none", repository.dir.display()), ..GitUrl::default() };
    assert_eq!(resolve(&nowhere).unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn a_checksum_has_to_fit() {
    let Some(repository) = Repository::new() else { return };
    let first = repository.hash("v1");
    let tag = git(&repository.dir, &["rev-parse", "v1-signed"]);
    let with = |reference: Option<&str>, checksum: &str| GitUrl {
        checksum: Some(checksum.to_owned()),
        ..repository.url(reference)
    };
    for url in [
        with(Some("v1"), &first),
        with(Some("v1"), &first[..8].to_uppercase()),
        with(Some("v1-signed"), &first),
        with(Some("v1-signed"), &tag),
    ] {
        assert_eq!(repository.files(&url).unwrap().0, first);
    }
    for url in [with(Some("main"), &first), with(None, "00"), with(Some(&first), "1234567x")] {
        assert_eq!(repository.files(&url).unwrap_err().kind(), Kind::Input, "{url:?}");
    }
    let direct = GitUrl { fetch_by_commit: true, ..with(Some("main"), &first) };
    assert_eq!(repository.files(&direct).unwrap().0, first);
    let short = GitUrl { fetch_by_commit: true, ..with(Some("main"), &first[..8]) };
    assert_eq!(repository.files(&short).unwrap_err().kind(), Kind::Input);
}

#[test]
fn subdirectories_are_directories_of_the_repository() {
    let Some(repository) = Repository::new() else { return };
    let sub = |dir: &str| GitUrl { subdir: Some(dir.to_owned()), ..repository.url(None) };
    assert_eq!(repository.files(&sub("sub")).unwrap().1, ["b=sub/b"]);
    for none in ["l", "a", "none", "../repository", "sub/../.."] {
        assert_eq!(repository.files(&sub(none)).unwrap_err().kind(), Kind::NotFound, "{none}");
    }
}

#[test]
fn the_repository_is_kept_if_asked_for() {
    let Some(repository) = Repository::new() else { return };
    for reference in [Some("side"), None, Some("v1-signed")] {
        let url = GitUrl { keep_git_dir: Some(true), ..repository.url(reference) };
        let found = checkout(&repository.store(), &url).unwrap();
        assert_eq!(git(&found.path, &["rev-parse", "HEAD"]), found.commit);
        assert_eq!(git(&found.path, &["status", "--porcelain"]), "");
        assert_eq!(git(&found.path, &["rev-list", "--count", "HEAD"]), "1");
        assert_eq!(git(&found.path, &["remote", "get-url", "origin"]), url.remote);
        if let Some(reference) = reference {
            assert_eq!(git(&found.path, &["rev-parse", &format!("{reference}^{{commit}}")]), found.commit);
        }
        assert!(!found.path.join(".git/hooks").exists());
    }
}

#[test]
fn modes_do_not_depend_on_who_builds_and_times_may_be_the_commits() {
    let Some(repository) = Repository::new() else { return };
    let url = GitUrl { commit_times: true, ..repository.url(Some("side")) };
    let found = checkout(&repository.store(), &url).unwrap();
    assert_eq!(["run", "a", "sub"].map(|name| mode(&found.path.join(name))), [0o755, 0o644, 0o755]);
    for name in ["run", "a", "sub", "sub/b", "l"] {
        assert_eq!(found.path.join(name).symlink_metadata().unwrap().mtime(), 1_700_000_000, "{name}");
    }
}

#[test]
fn submodules_come_along() {
    let Some(repository) = Repository::new() else { return };
    let inner = repository.place.dir.path().join("inner");
    fill(&inner, &["deep"]);
    git(&inner, &["init", "-q", "."]);
    git(&inner, &["add", "."]);
    git(&inner, &["commit", "-q", "-m", "inner"]);
    git(&repository.dir, &["submodule", "--quiet", "add", &format!("file://{}", inner.display()), "mod"]);
    git(&repository.dir, &["commit", "-q", "-m", "with a submodule"]);
    let (_, files) = repository.files(&repository.url(None)).unwrap();
    assert!(files.contains(&"mod/deep=deep".to_owned()), "{files:?}");
    assert!(!files.iter().any(|name| name.contains("/.git")), "{files:?}");
    let (_, files) = repository.files(&GitUrl { submodules: Some(false), ..repository.url(None) }).unwrap();
    assert!(files.contains(&"mod/".to_owned()) && !files.contains(&"mod/deep=deep".to_owned()), "{files:?}");
}

#[test]
fn a_server_of_plain_files_is_enough_and_reaches_nothing_of_this_machine() {
    let Some(repository) = Repository::new() else { return };
    let bare = repository.place.dir.path().join("bare.git");
    git(&repository.dir, &["clone", "-q", "--bare", ".", bare.to_str().unwrap()]);
    git(&bare, &["update-server-info"]);
    let server = Server::of_directory(repository.place.dir.path());
    let url = GitUrl::parse(&format!("{}/bare.git#side:sub", server.url())).unwrap().unwrap();
    assert_eq!(resolve(&url).unwrap(), repository.hash("side"));
    assert_eq!(repository.files(&url).unwrap().1, ["b=sub/b"]);
    let by_hash = GitUrl {
        reference: Some(repository.hash("v1")),
        ..GitUrl::parse(&format!("{}/bare.git", server.url())).unwrap().unwrap()
    };
    assert_eq!(repository.files(&by_hash).unwrap().0, repository.hash("v1"));

    let before = server.requests().len();
    resolve_as(&url, Some(&Login::token("s3cret").unwrap())).unwrap();
    // base64 of x-access-token:s3cret
    let said = "basic eC1hY2Nlc3MtdG9rZW46czNjcmV0";
    assert!(server.requests()[before..].iter().all(|request| request.headers["authorization"] == said));

    // A submodule that is a repository of this machine is refused.
    git(&repository.dir, &["submodule", "--quiet", "add", &format!("file://{}", bare.display()), "mod"]);
    git(&repository.dir, &["commit", "-q", "-m", "hostile"]);
    git(&bare, &["fetch", "-q", "--force", &format!("file://{}", repository.dir.display()), "main:main"]);
    git(&bare, &["update-server-info"]);
    let hostile = GitUrl::parse(&format!("{}/bare.git#main", server.url())).unwrap().unwrap();
    let fault = repository.files(&hostile).unwrap_err();
    assert!(fault.to_string().contains("not allowed"), "{fault}");
    let without = GitUrl { submodules: Some(false), ..hostile };
    assert_eq!(repository.files(&without).unwrap().0, repository.hash("main"));
    let fault = resolve(
        &GitUrl::parse(&format!("http://u:secret@{}/none.git", &server.url()[7..])).unwrap().unwrap(),
    )
    .unwrap_err();
    assert_eq!(fault.kind(), Kind::NotFound);
    assert!(!format!("{fault} {:?}", fault.subject()).contains("secret"), "{fault}");
}
