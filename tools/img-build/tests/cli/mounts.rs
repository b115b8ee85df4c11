//! RUN --mount.

use crate::{build, dockerfile, inside, machine, project};

const SECRET: &str = "correct horse battery staple";

#[test]
fn mounts_show_what_they_should_and_leave_nothing() {
    let Some(place) = machine::place() else { return };
    project(
        &place,
        "app",
        &[
            ("src/a", "A\n"),
            (".dockerignore", "ignored"),
            ("ignored", "x"),
            (
                "Dockerfile",
                "FROM bb:1 AS tools\nRUN echo tool >/tool; mkdir /d; echo e >/d/e\nFROM bb:1\n\
                 RUN --mount=type=bind,target=/ctx ls /ctx >/list; ! touch /ctx/x\n\
                 RUN --mount=type=bind,source=src/a,target=/one cat /one >/read\n\
                 RUN --mount=type=bind,source=src,target=/rw,rw echo B >/rw/a; cat /rw/a >>/read\n\
                 RUN --mount=type=bind,from=tools,source=/tool,target=/t cat /t >>/read; ! echo x >/t\n\
                 RUN --mount=type=bind,from=tools,source=/d,target=/d,rw echo f >/d/f; cat /d/e /d/f >>/read\n\
                 RUN --mount=type=tmpfs,target=/scratch,size=1m echo x >/scratch/x; df /scratch | tail -1 >/tmpfs; ! dd if=/dev/zero of=/scratch/y bs=1k count=2000 2>/dev/null\n",
            ),
        ],
    );
    build(&place, "-q -t it:1 $DIR/app").expect(0);
    assert_eq!(inside(&place, "it:1", "cat /list /read"), "Dockerfile\nsrc\nA\nB\ntool\ne\nf\n");
    assert_eq!(inside(&place, "it:1", "ls -d /ctx /one /rw /t /d /scratch 2>/dev/null; true"), "");
    assert_eq!(std::fs::read_to_string(place.path().join("app/src/a")).unwrap(), "A\n");
    machine::assert_unmounted(&place);
    // Nor where a link leads to the place.
    let text = "FROM bb:1 AS base\nRUN mkdir -p /usr/lib64 /real && ln -s usr/lib64 /lib64 && ln -s /real /way\nFROM base\n\
                RUN --mount=type=cache,target=/lib64/x/y --mount=type=tmpfs,target=/way/t --mount=type=secret,id=k,target=/lib64/key \
                test -d /usr/lib64/x/y && test -d /real/t && test -f /usr/lib64/key\n";
    std::fs::write(place.path().join("k"), "k").unwrap();
    dockerfile(&place, text, "-q -t it:2 --secret id=k,src=$DIR/k").expect(0);
    assert_eq!(inside(&place, "it:2", "ls /usr/lib64 /real"), "/real:\n\n/usr/lib64:\n");
}

/// What mounts and networks are like is part of a step's key.
#[test]
fn another_owner_mode_or_network_is_another_step() {
    let Some(place) = machine::place() else { return };
    std::fs::write(place.path().join("k"), "k").unwrap();
    let text = |options: &str| format!("FROM bb:1\nRUN --mount={options} true\n");
    let cached = |options: &str, words: &str| {
        project(&place, "only", &[("Dockerfile", &text(options))]);
        let tool = env!("CARGO_BIN_EXE_img-build");
        let ran = place.sh(&format!("{tool} --print {words} --secret id=k,src=$DIR/k $DIR/only")).expect(0);
        ran.stdout.contains("\"cached\":true")
    };
    for (first, second) in [
        ("type=secret,id=k", "type=secret,id=k,mode=0444"),
        ("type=secret,id=k,uid=0", "type=secret,id=k,uid=5"),
        ("type=cache,target=/c", "type=cache,target=/c,gid=5"),
        ("type=cache,target=/c,mode=0700", "type=cache,target=/c,mode=0770"),
    ] {
        dockerfile(&place, &text(first), "-q --secret id=k,src=$DIR/k").expect(0);
        assert!(cached(first, "--network none"), "{first}");
        assert!(!cached(second, "--network none"), "{second}");
        for other in ["", "--network host", "--network default", "--network another"] {
            assert!(!cached(first, other), "{first} {other}");
        }
    }
    // Whoever says it, it is the same.
    dockerfile(&place, "FROM bb:1\nRUN --network=none echo\n", "-q").expect(0);
    let tool = env!("CARGO_BIN_EXE_img-build");
    let ran = place.sh(&format!("{tool} --print $DIR/only")).expect(0);
    assert!(ran.stdout.contains("\"cached\":true"), "{}", ran.stdout);
}

#[test]
fn a_cache_in_two_places_is_waited_for_once() {
    let Some(place) = machine::place() else { return };
    let two = |first: &str, second: &str| {
        format!(
            "RUN --mount=type=cache,id={first},target=/1,sharing=locked --mount=type=cache,id={second},target=/2,sharing=locked"
        )
    };
    let text = format!("FROM bb:1\n{} touch /1/x && test -e /2/x && touch /done\n", two("a", "a"));
    project(&place, "only", &[("Dockerfile", &text)]);
    let tool = env!("CARGO_BIN_EXE_img-build");
    place.sh(&format!("timeout 60 {tool} --network none -q -t it:1 $DIR/only")).expect(0);
    assert_eq!(inside(&place, "it:1", "ls /done"), "/done\n");
    // Two commands that want the same two the other way round.
    for (name, first, second) in [("ab", "a", "b"), ("ba", "b", "a")] {
        let run = |n: u32| format!("{} true # {n}\n", two(first, second));
        let text: String = (0..8).map(run).collect();
        project(&place, name, &[("Dockerfile", &format!("FROM bb:1\n{text}"))]);
    }
    let build = |name: &str| format!("timeout 60 {tool} --network none -q $DIR/{name} >/dev/null");
    place.sh(&format!("{} & one=$!; {} && wait $one", build("ab"), build("ba"))).expect(0);
}

#[test]
fn caches_outlive_builds() {
    let Some(place) = machine::place() else { return };
    let text = |n: u32| {
        format!(
            "FROM bb:1\nRUN --mount=type=cache,id=c,target=/c,mode=0700,uid=5 echo {n} >>/c/n; cat /c/n >/n; stat -c '%u %a' /c >>/n\n"
        )
    };
    dockerfile(&place, &text(1), "-q").expect(0);
    dockerfile(&place, &text(2), "-q -t it:1").expect(0);
    assert_eq!(inside(&place, "it:1", "cat /n"), "1\n2\n5 700\n");
    let caches: Vec<_> = std::fs::read_dir(place.root().join("cache/mounts")).unwrap().flatten().collect();
    assert_eq!(caches.len(), 1);
    assert_eq!(std::fs::read_to_string(caches[0].path().join("n")).unwrap(), "1\n2\n");
    // With another owner it is another one.
    let text = "FROM bb:1\nRUN --mount=type=cache,id=c,target=/c stat -c '%u %a' /c >/n; ls /c >>/n\n";
    dockerfile(&place, text, "-q -t it:1").expect(0);
    assert_eq!(inside(&place, "it:1", "cat /n"), "0 755\n");
    // Filled from a stage where asked for.
    let text = "FROM bb:1 AS f\nRUN mkdir /f; echo filled >/f/x\nFROM bb:1\nRUN --mount=type=cache,id=f,from=f,source=/f,target=/c cat /c/x >/x\n";
    dockerfile(&place, text, "-q -t it:2").expect(0);
    assert_eq!(inside(&place, "it:2", "cat /x"), "filled\n");
    // From other files it is another one, and the command runs again; the first is as it was left.
    let other =
        text.replace("echo filled", "echo other").replace("cat /c/x >/x", "cat /c/* >/x; echo more >/c/y");
    dockerfile(&place, &other, "-q -t it:3").expect(0);
    assert_eq!(inside(&place, "it:3", "cat /x"), "other\n");
    dockerfile(&place, &text.replace("cat /c/x >/x", "cat /c/* >/x"), "-q -t it:4").expect(0);
    assert_eq!(inside(&place, "it:4", "cat /x"), "filled\n");
    dockerfile(&place, &other.replace("cat /c/*", "cat /c/x /c/y"), "-q -t it:5").expect(0);
    assert_eq!(inside(&place, "it:5", "cat /x"), "other\nmore\n");
    // Locked: one after the other, however many builds.
    let text = |n: u32| {
        format!(
            "FROM bb:1\nRUN --mount=type=cache,id=l,target=/c,sharing=locked mkdir /c/lock && sleep 0.05 && rmdir /c/lock # {n}\n"
        )
    };
    for n in 0..4 {
        project(&place, &format!("l{n}"), &[("Dockerfile", &text(n))]);
    }
    let tool = env!("CARGO_BIN_EXE_img-build");
    place.sh(&format!("for n in 0 1 2 3; do {tool} -q --network none $DIR/l$n >/dev/null & p=\"$p $!\"; done; for p in $p; do wait $p || exit 1; done")).expect(0);
}

#[test]
fn secrets_are_nowhere_afterwards() {
    let Some(place) = machine::place() else { return };
    std::fs::write(place.path().join("key"), SECRET).unwrap();
    let text = "FROM bb:1\nRUN --mount=type=secret,id=k,required cat /run/secrets/k | md5sum >/sum; stat -c %a /run/secrets/k >>/sum\n\
                RUN --mount=type=secret,id=k,env=PW,target=/pw sh -c 'echo $PW | wc -c; cat /pw | wc -c' >/count\n\
                RUN --mount=type=secret,id=v cat /run/secrets/v | wc -c >>/count\nRUN --mount=type=secret,id=missing test ! -e /run/secrets/missing\n";
    project(&place, "only", &[("Dockerfile", text)]);
    let tool = env!("CARGO_BIN_EXE_img-build");
    let words = "--network none --secret id=k,src=$DIR/key --secret id=v,env=VALUE -t it:1 $DIR/only";
    let ran = place.sh(&format!("VALUE='{SECRET}' {tool} --progress-fd 3 {words} 3>$DIR/events")).expect(0);
    assert_eq!(inside(&place, "it:1", "cat /count"), "29\n28\n28\n");
    assert!(inside(&place, "it:1", "cat /sum").ends_with("400\n"));
    assert!(!ran.stdout.contains(SECRET) && !ran.stderr.contains(SECRET));
    place.sh(&format!("VALUE='{SECRET}' {tool} --squash {words}")).expect(0);
    place
        .sh("img-save --into $DIR/saved.tar it:1; mkdir $DIR/layers; img-pull --help >/dev/null; rm $DIR/key")
        .expect(0);
    // Neither in a layer, packed or not, nor in the history, the cache, the events.
    place.sh(&format!("! grep -rlF '{SECRET}' $DIR")).expect(0);
    place
        .sh(&format!(
            "for b in $STAVES_ROOT/blobs/sha256/*; do zcat -f $b | grep -qF '{SECRET}' && exit 1; done; true"
        ))
        .expect(0);
    // Another value is no reason to do it again; a missing one that is required is an error.
    place.sh(&format!("{tool} --network none -q $DIR/only")).expect(0);
    let ran = place.sh(&format!("{tool} --no-cache $DIR/only")).expect(4);
    assert!(ran.stderr.contains("--secret id=k,src=FILE"), "{}", ran.stderr);
    place.sh(&format!("{tool} --secret id=k,src=/not/there $DIR/only")).expect(4);
    place.sh(&format!("{tool} --secret id=k,colour=red $DIR/only")).expect(2);
}

#[test]
fn an_agent_signs_and_its_keys_stay_where_they_are() {
    let Some(place) = machine::place() else { return };
    // Something that answers as an agent does, to whatever it is asked.
    let script = "import socket,sys,struct\ns=socket.socket(socket.AF_UNIX);s.bind(sys.argv[1]);s.listen()\nwhile True:\n c,_=s.accept()\n d=c.recv(100)\n if d: c.sendall(struct.pack('>IBI',5,12,0))\n c.close()\n";
    project(&place, "agent", &[("agent.py", script)]);
    let mut agent = std::process::Command::new("python3")
        .arg(place.path().join("agent/agent.py"))
        .arg(place.path().join("socket"))
        .spawn()
        .unwrap();
    place.sh("for i in $(seq 200); do [ -S $DIR/socket ] && exit 0; sleep 0.02; done; exit 1").expect(0);
    let ask = |code: &str| {
        format!(
            "(printf '\\000\\000\\000\\001\\{code}'; sleep 0.3) | nc local:$SSH_AUTH_SOCK | od -An -tx1 | head -1"
        )
    };
    let text = format!(
        "FROM bb:1\nRUN --mount=type=ssh,uid=3,mode=0600 stat -c '%u %a' $SSH_AUTH_SOCK >/sock; ls -l $SSH_AUTH_SOCK\nRUN test -z \"$SSH_AUTH_SOCK\"\nRUN --mount=type=ssh,id=none test -z \"$SSH_AUTH_SOCK\"\n# {}\n",
        ask("013")
    );
    project(&place, "only", &[("Dockerfile", &text)]);
    let tool = env!("CARGO_BIN_EXE_img-build");
    let ran = place
        .sh(&format!("SSH_AUTH_SOCK=$DIR/socket {tool} --network none --ssh=default -q -t it:1 $DIR/only"));
    agent.kill().unwrap();
    agent.wait().unwrap();
    ran.expect(0);
    assert_eq!(inside(&place, "it:1", "cat /sock"), "3 600\n");
    let text = "FROM bb:1\nRUN --mount=type=ssh,required true\n";
    let ran = dockerfile(&place, text, "").expect(4);
    assert!(ran.stderr.contains("--ssh default"), "{}", ran.stderr);
}
