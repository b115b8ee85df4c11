use super::*;

fn text(text: &str) -> Result<MountPlan> {
    mount(&MountWish::Text(text.to_owned()))
}

fn bind(source: &str, target: &str) -> MountPlan {
    MountPlan {
        target: target.to_owned(),
        read_only: ReadOnly::No,
        options: vec![],
        chown: false,
        overlay: None,
        kind: MountKind::Bind {
            source: source.to_owned(),
            create_source: true,
            propagation: "rprivate",
            recursive: true,
        },
    }
}

#[test]
fn volumes() {
    assert_eq!(text("/srv:/data").unwrap(), bind("/srv", "/data"));
    assert_eq!(
        text("/srv:/data:ro,z").unwrap(),
        MountPlan { read_only: ReadOnly::Deep, ..bind("/srv", "/data") }
    );
    assert_eq!(text("/s//x:/a/../b/./c/").unwrap(), bind("/s//x", "/b/c"));
    let volume = |name: Option<&str>, populate| MountKind::Volume {
        name: name.map(str::to_owned),
        propagation: "rprivate",
        populate,
        more: VolumePlan::default(),
    };
    assert_eq!(text("/data").unwrap().kind, volume(None, true));
    assert_eq!(text("data:/data:nocopy").unwrap().kind, volume(Some("data"), false));
    assert!(matches!(text("/a:/b:rshared").unwrap().kind, MountKind::Bind { propagation: "rshared", .. }));
    for wrong in [
        "",
        "data",
        ":/x",
        "/x:",
        "a:b:c:d",
        "/a:b",
        "/a:/",
        "/a:/..",
        "/a:/b:what",
        "/a:/b:nocopy",
        "../a:/b",
        "~:/b",
        "x:/b",
        "/a:/proc",
        "/a:/x/../proc/self/attr",
        "a b:/x",
        "/a:/b\0",
    ] {
        assert!(text(wrong).is_err(), "{wrong}");
    }
    assert!(text("/a:/proc/cpuinfo").is_ok());
    assert!(text("/proc:/host/proc").is_ok());
}

#[test]
fn mounts() {
    let plan = text("type=bind,src=/a,dst=/b,readonly,bind-propagation=rslave,bind-nonrecursive").unwrap();
    assert_eq!(plan.read_only, ReadOnly::Deep);
    assert_eq!(
        plan.kind,
        MountKind::Bind {
            source: "/a".into(),
            create_source: false,
            propagation: "rslave",
            recursive: false
        }
    );
    let plan = text("type=tmpfs,target=/t,tmpfs-size=64m,tmpfs-mode=1770").unwrap();
    assert_eq!(
        (plan.kind, plan.options),
        (MountKind::Tmpfs, vec!["size=67108864".into(), "mode=1770".into()])
    );
    let plan = text("source=data,target=/d,volume-nocopy=true").unwrap();
    assert_eq!(
        plan.kind,
        MountKind::Volume {
            name: Some("data".into()),
            propagation: "rprivate",
            populate: false,
            more: VolumePlan::default()
        }
    );
    assert!(
        matches!(text("\"type=bind\",\"source=/a,\"\"b\",target=/c").unwrap().kind, MountKind::Bind { source, .. } if source == "/a,\"b")
    );
    assert_eq!(
        text("type=bind,src=/a,dst=/b,ro,bind-recursive=writable").unwrap().read_only,
        ReadOnly::Shallow
    );
    for wrong in [
        "type=bind,target=/b",
        "type=bind,src=/a",
        "type=nfs,dst=/x",
        "type=tmpfs,dst=/x,src=/y",
        "type=tmpfs,dst=/x,bind-nonrecursive",
        "type=bind,src=a,dst=/b",
        "type=bind,src=/a,dst=/b,colour=red",
        "type=tmpfs,dst=/t,tmpfs-mode=99",
        "type=tmpfs,dst=/t,tmpfs-size=x",
        "type=bind,src=/a,dst=/b,readonly=maybe",
        "type=bind,\"src=/a",
        "type=bind,\"src=/a\"x,dst=/b",
        "type=",
        "type=volume,dst=/x,tmpfs-size=1",
    ] {
        assert!(text(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn what_docker_and_podman_have_beside() {
    let plan = text("type=volume,src=data,dst=/d,volume-subpath=a/./b/,volume-driver=local,volume-opt=type=tmpfs,\"volume-opt=o=size=1m,ro\",volume-label=a=b,volume-label=c").unwrap();
    let MountKind::Volume { more, .. } = plan.kind else { panic!() };
    assert_eq!(more.subpath.as_deref(), Some("a/b"));
    assert_eq!((more.options["type"].as_str(), more.options["o"].as_str()), ("tmpfs", "size=1m,ro"));
    assert_eq!((more.labels["a"].as_str(), more.labels["c"].as_str()), ("b", ""));
    let plan = text("type=image,source=busybox,target=/i,image-subpath=bin").unwrap();
    assert_eq!(plan.kind, MountKind::Image { reference: "busybox".into(), subpath: Some("bin".into()) });
    let plan = text("/a:/b:O,upperdir=/u,workdir=/w").unwrap();
    assert_eq!(plan.overlay.unwrap().writes, Some(("/u".into(), "/w".into())));
    assert!(text("/a:/b:U,noexec,nosuid,nodev,rslave").unwrap().chown);
    assert!(text("type=bind,src=/a,dst=/b,relabel=shared,U,bind-propagation=rslave,noexec").unwrap().chown);
    assert_eq!(text("type=tmpfs,dst=/t,tmpcopyup,nodev").unwrap().options, ["tmpcopyup", "nodev"]);
    assert_eq!(
        text("/a:/b:bind").unwrap().kind,
        text("type=bind,src=/a,dst=/b,bind-nonrecursive,bind-create-src").unwrap().kind
    );
    for wrong in [
        "type=volume,dst=/d,volume-subpath=../x",
        "type=image,source=busybox,target=/i,rw",
        "type=volume,dst=/d,volume-subpath=/x",
        "type=volume,dst=/d,volume-subpath=.",
        "type=volume,dst=/d,image-subpath=x",
        "type=bind,src=/a,dst=/d,subpath=x",
        "type=bind,src=/a,dst=/d,volume-opt=a=b",
        "type=image,dst=/i",
        "type=image,src=x,dst=/i,U",
        "type=tmpfs,dst=/i,O",
        "type=volume,dst=/d,volume-opt=x",
        "/a:/b:O,upperdir=/u",
        "/a:/b:upperdir=/u,workdir=/w",
        "/a:/b:O,upperdir=u,workdir=w",
        "/a:/b:ro,U",
        "/a:/b:O,U",
        "/a:/b:tmpcopyup",
        "type=bind,src=/a,dst=/b,relabel=x",
    ] {
        assert!(text(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn tmpfs() {
    let parse = |t: &str| parse_tmpfs(t).and_then(|m| mount(&MountWish::Mount(m)));
    assert_eq!(parse("/t").unwrap().options, Vec::<String>::new());
    assert_eq!(
        parse("/t:exec,size=10%,mode=0755,uid=5").unwrap().options,
        ["exec", "uid=5", "size=10%", "mode=755"]
    );
    for wrong in ["t", "", "/t:what", "/t:size=1x", "/t:size=200%", "/t:uid=", "/t:uid=1;2", "/"] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn objects() {
    let object = |json: &str| mount(&MountWish::Mount(serde_json::from_str(json).unwrap()));
    assert!(matches!(
        object(r#"{"source":"/a","target":"/b"}"#).unwrap().kind,
        MountKind::Bind { create_source: false, .. }
    ));
    assert!(matches!(object(r#"{"src":"data","dst":"/b","ro":true}"#).unwrap().read_only, ReadOnly::Deep));
    assert!(object(r#"{"target":"/b","size":5}"#).is_err());
    assert!(object(r#"{"target":"/b","options":["dev=/x"]}"#).is_err());
}
