use super::*;
use crate::{Dockerfile, Problem};

fn read(text: &str) -> Result<Instruction, Problem> {
    let mut dockerfile = Dockerfile::parse(format!("FROM scratch\n{text}").as_bytes())?;
    Ok(dockerfile.stages[0].instructions.remove(0).value)
}

fn taken(text: &str) -> Instruction {
    read(text).unwrap_or_else(|problem| panic!("{text}: {problem}"))
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Each with its message; the line is that of the instruction.
#[test]
fn what_is_refused() {
    for (text, what) in [
        ("FOO bar", "unknown instruction FOO"),
        ("RUNN ls", "unknown instruction RUNN"),
        ("ADD", "ADD requires at least two arguments"),
        ("ADD a", "ADD requires at least two arguments"),
        ("ADD --from=x a b", "unknown flag: --from"),
        ("ADD --unpack=maybe a b", "--unpack is true or false, not \"maybe\""),
        ("ADD a <<EOF\nEOF", "ADD cannot accept a heredoc as a destination"),
        ("ARG", "ARG requires at least one argument"),
        ("ARG =x", "ARG names can not be blank"),
        ("ARG --x a", "unknown flag: --x"),
        ("CMD --x a", "unknown flag: --x"),
        ("COPY", "COPY requires at least two arguments"),
        ("COPY a", "COPY requires at least two arguments"),
        ("COPY [\"a\"]", "COPY requires at least two arguments"),
        ("COPY --form=x a b", "unknown flag: --form"),
        ("COPY --from a b", "a value is missing: --from="),
        ("COPY --from=a --from=b c d", "--from is given twice"),
        ("COPY --link= a b", "--link is true or false, not \"\""),
        ("COPY --checksum=x a b", "unknown flag: --checksum"),
        ("COPY a <<EOF\nEOF", "COPY cannot accept a heredoc as a destination"),
        ("ENTRYPOINT --x a", "unknown flag: --x"),
        ("ENV", "ENV requires at least one argument"),
        ("ENV a", "ENV must have two arguments"),
        ("ENV =b", "ENV names can not be blank"),
        ("ENV a=b c", "there is no = in \"c\""),
        ("EXPOSE", "EXPOSE requires at least one argument"),
        ("FROM", "FROM requires either one or three arguments"),
        ("FROM a b", "FROM requires either one or three arguments"),
        ("FROM a is b", "FROM requires either one or three arguments"),
        ("FROM a as 1b", "invalid name of a stage: \"1b\""),
        ("FROM a as b/c", "invalid name of a stage: \"b/c\""),
        ("FROM --plattform=x a", "unknown flag: --plattform"),
        ("HEALTHCHECK", "HEALTHCHECK requires at least one argument"),
        ("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"),
        ("HEALTHCHECK CMD", "a command is missing after HEALTHCHECK CMD"),
        ("HEALTHCHECK CMD []", "a command is missing after HEALTHCHECK CMD"),
        ("HEALTHCHECK curl x", "unknown type \"CURL\" in HEALTHCHECK"),
        ("HEALTHCHECK --interval=5 CMD x", "--interval=5: the unit is missing"),
        ("HEALTHCHECK --interval=1us CMD x", "--interval=1us: shorter than a millisecond"),
        ("HEALTHCHECK --timeout=-1s CMD x", "--timeout=-1s: not a length of time"),
        ("HEALTHCHECK --timeout=3000000h CMD x", "--timeout=3000000h: too long"),
        ("HEALTHCHECK --retries=-1 CMD x", "--retries=-1 is not a number of times"),
        ("HEALTHCHECK --retires=1 CMD x", "unknown flag: --retires"),
        ("LABEL", "LABEL requires at least one argument"),
        ("LABEL =b", "LABEL names can not be blank"),
        ("MAINTAINER", "MAINTAINER requires exactly one argument"),
        ("MAINTAINER --x me", "unknown flag: --x"),
        ("ONBUILD", "ONBUILD requires at least one argument"),
        ("ONBUILD ONBUILD RUN a", "ONBUILD ONBUILD isn't allowed"),
        ("ONBUILD FROM a", "FROM isn't allowed as an ONBUILD trigger"),
        ("ONBUILD maintainer a", "MAINTAINER isn't allowed as an ONBUILD trigger"),
        ("RUN []", "RUN has an empty command"),
        ("RUN --network=bridge a", "--network=bridge: no such mode"),
        ("RUN --security=none a", "--security=none: no such mode"),
        ("RUN --mount=from=$X,target=/a a", "from= of a mount doesn't support variables"),
        ("RUN --device=required a", "--device names no device"),
        ("RUN --device=a,name=b a", "the device's name is already \"a\""),
        ("RUN --privileged a", "unknown flag: --privileged"),
        ("SHELL", "SHELL requires at least one argument"),
        ("SHELL []", "SHELL requires at least one argument"),
        ("SHELL bash -c", "SHELL requires the arguments to be in JSON form"),
        ("STOPSIGNAL", "STOPSIGNAL requires exactly one argument"),
        ("USER", "USER requires exactly one argument"),
        ("VOLUME", "VOLUME requires at least one argument"),
        ("VOLUME []", "VOLUME requires at least one argument"),
        ("VOLUME [\" \"]", "a VOLUME can not be an empty string"),
        ("WORKDIR", "WORKDIR requires exactly one argument"),
    ] {
        let problem = read(text).expect_err(text);
        assert_eq!(problem.what, what, "{text}");
        assert_eq!(problem.lines.map(|lines| lines.first), Some(2), "{text}");
        assert_eq!(problem.text.as_deref(), text.lines().next(), "{text}");
    }
}

#[test]
fn hints_say_what_was_meant() {
    for (text, hint) in [
        ("RUNN ls", "did you mean RUN?"),
        ("cpoy a b", "did you mean COPY?"),
        ("COPY --form=x a b", "did you mean --from?"),
        ("HEALTHCHECK CDM x", "did you mean CMD?"),
        ("FROM --plattform=x a", "did you mean --platform?"),
    ] {
        assert_eq!(read(text).unwrap_err().hint.as_deref(), Some(hint), "{text}");
    }
    let fault = fault::Fault::from(read("RUNN ls").unwrap_err());
    assert_eq!(fault.to_string(), "line 2: unknown instruction RUNN: RUNN ls");
    assert_eq!((fault.kind(), fault.hint_text()), (fault::Kind::Input, Some("did you mean RUN?")));
}

#[test]
fn commands() {
    for (text, instruction) in [
        ("CMD a b", Instruction::Cmd(Command::Shell("a b".to_owned()))),
        ("cmd [\"a\", \"b\"]", Instruction::Cmd(Command::Exec(words(&["a", "b"])))),
        ("CMD []", Instruction::Cmd(Command::Exec(Vec::new()))),
        ("CMD", Instruction::Cmd(Command::Shell(String::new()))),
        ("ENTRYPOINT []", Instruction::Entrypoint(Command::Exec(Vec::new()))),
        ("SHELL [\"a\", \"-c\"]", Instruction::Shell(words(&["a", "-c"]))),
        ("EXPOSE 90 80/udp", Instruction::Expose(words(&["80/udp", "90"]))),
        ("USER a:b", Instruction::User("a:b".to_owned())),
        ("WORKDIR /a b", Instruction::Workdir("/a b".to_owned())),
        ("VOLUME [\" /a \", \"/b c\"]", Instruction::Volume(words(&["/a", "/b c"]))),
        ("VOLUME /a /b", Instruction::Volume(words(&["/a", "/b"]))),
        ("STOPSIGNAL 9", Instruction::StopSignal("9".to_owned())),
        ("MAINTAINER me <a@b>", Instruction::Maintainer("me <a@b>".to_owned())),
        ("ONBUILD RUN  a b", Instruction::Onbuild("RUN  a b".to_owned())),
        ("onbuild COPY <<a /b\nx\na", Instruction::Onbuild("COPY <<a /b\nx\na".to_owned())),
    ] {
        assert_eq!(taken(text), instruction, "{text}");
    }
}

#[test]
fn pairs_and_args() {
    let pair =
        |name: &str, value: &str, legacy| Pair { name: name.to_owned(), value: value.to_owned(), legacy };
    assert_eq!(
        taken("ENV a=b c='d e'"),
        Instruction::Env(vec![pair("a", "b", false), pair("c", "'d e'", false)])
    );
    assert_eq!(taken("LABEL a b c"), Instruction::Label(vec![pair("a", "b c", true)]));
    let Instruction::Arg(args) = taken("# a is one\nARG a b= c=\"d e\"") else { panic!() };
    let seen: Vec<_> =
        args.iter().map(|a| (a.name.as_str(), a.default.as_deref(), a.description.as_deref())).collect();
    assert_eq!(seen, [("a", None, Some("is one")), ("b", Some(""), None), ("c", Some("\"d e\""), None)]);
}

#[test]
fn run_with_all_its_flags() {
    let Instruction::Run(run) = taken(
        "RUN --mount=type=cache,target=/c --mount=from=a,target=/b --network=none --security=insecure --device=v/c=d,required a",
    ) else {
        panic!()
    };
    assert_eq!(run.mounts.len(), 2);
    assert_eq!(run.mounts[1].from.as_deref(), Some("a"));
    assert_eq!((run.network, run.security), (Network::None, Security::Insecure));
    assert_eq!(run.devices, [Device { name: "v/c=d".to_owned(), required: true }]);
    assert_eq!(run.command, Command::Shell("a".to_owned()));
}

#[test]
fn copy_and_add_with_all_their_flags() {
    let Instruction::Copy(copy) =
        taken("COPY --from=s --chown=1:2 --chmod=755 --link --parents --exclude=*.o --exclude=x a b/ /c/")
    else {
        panic!()
    };
    assert_eq!(copy.from.as_deref(), Some("s"));
    assert!(copy.parents && copy.placement.link);
    assert_eq!(copy.placement.exclude, ["*.o", "x"]);
    assert_eq!(
        (copy.placement.sources.as_slice(), copy.placement.destination.as_str()),
        (&words(&["a", "b/"])[..], "/c/")
    );
    let Instruction::Add(add) = taken(
        "ADD --checksum=sha256:x --keep-git-dir=false --unpack --link=false <<-a <<b c /d/\n\tx\na\ny\nb",
    ) else {
        panic!()
    };
    assert_eq!((add.keep_git_dir, add.unpack, add.placement.link), (Some(false), Some(true), false));
    let heredocs: Vec<_> =
        add.placement.heredocs.iter().map(|h| (h.name.as_str(), h.content.as_str())).collect();
    assert_eq!(heredocs, [("a", "x\n"), ("b", "y\n")]);
    assert_eq!(add.placement.sources, ["c"]);
}

#[test]
fn healthcheck() {
    let Instruction::Healthcheck(check) = taken(
        "HEALTHCHECK --interval=1m30s --timeout=500ms --start-period=0s --start-interval=1s --retries=3 CMD a || b",
    ) else {
        panic!()
    };
    assert_eq!(check.test, ["CMD-SHELL", "a || b"]);
    assert_eq!((check.interval.as_secs(), check.timeout.as_millis(), check.retries), (90, 500, 3));
    assert_eq!((check.start_period.as_secs(), check.start_interval.as_secs()), (0, 1));
    let Instruction::Healthcheck(check) = taken("healthcheck cmd [\"a\", \"b\"]") else { panic!() };
    assert_eq!(check.test, ["CMD", "a", "b"]);
    let Instruction::Healthcheck(check) = taken("HEALTHCHECK none") else { panic!() };
    assert_eq!(check.test, ["NONE"]);
}

#[test]
fn stages() {
    let text = "ARG v=1\n# build makes it\nfrom --platform=$BUILDPLATFORM a:$v As Build\nRUN x\nFROM scratch\nCOPY --from=build / /\n";
    let dockerfile = Dockerfile::parse(text.as_bytes()).unwrap();
    assert_eq!(dockerfile.global_args[0].value[0].name, "v");
    let [build, last] = dockerfile.stages.as_slice() else { panic!() };
    assert_eq!((build.base.as_str(), build.platform.as_deref()), ("a:$v", Some("$BUILDPLATFORM")));
    assert_eq!((build.name.as_deref(), build.description.as_deref()), (Some("build"), Some("makes it")));
    assert_eq!((build.lines.first, build.keyword.as_str()), (3, "from"));
    assert_eq!((last.name.as_deref(), last.instructions.len()), (None, 1));
    let alone = |text: &str| Dockerfile::parse(text.as_bytes()).unwrap_err().to_string();
    assert_eq!(alone("ARG a"), "the Dockerfile has no FROM");
    assert_eq!(alone("ARG a\nRUN b\nFROM c"), "line 2: RUN stands before the first FROM: RUN b");
}

#[test]
fn triggers_of_a_base() {
    let read = |expressions: &[&str]| triggers(&words(expressions));
    let instructions = read(&["RUN a", "COPY <<a /b\nx\na"]).unwrap();
    assert!(matches!(instructions[0].value, Instruction::Run(_)));
    assert!(
        matches!(&instructions[1].value, Instruction::Copy(copy) if copy.placement.heredocs[0].content == "x\n")
    );
    for (text, what) in [
        ("ONBUILD RUN a", "ONBUILD ONBUILD isn't allowed"),
        ("FROM a", "FROM isn't allowed as an ONBUILD trigger"),
        ("MAINTAINER a", "MAINTAINER isn't allowed as an ONBUILD trigger"),
        ("RUN a\nRUN b", "it has to be a single instruction"),
        ("", "the Dockerfile has no instructions"),
        ("NOPE", "unknown instruction NOPE"),
    ] {
        let problem = read(&[text]).expect_err(text);
        assert_eq!(problem.what, format!("ONBUILD trigger of the base: {what}"), "{text}");
    }
    assert!(triggers(&vec!["RUN a".to_owned(); 2000]).is_err());
}
