//! Caches between the client and a registry: nginx's, which keeps whatever it is told to, and a registry that pulls through.

use pipelines::nginx::{Nginx, Server};
use pipelines::{Bench, DockerRegistry, FakeRegistry, Place, Ran};
use std::os::unix::fs::FileExt;

/// The password `hunter2` of `u`, as bcrypt with the least work.
const HTPASSWD: &str = "u:$2y$04$msj6j6/w1KKJsSIUzHOzq..9EkPsCrVpfw8X6lPGK56o.JDhuY5B.\n";

/// Blobs and documents named by digests are kept for long, and whatever a name stood for; told not to answer from that, it asks
/// the registry and keeps what comes.
const HTTP: &str = r#"
map $http_cache_control $is_anew { default 0; "~max-age=0|no-cache" 1; }
proxy_cache kept; proxy_cache_key "$uri $http_accept"; proxy_cache_valid 200 1h; proxy_cache_bypass $is_anew;
"#;
/// Asks the registry first whether who asks may have it: what is kept is kept for all.
const ALLOWED: &str = "proxy_cache off; internal; proxy_method HEAD; proxy_pass_request_body off;";

const WELL: u16 = 8001;
const SLOW: u16 = 8002;
const WHOLE: u16 = 8003;
/// Keeps tags, too, and does not listen to who asks.
const STUBBORN: u16 = 8004;
/// Makes sure after a second that what it keeps is still so.
const CAREFUL: u16 = 8005;
/// Does not listen, nor look at what somebody takes.
const MIXED: u16 = 8006;

/// A registry with a password, `$W`, nginx before it, and the image `app:1` of two layers in it.
struct Line {
    bench: Bench,
    registry: DockerRegistry,
    nginx: Nginx,
}

fn login(place: &mut Place, hosts: &[String]) {
    let auths: serde_json::Map<_, _> =
        hosts.iter().map(|host| (host.clone(), serde_json::json!({"auth": "dTpodW50ZXIy"}))).collect();
    let file = place.path().join("auth.json");
    std::fs::write(&file, serde_json::json!({ "auths": auths }).to_string()).unwrap();
    place.set("REGISTRY_AUTH_FILE", file.display().to_string());
}

/// A registry that lets nobody in but `u`, `$W`.
fn private_registry(bench: &mut Bench) -> Option<DockerRegistry> {
    let (storage, htpasswd) = (bench.place.path().join("storage"), bench.place.path().join("htpasswd"));
    std::fs::create_dir(&storage).unwrap();
    std::fs::write(&htpasswd, HTPASSWD).unwrap();
    let settings = format!("auth: {{htpasswd: {{realm: test, path: {}}}}}", htpasswd.display());
    let registry = DockerRegistry::start_with(&storage, false, &settings, "")?;
    bench.place.set("W", registry.address());
    Some(registry)
}

/// Makes an image `app:1`, with a layer of six megabytes that nothing makes smaller, in the private registry.
const MAKE: &str = r"
make() { d=$DIR/tree; rm -rf $d; mkdir $d; head -c 6000000 /dev/urandom >$d/noise; tar -C $d -c . | img-import -q - $1; img-push -q $1 $W/$1; }
blob() { img-inspect $1 | jq -r '.image.layers[0].digest'; }
pull() { STAVES_ROOT=$DIR/$1 img-pull -q 127.0.0.1:$2; }
set -e
";

impl Line {
    fn new() -> Option<Line> {
        let mut bench = Bench::new()?;
        let registry = private_registry(&mut bench)?;
        let up = format!("http://{}", registry.address());
        let allowed = format!("location = /allowed {{ {ALLOWED} proxy_pass {up}/v2/; }}");
        let checked = format!("location / {{ auth_request /allowed; proxy_pass {up}; }} {allowed}");
        let slow = format!("limit_rate 500k; {checked}");
        let whole = format!("max_ranges 0; {checked}");
        let stubborn = format!(
            "proxy_cache_bypass 0; proxy_cache_use_stale error timeout; location / {{ proxy_pass {up}; }}"
        );
        let careful = format!(
            "proxy_cache_bypass 0; proxy_cache_key careful$uri; proxy_cache_valid 200 1s; proxy_cache_revalidate on; {checked}"
        );
        let mixed = format!("proxy_cache_bypass 0; proxy_cache_key mixed$uri; {checked}");
        let servers = [
            (MIXED, &mixed),
            (WELL, &checked),
            (SLOW, &slow),
            (WHOLE, &whole),
            (STUBBORN, &stubborn),
            (CAREFUL, &careful),
        ];
        let servers = servers.map(|(port, directives)| Server { port, directives });
        let nginx = Nginx::start(&bench.place.path().join("nginx"), HTTP, &servers)?;
        let hosts = servers.iter().map(|server| format!("127.0.0.1:{}", server.port));
        let hosts: Vec<String> = hosts.chain([registry.address()]).collect();
        login(&mut bench.place, &hosts);
        let line = Line { bench, registry, nginx };
        line.sh("make app:1").expect(0);
        Some(line)
    }

    fn sh(&self, script: &str) -> Ran {
        self.bench.sh(&format!("{MAKE}{script}"))
    }

    /// `METHOD WHAT STATUS CACHE RANGE` of what was asked of the cache for the image: `GET blob 200 HIT -`.
    fn asked(&self) -> Vec<String> {
        let short = |line: String| {
            let words: Vec<&str> = line.split(' ').collect();
            let what = match words[2].rsplit_once("/v2/app/") {
                Some((_, path)) if path.starts_with("blobs/") => "blob",
                Some((_, path)) if path.contains(':') => "manifest",
                _ => "tag",
            };
            format!("{} {what} {} {} {}", words[1], words[3], words[4], words[5])
        };
        // The first one asks who it is.
        self.nginx.asked().into_iter().map(short).filter(|line| !line.contains(" 401 ")).collect()
    }

    /// Changes a byte near the end of what the cache keeps.
    fn spoil(&self, path: &str) {
        let file = std::fs::File::options().read(true).write(true).open(self.nginx.kept(path)).unwrap();
        let at = file.metadata().unwrap().len() - 20;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    }

    fn layer(&self, image: &str) -> String {
        self.sh(&format!("blob {image}")).expect(0).stdout.trim().to_owned()
    }
}

fn count(lines: &[String], what: &str) -> usize {
    lines.iter().filter(|line| line.starts_with(what)).count()
}

#[test]
fn a_cache_answers_the_second_time() {
    let Some(line) = Line::new() else { return };
    let wanted = line.sh("img-inspect app:1 | jq -r .image.digest").expect(0).stdout;
    for (root, kept) in [("one", "MISS"), ("two", "HIT")] {
        assert_eq!(line.sh(&format!("pull {root} {WELL}/app:1")).expect(0).stdout, wanted);
        let asked = line.asked();
        assert_eq!(count(&asked, &format!("GET blob 200 {kept}")), 2, "{asked:#?}");
        // What a name stands for now is asked of the registry.
        assert_eq!(count(&asked, "GET tag 200 BYPASS"), 1, "{asked:#?}");
    }
    // What is kept is not for everyone.
    let ran = line.bench.sh(&format!(
        "REGISTRY_AUTH_FILE=/nonexistent STAVES_ROOT=$DIR/three img-pull 127.0.0.1:{WELL}/app:1"
    ));
    assert_eq!(ran.status, 6, "{}", ran.stderr);
    assert!(ran.stderr.contains("reg-login"), "{}", ran.stderr);
    // Copies of it, too.
    line.asked();
    line.sh(&format!("img-copy -q docker://127.0.0.1:{WELL}/app:1 oci:$DIR/layout:1")).expect(0);
    let asked = line.asked();
    assert_eq!([count(&asked, "GET blob 200 HIT"), count(&asked, "GET blob")], [3, 3], "{asked:#?}");
    // With the registry gone, one that may answer by itself does.
    line.sh(&format!("pull four {STUBBORN}/app:1")).expect(0);
    drop(line.registry);
    let script = format!(
        "{MAKE} pull five {STUBBORN}/app:1; STAVES_ROOT=$DIR/five img-unpack -q 127.0.0.1:{STUBBORN}/app:1"
    );
    assert_eq!(line.bench.sh(&script).expect(0).stdout.lines().next(), Some(wanted.trim()));
}

#[test]
fn a_tag_is_what_it_is_now() {
    let Some(line) = Line::new() else { return };
    let id = || line.sh("img-inspect app:1 | jq -r .image.digest").expect(0).stdout;
    let pull = |root: &str, port: u16| line.sh(&format!("pull {root} {port}/app:1")).expect(0).stdout;
    let before = id();
    for (root, port) in [("one", WELL), ("two", STUBBORN), ("three", CAREFUL)] {
        assert_eq!(pull(root, port), before);
    }
    line.asked();
    // Not so soon that it is fresh.
    std::thread::sleep(std::time::Duration::from_millis(2100));
    assert_eq!(pull("four", CAREFUL), before);
    let asked = line.asked();
    assert_eq!(count(&asked, "GET tag 200 REVALIDATED"), 1, "{asked:#?}");
    line.sh("make app:1").expect(0);
    let now = id();
    assert_ne!(before, now);
    // One that does not listen gives the old image, all of it.
    assert_eq!(pull("five", STUBBORN), before);
    assert_eq!(pull("six", WELL), now);
    std::thread::sleep(std::time::Duration::from_millis(2100));
    assert_eq!(pull("seven", CAREFUL), now);
}

#[test]
fn a_document_in_another_format_is_not_taken() {
    let Some(line) = Line::new() else { return };
    line.sh("img-copy -q docker://$R/busybox:docker docker://$W/app:docker").expect(0);
    // The registry converts for whoever does not say what they take, and does not tell caches that the answer depends on that.
    let ask = "curl -fsSu u:hunter2 -o $DIR/old -D - http://127.0.0.1";
    let old = line.sh(&format!("{ask}:{MIXED}/v2/app/manifests/docker")).expect(0).stdout;
    assert!(old.contains("manifest.v1"), "{old}");
    let ran = line.sh(&format!("pull one {MIXED}/app:docker"));
    assert!(ran.status == 3 && ran.stderr.contains("schema"), "{} {}", ran.status, ran.stderr);
    let wanted = line.sh("img-pull -q $W/app:docker").expect(0).stdout;
    assert_eq!(line.sh(&format!("pull one {WELL}/app:docker")).expect(0).stdout, wanted);
}

#[test]
fn a_cut_download_goes_on_through_a_cache() {
    let Some(line) = Line::new() else { return };
    let wanted = line.sh("img-inspect app:1 | jq -r .image.digest").expect(0).stdout;
    for (root, port, status) in [("one", WELL, "206"), ("two", WHOLE, "200")] {
        // Killed in the middle of the layer.
        let script = format!(
            "STAVES_ROOT=$DIR/{root} img-pull -q 127.0.0.1:{SLOW}/app:1 & pid=$!
             until [ -n \"$(find $DIR/{root}/partial -type f -size +200k)\" ]; do sleep 0.02; kill -0 $pid; done 2>/dev/null
             kill -KILL $pid; wait $pid || true; find $DIR/{root}/partial -type f -size +200k | wc -l"
        );
        assert_eq!(line.sh(&script).expect(0).stdout.trim(), "1");
        line.asked();
        assert_eq!(line.sh(&format!("pull {root} {port}/app:1")).expect(0).stdout, wanted);
        let asked = line.asked();
        let resumed: Vec<&String> =
            asked.iter().filter(|line| line.ends_with(|c: char| c.is_ascii_digit())).collect();
        assert!(resumed.len() == 1 && resumed[0].starts_with(&format!("GET blob {status} ")), "{asked:#?}");
    }
}

#[test]
fn what_a_cache_spoilt_is_not_taken() {
    let Some(line) = Line::new() else { return };
    let wanted = line.sh("pull one 8001/app:1").expect(0).stdout;
    let digest = line.layer("app:1");
    let path = format!("/v2/app/blobs/{digest}");
    line.spoil(&path);
    line.asked();
    // One that does not listen: nothing of it is kept here, and it is said why.
    let ran = line.sh(&format!("pull two {STUBBORN}/app:1"));
    assert_eq!(ran.status, 3, "{}", ran.stderr);
    assert!(
        ran.stderr.contains(&digest) && ran.stderr.contains("digest") && ran.stderr.contains("cache"),
        "{}",
        ran.stderr
    );
    let script = format!(
        "ls -A $DIR/two/partial | wc -l; STAVES_ROOT=$DIR/two img-ls -q; test ! -e $DIR/two/blobs/sha256/{}",
        digest.trim_start_matches("sha256:")
    );
    assert_eq!(line.sh(&script).expect(0).stdout, "0\n");
    // One that does is asked again, past what it keeps, and keeps the right one from then on.
    line.asked();
    assert_eq!(line.sh("pull three 8001/app:1").expect(0).stdout, wanted);
    let asked = line.asked();
    assert_eq!(
        [count(&asked, "GET blob 200 HIT"), count(&asked, "GET blob 200 BYPASS")],
        [2, 1],
        "{asked:#?}"
    );
    line.sh(&format!("pull four {STUBBORN}/app:1")).expect(0);
    // The same for what only passes through.
    for to in ["oci:$DIR/layout:1", "copied:1", "docker://$W/again:1"] {
        line.spoil(&path);
        line.sh(&format!("export STAVES_ROOT=$DIR/five; img-copy -q docker://127.0.0.1:{WELL}/app:1 {to}"))
            .expect(0);
    }
    line.spoil(&path);
    let ran = line.sh(&format!("img-copy -q docker://127.0.0.1:{WELL}/app:1 oci-archive:$DIR/archive.tar"));
    assert!(ran.status == 3 && ran.stderr.contains("digest"), "{} {}", ran.status, ran.stderr);
    line.sh("test ! -e $DIR/archive.tar").expect(0);
    // Cut, while it is said to be whole.
    let kept = line.nginx.kept(&path);
    std::fs::File::options().write(true).open(&kept).unwrap().set_len(2_000_000).unwrap();
    let ran = line
        .sh(&format!("STAVES_ROOT=$DIR/six img-pull -q --retry 1 --timeout 3 127.0.0.1:{STUBBORN}/app:1"));
    assert!([3, 7].contains(&ran.status), "{} {}", ran.status, ran.stderr);
    assert_eq!(
        line.sh(&format!("STAVES_ROOT=$DIR/seven img-pull -q --timeout 3 127.0.0.1:{WELL}/app:1"))
            .expect(0)
            .stdout,
        wanted
    );
    // A document.
    let digest = line.sh("img-inspect app:1 | jq -r .image.digest").expect(0).stdout.trim().to_owned();
    line.sh(&format!("pull eight {WELL}/app@{digest}")).expect(0);
    line.spoil(&format!("/v2/app/manifests/{digest}"));
    let ran = line.sh(&format!("pull nine {STUBBORN}/app@{digest}"));
    assert!(ran.status == 3 && ran.stderr.contains("cache"), "{} {}", ran.status, ran.stderr);
    assert_eq!(line.sh(&format!("pull nine {WELL}/app@{digest}")).expect(0).stdout, wanted);
}

#[test]
fn tokens_are_asked_for_whatever_is_kept() {
    let Some(mut bench) = Bench::new() else { return };
    let registry = FakeRegistry::start();
    registry.put_image("app", "1", &[b"no tar, which is not looked into"]);
    registry.require_token(None);
    let up = format!("http://{}", registry.address());
    // The registry's own word on each blob and document.
    let directives = format!(
        "location / {{ auth_request /allowed; proxy_pass {up}; }} location = /allowed {{ {ALLOWED} proxy_pass {up}$request_uri; }}"
    );
    let servers = [Server { port: WELL, directives: &directives }];
    let Some(nginx) = Nginx::start(&bench.place.path().join("nginx"), HTTP, &servers) else { return };
    bench.place.set("REGISTRY_AUTH_FILE", "/nonexistent");
    for (root, kept) in [("one", "MISS"), ("two", "HIT")] {
        bench.sh(&format!("img-copy -q docker://127.0.0.1:{WELL}/app:1 oci:$DIR/{root}:1")).expect(0);
        let asked = nginx.asked();
        let blobs =
            asked.iter().filter(|line| line.contains("/blobs/") && line.contains(&format!(" 200 {kept}")));
        assert!(blobs.count() >= 2, "{asked:#?}");
        assert!(asked[0].contains(" 401 "), "{asked:#?}");
        // The one of before is refused.
        registry.change_token("another");
    }
    registry.require_token(Some(("u", "hunter2")));
    registry.change_token("a-users");
    let ran = bench.sh(&format!("img-copy -q docker://127.0.0.1:{WELL}/app:1 oci:$DIR/three:1"));
    assert_eq!(ran.status, 6, "{}", ran.stderr);
    login(&mut bench.place, &[format!("127.0.0.1:{WELL}")]);
    bench.sh(&format!("img-copy -q docker://127.0.0.1:{WELL}/app:1 oci:$DIR/three:1")).expect(0);
}

#[test]
fn a_registry_that_pulls_through_is_a_mirror() {
    let Some((mut bench, origin)) = Bench::with_another_registry() else { return };
    bench.sh(&format!("{MAKE} make app:1; img-copy -q -a docker://$R/multi:1 docker://$W/multi:1")).expect(0);
    let through = |name: &str| {
        let storage = bench.place.path().join(name);
        std::fs::create_dir(&storage).unwrap();
        let settings = format!("proxy: {{remoteurl: \"http://{}\"}}", origin.address());
        DockerRegistry::start_with(&storage, false, &settings, "")
    };
    let (Some(mirror), Some(empty)) = (through("mirror"), through("empty")) else { return };
    let slow = format!("limit_rate 500k; location / {{ proxy_pass http://{}; }}", mirror.address());
    let nginx =
        Nginx::start(&bench.place.path().join("nginx"), "", &[Server { port: SLOW, directives: &slow }]);
    let slowly = format!("127.0.0.1:{SLOW}");
    for (name, address) in [("mirror", mirror.address()), ("empty", empty.address()), ("slow", slowly)] {
        let text = format!(
            "[[registry]]\nlocation = \"{}\"\ninsecure = true\n[[registry.mirror]]\nlocation = \"{address}\"\ninsecure = true\n",
            origin.address()
        );
        std::fs::write(bench.place.path().join(format!("{name}.conf")), text).unwrap();
    }
    bench.place.set("CONTAINERS_REGISTRIES_CONF_DIR", "/nonexistent");
    let pull = |root: &str, conf: &str, image: &str| {
        bench.sh(&format!(
            "export REGISTRY_AUTH_FILE=/nonexistent CONTAINERS_REGISTRIES_CONF=$DIR/{conf}.conf STAVES_ROOT=$DIR/{root}
             img-pull -q $W/{image} && img-unpack -q $W/{image}"
        ))
    };
    let wanted = bench.sh("img-inspect app:1 | jq -r .image.digest").expect(0).stdout;
    if nginx.is_some() {
        // Cut on its way from the mirror; gone on with from one that has yet to fetch it.
        let script = r#"export REGISTRY_AUTH_FILE=/nonexistent CONTAINERS_REGISTRIES_CONF=$DIR/slow.conf STAVES_ROOT=$DIR/cut
             set +e; img-pull -q $W/app:1 & pid=$!
             until [ -n "$(find $DIR/cut/partial -type f -size +200k)" ]; do sleep 0.02; kill -0 $pid || exit; done 2>/dev/null
             kill -KILL $pid; wait $pid; find $DIR/cut/partial -type f -size +200k | wc -l"#;
        let ran = bench.sh(script);
        let asked = nginx.as_ref().map(Nginx::asked);
        assert_eq!((ran.status, ran.stdout.trim()), (0, "1"), "{asked:#?}\n{}", ran.stderr);
        let ran = pull("cut", "empty", "app:1").expect(0);
        assert_eq!(ran.stdout.lines().next(), Some(wanted.trim()));
    }
    for root in ["one", "two"] {
        let ran = pull(root, "mirror", "app:1").expect(0);
        assert_eq!(ran.stdout.lines().next(), Some(wanted.trim()));
    }
    pull("one", "mirror", "multi:1").expect(0);
    let kept =
        bench.sh("find $DIR/mirror -path '*/blobs/*' -name data -size +1000k | wc -l").expect(0).stdout;
    assert!(kept.trim().parse::<u32>().unwrap() >= 2, "{kept}");
    // It answers by itself when the registry is gone.
    drop(origin);
    let ran = pull("three", "mirror", "app:1").expect(0);
    assert_eq!(ran.stdout.lines().next(), Some(wanted.trim()));
}
