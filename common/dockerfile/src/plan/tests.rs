use super::*;
use crate::Dockerfile;

fn request() -> Request {
    let platform = |text: &str| Platform::parse(text).unwrap();
    Request::new(platform("linux/arm64"), platform("linux/amd64"))
}

fn with(text: &str, request: &Request) -> Result<Plan, Problem> {
    plan(&Dockerfile::parse(text.as_bytes()).unwrap(), request)
}

fn planned(text: &str) -> Plan {
    with(text, &request()).unwrap_or_else(|problem| panic!("{problem}\n{text}"))
}

fn refused(text: &str) -> Problem {
    with(text, &request()).expect_err(text)
}

fn target(name: &str) -> Request {
    Request { target: Some(name.to_owned()), ..request() }
}

fn names(plan: &Plan) -> Vec<&str> {
    plan.stages.iter().map(|stage| stage.name.as_str()).collect()
}

fn image(name: &str, platform: &str) -> Base {
    Base::Image { reference: Reference::parse(name).unwrap(), platform: Platform::parse(platform).unwrap() }
}

#[test]
fn only_what_is_needed() {
    let text = "FROM a AS one\nFROM b AS two\nRUN --mount=from=one,target=/x y\nFROM c AS three\nFROM d\nCOPY --from=Two /x /\nFROM e AS last";
    assert_eq!(names(&planned(text)), ["last"]);
    let plan = with(text, &target("3")).unwrap();
    assert_eq!(names(&plan), ["one", "two", "stage-3"]);
    assert_eq!(plan.stages.iter().map(|stage| stage.index).collect::<Vec<_>>(), [0, 1, 3]);
    let depends: Vec<_> = plan.stages.iter().map(|stage| stage.depends_on.clone()).collect();
    assert_eq!(depends, [vec![], vec![0], vec![1]]);
    assert_eq!(plan.stages[2].instructions[0].sources, [Source::Stage(1)]);
    assert_eq!(names(&with(text, &target("THREE")).unwrap()), ["three"]);
    let missing = with(text, &target("tow")).unwrap_err();
    assert_eq!(missing.to_string(), "the target stage \"tow\" is not in the Dockerfile");
    assert_eq!(missing.hint.as_deref(), Some("did you mean two?"));
}

#[test]
fn bases() {
    let plan = planned(
        "FROM a:1 AS base\nFROM Base AS second\nFROM scratch AS third\nCOPY --from=second / /\nCOPY --from=scratch / /",
    );
    assert_eq!(plan.stages[0].base, image("a:1", "linux/arm64"));
    assert_eq!(plan.stages[1].base, Base::Stage(0));
    assert_eq!(plan.stages[2].base, Base::Scratch);
    assert_eq!(plan.stages[2].instructions[1].sources, [Source::Scratch]);
    // A base is an earlier stage, or an image.
    assert_eq!(planned("FROM later\nFROM b AS later\nFROM scratch").stages.len(), 1);
    assert_eq!(
        with("FROM later\nFROM b AS later", &target("0")).unwrap().stages[0].base,
        image("later", "linux/arm64")
    );
    // A stage may be called as what it is made from, and the nearest one before counts.
    let plan = planned("FROM x AS x\nFROM x AS x\nFROM x\nCOPY --from=x / /");
    assert_eq!(plan.stages[2].base, Base::Stage(1));
    assert_eq!(plan.stages[2].instructions[0].sources, [Source::Stage(1)]);
}

#[test]
fn sources() {
    let plan = planned(
        "FROM a AS one\nFROM b\nCOPY x y\nCOPY --from=0 x y\nCOPY --from=c:2 x y\nRUN --mount=target=/a --mount=type=cache,target=/b --mount=from=one,target=/c --mount=from=d,target=/d x",
    );
    let of_image = |name: &str| match image(name, "linux/arm64") {
        Base::Image { reference, platform } => Source::Image { reference, platform },
        other => panic!("{other:?}"),
    };
    let sources: Vec<_> = plan.stages[1].instructions.iter().map(|i| i.sources.clone()).collect();
    assert_eq!(
        sources,
        [
            vec![Source::Main],
            vec![Source::Stage(0)],
            vec![of_image("c:2")],
            vec![Source::Main, Source::Main, Source::Stage(0), of_image("d")]
        ]
    );
}

#[test]
fn what_is_refused() {
    for (text, what) in [
        ("FROM a\nCOPY --from=later x y\nFROM b AS later", "line 2: the stage \"later\" is not there yet"),
        ("FROM a AS self\nCOPY --from=self x y", "line 2: the stage \"self\" is not there yet"),
        (
            "FROM a\nRUN --mount=from=later,target=/a x\nFROM b AS later",
            "line 2: the stage \"later\" is not there yet",
        ),
        ("FROM a\nCOPY --from=0 x y", "line 2: stage 0 is not there yet"),
        ("FROM a\nCOPY --from=7 x y", "line 2: there is no stage 7"),
        ("FROM a\nCOPY --from=99999999999999999999999 x y", "line 2: there is no stage 999"),
        ("FROM a\nCOPY --from=$x x y", "line 2: --from doesn't support variables"),
        ("FROM $nope", "line 1: the base is empty: $nope"),
        ("FROM ${nope:?give-one}", "line 1: expand \"${nope:?give-one}\": nope: give-one"),
        ("FROM A/B", "line 1: "),
        ("FROM --platform=$nope a", "line 1: the platform is empty: $nope"),
        ("FROM --platform=what/is/this/now a", "line 1: "),
        ("ARG a=\"${b:?no b}\"\nFROM c", "line 1: expand \"\\\"${b:?no b}\\\"\": b: no b"),
        ("FROM a\nRUN --mount=type=cache,target=/x,mode=z y", "line 2: mount: \"z\" is no value for mode"),
    ] {
        let problem = refused(text).to_string();
        assert!(problem.starts_with(what), "{text}: {problem}");
    }
    assert_eq!(refused("FROM a AS base\nFROM Bsae").hint.as_deref(), Some("did you mean base?"));
    assert_eq!(
        refused("FROM --platform=$TARGETPLATFROM a").hint.as_deref(),
        Some("did you mean TARGETPLATFORM?")
    );
    // What is wrong in a stage that is not needed does not matter, if it is not about which stages there are.
    planned("FROM a\nRUN --mount=type=nope,target=/a x\nFROM b");
}

#[test]
fn arguments() {
    let text = "ARG v=1\nARG name=img-$v\nARG none\nFROM --platform=$BUILDPLATFORM ${name}:$v${none}";
    assert_eq!(planned(text).stages[0].base, image("img-1:1", "linux/amd64"));
    let mut request = request();
    request.build_arg("v=2", |_| None).unwrap();
    request.build_arg("none", |name| Some(format!("-{name}"))).unwrap();
    request.build_arg("gone", |_| None).unwrap();
    assert_eq!(with(text, &request).unwrap().stages[0].base, image("img-2:2-none", "linux/amd64"));
    assert!(request.build_arg("=x", |_| None).is_err());
}

#[test]
fn build_arguments_that_nothing_declares() {
    let mut request = request();
    for name in [
        "used",
        "in_stage",
        "stray",
        "http_proxy",
        "TARGETOS",
        "SOURCE_DATE_EPOCH",
        "BUILDKIT_SYNTAX",
        "BUILDKIT_X",
    ] {
        request.build_args.insert(name.to_owned(), "1".to_owned());
    }
    let plan = with("ARG used\nFROM a\nARG in_stage strays", &request).unwrap();
    assert_eq!(
        plan.warnings,
        [
            "the build argument BUILDKIT_SYNTAX is ignored: the reader of Dockerfiles is built in",
            "no ARG declares the build argument stray (did you mean strays?)"
        ]
    );
    assert_eq!(plan.source_date_epoch.as_deref(), Some("1"));
    assert_eq!(planned("ARG SOURCE_DATE_EPOCH=7\nFROM a").source_date_epoch.as_deref(), Some("7"));
}

#[test]
fn contexts_come_before_stages_and_images() {
    let text = "FROM alpine AS base\nRUN x\nFROM base AS app\nCOPY --from=docker.io/library/tools:latest x y\nCOPY --from=base x y\nCOPY --from=0 x y\nFROM debian:12\nCOPY --from=app x y";
    let contexts = |names: &[&str]| Request {
        contexts: names.iter().map(|name| (*name).to_owned()).collect(),
        ..request()
    };
    let base = Source::Context("base".to_owned());
    let plan = with(text, &contexts(&["base", "tools", "docker.io/library/debian:12"])).unwrap();
    assert_eq!(names(&plan), ["app", "stage-2"]);
    assert_eq!(plan.stages[0].base, Base::Context("base".to_owned()));
    let sources: Vec<_> = plan.stages[0].instructions.iter().map(|i| i.sources[0].clone()).collect();
    assert_eq!(sources, [Source::Context("tools".to_owned()), base.clone(), base]);
    assert_eq!(plan.stages[1].base, Base::Context("docker.io/library/debian:12".to_owned()));
    // An image that is not called like one of them.
    assert_eq!(
        with("FROM debian:11", &contexts(&["debian"])).unwrap().stages[0].base,
        image("debian:11", "linux/arm64")
    );
    assert_eq!(with("FROM scratch", &contexts(&["scratch"])).unwrap().stages[0].base, Base::Scratch);
    // The target itself.
    let request = Request { target: Some("base".to_owned()), ..contexts(&["base"]) };
    let plan = with(text, &request).unwrap();
    assert!(plan.stages[0].instructions.is_empty());
    assert_eq!(plan.stages[0].base, Base::Context("base".to_owned()));
}

#[test]
fn platforms_come_from_the_base() {
    let plan =
        planned("FROM --platform=linux/arm/v7 a AS one\nFROM --platform=linux/amd64 one\nCOPY --from=b x y");
    assert_eq!(plan.stages[1].platform.to_string(), "linux/arm/v7");
    let Source::Image { platform, .. } = &plan.stages[1].instructions[0].sources[0] else { panic!() };
    assert_eq!(platform.to_string(), "linux/arm64");
}

#[test]
fn a_plan_tells_its_images_and_is_data() {
    let plan =
        planned("FROM a AS x\nFROM a\nCOPY --from=b / /\nRUN --mount=from=b,target=/b c\nCOPY --from=x / /");
    let images: Vec<String> = plan.images().iter().map(|(reference, _)| reference.familiar()).collect();
    assert_eq!(images, ["a:latest", "b:latest"]);
    let json = serde_json::to_value(&plan).unwrap();
    assert_eq!(json["stages"][1]["instructions"][0]["value"]["copy"]["destination"], "/");
    assert_eq!(json["stages"][1]["instructions"][2]["sources"][0]["stage"], 0);
}

#[test]
fn triggers_come_first() {
    let text = "FROM a AS tools\nFROM b AS base\nONBUILD COPY --from=tools x y\nONBUILD RUN z\nFROM base AS app\nRUN own\nFROM app";
    let plan = planned(text);
    assert_eq!(names(&plan), ["tools", "base", "app", "stage-3"]);
    let app: Vec<_> = plan.stages[2]
        .instructions
        .iter()
        .map(|i| (i.located.text.as_str(), i.trigger, i.located.lines.first))
        .collect();
    assert_eq!(app, [("COPY --from=tools x y", true, 5), ("RUN z", true, 5), ("RUN own", false, 6)]);
    // They are used up.
    assert!(plan.stages[3].instructions.is_empty());
    let triggers = vec!["COPY --from=tools /t /t".to_owned()];
    let request = Request { triggers: BTreeMap::from([(1, triggers)]), ..request() };
    let plan = with("FROM a AS tools\nFROM b\nRUN x", &request).unwrap();
    assert_eq!(names(&plan), ["tools", "stage-1"]);
    let bad = Request { triggers: BTreeMap::from([(0, vec!["ONBUILD RUN x".to_owned()])]), ..target("0") };
    assert_eq!(
        with("FROM a", &bad).unwrap_err().to_string(),
        "line 1: ONBUILD trigger of the base: ONBUILD ONBUILD isn't allowed: ONBUILD RUN x"
    );
}

#[test]
fn triggers_are_bounded() {
    let base = "FROM a AS base\n".to_owned() + &"ONBUILD RUN x\n".repeat(900);
    let many = base + &"FROM base\n".repeat(9000);
    assert!(refused(&many).what.contains("too many ONBUILD triggers"));
}
