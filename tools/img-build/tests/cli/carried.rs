//! `--cache-to` and `--cache-from`: what one store has built, another need not.

use crate::{build, machine, project};
use serde_json::Value;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use testkit::{FakeRegistry, Place, Ran};

/// Nothing of it is twice the same, unless it was not run.
const DOCKERFILE: &str = "FROM bb:1 AS one\nRUN cat /proc/sys/kernel/random/uuid >/first\nFROM bb:1\nCOPY f /f\nCOPY --from=one /first /\n\
    RUN cat /proc/sys/kernel/random/uuid >/second\nRUN true\nCMD [\"cat\", \"/second\"]\n";

/// Two places with the same project and base.
fn places() -> Option<(Place, Place)> {
    let (a, b) = (machine::place()?, machine::place()?);
    for place in [&a, &b] {
        project(place, "app", &[("Dockerfile", DOCKERFILE), ("f", "here")]);
    }
    Some((a, b))
}

fn digest(ran: &Ran) -> String {
    ran.json()["image"]["digest"].as_str().unwrap().to_owned()
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn blob(cache: &Path, digest: &Value) -> PathBuf {
    cache.join("blobs").join(digest.as_str().unwrap().replace(':', "/"))
}

/// The artifact's manifest.
fn manifest(cache: &Path) -> Value {
    read(&blob(cache, &read(&cache.join("index.json"))["manifests"][0]["digest"]))
}

fn ran_nothing(ran: &Ran) -> bool {
    ran.stderr.matches("CACHED").count() == 5
}

#[test]
fn a_directory_carries_a_build_to_an_empty_store() {
    let Some((a, b)) = places() else { return };
    let cache = a.path().join("cache");
    let to = format!("--cache-to type=local,dest={},mode=max", cache.display());
    let first = build(&a, &format!("{to} $DIR/app")).expect(0);
    let from = format!("--cache-from type=local,src={}", cache.display());
    let printed = build(&b, &format!("{from} --print $DIR/app")).expect(0);
    assert!(printed.stdout.contains("another cache has it"), "{}", printed.stdout);
    assert!(!b.root().join("cache/build").exists(), "nothing is fetched for that");
    let second = build(&b, &format!("{from} $DIR/app")).expect(0);
    assert!(ran_nothing(&second), "{}", second.stderr);
    assert_eq!(digest(&first), digest(&second));
    // It is in the cache of its own now.
    std::fs::rename(&cache, a.path().join("elsewhere")).unwrap();
    let third = build(&b, "$DIR/app").expect(0);
    assert!(ran_nothing(&third), "{}", third.stderr);
    let anew = build(&b, &format!("--no-cache {from} $DIR/app")).expect(0);
    assert_ne!(digest(&anew), digest(&first));
    machine::assert_unmounted(&b);
}

/// Three stages, of which the target copies from one and mounts the other. `input` is the first one's.
fn three_stages(place: &Place, input: &str) {
    let text = "FROM bb:1 AS one\nCOPY input /input\nRUN cat /proc/sys/kernel/random/uuid >/first; cat /input >>/first\nFROM bb:1 AS two\n\
        RUN cat /proc/sys/kernel/random/uuid >/second\nFROM bb:1\nCOPY --from=one /first /\nRUN --mount=from=two,target=/two cat /two/second >/second\n\
        RUN cat /proc/sys/kernel/random/uuid >/third\n";
    project(place, "app", &[("Dockerfile", text), ("input", input)]);
}

#[test]
fn of_stages_that_are_only_copied_from_nothing_need_be_carried() {
    let (Some(a), Some(b)) = (machine::place(), machine::place()) else { return };
    let cache = a.path().join("cache");
    let from = format!("--cache-from type=local,src={}", cache.display());
    for place in [&a, &b] {
        three_stages(place, "1\n");
    }
    let first = build(&a, "--cache-to type=local,dest=$DIR/cache,mode=min -t it:1 $DIR/app").expect(0);
    let carried = manifest(&cache);
    let listed = read(&blob(&cache, &carried["config"]["digest"]));
    assert_eq!(listed["steps"].as_object().unwrap().len(), 3, "the target's own");
    assert_eq!(listed["chosen"].as_object().unwrap().len(), 2);
    assert_eq!(carried["layers"].as_array().unwrap().len(), 3);
    // Elsewhere nothing is run: each command would have written something else.
    let open = |words: &str| crate::to_do(&b, words);
    assert!(open(&format!("{from} $DIR/app")).is_empty());
    assert!(!b.root().join("cache/chosen").exists(), "to print is to keep nothing");
    let second = build(&b, &format!("{from} -t it:1 $DIR/app")).expect(0);
    assert_eq!(digest(&first), digest(&second));
    assert_eq!(second.stderr.matches("CACHED").count(), 6, "{}", second.stderr);
    let steps = || std::fs::read_dir(b.root().join("cache/build")).unwrap().count();
    assert_eq!(steps(), 3);
    // Without the cache it is the same: what was chosen is known here now.
    assert!(open("$DIR/app").is_empty());
    assert_eq!(digest(&build(&b, "$DIR/app").expect(0)), digest(&first));
    // With another input the stage that has it is built, and what comes after; not the other stage until its files are mounted again.
    three_stages(&b, "2\n");
    let third = build(&b, &format!("{from} -t it:2 $DIR/app")).expect(0);
    assert_ne!(digest(&first), digest(&third));
    assert!(crate::inside(&b, "it:2", "cat /first").ends_with("\n2\n"));
    assert_eq!(third.stderr.matches("CACHED").count(), 0, "{}", third.stderr);
    // Who asks for a stage anew gets it, and with it what is copied from it.
    let before = crate::inside(&b, "it:2", "cat /first /second");
    build(&b, "--no-cache-filter one -t it:3 $DIR/app").expect(0);
    let after = crate::inside(&b, "it:3", "cat /first /second");
    assert_ne!(before.lines().next(), after.lines().next());
    assert_eq!(build(&b, "--print $DIR/app").expect(0).stdout.matches("\"cached\":true").count(), 6);
    machine::assert_unmounted(&b);
}

#[test]
fn a_cache_that_has_less_than_it_says_makes_no_wrong_build() {
    let (Some(a), Some(b)) = (machine::place(), machine::place()) else { return };
    for place in [&a, &b] {
        three_stages(place, "1\n");
    }
    let first = build(&a, "--cache-to type=local,dest=$DIR/cache,mode=min $DIR/app").expect(0);
    let cache = a.path().join("cache");
    for layer in manifest(&cache)["layers"].as_array().unwrap() {
        std::fs::write(blob(&cache, &layer["digest"]), "no layer").unwrap();
    }
    let from = format!("--cache-from type=local,src={}", cache.display());
    assert!(crate::to_do(&b, &format!("{from} $DIR/app")).is_empty(), "as far as one can tell");
    let second = build(&b, &format!("{from} -t it:1 $DIR/app")).expect(0);
    assert!(second.stderr.contains("is not used"), "{}", second.stderr);
    assert!(!second.stderr.contains("FAILED"), "{}", second.stderr);
    assert_ne!(digest(&first), digest(&second));
    let words = crate::inside(&b, "it:1", "cat /first /second /third | wc -l");
    assert_eq!(words.trim(), "4");
}

#[test]
fn a_whole_cache_is_passed_on_whole() {
    let (Some(a), Some(b)) = (machine::place(), machine::place()) else { return };
    for place in [&a, &b] {
        three_stages(place, "1\n");
    }
    build(&a, "--cache-to type=local,dest=$DIR/cache,mode=max $DIR/app").expect(0);
    let cache = a.path().join("cache");
    let from = format!("--cache-from type=local,src={}", cache.display());
    build(&b, &format!("{from} --cache-to type=local,dest=$DIR/next,mode=max $DIR/app")).expect(0);
    let listed = |cache: &Path| read(&blob(cache, &manifest(cache)["config"]["digest"]))["steps"].clone();
    assert_eq!(listed(&b.path().join("next")).as_object().unwrap().len(), 6);
    assert_eq!(listed(&b.path().join("next")), listed(&cache));
}

#[test]
fn it_is_an_artifact_in_a_layout_and_does_not_grow_by_itself() {
    let Some(place) = machine::place() else { return };
    project(&place, "app", &[("Dockerfile", DOCKERFILE), ("f", "here")]);
    let cache = place.path().join("cache");
    let write = |mode: &str| {
        build(&place, &format!("--cache-to type=local,dest=$DIR/cache,mode={mode} $DIR/app")).expect(0);
        let manifest = manifest(&cache);
        let steps = read(&blob(&cache, &manifest["config"]["digest"]));
        (manifest, steps["steps"].as_object().unwrap().clone())
    };
    let (manifest, steps) = write("max");
    assert_eq!(manifest["artifactType"], "application/vnd.staves.build.cache.v1+json");
    assert_eq!(manifest["config"]["mediaType"], manifest["artifactType"]);
    // One RUN changes nothing and has no layer; what is copied from the first stage is that one's layer again.
    assert_eq!((steps.len(), manifest["layers"].as_array().unwrap().len()), (5, 3));
    let layers: Vec<PathBuf> =
        manifest["layers"].as_array().unwrap().iter().map(|layer| blob(&cache, &layer["digest"])).collect();
    let written = || -> Vec<_> {
        let status = layers.iter().map(|path| std::fs::metadata(path).unwrap());
        status.map(|status| (status.ino(), status.modified().unwrap())).collect()
    };
    let before = written();
    assert_eq!(write("max").1, steps);
    assert_eq!(written(), before, "what is there is not written again");
    assert_eq!(write("min").1.len(), 4);
    // What no cache names any more goes when it has rested for an hour.
    place.sh("touch -d '2 hours ago' $DIR/cache/blobs/sha256/*").expect(0);
    let (manifest, _) = write("min");
    let count: usize =
        place.sh("ls $DIR/cache/blobs/sha256 | wc -l").expect(0).stdout.trim().parse().unwrap();
    assert_eq!(count, manifest["layers"].as_array().unwrap().len() + 2);
    // Beside others, under a tag.
    build(&place, "--cache-to type=local,dest=$DIR/cache,tag=other $DIR/app").expect(0);
    let tags = place.sh("jq -r '.manifests[].annotations[]' $DIR/cache/index.json | sort").expect(0).stdout;
    assert_eq!(tags, "latest\nother\n");
}

#[test]
fn a_damaged_cache_is_a_warning_and_a_build() {
    let Some((a, b)) = places() else { return };
    build(&a, "--cache-to type=local,dest=$DIR/cache,mode=max $DIR/app").expect(0);
    let whole = a.path().join("cache");
    let layers = manifest(&whole)["layers"].clone();
    let config = manifest(&whole)["config"]["digest"].clone();
    let root = read(&whole.join("index.json"))["manifests"][0]["digest"].clone();
    let layer = blob(Path::new(""), &layers[0]["digest"]);
    let damages = [
        "rm index.json".to_owned(),
        "echo '{' >index.json".to_owned(),
        "echo '{\"schemaVersion\":2,\"manifests\":[]}' >index.json".to_owned(),
        format!("echo >>{}", blob(Path::new(""), &root).display()),
        format!("rm {}", blob(Path::new(""), &config).display()),
        format!("sed -i s/RUN/RAN/ {}", blob(Path::new(""), &config).display()),
        format!("rm {}", layer.display()),
        format!("head -c 10 {0} >x; mv x {0}", layer.display()),
        format!("tr '\\0' '\\1' <{0} >x; mv x {0}", layer.display()),
        format!("rm {0}; mkfifo {0}", layer.display()),
        format!("rm {0}; ln -s /etc/passwd {0}", layer.display()),
    ];
    for damage in damages {
        let prepare = format!(
            "rm -rf $DIR/bad; cp -a {} $DIR/bad; cd $DIR/bad; {damage}; rm -rf $STAVES_ROOT/cache/build $STAVES_ROOT/cache/chosen",
            whole.display()
        );
        b.sh(&prepare).expect(0);
        // Layers of the round before must be no help.
        b.sh("img-prune -q --all >/dev/null && img-copy -q oci:$L:1 bb:1").expect(0);
        let ran = build(&b, "--cache-from type=local,src=$DIR/bad -t it $DIR/app").expect(0);
        assert!(
            ran.stderr.contains("warning:") && ran.stderr.contains("not used"),
            "{damage}: {}",
            ran.stderr
        );
        assert!(!ran_nothing(&ran), "{damage}: {}", ran.stderr);
    }
    let none = build(&b, "--no-cache --cache-from type=local,src=$DIR/none $DIR/app").expect(0);
    assert!(none.stderr.contains("warning:"), "{}", none.stderr);
    let refused = build(&b, "--cache-to type=local,dest=/proc/no $DIR/app");
    assert_eq!((refused.status, refused.stdout.as_str()), (1, ""), "{}", refused.stderr);
    build(&b, "--cache-to type=local,dest=/proc/no,ignore-error=true $DIR/app").expect(0);
    assert!(build(&b, "--cache-to type=gha $DIR/app").expect(2).stderr.contains("local, registry, inline"));
}

#[test]
fn a_registry_carries_it_and_is_asked_for_no_more_than_is_needed() {
    let Some((a, b)) = places() else { return };
    let registry = FakeRegistry::start();
    let name = format!("{}/team/cache:main", registry.address());
    let first = build(&a, &format!("--cache-to type=registry,ref={name},mode=max $DIR/app")).expect(0);
    registry.forget_requests();
    project(&b, "other", &[("Dockerfile", "FROM bb:1\nRUN echo other >/other\n")]);
    let other = build(&b, &format!("--cache-from {name} $DIR/other")).expect(0);
    assert!(!other.stderr.contains("CACHED") && !other.stderr.contains("warning"), "{}", other.stderr);
    let blobs = || registry.requests().iter().filter(|request| request.line().contains("/blobs/")).count();
    assert_eq!(blobs(), 1, "the list of steps");
    let second = build(&b, &format!("--cache-from type=registry,ref={name} $DIR/app")).expect(0);
    assert!(ran_nothing(&second), "{}", second.stderr);
    assert_eq!(digest(&first), digest(&second));
    let gone = build(&b, &format!("--cache-from {}/none:1 $DIR/other", registry.address())).expect(0);
    assert!(gone.stderr.contains("warning:"), "{}", gone.stderr);
}

#[test]
fn an_image_carries_its_own_steps() {
    let Some((a, b)) = places() else { return };
    let registry = FakeRegistry::start();
    let name = format!("{}/team/app:1", registry.address());
    // All of its steps are the target's.
    let text = "FROM bb:1\nCOPY f /f\nRUN cat /proc/sys/kernel/random/uuid >/u\nRUN true\n";
    for place in [&a, &b] {
        project(place, "app", &[("Dockerfile", text)]);
    }
    let first = build(&a, &format!("--cache-to type=inline -t {name} --push $DIR/app")).expect(0);
    let steps = first.json()["image"]["config"]["staves.build.cache"]["steps"].clone();
    assert_eq!(steps.as_object().unwrap().len(), 3);
    let second =
        build(&b, &format!("--cache-from {name} --cache-to type=inline -t {name} $DIR/app")).expect(0);
    assert_eq!(second.stderr.matches("CACHED").count(), 3, "{}", second.stderr);
    assert_eq!(digest(&first), digest(&second));
    // What stands on it does not say that it made those layers.
    project(&b, "on", &[("Dockerfile", &format!("FROM {name}\nRUN echo >/on\n"))]);
    let on = build(&b, "$DIR/on").expect(0);
    assert!(on.json()["image"]["config"].get("staves.build.cache").is_none());
    let plain = build(&b, &format!("-t {}/team/plain:1 --push $DIR/on", registry.address())).expect(0);
    assert!(!plain.stderr.contains("warning"), "{}", plain.stderr);
    let none = build(&b, &format!("--cache-from {}/team/plain:1 $DIR/on", registry.address())).expect(0);
    assert!(none.stderr.contains("no cache in it"), "{}", none.stderr);
    assert_eq!(build(&b, "--cache-to type=inline --output type=cacheonly $DIR/on").status, 2);
}
