//! Volumes, mounts and secrets as they are inside of containers, which are run by the tools of this build.

use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use testkit::{Place, Ran, find_program, is_root, profile_dir, skip};

/// State of one's own, and in it a root directory with busybox. `None`, said aloud, where containers cannot be run.
fn bench() -> Option<Place> {
    if !is_root() {
        skip("containers with volumes take root");
        return None;
    }
    let Some(busybox) = find_program("busybox") else {
        skip("there is no busybox (package busybox-static)");
        return None;
    };
    for tool in ["ctr-shim", "ctr-start", "ctr-rm", "vol-create", "vol-rm"] {
        let built = profile_dir().join(tool);
        assert!(built.is_file(), "{} is not built; cargo build --release first", built.display());
    }
    let place = Place::new();
    let bin = place.path().join("rootfs/bin");
    std::fs::create_dir_all(&bin).unwrap();
    std::fs::copy(busybox, bin.join("busybox")).unwrap();
    for name in ["sh", "cat", "ls", "stat", "echo", "touch", "grep", "sleep", "wc"] {
        std::os::unix::fs::symlink("busybox", bin.join(name)).unwrap();
    }
    Some(place)
}

/// Runs a container to its end: flags, `--`, command.
fn run(place: &Place, words: &str) -> Ran {
    place.sh(&format!("ctr-create --rootfs $DIR/rootfs --rm {words} | ctr-start --attach"))
}

fn data(place: &Place, name: &str) -> PathBuf {
    place.sh(&format!("vol-create {name}")).expect(0);
    place.root().join("volumes").join(name).join("_data")
}

#[test]
fn a_part_of_a_volume_and_nothing_beyond() {
    let Some(place) = bench() else { return };
    let volume = data(&place, "data");
    std::fs::create_dir_all(volume.join("a/b")).unwrap();
    std::fs::write(volume.join("a/b/file"), b"inner\n").unwrap();
    std::os::unix::fs::symlink("/", volume.join("out")).unwrap();
    std::os::unix::fs::symlink("../../../../..", volume.join("up")).unwrap();
    std::os::unix::fs::symlink("/a/b", volume.join("link")).unwrap();
    let at = |path: &str, command: &str| {
        run(&place, &format!("--mount type=volume,src=data,dst=/d,volume-subpath={path} -- {command}"))
    };
    assert_eq!(at("a/b", "cat /d/file").expect(0).stdout, "inner\n");
    let file = "--mount type=volume,src=data,dst=/file,volume-subpath=a/b/file -- cat /file";
    assert_eq!(run(&place, file).expect(0).stdout, "inner\n");
    // Links mean what they mean when the volume is the root of all.
    assert_eq!(at("link", "cat /d/file").expect(0).stdout, "inner\n");
    for link in ["out", "up"] {
        assert_eq!(at(link, "ls /d").expect(0).stdout, "a\nlink\nout\nup\n");
    }
    let missing = at("none", "ls /d");
    assert!(missing.status != 0 && missing.stderr.contains("none"), "{}", missing.stderr);
}

#[test]
fn what_options_say_is_mounted_in_the_container_alone() {
    let Some(place) = bench() else { return };
    place.sh("vol-create mem -o type=tmpfs -o device=tmpfs -o o=size=1m,noexec").expect(0);
    let ran = run(&place, "-v mem:/t -- sh -c 'touch /t/x; ls /t; grep \" /t \" /proc/mounts'").expect(0);
    assert!(
        ran.stdout.starts_with("x\ntmpfs /t tmpfs rw,") && ran.stdout.contains("noexec"),
        "{}",
        ran.stdout
    );
    assert!(ran.stdout.contains("size=1024k"), "{}", ran.stdout);
    // The next one has its own.
    assert_eq!(run(&place, "-v mem:/t -- ls /t").expect(0).stdout, "");
    std::fs::create_dir(place.path().join("host")).unwrap();
    std::fs::write(place.path().join("host/file"), b"host\n").unwrap();
    let bound = "--mount type=volume,src=bound,dst=/b,volume-opt=type=none,volume-opt=device=$DIR/host,volume-opt=o=bind,volume-label=a=b";
    assert_eq!(run(&place, &format!("{bound} -- cat /b/file")).expect(0).stdout, "host\n");
    let shown = place.sh("vol-inspect bound").expect(0).json();
    assert_eq!(
        (&shown["volumes"][0]["labels"]["a"], &shown["volumes"][0]["options"]["o"]),
        (&"b".into(), &"bind".into())
    );
    run(&place, "--mount type=volume,src=bad,dst=/b,volume-opt=colour=red -- true").expect(3);
    assert!(!place.root().join("volumes/bad").exists());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(place.path().to_str().unwrap()), "{mounts}");
}

#[test]
fn an_overlay_keeps_what_is_below_and_chown_gives_it_away() {
    let Some(place) = bench() else { return };
    std::fs::create_dir_all(place.path().join("host/sub")).unwrap();
    std::fs::write(place.path().join("host/sub/file"), b"host\n").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", place.path().join("host/link")).unwrap();
    let passwd = std::fs::metadata("/etc/passwd").unwrap();
    let ran =
        run(&place, "-v $DIR/host:/h:O -- sh -c 'echo changed > /h/sub/file; cat /h/sub/file'").expect(0);
    assert_eq!(ran.stdout, "changed\n");
    assert_eq!(run(&place, "-v $DIR/host:/h:O -- cat /h/sub/file").expect(0).stdout, "host\n");
    place.sh("mkdir $DIR/upper $DIR/work").expect(0);
    run(&place, "-v $DIR/host:/h:O,upperdir=$DIR/upper,workdir=$DIR/work -- touch /h/new").expect(0);
    assert!(place.path().join("upper/new").exists() && !place.path().join("host/new").exists());
    let ran =
        run(&place, "-u 7:8 -v $DIR/host:/h:U -- sh -c 'stat -c %u:%g /h /h/sub /h/sub/file; touch /h/mine'")
            .expect(0);
    assert_eq!(ran.stdout, "7:8\n7:8\n7:8\n");
    assert_eq!(std::fs::metadata("/etc/passwd").unwrap().uid(), passwd.uid());
}

#[test]
fn an_images_files_are_there_to_be_read() {
    let Some(place) = bench() else { return };
    place.sh("tar -C $DIR/rootfs -c bin | img-import - tools:1 | img-unpack").expect(0);
    let ran = run(&place, "--mount type=image,src=tools:1,dst=/i -- sh -c 'ls /i; touch /i/x'");
    assert!(ran.status != 0 && ran.stdout == "bin\n" && ran.stderr.contains("Read-only"), "{ran:?}");
    let ran =
        run(&place, "--mount type=image,src=tools:1,dst=/i,image-subpath=bin -- ls /i/busybox").expect(0);
    assert_eq!(ran.stdout, "/i/busybox\n");
    assert!(run(&place, "--mount type=image,src=nothing:1,dst=/i -- true").stderr.contains("no such image"));
    // Who has it mounted keeps it.
    place
        .sh("ctr-create --rootfs $DIR/rootfs --name holder --mount type=image,src=tools:1,dst=/i -- true")
        .expect(0);
    let refused = place.sh("img-rm tools:1");
    assert!(refused.status == 5 && refused.stderr.contains("holder"), "{refused:?}");
}

#[test]
fn mounts_of_another_container() {
    let Some(place) = bench() else { return };
    data(&place, "data");
    place.sh("mkdir $DIR/host && echo host > $DIR/host/file").expect(0);
    place
        .sh("ctr-create --rootfs $DIR/rootfs --name one -v data:/d -v /anon -v $DIR/host:/h --tmpfs /t -- touch /anon/file | ctr-start --attach")
        .expect(0);
    let ran = run(
        &place,
        "--volumes-from one -- sh -c 'ls /anon; cat /h/file; touch /d/x; grep -c \" /t \" /proc/mounts'",
    );
    assert!(ran.stdout == "file\nhost\n0\n" && ran.stderr.is_empty(), "{ran:?}");
    let ran = run(&place, "--volumes-from one:ro -- touch /anon/new");
    assert!(ran.status != 0 && ran.stderr.contains("Read-only"), "{ran:?}");
    // Its own come first.
    assert_eq!(run(&place, "--volumes-from one --tmpfs /h -- ls /h").expect(0).stdout, "");
    assert!(run(&place, "--volumes-from nobody -- true").stderr.contains("nobody"));
    let record =
        place.sh("ctr-create --rootfs $DIR/rootfs --name two --volumes-from one -- true").expect(0).json();
    assert!(
        record["config"]["volumes_from"].is_null()
            && record["config"]["mounts"].as_array().unwrap().len() == 3
    );
    let refused = place.sh("vol-rm data").expect(5);
    assert!(refused.stderr.contains("one") && refused.stderr.contains("two"), "{}", refused.stderr);
    // The anonymous volume is the other's, too.
    place.sh("ctr-rm -v one").expect(0);
    assert_eq!(place.sh("vol-ls -q --filter anonymous=true | wc -l").stdout.trim(), "1");
}

#[test]
fn secrets_are_in_the_container_and_nowhere_else() {
    let Some(place) = bench() else { return };
    let secrets = place.root().join("secrets");
    std::fs::create_dir_all(&secrets).unwrap();
    std::fs::write(secrets.join("db"), b"hush-named\n").unwrap();
    std::fs::set_permissions(secrets.join("db"), std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(place.path().join("file"), b"hush-file").unwrap();
    let flags = "--secret db --secret id=k,src=$DIR/file,mode=0400,uid=5,gid=6 --secret id=v,env=V,target=/etc/v --secret db,type=env,target=PW";
    let command = r#"sh -c 'cat /run/secrets/db /run/secrets/k /etc/v; echo; [ "$PW" = "$(cat /run/secrets/db)" ] && echo same; stat -c "%a %u %g" /run/secrets/k; grep -c "/run/secrets/db tmpfs ro," /proc/mounts; ls -d /etc/v; echo x > /etc/v'"#;
    let ran = place.sh(&format!(
        "export V=hush-variable; ctr-create --rootfs $DIR/rootfs --name safe {flags} -- {command} | tee $DIR/record | ctr-start --attach"
    ));
    assert!(
        ran.stdout.starts_with("hush-named\nhush-filehush-variable\nsame\n400 5 6\n1\n/etc/v\n"),
        "{ran:?}"
    );
    assert!(ran.stderr.contains("Read-only"), "{ran:?}");
    // Its output is in its log; nothing else may have what it printed.
    place.sh("rm $STAVES_ROOT/containers/*/log.json; ctr-inspect safe > $DIR/inspected").expect(0);
    let found =
        place.sh("grep -rl hush- $STAVES_ROOT $STAVES_RUN $DIR/record $DIR/inspected $DIR/rootfs").stdout;
    assert_eq!(found.trim(), secrets.join("db").display().to_string());
    // Read again at each start.
    std::fs::write(secrets.join("db"), b"changed\n").unwrap();
    let again = place.sh("V=other ctr-start --attach safe");
    assert!(again.stdout.starts_with("changed\nhush-fileother\n"), "{again:?}");
    std::fs::set_permissions(secrets.join("db"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let open = run(&place, "--secret db -- true");
    assert!(open.status != 0 && open.stderr.contains("others may read"), "{open:?}");
    let none = run(&place, "--secret nothing -- true");
    assert!(none.status != 0 && none.stderr.contains("no such secret"), "{none:?}");
}

/// A volume plugin: directories below one, and what it was asked.
struct Plugin {
    asked: Arc<Mutex<Vec<String>>>,
}

impl Plugin {
    fn start(place: &Place) -> Plugin {
        let folder = place.path().join("plugins");
        std::fs::create_dir_all(&folder).unwrap();
        let data = place.path().join("plugin-data");
        let listener = UnixListener::bind(folder.join("shelf.sock")).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                answer(stream, &data, &log);
            }
        });
        Plugin { asked }
    }

    fn count(&self, method: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|asked| asked.starts_with(method)).count()
    }
}

fn answer(mut stream: UnixStream, data: &std::path::Path, log: &Mutex<Vec<String>>) {
    let mut request = Vec::new();
    let mut buffer = [0u8; 4096];
    let (head, body) = loop {
        let read = stream.read(&mut buffer).unwrap_or(0);
        request.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            if read == 0 {
                return;
            }
            continue;
        };
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "))
            .unwrap()
            .parse::<usize>()
            .unwrap();
        if body.len() >= length {
            break (head.to_owned(), body.to_owned());
        }
    };
    let method = head.split([' ', '/']).find(|word| word.contains('.')).unwrap_or_default().to_owned();
    let asked: serde_json::Value = serde_json::from_str(&body).unwrap();
    log.lock().unwrap().push(format!("{method} {asked}"));
    let path = data.join(asked["Name"].as_str().unwrap_or("none"));
    let said = match method.as_str() {
        "Plugin.Activate" => serde_json::json!({"Implements": ["VolumeDriver"]}),
        "VolumeDriver.Create" if asked["Opts"]["fail"] == "yes" => {
            serde_json::json!({"Err": "it does not want to"})
        }
        "VolumeDriver.Create" => {
            std::fs::create_dir_all(&path).unwrap();
            serde_json::json!({"Err": ""})
        }
        "VolumeDriver.Mount" | "VolumeDriver.Path" => serde_json::json!({"Mountpoint": path, "Err": ""}),
        "VolumeDriver.Get" => {
            serde_json::json!({"Volume": {"Name": asked["Name"], "Mountpoint": path, "Status": {"shelves": 3}}})
        }
        "VolumeDriver.Capabilities" => serde_json::json!({"Capabilities": {"Scope": "global"}}),
        "VolumeDriver.Remove" => {
            let _ = std::fs::remove_dir_all(&path);
            serde_json::json!({"Err": ""})
        }
        _ => serde_json::json!({"Err": ""}),
    };
    let said = said.to_string();
    let _ = write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{said}\r\n0\r\n\r\n",
        said.len()
    );
}

#[test]
fn plugins_keep_volumes_too() {
    let Some(mut place) = bench() else { return };
    let folder = place.path().join("plugins").display().to_string();
    place.set("STAVES_PLUGINS", folder);
    let plugin = Plugin::start(&place);
    place.sh("vol-create kept -d shelf -o colour=red").expect(0);
    let shown = place.sh("vol-inspect kept").expect(0).json();
    let volume = &shown["volumes"][0];
    assert_eq!(
        (&volume["driver"], &volume["scope"], &volume["status"]["shelves"]),
        (&"shelf".into(), &"global".into(), &3.into())
    );
    run(&place, "-v kept:/k -- sh -c 'echo x > /k/file'").expect(0);
    let again = run(&place, "-v kept:/k -- cat /k/file");
    assert_eq!(again.stdout, "x\n", "{again:?} {:?}", plugin.asked.lock().unwrap());
    assert!(place.path().join("plugin-data/kept/file").exists());
    // Each mount was given back, with the word it was asked for with.
    let asked = plugin.asked.lock().unwrap().clone();
    let of = |method: &str| -> Vec<String> {
        let mut list: Vec<String> =
            asked.iter().filter_map(|one| one.strip_prefix(method)).map(str::to_owned).collect();
        list.sort();
        list
    };
    assert!(of("VolumeDriver.Mount ").len() >= 2);
    assert_eq!(of("VolumeDriver.Mount "), of("VolumeDriver.Unmount "));
    // A shim that is killed leaves a mount, and its container's removal gives it back.
    place.sh("ctr-create --rootfs $DIR/rootfs --name held -v kept:/k -- sleep 1000 | ctr-start").expect(0);
    place.sh("kill -9 $(jq -r .shim_pid $STAVES_RUN/containers/*/state.json)").expect(0);
    place.sh("vol-rm kept").expect(5);
    place.sh("ctr-rm -f held").expect(0);
    assert_eq!(plugin.count("VolumeDriver.Mount"), plugin.count("VolumeDriver.Unmount"));
    place.sh("vol-rm kept").expect(0);
    assert!(!place.path().join("plugin-data/kept").exists());
    let refused = place.sh("vol-create no -d shelf -o fail=yes").expect(1);
    assert!(refused.stderr.contains("it does not want to"), "{}", refused.stderr);
    place.sh("vol-create no -d nobody").expect(4);
    assert!(!place.root().join("volumes/no").exists());
    // By a flag, for a volume without a name.
    run(&place, "--volume-driver shelf -v /anon -- touch /anon/x").expect(0);
    assert_eq!(plugin.count("VolumeDriver.Create"), 3);
}
