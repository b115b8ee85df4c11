//! ADD of repositories: found by the commit, fetched when that is new.

use crate::server::Server;
use crate::{build, inside, machine, project};
use testkit::{Place, find_program, skip};

/// `$DIR/served/r.git` with a commit on `main` that has the tag `v1`; called again it has another one.
fn commit(place: &Place, text: &str) -> String {
    let git = "git -c user.name=a -c user.email=a@b -c commit.gpgsign=false -c init.defaultBranch=main";
    let script = format!(
        "export GIT_CONFIG_GLOBAL=/dev/null; mkdir -p $DIR/work/sub && cd $DIR/work && {git} init -q . && echo {text} >f && echo sub-{text} >sub/g && \
         {git} add . && {git} commit -q -m x && ({git} tag v1 2>/dev/null; true) && mkdir -p $DIR/served && rm -rf $DIR/served/r.git && \
         {git} clone -q --bare . $DIR/served/r.git && cd $DIR/served/r.git && {git} update-server-info && {git} rev-parse main"
    );
    place.sh(&script).expect(0).stdout.trim().to_owned()
}

/// Whether files of the repository were asked for, beside what it has references to; and whether anything was.
fn asked(server: &Server, since: usize) -> (bool, bool) {
    let requests = &server.requests()[since..];
    (requests.iter().any(|request| request.path.contains("/objects/")), !requests.is_empty())
}

#[test]
fn a_repository_is_fetched_when_its_commit_is_new() {
    let Some(place) = machine::place() else { return };
    if find_program("git").is_none() {
        skip("there is no program git");
        return;
    }
    let first = commit(&place, "one");
    let server = Server::of_directory(&place.path().join("served"));
    let app = |reference: &str, flags: &str| {
        let text = format!("FROM bb:1\nADD {flags} {}/r.git{reference} /r/\n", server.url());
        project(&place, "app", &[("Dockerfile", &text)]);
    };
    let built = || build(&place, "-t it:1 $DIR/app").expect(0).stderr.contains("CACHED");
    // By a branch: asked what that is, and no more.
    app("#main", "");
    assert!(!built());
    assert_eq!(inside(&place, "it:1", "cat /r/f /r/sub/g; ls -a /r | wc -l"), "one\nsub-one\n4\n");
    let before = server.requests().len();
    assert!(built());
    assert_eq!(asked(&server, before), (false, true));
    // The same commit by whatever name, and by none.
    for name in ["", "#v1", "#refs/heads/main", &format!("#{first}")] {
        app(name, "");
        assert!(built(), "{name}");
    }
    assert_eq!(asked(&server, before), (false, true));
    // By its hash nobody is asked.
    let before = server.requests().len();
    assert!(built());
    assert_eq!(asked(&server, before), (false, false));
    // What of it is another thing.
    for (name, flags) in [("#main:sub", ""), ("", "--keep-git-dir"), ("", "--exclude=f")] {
        app(name, flags);
        assert!(!built(), "{name} {flags}");
        assert!(built(), "{name} {flags}");
    }
    app("#main", "");
    let second = commit(&place, "two");
    assert_ne!(first, second);
    assert!(!built());
    assert_eq!(inside(&place, "it:1", "cat /r/f"), "two\n");
    app("#v1", &format!("--checksum={first}"));
    assert!(built());
    app("#main", &format!("--checksum={first}"));
    let ran = build(&place, "$DIR/app").expect(3);
    assert!(ran.stderr.contains(&second) && ran.stderr.contains("demanded"), "{}", ran.stderr);
    // Gone, it is there by its hash; by a name nobody can tell.
    place.sh("rm -r $DIR/served/r.git").expect(0);
    app(&format!("#{first}"), "");
    assert!(built());
    assert_eq!(inside(&place, "it:1", "cat /r/f"), "one\n");
    app("#main", "");
    build(&place, "$DIR/app").expect(4);
    app(&format!("#{first}"), "");
    build(&place, "--no-cache $DIR/app").expect(4);
    assert_eq!(place.sh("ls $STAVES_ROOT/tmp | wc -l").expect(0).stdout, "0\n");
}
