use super::*;

fn read(text: &str) -> Result<Fields, Problem> {
    Flag::read(text)?.resolve(&mut |value| Ok(value.replace("$X", "expanded")))
}

#[test]
fn kinds_and_their_keys() {
    let mount = read("type=bind,from=a,source=b,target=/c,rw").unwrap();
    assert_eq!((mount.kind, mount.from.as_str(), mount.source.as_str()), (Kind::Bind, "a", "b"));
    assert!(!mount.read_only && mount.target == "/c");
    // Without a type it is a bind, which is read-only.
    assert!(read("target=/c").unwrap().read_only);
    assert!(!read("target=/c,ro=false").unwrap().read_only);
    assert!(!read("dst=/c,readwrite=1").unwrap().read_only);

    let cache = read("type=cache,target=/$X,id=i,sharing=LOCKED,uid=1,gid=2,mode=0700").unwrap();
    assert_eq!((cache.target.as_str(), cache.sharing), ("/expanded", Some(Sharing::Locked)));
    assert_eq!(cache.ownership(0o755), Ownership { uid: 1, gid: 2, mode: 0o700 });
    assert!(!cache.read_only);

    let tmpfs = read("type=tmpfs,destination=/t,size=64m").unwrap();
    assert_eq!((tmpfs.size, tmpfs.read_only), (Some(64 << 20), false));

    let secret = read("type=secret,id=s,env=TOKEN,required").unwrap();
    assert!(secret.required && secret.env.as_deref() == Some("TOKEN"));
    assert!(!read("type=ssh,required=false").unwrap().required);
}

#[test]
fn what_is_refused() {
    for (text, part) in [
        ("type=bnd,target=/a", "unsupported type \"bnd\""),
        ("type=cache,target=/a,sharing=some", "unsupported sharing"),
        ("target", "it has to be name=value"),
        ("target=/a,what=ever", "unexpected key"),
        ("target=/a,ro=maybe", "no value for ro"),
        ("type=cache,target=/a,mode=9", "no value for mode"),
        ("type=cache,target=/a,mode=10000", "no value for mode"),
        ("type=cache,target=/a,uid=-1", "no value for uid"),
        ("type=bind,target=/a,uid=1", "mode, uid and gid"),
        ("type=tmpfs,target=/a,mode=1", "mode, uid and gid"),
        ("type=bind,target=/a,size=1", "has no size"),
        ("size=1,type=tmpfs,target=/a", "has no size"),
        ("type=tmpfs,target=/a,size=big", "no value for size"),
        ("type=bind,target=/a,required", "has no required"),
        ("type=bind,target=/a,sharing=shared", "sharing is of caches"),
        ("type=ssh,env=A", "env is of secrets"),
        ("type=secret", "one of id, source and target"),
        ("type=secret,id=a,source=b", "the same thing"),
        ("type=secret,id=a,from=b", "has no from"),
        ("type=ssh,source=b", "has no source"),
        ("from=$X,target=/a", "doesn't support variables"),
        ("target=\"/a", "malformed list"),
        ("target=a\"b", "malformed list"),
        ("\"target=/a\"b", "malformed list"),
        ("", "it has to be name=value"),
    ] {
        let problem = read(text).expect_err(text);
        assert!(problem.what.contains(part), "{text}: {problem}");
    }
    assert_eq!(read("type=cash,target=/a").unwrap_err().hint.as_deref(), Some("did you mean cache?"));
    assert_eq!(read("taget=/a").unwrap_err().hint.as_deref(), Some("did you mean target?"));
}

#[test]
fn comma_separated_values() {
    for (text, split) in [
        ("a,b", &["a", "b"] as &[_]),
        ("\"a,b\",c", &["a,b", "c"]),
        ("\"a\"\"b\"", &["a\"b"]),
        (",", &["", ""]),
        ("\"\"", &[""]),
    ] {
        assert_eq!(fields(text).unwrap(), split, "{text}");
    }
}

#[test]
fn from_is_known_at_once() {
    assert_eq!(Flag::read("type=bind,FROM=stage,target=$X").unwrap().from.as_deref(), Some("stage"));
    assert_eq!(Flag::read("target=$X,from=").unwrap().from, None);
    assert!(Flag::read("target=/a").unwrap().is_constant('\\'));
    assert!(!Flag::read("target=/$X").unwrap().is_constant('\\'));
}
