use super::*;
use crate::instruction::{Network, Security};
use crate::mount::{Ownership, Sharing};
use crate::{Base, Dockerfile, Request, Source, plan};
use oci::Platform;

fn inherited() -> Inherited {
    Inherited {
        env: vec!["PATH=/bin".to_owned(), "LANG=C".to_owned()],
        workdir: "/srv".to_owned(),
        ..Inherited::default()
    }
}

fn platform() -> Platform {
    Platform::parse("linux/amd64").unwrap()
}

/// All steps of the target and the scope after them.
fn build(text: &str, args: &[&str], base: &Inherited) -> Result<(Vec<Step>, Scope), Problem> {
    let dockerfile = Dockerfile::parse(text.as_bytes())?;
    let mut request = Request::new(platform(), platform());
    for arg in args {
        request.build_arg(arg, |_| None)?;
    }
    let plan = plan(&dockerfile, &request)?;
    let mut scopes: Vec<Scope> = Vec::new();
    let mut steps = Vec::new();
    for stage in &plan.stages {
        let mut scope = match stage.base {
            Base::Stage(base) => Scope::on(&scopes[base]),
            Base::Scratch => Scope::new(&plan, &Inherited::scratch())?,
            _ => Scope::new(&plan, base)?,
        };
        steps = stage.instructions.iter().map(|i| scope.step(i)).collect::<Result<_, _>>()?;
        scopes.push(scope);
    }
    Ok((steps, scopes.pop().unwrap()))
}

fn steps(text: &str) -> Vec<Step> {
    steps_with(text, &[])
}

fn steps_with(text: &str, args: &[&str]) -> Vec<Step> {
    let text = if text.contains("FROM") { text.to_owned() } else { format!("FROM base\n{text}") };
    build(&text, args, &inherited()).unwrap_or_else(|problem| panic!("{problem}\n{text}")).0
}

fn last(text: &str) -> Step {
    steps(text).pop().unwrap()
}

fn run(text: &str) -> Run {
    match last(text).action {
        Action::Run(run) => run,
        other => panic!("{other:?}"),
    }
}

fn refused(text: &str) -> String {
    build(&format!("FROM base\n{text}"), &[], &inherited()).expect_err(text).to_string()
}

fn histories(steps: &[Step]) -> Vec<&str> {
    steps.iter().map(|step| step.history.as_deref().unwrap_or("-")).collect()
}

#[test]
fn history_is_buildkits() {
    let text = "ARG global=g
FROM base
ARG a=1 b
ARG global TARGETARCH
ENV c=$a d=\"x y\"
LABEL l=$c e=
RUN echo $a   $c
RUN [\"ls\", \"/a b\"]
COPY --chown=$a:0 --chmod=644 x $d /dst/
COPY --parents --link --exclude=*.o x .
ADD --checksum=sha256:0000000000000000000000000000000000000000000000000000000000000000 http://h/f /f
COPY <<one <<'two' /in/
$a
one
two
WORKDIR sub
WORKDIR /
USER $a:root
EXPOSE 5000 80-82/UDP
VOLUME /data [\"x\"]
STOPSIGNAL SIGKILL
SHELL [\"/bin/bash\", \"-c\"]
CMD echo \"hi\"
ENTRYPOINT [\"/e\", \"a\\tb\"]
HEALTHCHECK --interval=1m30s --retries=2 CMD curl x
HEALTHCHECK NONE
ONBUILD RUN x
MAINTAINER me <a@b>
RUN true
ENTRYPOINT []";
    let steps = steps_with(text, &["b=2"]);
    let args = "|4 a=1 b=2 global=g TARGETARCH=amd64 ";
    let run = format!("RUN {args}/bin/sh -c echo $a   $c # buildkit");
    let list = format!("RUN {args}ls /a b # buildkit");
    let bash = format!("RUN {args}/bin/bash -c true # buildkit");
    assert_eq!(
        histories(&steps),
        [
            "ARG a=1 b=2",
            "ARG global=g TARGETARCH=amd64",
            "ENV c=1 d=x y",
            "LABEL l=1 e=",
            &run,
            &list,
            "COPY --chown=1:0 --chmod=644 x x y /dst/ # buildkit",
            "COPY --parents x . # buildkit",
            "ADD http://h/f /f # buildkit",
            "COPY <<one <<two /in/ # buildkit",
            "WORKDIR /srv/sub",
            "WORKDIR /",
            "USER 1:root",
            "EXPOSE [5000/tcp 80/udp 81/udp 82/udp]",
            "VOLUME [/data [x]]",
            "STOPSIGNAL SIGKILL",
            "SHELL [/bin/bash -c]",
            "CMD [\"/bin/bash\" \"-c\" \"echo \\\"hi\\\"\"]",
            "ENTRYPOINT [\"/e\" \"a\\tb\"]",
            "HEALTHCHECK {Test:[CMD-SHELL curl x] Interval:1m30s Timeout:0s StartPeriod:0s StartInterval:0s Retries:2}",
            "HEALTHCHECK {Test:[NONE] Interval:0s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0}",
            "-",
            "MAINTAINER me <a@b>",
            &bash,
            "ENTRYPOINT []",
        ]
    );
    let layers: Vec<usize> = (0..steps.len()).filter(|place| steps[*place].layer).collect();
    assert_eq!(layers, [4, 5, 6, 7, 8, 9, 10, 23]);
}

#[test]
fn commands_have_their_surroundings() {
    let text = "FROM base\nARG a=1\nENV a=2 e=$a\nARG http_proxy\nUSER u\nWORKDIR /w/x\nRUN --network=host --security=insecure do it";
    let steps = steps_with(text, &["HTTP_PROXY=p", "No_Proxy=n", "FTP_PROXY="]);
    let Some(Step { action: Action::Run(run), title, .. }) = steps.last() else { panic!() };
    assert_eq!(run.argv, ["/bin/sh", "-c", "do it"]);
    assert_eq!(run.env, ["PATH=/bin", "LANG=C", "a=2", "e=1"]);
    assert_eq!(run.proxies, ["HTTP_PROXY=p", "http_proxy=p", "NO_PROXY=n", "no_proxy=n"]);
    assert_eq!((run.user.as_str(), run.workdir.as_str()), ("u", "/w/x"));
    assert_eq!((run.network, run.security), (Network::Host, Security::Insecure));
    assert_eq!(title, "RUN --network=host --security=insecure do it");
}

#[test]
fn the_later_of_env_and_arg_counts() {
    // As BuildKit does; the reference says that ENV always wins, which is true of the usual order.
    let env = |text: &str| run(text).env.iter().find(|v| v.starts_with("x=")).cloned();
    assert_eq!(env("ARG x=arg\nENV x=env\nRUN y").as_deref(), Some("x=env"));
    assert_eq!(env("ENV x=env\nARG x\nRUN y").as_deref(), Some("x=env"));
    assert_eq!(env("ENV x=env\nARG x=arg\nRUN y").as_deref(), Some("x=arg"));
}

#[test]
fn env_is_the_images() {
    let (_, scope) =
        build("FROM base\nARG a=1\nENV b=$a LANG=D\nENV b=$b$b c=$b", &[], &inherited()).unwrap();
    assert_eq!(scope.env(), ["PATH=/bin", "LANG=D", "b=11", "c=1"]);
    let (_, scope) = build("FROM scratch\nUSER u", &[], &inherited()).unwrap();
    assert_eq!(scope.env(), [PATH]);
    assert_eq!((scope.workdir(), scope.user()), ("/", "u"));
}

#[test]
fn stages_inherit() {
    let text = "FROM base AS one\nARG a=1\nENV e=$a\nSHELL [\"/b\"]\nWORKDIR /w\nCMD x\nFROM one\nENTRYPOINT y\nRUN z";
    let steps = steps(text);
    let Action::Config(Change::Entrypoint { argv, resets_cmd }) = &steps[0].action else { panic!() };
    assert_eq!((argv.join(" ").as_str(), *resets_cmd), ("/b y", true));
    assert_eq!(steps[1].history.as_deref(), Some("RUN |1 a=1 /b z # buildkit"));
    let Action::Config(Change::Entrypoint { resets_cmd, .. }) = last("CMD x\nENTRYPOINT y").action else {
        panic!()
    };
    assert!(!resets_cmd);
}

#[test]
fn arguments_in_a_stage() {
    let args = |text: &str, given: &[&str]| {
        let steps = steps_with(text, given);
        histories(&steps).iter().map(|text| (*text).to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(args("ARG g=1\nFROM base\nARG g g2", &[]), ["ARG g=1 g2"]);
    assert_eq!(args("ARG g=1\nFROM base\nARG g=$x-2", &[]), ["ARG g=-2"]);
    assert_eq!(args("ARG g=1\nFROM base\nARG g=2", &["g=3"]), ["ARG g=3"]);
    assert_eq!(args("FROM base\nARG a='x y' b=\"$a!\"", &[]), ["ARG a=x y b=x y!"]);
    assert_eq!(
        args("FROM base\nARG TARGETPLATFORM BUILDOS TARGETVARIANT TARGETSTAGE", &[]),
        ["ARG TARGETPLATFORM=linux/amd64 BUILDOS=linux TARGETVARIANT= TARGETSTAGE=default"]
    );
    // A default that fails is not looked at where there is a value.
    assert_eq!(args("FROM base\nARG a=${b:?no}", &["a=1"]), ["ARG a=1"]);
    assert_eq!(refused("ARG a=${b:?no}"), "line 2: expand \"${b:?no}\": b: no: ARG a=${b:?no}");
    // It speaks to the builder.
    let steps = steps("ARG BUILDKIT_SBOM_SCAN_STAGE=true\nRUN x");
    let Action::Run(run) = &steps[1].action else { panic!() };
    assert!(!run.env.iter().any(|variable| variable.starts_with("BUILDKIT")));
}

#[test]
fn heredocs_of_run() {
    let script = run("RUN <<EOF\necho $x\n  b\nEOF");
    assert_eq!(
        (script.argv.as_slice(), &script.script),
        (&["/bin/sh".to_owned(), "-c".to_owned(), "echo $x\n  b\n".to_owned()][..], &None)
    );
    let chomped = run("RUN <<-'EOF'\n\techo a\n\tEOF");
    assert_eq!(chomped.argv[2], "echo a\n");
    let several = run("RUN cat <<a && sh <<-b\nx\na\n\ty\n\tb");
    assert_eq!(several.argv[2], "cat <<a && sh <<-b\nx\na\n\ty\nb");
    let program = run("RUN <<../EOF\n#!/usr/bin/env python\nprint(1)\n../EOF");
    assert_eq!(program.argv, ["/bin/sh", "-c", "/dev/pipes/.._EOF"]);
    let content = "#!/usr/bin/env python\nprint(1)\n".to_owned();
    assert_eq!(
        program.script,
        Some(InlineFile { path: "/dev/pipes/.._EOF".to_owned(), mode: 0o755, content })
    );
    assert_eq!(last("RUN <<EOF\necho a\necho b\nEOF").title, "RUN <<EOF (echo a...)");
}

#[test]
fn mounts() {
    let run = run(
        "ENV t=/tgt\nRUN --mount=target=.,source=sub --mount=type=cache,target=$t/ --mount=type=cache,target=c,id=i,sharing=locked,from=img,source=/s,ro,uid=7 --mount=type=tmpfs,target=/t,size=1k --mount=type=secret,id=s --mount=type=secret,source=k,env=K --mount=type=secret,target=/x/y,mode=0440,required --mount=type=ssh --mount=type=ssh,id=k,target=/sock x",
    );
    let image =
        |name: &str| Source::Image { reference: oci::Reference::parse(name).unwrap(), platform: platform() };
    let secret = Ownership { uid: 0, gid: 0, mode: 0o400 };
    let ssh = Ownership { uid: 0, gid: 0, mode: 0o600 };
    let text = str::to_owned;
    assert_eq!(
        run.mounts,
        [
            Mount::Bind { source: Source::Main, path: text("/sub"), target: text("/srv"), read_only: true },
            Mount::Cache {
                id: text("/tgt"),
                sharing: Sharing::Shared,
                source: Source::Scratch,
                path: text("/"),
                target: text("/tgt"),
                read_only: false,
                ownership: None,
            },
            Mount::Cache {
                id: text("i"),
                sharing: Sharing::Locked,
                source: image("img"),
                path: text("/s"),
                target: text("/srv/c"),
                read_only: true,
                ownership: Some(Ownership { uid: 7, gid: 0, mode: 0o755 }),
            },
            Mount::Tmpfs { target: text("/t"), size: Some(1024), read_only: false },
            Mount::Secret {
                id: text("s"),
                target: Some(text("/run/secrets/s")),
                env: None,
                required: false,
                ownership: secret
            },
            Mount::Secret {
                id: text("k"),
                target: None,
                env: Some(text("K")),
                required: false,
                ownership: secret
            },
            Mount::Secret {
                id: text("y"),
                target: Some(text("/x/y")),
                env: None,
                required: true,
                ownership: Ownership { mode: 0o440, ..secret },
            },
            Mount::Ssh {
                id: text("default"),
                target: text("/run/buildkit/ssh_agent.0"),
                env: Some(text("SSH_AUTH_SOCK")),
                required: false,
                ownership: ssh,
            },
            Mount::Ssh { id: text("k"), target: text("/sock"), env: None, required: false, ownership: ssh },
        ]
    );
    assert!(refused("WORKDIR /\nRUN --mount=type=cache x").contains("a mount needs a target"));
    assert!(refused("RUN --mount=type=$nope,target=/a x").contains("unsupported type"));
}

#[test]
fn steps_are_data() {
    let step = last("RUN --mount=type=cache,target=/c --network=none a");
    let json = serde_json::to_value(&step).unwrap();
    assert_eq!(json["action"]["run"]["mounts"][0]["type"], "cache");
    assert_eq!(json["action"]["run"]["network"], "none");
    let json = serde_json::to_value(last("ADD --chmod=644 http://h/x a y/")).unwrap();
    assert_eq!(json["action"]["add"]["sources"], serde_json::json!([{"http": "http://h/x"}, {"local": "a"}]));
    assert_eq!(json["action"]["add"]["chmod"]["octal"], 0o644);
    assert_eq!(json["action"]["add"]["destination"], "/srv/y/");
}

fn copy(text: &str) -> Copy {
    match last(text).action {
        Action::Copy(copy) => copy,
        other => panic!("{other:?}"),
    }
}

#[test]
fn destinations() {
    for (destination, absolute) in [
        ("/a", "/a"),
        ("/a/", "/a/"),
        ("a", "/srv/a"),
        ("a/", "/srv/a/"),
        (".", "/srv/"),
        ("./", "/srv/"),
        ("../x/.", "/x/."),
        ("..", "/"),
        ("../", "/"),
        ("/a/../b", "/a/../b"),
    ] {
        assert_eq!(copy(&format!("COPY x {destination}")).placement.destination, absolute, "{destination}");
    }
    assert_eq!(copy("ENV d='a b'\nCOPY [\"x y\", \"$d/\"]").placement.destination, "/srv/a b/");
}

#[test]
fn files_in_the_dockerfile() {
    let copied =
        copy("ENV x=1\nCOPY <<etc/conf <<'raw' /d/\n\"$x\" \\$x ${x:+it's}\nconf\netc/conf\n$x\nraw");
    let seen: Vec<_> =
        copied.placement.inline.iter().map(|f| (f.path.as_str(), f.mode, f.content.as_str())).collect();
    assert_eq!(seen, [("conf", 0o644, "\"1\" $x it's\nconf\n"), ("raw", 0o644, "$x\n")]);
    assert!(refused("COPY <<.. /d/\nx\n..").contains("cannot be a file"));
}

#[test]
fn modes_and_sources() {
    let chmod =
        |mode: &str| build(&format!("FROM base\nCOPY --chmod={mode} a b"), &[], &inherited()).map(|_| ());
    for mode in ["0", "644", "07777", "u=rwX,go=rX", "a+x", "+x", "go-w", "u+rw-x", "g=u", "=", "u="] {
        assert_eq!(chmod(mode), Ok(()), "{mode}");
    }
    for mode in ["8", "10000", "u", "rwx", "u=rwz", "u=rw,", "z+x", "99999999999", "u=go"] {
        assert!(chmod(mode).is_err(), "{mode}");
    }
    assert_eq!(copy("COPY --chmod=0755 a b").placement.chmod, Some(Chmod::Octal(0o755)));
    for (source, kind) in [
        ("a/b", "local"),
        ("github.com/a/b", "local"),
        ("http://h/x.tar", "http"),
        ("HTTPS://h/x.git/y", "http"),
        ("https://h/x.git", "git"),
        ("https://h/x.git?ref=a#b:c", "git"),
        ("git://h/x", "git"),
        ("ssh://git@h/x", "git"),
        ("git@h.com:a/b.git#c", "git"),
        ("ftp://h/x", "local"),
        ("a@b", "local"),
        ("a b@h:c", "local"),
    ] {
        let expected = match kind {
            "local" => AddSource::Local(source.to_owned()),
            "http" => AddSource::Http(source.to_owned()),
            _ => AddSource::Git(source.to_owned()),
        };
        assert_eq!(AddSource::of(source), expected);
    }
    for (text, what) in [
        ("COPY http://h/x y", "COPY can't have a URL for a source: http://h/x"),
        ("COPY git@h:x y", "COPY can't have a git repository for a source: git@h:x"),
        ("ADD --checksum=x a b", "--checksum needs an HTTP or git source"),
        ("ADD --checksum=x http://h/a http://h/b c", "--checksum is of one source alone"),
        ("ADD --checksum=x http://h/a b", "--checksum: not a digest: \"x\""),
        ("ADD --checksum=xyz git://h/a b", "--checksum=\"xyz\" is no commit"),
    ] {
        let problem = refused(text);
        assert!(problem.starts_with(&format!("line 2: {what}")), "{text}: {problem}");
    }
    assert!(matches!(last("ADD --checksum=abc123 git://h/a b").action, Action::Add(_)));
}

#[test]
fn ports() {
    let ports = |text: &str| match last(&format!("ENV p='80 81' q=90\nEXPOSE {text}")).action {
        Action::Config(Change::Expose(ports)) => ports.join(" "),
        other => panic!("{other:?}"),
    };
    assert_eq!(ports("80"), "80/tcp");
    assert_eq!(ports("$p ${q}-92/sctp"), "80/tcp 81/tcp 90/sctp 91/sctp 92/sctp");
    assert_eq!(ports("127.0.0.1:8080:80 [::1]:1:2/UDP 8000-8001:5-6"), "80/tcp 5/tcp 6/tcp 2/udp");
    for (text, address) in
        [("::::80", "::"), ("::1:7:80", "::1"), ("[fe80::1]::80", "fe80::1"), ("1.2.3.4::80", "1.2.3.4")]
    {
        assert_eq!(ports(text), "80/tcp", "{text} has the address {address}");
    }
    assert_eq!(ports("7-8:80"), "80/tcp");
    for text in
        ["x", "localhost:1:2", "70000", "5-4", "80/http", "/tcp", "-1", "1.2.3:1:2", "1-2:3-6", ":x:1", "1:"]
    {
        assert!(refused(&format!("EXPOSE {text}")).starts_with("line 2: EXPOSE"), "{text}");
    }
    assert!(refused(&format!("EXPOSE {}", "0-65535 ".repeat(4))).contains("more ports than there are"));
}

#[test]
fn what_is_refused() {
    for (text, what) in [
        ("STOPSIGNAL NOPE", "no signal is called \"NOPE\""),
        ("STOPSIGNAL $nope", "no signal is called \"\""),
        ("VOLUME $nope", "a VOLUME can not be an empty string"),
        ("ENV $nope=x", "the name \"$nope\" is empty"),
        ("WORKDIR ${x", "expand \"${x\": } is missing after ${"),
        ("USER 'a", "expand \"'a\": a single quote has no end"),
    ] {
        let problem = refused(text);
        assert!(problem.starts_with(&format!("line 2: {what}")), "{text}: {problem}");
    }
}

#[test]
fn findings_depend_on_values() {
    let rules = |text: &str| -> Vec<String> {
        let steps = steps(text);
        steps.iter().flat_map(|step| &step.findings).map(|f| format!("{}: {}", f.rule, f.message)).collect()
    };
    assert_eq!(
        rules("ARG maybe\nCOPY $maybe$nope$LNAG x"),
        [
            "UndefinedVar: Usage of undefined variable '$LNAG' (did you mean $LANG?)",
            "UndefinedVar: Usage of undefined variable '$nope'"
        ]
    );
    assert_eq!(rules("WORKDIR a\nWORKDIR b").len(), 1);
    assert_eq!(rules("WORKDIR /a\nWORKDIR b").len(), 0);
    assert_eq!(rules("CMD a\nSHELL [\"b\"]\nENTRYPOINT c").len(), 1);
    assert_eq!(rules("EXPOSE 80/TCP 1:2").len(), 2);
}

#[test]
fn is_bounded() {
    let text = |lines: &[&str]| format!("FROM scratch\n{}\n", lines.join("\n"));
    let problem = |text: String| build(&text, &[], &inherited()).expect_err("a bound").what;
    let x = "x".repeat(60_000);
    let doubled = "ENV a=$a$a\n".repeat(20);
    assert!(problem(text(&[&format!("ENV a={x}"), &doubled])).contains("grow beyond"));
    let many = format!("ENV a={x}\nENV a=$a$a$a$a$a$a$a\nCOPY {} /", "$a ".repeat(20));
    assert!(problem(text(&[&many])).contains("words grow beyond"));
    let history = format!("ARG a={x}\n{}", "RUN x\n".repeat(400));
    assert!(problem(text(&[&history])).contains("history grows too large"));
    let deeper = "WORKDIR abcdefghij\n".repeat(500);
    assert!(problem(text(&[&deeper])).contains("longer than"));
    // What many words cost to match is counted together.
    let slow = format!("ENV a={}\n{}", "x".repeat(5000), "USER ${a//?*y/}\n".repeat(50));
    assert!(problem(text(&[&slow])).contains("too long to match"));
}

#[test]
fn inherited_from_a_configuration() {
    let image = serde_json::json!({"config": {"Env": ["A=b"], "Shell": ["/s"], "WorkingDir": "w", "User": "u", "OnBuild": ["RUN x"], "Cmd": null}});
    let inherited = Inherited::of(&image).unwrap();
    assert_eq!((inherited.env.len(), inherited.triggers.len(), inherited.user.as_str()), (1, 1, "u"));
    let (_, scope) = build("FROM base", &[], &inherited).unwrap();
    assert_eq!(scope.workdir(), "/w");
    assert_eq!(Inherited::of(&serde_json::json!({"config": null})).unwrap(), Inherited::default());
    for bad in [
        "{\"config\": []}",
        "{\"config\": {\"Env\": {}}}",
        "{\"config\": {\"Env\": [1]}}",
        "{\"config\": {\"User\": 1}}",
    ] {
        assert!(Inherited::of(&serde_json::from_str(bad).unwrap()).is_err(), "{bad}");
    }
}
