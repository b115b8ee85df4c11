//! Stages, variables, what becomes of the configuration.

use crate::{build, dockerfile, inside, machine, project, to_do};
use serde_json::json;

#[test]
fn an_image_is_what_the_dockerfile_says() {
    let Some(place) = machine::place() else { return };
    project(
        &place,
        "app",
        &[
            ("a.txt", "A"),
            ("sub/deep/d", "D"),
            (
                "Dockerfile",
                r#"# syntax=docker/dockerfile:1
ARG V=1
FROM bb:1 AS base
ARG V
ARG W=w
ENV A=b$V C="x y"
WORKDIR /app
COPY a.txt sub ./
RUN echo $A-$W-$V > out
FROM base AS unused
RUN false
FROM base
COPY --from=base /app/out /copied
RUN <<EOF
echo one > /lines
echo two >> /lines
EOF
LABEL l=v
USER 7:8
EXPOSE 80 53/udp
VOLUME /data
STOPSIGNAL INT
HEALTHCHECK --interval=5s CMD true
SHELL ["/bin/sh", "-ec"]
ENTRYPOINT ["cat"]
CMD ["/copied"]
"#,
            ),
        ],
    );
    let ran = build(
        &place,
        "-t me/app:1 -t me/app:2 --build-arg V=2 --label x=y --iidfile $DIR/iid --metadata-file $DIR/meta $DIR/app",
    );
    let record = ran.expect(0).json();
    let image = &record["image"];
    assert_eq!(image["reference"], "docker.io/me/app:1");
    let config = &image["config"]["config"];
    assert_eq!(
        *config,
        json!({
            "ArgsEscaped": true,
            "Cmd": ["/copied"],
            "Entrypoint": ["cat"],
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "A=b2", "C=x y"],
            "ExposedPorts": {"53/udp": {}, "80/tcp": {}},
            "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 5_000_000_000_u64},
            "Labels": {"l": "v", "x": "y"},
            "Shell": ["/bin/sh", "-ec"],
            "StopSignal": "INT",
            "User": "7:8",
            "Volumes": {"/data": {}},
            "WorkingDir": "/app",
        })
    );
    assert_eq!(place.sh("ctr-run --rm --network none me/app:1").expect(0).stdout, "b2-w-2\n");
    assert_eq!(
        place.sh("ctr-run --rm --network none me/app:2 /lines /app/a.txt /app/deep/d").expect(0).stdout,
        "one\ntwo\nAD"
    );
    let history = image["config"]["history"].as_array().unwrap();
    let with_layer = history.iter().filter(|line| line["empty_layer"] != true).count();
    assert_eq!(with_layer, image["layers"].as_array().unwrap().len(), "{history:?}");
    assert_eq!(std::fs::read_to_string(place.path().join("iid")).unwrap(), image["id"].as_str().unwrap());
    let metadata: serde_json::Value =
        serde_json::from_slice(&std::fs::read(place.path().join("meta")).unwrap()).unwrap();
    assert_eq!(metadata["containerimage.digest"], image["digest"]);
    assert_eq!(metadata["image.name"], "docker.io/me/app:1,docker.io/me/app:2");
    // The arguments count, and the stage nobody needs is built for its own sake only.
    assert!(to_do(&place, "--build-arg V=2 $DIR/app").is_empty());
    assert!(!to_do(&place, "$DIR/app").is_empty());
    let ran = build(&place, "--target unused $DIR/app").expect(1);
    assert!(ran.stderr.contains("RUN false") && !ran.stderr.contains("stage-2"), "{}", ran.stderr);
    machine::assert_unmounted(&place);
}

#[test]
fn an_image_from_scratch_says_what_docker_says_of_it() {
    let Some(place) = machine::place() else { return };
    let text = "FROM scratch\nCOPY Dockerfile here/\nCMD [\"/it\"]\n";
    let record = dockerfile(&place, text, "-t nothing:1").expect(0).json();
    assert_eq!(
        record["image"]["config"]["config"],
        json!({
            "ArgsEscaped": true,
            "Cmd": ["/it"],
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "WorkingDir": "/",
        })
    );
}

#[test]
fn commands_are_run_as_the_image_says_and_each_kind_of_it() {
    let Some(place) = machine::place() else { return };
    let text = "FROM bb:1\nENV E=1\nWORKDIR /w\nRUN id -u >root; pwd >here\nRUN chmod 777 /w\nUSER 7:8\nRUN id -u >user; id -g >>user\n\
                RUN [\"sh\", \"-c\", \"echo exec $E >exec\"]\nSHELL [\"sh\", \"-xc\"]\nRUN echo shell\nRUN <<END\n#!/bin/sh\necho script $0 >script\nEND\n\
                RUN hostname >host; cat /proc/self/status | grep CapEff >caps\n";
    dockerfile(&place, text, "-q -t it:1").expect(0);
    let all = inside(&place, "it:1", "cd /w; cat root here user exec host; grep -c . caps; head -c 6 script");
    assert_eq!(all, "0\n/w\n7\n8\nexec 1\nbuild\n1\nscript");
    // A script is mounted and not kept; nothing that was mounted on stays.
    let rest = inside(&place, "it:1", "ls / /etc /dev /proc | grep -v :");
    assert!(!rest.contains("resolv.conf.") && !rest.contains("pipes"), "{rest}");
    let layers = place.sh("img-files --layers it:1 2>/dev/null || img-files it:1").expect(0).stdout;
    assert!(!layers.contains("/etc/hostname") && !layers.contains("/dev/null"), "{layers}");
}

#[test]
fn triggers_of_a_base_are_worked_off_once() {
    let Some(place) = machine::place() else { return };
    dockerfile(&place, "FROM bb:1\nONBUILD COPY f /f\nONBUILD RUN echo ran >>/ran\n", "-q -t trigger:1")
        .expect(0);
    let config = place.sh("img-inspect trigger:1 | jq -c .image.config.config.OnBuild").expect(0).stdout;
    assert_eq!(config, "[\"COPY f /f\",\"RUN echo ran >>/ran\"]\n");
    project(&place, "child", &[("Dockerfile", "FROM trigger:1\nRUN cat /f /ran >/both\n"), ("f", "file\n")]);
    build(&place, "-q -t child:1 $DIR/child").expect(0);
    assert_eq!(inside(&place, "child:1", "cat /both"), "file\nran\n");
    assert_eq!(
        place.sh("img-inspect child:1 | jq -c .image.config.config.OnBuild").expect(0).stdout,
        "null\n"
    );
}

#[test]
fn networks_are_as_asked_for() {
    let Some(place) = machine::place() else { return };
    let text = "FROM bb:1\nRUN --network=none ip -o -4 addr >/none\nRUN ip -o -4 addr >/usual\n";
    project(&place, "only", &[("Dockerfile", text)]);
    let tool = env!("CARGO_BIN_EXE_img-build");
    place.sh(&format!("{tool} -q -t net:1 $DIR/only")).expect(0);
    assert!(!inside(&place, "net:1", "cat /none").contains("eth0"));
    assert!(inside(&place, "net:1", "cat /usual").contains("eth0"));
    // Nothing is left of it.
    let leases = place.root().join("networks/bridge/leases");
    assert_eq!(std::fs::read_dir(leases).map_or(0, Iterator::count), 0);
    let text = "FROM bb:1\nRUN --network=host true\n";
    project(&place, "only", &[("Dockerfile", text)]);
    let ran = place.sh(&format!("{tool} $DIR/only")).expect(6);
    assert!(ran.stderr.contains("hint: --allow network.host"), "{}", ran.stderr);
    place.sh(&format!("{tool} -q --allow network.host $DIR/only")).expect(0);
    let text = "FROM bb:1\nRUN --security=insecure mount -t tmpfs none /tmp\n";
    project(&place, "only", &[("Dockerfile", text)]);
    place.sh(&format!("{tool} $DIR/only")).expect(6);
    place.sh(&format!("{tool} -q --network none --allow security.insecure $DIR/only")).expect(0);
}

#[test]
fn a_dockerfile_gets_no_device_by_itself() {
    let Some(place) = machine::place() else { return };
    // Neither by its path nor under another name, whatever is allowed.
    for device in ["/dev/null", "/dev/null:/dev/n:rwm", "v.example/c", "name=/dev/null,required"] {
        for words in ["", "--allow device"] {
            let ran =
                dockerfile(&place, &format!("FROM bb:1\nRUN --device={device} true\n"), words).expect(3);
            assert!(ran.stderr.contains("is no device of a CDI specification"), "{device}: {}", ran.stderr);
        }
    }
    let text = |required: &str| format!("FROM bb:1\nRUN --device=v.example/c=none{required} true\n");
    let ran = dockerfile(&place, &text(""), "").expect(6);
    assert!(ran.stderr.contains("hint: --allow device=v.example/c=none"), "{}", ran.stderr);
    dockerfile(&place, &text(""), "--allow device=v.example/c=another").expect(6);
    // What is not there is done without, unless it is required.
    for allowed in ["device", "device=v.example/c=none"] {
        dockerfile(&place, &text(""), &format!("-q --allow {allowed}")).expect(0);
        let ran = dockerfile(&place, &text(",required"), &format!("--allow {allowed}")).expect(4);
        assert!(ran.stderr.contains("there is no device v.example/c=none"), "{}", ran.stderr);
    }
}

#[test]
fn stages_without_need_of_each_other_run_side_by_side() {
    let Some(place) = machine::place() else { return };
    // Each waits for the other: one after the other they would wait for ever.
    let meet = |own: &str, other: &str| {
        format!(
            "RUN --mount=type=cache,target=/c touch /c/{own}; for i in $(seq 500); do [ -e /c/{other} ] && exit 0; sleep 0.02; done; exit 1"
        )
    };
    let text = format!(
        "FROM bb:1 AS one\n{}\nFROM bb:1 AS two\n{}\nFROM scratch\nCOPY --from=one /etc /1\nCOPY --from=two /etc /2\n",
        meet("a", "b"),
        meet("b", "a")
    );
    dockerfile(&place, &text, "-q --jobs 2").expect(0);
}
