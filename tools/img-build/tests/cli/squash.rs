//! One layer in the place of many.

use crate::{build, inside, machine, project};
use serde_json::Value;
use testkit::Place;

/// Steps that undo each other's work in every way a layer can: files, links and directories removed, exchanged for each other, made again.
const DOCKERFILE: &str = "FROM bb:1 AS base
RUN mkdir -p /b/dir/in /b/gone /b/opaque /b/kept; for f in dir/f dir/in/g gone/h opaque/i kept/j file turned; do echo base >/b/$f; done; ln /b/file /b/hard; chmod 4751 /b/file
RUN true
FROM base AS middle
RUN echo secret-of-a-step >/made; mkdir -p /new/sub; echo n >/new/sub/f; echo two >>/b/dir/f; echo t >/temporary-file
RUN rm /made; rm -r /b/gone; rm -r /b/opaque; mkdir /b/opaque; echo o >/b/opaque/other; rm /b/turned; mkdir /b/turned; echo in >/b/turned/f
COPY --link --chown=3:4 f /new/linked/f
RUN rm -r /new/sub; ln -s /b /new/sub; rm /temporary-file; : >>/b/kept/j; chmod 700 /b/dir; mkdir /b/gone; echo again >/b/gone/again
RUN rm -r /b/dir/in; echo now-a-file >/b/dir/in; cp -a /b/kept /k; rm -r /b/kept; mv /k /b/kept; ln /b/dir/in /b/second; rm -r /b/gone; rm -r /b/turned; echo f >/b/turned
WORKDIR /w/x
RUN rm -r /new/linked; mkdir -p /new/linked/d; mkfifo /p; touch -d '2001-02-03 04:05:06' /old; chown 8:9 /old
CMD [\"sh\"]
";

/// All that can be seen of an image's files.
fn tree(place: &Place, image: &str) -> String {
    // Nobody counts the names of a directory that is merged of several.
    let look = "find / -xdev ! -path \"/proc*\" ! -path \"/sys*\" ! -path \"/dev*\" ! -path \"/etc*\" ! -path \"/bin*\" ! -path / | sort | while read -r f; do \
                if test -d \"$f\" && ! test -L \"$f\"; then stat -c \"%n %F %a %u:%g %Y\" \"$f\"; else stat -c \"%n %F %a %u:%g %h %Y %N\" \"$f\"; fi; \
                test -f \"$f\" && md5sum <\"$f\"; done; ls /etc /bin";
    let tree = inside(place, image, look);
    assert!(tree.contains("/b/dir/in") && tree.contains("/w/x"), "{tree}");
    tree
}

/// What one has and the other has not.
fn differ(one: &str, other: &str) -> Vec<String> {
    let only = |a: &str, b: &str| -> Vec<String> {
        a.lines().filter(|line| !b.lines().any(|known| known == *line)).map(str::to_owned).collect()
    };
    [only(one, other), only(other, one)].concat()
}

/// The same image in a place that knows its archives only.
fn elsewhere(place: &Place, image: &str) -> Place {
    let other = Place::new();
    let dir = place.path().join("moved").join(image);
    place.sh(&format!("mkdir -p $DIR/moved && img-copy -q {image} oci:{}:x", dir.display())).expect(0);
    other.sh(&format!("img-copy -q oci:{}:x {image}", dir.display())).expect(0);
    other
}

fn layers(record: &Value) -> usize {
    record["image"]["layers"].as_array().unwrap().len()
}

#[test]
fn squashed_it_has_the_same_files_in_one_layer() {
    let Some(place) = machine::place() else { return };
    project(&place, "app", &[("Dockerfile", DOCKERFILE), ("f", "file\n")]);
    let plain = build(&place, "-t plain $DIR/app").expect(0).json();
    let squashed = build(&place, "--squash -t squashed $DIR/app").expect(0).json();
    let flat = build(&place, "--squash-all -t flat $DIR/app").expect(0).json();
    assert_eq!((layers(&plain), layers(&squashed), layers(&flat)), (9, 2, 1));
    let wanted = tree(&place, "plain");
    for image in ["plain", "squashed", "flat"] {
        assert_eq!(differ(&tree(&place, image), &wanted), [""; 0], "{image}");
        assert_eq!(differ(&tree(&elsewhere(&place, image), image), &wanted), [""; 0], "{image}, elsewhere");
    }
    let config = |record: &Value| record["image"]["config"].clone();
    assert_eq!(config(&plain)["config"], config(&squashed)["config"]);
    assert_eq!(config(&plain)["created"], config(&squashed)["created"]);
    // What a step has made and another removed is in no layer; what the base has is there as a whiteout.
    let members = |record: &Value| {
        let layer = record["image"]["layers"].as_array().unwrap().last().unwrap()["digest"].clone();
        let blob = format!("$STAVES_ROOT/blobs/sha256/{}", &layer.as_str().unwrap()[7..]);
        place.sh(&format!("! zcat {blob} | grep -q secret-of-a-step")).expect(0);
        place.sh(&format!("zcat {blob} | tar -t")).expect(0).stdout
    };
    let listed = members(&squashed);
    for gone in ["made", "temporary-file", "linked/f", "gone"] {
        assert!(!listed.contains(gone), "{gone}: {listed}");
    }
    assert!(!listed.contains(".wh."), "all of it was made on the base: {listed}");
    assert!(!members(&flat).contains(".wh."));
    // On a base that has those files they are.
    build(&place, "-q --target base -t base:1 $DIR/app").expect(0);
    let rest = DOCKERFILE.split_once("FROM base AS middle").unwrap().1;
    project(&place, "on", &[("Dockerfile", &format!("FROM base:1{rest}")), ("f", "file\n")]);
    let on = build(&place, "--squash -t on $DIR/on").expect(0).json();
    assert_eq!(layers(&on), 3);
    assert_eq!(differ(&tree(&elsewhere(&place, "on"), "on"), &wanted), [""; 0]);
    let listed = members(&on);
    for mark in ["b/.wh.gone\n", "b/opaque/.wh..wh..opq\n", "b/kept/j\n"] {
        assert!(listed.contains(mark), "{mark}: {listed}");
    }
    assert!(!listed.contains("made") && !listed.contains("b/hard"), "{listed}");
    machine::assert_unmounted(&place);
}

#[test]
fn its_history_is_dockers() {
    let Some(place) = machine::place() else { return };
    let text = "FROM bb:1\nRUN echo 1 >/1\nLABEL l=1\nRUN echo 2 >/2\n";
    project(&place, "app", &[("Dockerfile", text)]);
    let plain = build(&place, "$DIR/app").expect(0).json()["image"].clone();
    let base = place.sh("img-inspect bb:1").expect(0).json()["image"].clone();
    let history = |words: &str| {
        let image = build(&place, &format!("{words} $DIR/app")).expect(0).json()["image"].clone();
        let lines = image["config"]["history"].as_array().unwrap().clone();
        let empty = lines.iter().map(|line| line["empty_layer"] == true).collect::<Vec<_>>();
        (lines.last().unwrap().clone(), empty)
    };
    let id = |image: &Value| image["id"].as_str().unwrap().to_owned();
    let (last, empty) = history("--squash");
    let before = plain["config"]["history"].as_array().unwrap().len();
    let of_base = before - 3;
    assert!(empty[of_base..before].iter().all(|is| *is) && !empty[before] && empty.len() == before + 1);
    assert_eq!(empty[..of_base].iter().filter(|is| !**is).count(), base["layers"].as_array().unwrap().len());
    let digest = base["digest"].as_str().unwrap();
    assert_eq!(last["comment"], format!("merge {} to {digest}", id(&plain)));
    assert_eq!(last["created"], plain["config"]["created"]);
    let (last, empty) = history("--squash-all");
    assert!(empty[..before].iter().all(|is| *is) && !empty[before], "{empty:?}");
    assert_eq!(last["comment"], format!("create new from {}", id(&plain)));
    // Where nothing is left there is no layer.
    project(&place, "app", &[("Dockerfile", "FROM bb:1\nRUN echo 1 >/1\nRUN rm /1\n")]);
    let image = build(&place, "--squash $DIR/app").expect(0).json()["image"].clone();
    assert_eq!(image["layers"], base["layers"]);
    let (_, empty) = history("--squash");
    assert!(empty[of_base..].iter().all(|is| *is), "{empty:?}");
    // From scratch everything is built.
    project(&place, "app", &[("Dockerfile", "FROM scratch\nCOPY a /a\nCOPY a /b\n"), ("a", "a")]);
    assert_eq!(layers(&build(&place, "--squash $DIR/app").expect(0).json()), 1);
    assert!(history("--squash").0["comment"].as_str().unwrap().starts_with("create new from sha256:"));
}

#[test]
fn squashed_again_nothing_is_done() {
    let Some(place) = machine::place() else { return };
    let other = machine::place().unwrap();
    let text = "FROM bb:1\nRUN echo 1 >/1\nCOPY f /f\nRUN rm /1; echo 2 >/2\n";
    for place in [&place, &other] {
        project(place, "app", &[("Dockerfile", text), ("f", "file\n")]);
    }
    let digest = |ran: &testkit::Ran| ran.json()["image"]["digest"].clone();
    for words in ["--squash", "--squash-all"] {
        let first = build(&place, &format!("{words} $DIR/app")).expect(0);
        place.sh("sleep 0.02; touch $DIR/mark").expect(0);
        let second = build(&place, &format!("{words} $DIR/app")).expect(0);
        assert_eq!(second.stderr.matches("CACHED").count(), 4, "{}", second.stderr);
        let new = "find $STAVES_ROOT/layers $STAVES_ROOT/blobs -type f -newer $DIR/mark | wc -l";
        assert_eq!(place.sh(new).expect(0).stdout, "0\n");
        assert_eq!(digest(&first), digest(&second));
        // A store that has never seen it makes the same.
        assert_eq!(digest(&build(&other, &format!("{words} $DIR/app")).expect(0)), digest(&first));
    }
    // The steps' own layers are there for builds without it.
    assert_eq!(build(&place, "$DIR/app").expect(0).stderr.matches("CACHED").count(), 3);
    // A step done anew is squashed anew, though its key is the same.
    let text = "FROM bb:1\nRUN cat /proc/sys/kernel/random/uuid >/u\nRUN true; echo >/x\n";
    project(&place, "app", &[("Dockerfile", text)]);
    let one = |words: &str| {
        let id = build(&place, &format!("-q {words} $DIR/app")).expect(0).stdout;
        inside(&place, id.trim(), "cat /u")
    };
    let first = one("--squash");
    let anew = one("--no-cache");
    assert_ne!(first, anew);
    assert_eq!(one("--squash"), anew);
    // A cache that is carried has it, too.
    build(&place, "-q --squash --cache-to type=local,dest=$DIR/cache $DIR/app").expect(0);
    project(&other, "app", &[("Dockerfile", text)]);
    let cache = place.path().join("cache");
    let carried =
        build(&other, &format!("--squash --cache-from type=local,src={} $DIR/app", cache.display()))
            .expect(0);
    assert_eq!(carried.stderr.matches("CACHED").count(), 3, "{}", carried.stderr);
}

/// Out of a cache come the steps' archives, which lack what a step has touched and left as it was.
#[test]
fn out_of_a_carried_cache_it_is_the_same() {
    let Some(place) = machine::place() else { return };
    let other = machine::place().unwrap();
    let text = "FROM bb:1\nRUN mkdir -p /d/in; echo 1 >/d/in/f; echo 2 >/d/g; echo 3 >>/etc/group\n\
                RUN touch /d/in/x /d/x /etc/x; rm /d/in/x /d/x /etc/x; : >>/d/g; : >>/etc/passwd\nRUN echo 4 >/d/h\nRUN touch /d/in/y; rm /d/in/y\n";
    for place in [&place, &other] {
        project(place, "app", &[("Dockerfile", text)]);
    }
    build(&place, "-q --cache-to type=local,dest=$DIR/cache,mode=max $DIR/app").expect(0);
    let from = format!("--cache-from type=local,src={}", place.path().join("cache").display());
    for words in ["--squash", "--squash-all"] {
        let here = build(&place, &format!("{words} $DIR/app")).expect(0);
        let there = build(&other, &format!("{words} {from} $DIR/app")).expect(0);
        assert_eq!(there.stderr.matches("CACHED").count(), 4, "{}", there.stderr);
        assert_eq!(here.json()["image"]["digest"], there.json()["image"]["digest"], "{words}");
    }
}

#[test]
fn whatever_is_made_of_it_and_for_whom() {
    let Some(place) = machine::place() else { return };
    project(
        &place,
        "app",
        &[("Dockerfile", "FROM scratch\nARG TARGETARCH\nCOPY f /f\nCOPY f /$TARGETARCH\n"), ("f", "f")],
    );
    build(&place, "-q --squash -t it:1 --output type=docker,dest=$DIR/a.tar --output type=oci,tar=false,dest=$DIR/layout $DIR/app").expect(0);
    let layers = "tar -xOf $DIR/a.tar manifest.json | jq '.[0].Layers | length'";
    assert_eq!(place.sh(layers).expect(0).stdout, "1\n");
    assert_eq!(place.sh("img-inspect oci:$DIR/layout | jq '.image.layers | length'").expect(0).stdout, "1\n");
    // Of files alone there is nothing to squash.
    build(&place, "--squash -o $DIR/out $DIR/app").expect(0);
    assert_eq!(place.sh("cat $DIR/out/f $DIR/out/amd64").expect(0).stdout, "ff");
    build(&place, "-q --squash -t multi:1 --platform linux/amd64,linux/arm64 $DIR/app").expect(0);
    for platform in ["amd64", "arm64"] {
        let record = place.sh(&format!("img-inspect --platform linux/{platform} multi:1")).expect(0).json();
        assert_eq!(record["image"]["layers"].as_array().unwrap().len(), 1, "{platform}");
    }
    for packing in ["zstd", "none"] {
        project(&place, "app", &[("f", packing)]);
        let words = format!("--squash --format docker --compression {packing} -t {packing}:1 $DIR/app");
        let image = build(&place, &words).expect(0).json()["image"].clone();
        assert!(image["layers"][0]["media_type"].as_str().unwrap().contains(match packing {
            "zstd" => "zstd",
            _ => "tar",
        }));
        let files = place.sh(&format!("img-cat {packing}:1 /f")).expect(0).stdout;
        assert_eq!(files, packing);
    }
}

/// Commands at random, on few names, so that they meet; a seed that failed can be had again.
struct Chance(u64);

impl Chance {
    fn below(&mut self, count: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % count
    }

    fn path(&mut self) -> String {
        let names = (0..=self.below(3)).map(|_| ["a", "b", "c"][self.below(3) as usize]);
        format!("/t/{}", names.collect::<Vec<_>>().join("/"))
    }

    fn command(&mut self) -> String {
        let (p, q) = (self.path(), self.path());
        let into = format!("mkdir -p $(dirname {q})");
        match self.below(12) {
            0 => format!("mkdir -p {p}"),
            1 => format!("rm -rf {p}"),
            2 => format!("rm -rf {p}; mkdir -p {p}"),
            3 | 4 => format!("{into}; echo {} >{q}", self.below(3)),
            5 => format!("{into}; mv {p} {q}"),
            6 => format!("{into}; cp -a {p} {q}"),
            7 => format!("{into}; ln {p} {q}"),
            8 => format!("{into}; ln -s {p} {q}"),
            9 => format!("chmod 70{} {p}", self.below(8)),
            10 => format!(": >>{p}; touch {p}/x; rm {p}/x"),
            _ => format!("cp -a {p} /y; rm -rf {p}; mv /y {p}"),
        }
    }

    fn run(&mut self, commands: usize) -> String {
        let commands: Vec<String> = (0..commands).map(|_| format!("({})", self.command())).collect();
        format!("RUN {{ {}; }} 2>/dev/null; rm -rf /y; true\n", commands.join("; "))
    }
}

#[test]
fn whatever_the_steps_do_squashed_it_is_the_same() {
    let Some(place) = machine::place() else { return };
    let elsewhere = Place::new();
    for seed in 1..=6 {
        let mut chance = Chance(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        let base = format!("FROM bb:1\n{}{}", chance.run(25), chance.run(10));
        project(&place, "app", &[("Dockerfile", &base), ("f", "f")]);
        build(&place, "-q -t base:1 $DIR/app").expect(0);
        let mut text = "FROM base:1\n".to_owned();
        (0..4).for_each(|_| text += &chance.run(6));
        let linked = format!("COPY --link --chown=3 f {}/\n", chance.path());
        text = text + &linked + &chance.run(4);
        project(&place, "app", &[("Dockerfile", &text)]);
        project(&elsewhere, "app", &[("Dockerfile", "FROM it:1\n")]);
        let trees = ["", "--squash", "--squash-all"].map(|words| {
            build(&place, &format!("-q {words} -t it:1 $DIR/app")).expect(0);
            place.sh("rm -rf $DIR/moved; img-copy -q it:1 oci:$DIR/moved:1").expect(0);
            elsewhere.sh(&format!("img-copy -q oci:{}:1 it:1", place.path().join("moved").display())).expect(0);
            build(&elsewhere, "-q -o $DIR/out $DIR/app").expect(0);
            let look = "cd $DIR/out && find . -path './t*' | sort | while read -r p; do stat -c '%N %f %u:%g %s %Y' $p; \
                        test -d $p || stat -c %h $p; test -f $p && md5sum <$p; done; rm -r $DIR/out";
            elsewhere.sh(look).expect(0).stdout
        });
        assert!(trees[0].lines().count() > 3, "{text}");
        for squashed in &trees[1..] {
            assert_eq!(differ(&trees[0], squashed), [""; 0], "{seed}: {base}{text}");
        }
    }
}
