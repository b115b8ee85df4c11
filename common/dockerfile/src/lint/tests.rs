use super::*;
use crate::parse;
use proptest::prelude::*;

fn request() -> Request {
    let platform = Platform::parse("linux/amd64").unwrap();
    Request::new(platform.clone(), platform)
}

fn checked(text: &str, request: &Request) -> Checked {
    let image = |reference: &Reference, _: &Platform| {
        let env = vec!["PATH=/bin".to_owned(), "KNOWN=1".to_owned()];
        (reference.path() != "library/unknown").then(|| Inherited { env, ..Inherited::default() })
    };
    let facts =
        Facts { is_ignored: &|path| path == "secret" || path == "dir/x", image: &image, all_stages: true };
    check(&parse(text.as_bytes()).unwrap(), request, &facts)
}

/// `line rule`, in order.
fn rules(text: &str) -> Vec<String> {
    let checked = checked(text, &request());
    assert_eq!(checked.problem, None, "{text}");
    checked.findings.iter().map(|finding| format!("{} {}", finding.lines.first, finding.rule)).collect()
}

#[test]
fn letters() {
    assert_eq!(rules("FROM scratch AS Build"), ["1 StageNameCasing"]);
    assert_eq!(
        rules("FROM scratch as a\nfrom scratch as b\nFROM scratch AS c"),
        ["1 FromAsCasing", "2 ConsistentInstructionCasing"]
    );
    assert_eq!(rules("from scratch\nuser a\nUSER b"), ["3 ConsistentInstructionCasing"]);
    assert_eq!(rules("From scratch"), ["1 ConsistentInstructionCasing"]);
}

#[test]
fn stages_and_platforms() {
    assert_eq!(rules("FROM scratch AS a\nFROM scratch AS a"), ["2 DuplicateStageName"]);
    assert_eq!(rules("FROM a AS scratch\nFROM a AS context"), ["1 ReservedStageName", "2 ReservedStageName"]);
    assert_eq!(rules("FROM --platform=$TARGETPLATFORM a"), ["1 RedundantTargetPlatform"]);
    assert_eq!(rules("FROM --platform=linux/amd64 a"), ["1 FromPlatformFlagConstDisallowed"]);
    assert_eq!(rules("FROM --platform=linux/amd64 a AS build-amd64"), [""; 0]);
    assert_eq!(rules("FROM --platform=$BUILDPLATFORM a"), [""; 0]);
}

#[test]
fn arguments_of_from() {
    let checked_with = |text: &str, arg: &str| {
        let mut request = request();
        request.build_arg(arg, |_| None).unwrap();
        let checked = checked(text, &request);
        assert_eq!(checked.problem, None);
        checked.findings.iter().map(|finding| finding.message.clone()).collect::<Vec<_>>()
    };
    assert_eq!(
        checked_with("ARG base\nFROM $base", "base=a"),
        ["Default value for ARG $base results in empty or invalid base image name"]
    );
    let checked = checked("ARG base\nFROM a$bse", &request());
    assert_eq!(checked.findings[0].message, "FROM argument 'bse' is not declared (did you mean base?)");
    assert_eq!(rules("FROM a${TARGETVARIANT}"), [""; 0]);
}

#[test]
fn instructions() {
    for (text, found) in [
        ("MAINTAINER me", "2 MaintainerDeprecated"),
        ("RUN a \\\n\n b", "4 NoEmptyContinuation"),
        ("CMD a", "2 JSONArgsRecommended"),
        ("ENTRYPOINT a", "2 JSONArgsRecommended"),
        ("CMD [\"a\"]\nCMD [\"b\"]", "2 MultipleInstructionsDisallowed"),
        ("HEALTHCHECK NONE\nHEALTHCHECK NONE", "2 MultipleInstructionsDisallowed"),
        ("ENV a b", "2 LegacyKeyValueFormat"),
        ("LABEL a b", "2 LegacyKeyValueFormat"),
        ("WORKDIR a", "2 WorkdirRelativePath"),
        ("ENV db_password=x", "2 SecretsUsedInArgOrEnv"),
        ("ARG API_TOKEN", "2 SecretsUsedInArgOrEnv"),
        ("COPY $nope a", "2 UndefinedVar"),
        ("EXPOSE 80/TCP", "2 ExposeProtoCasing"),
        ("EXPOSE 1:2", "2 ExposeInvalidFormat"),
        ("COPY secret a", "2 CopyIgnoredFile"),
        ("ADD ./dir//x /a", "2 CopyIgnoredFile"),
    ] {
        assert_eq!(rules(&format!("FROM scratch\n{text}")), [found], "{text}");
    }
    for text in [
        "SHELL [\"sh\"]\nCMD a",
        "ENV PUBLIC_KEY=x token_file=y monkey=z",
        "ARG x\nCOPY a$x b",
        "COPY --from=img secret a",
        "ADD https://h/secret a",
        "WORKDIR /a\nWORKDIR b",
    ] {
        assert_eq!(rules(&format!("FROM scratch\n{text}")), [""; 0], "{text}");
    }
    assert_eq!(rules("FROM a\nUSER $KNOWN"), [""; 0]);
    // What an unknown image sets is unknown.
    assert_eq!(rules("FROM unknown AS a\nUSER $X\nFROM a\nUSER $X"), [""; 0]);
}

#[test]
fn rules_are_skipped_and_asked_for() {
    assert_eq!(rules("# check=skip=all\nfrom scratch AS A\nUSER $x"), [""; 0]);
    assert_eq!(
        rules("# check=skip=UndefinedVar\nFROM scratch\nUSER $x\nWORKDIR $x"),
        ["4 WorkdirRelativePath"]
    );
    assert_eq!(rules("FROM scratch\n# check=skip=UndefinedVar\nUSER $x\nUSER $y"), ["4 UndefinedVar"]);
    let text = "# check=experimental=all;error=true\n# wrong words\nARG a\n# b is right\nFROM scratch AS b\n#\nARG c";
    assert_eq!(rules(text), ["3 InvalidDefinitionDescription"]);
    assert!(checked(text, &request()).error);
    let mut request = request();
    request.build_args.insert(CHECK.to_owned(), "skip=all".to_owned());
    assert!(checked("FROM scratch\nUSER $x", &request).findings.is_empty());
    let bad = checked("# check=nonsense\nFROM scratch", &super::tests::request());
    assert_eq!(bad.problem.unwrap().to_string(), "line 1: invalid check option \"nonsense\"");
}

#[test]
fn what_cannot_be_built_is_told_beside_the_findings() {
    let checked = checked("FROM scratch\nMAINTAINER me\nRUNN x", &request());
    assert_eq!(checked.findings[0].rule, "MaintainerDeprecated");
    assert_eq!(checked.problem.unwrap().lines, Some(Lines::one(3)));
}

#[test]
fn platforms_of_bases() {
    let platform = |text: &str| Platform::parse(text).unwrap();
    let lines = Lines::one(1);
    assert!(base_platform("a", &platform("linux/arm64"), &platform("linux/arm64"), lines).is_none());
    let finding = base_platform("a", &platform("linux/arm64"), &platform("linux/amd64"), lines).unwrap();
    assert_eq!(
        finding.message,
        "Base image a was pulled with platform \"linux/amd64\", expected \"linux/arm64\" for current build"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Whatever is read is planned and resolved, or refused; what is refused names a line of the file.
    #[test]
    fn no_dockerfile_is_too_odd(instructions in proptest::collection::vec((
        "(ADD|ARG|CMD|COPY|ENTRYPOINT|ENV|EXPOSE|FROM|HEALTHCHECK|LABEL|ONBUILD|RUN|SHELL|STOPSIGNAL|USER|VOLUME|WORKDIR|RUN|COPY)",
        "( --(from|mount|chmod|platform|interval)=(0|a|type=cache,target=x|from=a|[a-z0-9$=,]{0,8}))?",
        "( ([\\$\\{\\}a:=\\-/\\\\\"'\\[\\],<]{0,10}|a|as|/b|a=b|<<E|80/tcp|\\[\"x\"\\])){0,4}",
    ), 1..8)) {
        let mut text = "FROM a AS a\n".to_owned();
        for (keyword, flags, arguments) in instructions {
            text.extend([keyword, flags, arguments, "\n".to_owned()]);
        }
        let Ok(file) = parse(text.as_bytes()) else { return Ok(()) };
        let facts = Facts { is_ignored: &|_| true, image: &|_, _| None, all_stages: true };
        let checked = check(&file, &request(), &facts);
        let lines = u32::try_from(text.lines().count()).unwrap();
        for at in checked.findings.iter().map(|finding| finding.lines).chain(checked.problem.iter().filter_map(|p| p.lines)) {
            prop_assert!(1 <= at.first && at.first <= at.last && at.last <= lines, "{}\n{:?}", text, checked);
        }
    }
}
