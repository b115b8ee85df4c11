use super::*;

fn parse(json: &str) -> Result<Wishes> {
    Wishes::parse(&serde_json::from_str(json).unwrap())
}

#[test]
fn nothing_asked_for_is_the_defaults() {
    let wishes = parse("{}").unwrap();
    assert_eq!(wishes.network, NetworkMode::Bridge);
    assert_eq!(wishes.log, LogWish::default());
    assert!(wishes.memory.is_none() && wishes.pids.is_none() && wishes.mounts.is_empty());
}

#[test]
fn contradictions_and_nonsense_are_input_errors() {
    for json in [
        r#"{"hostname":"a","uts":"host"}"#,
        r#"{"hostname":"a","network":"container:x"}"#,
        r#"{"hostname":"-a"}"#,
        r#"{"hostname":"a..b"}"#,
        r#"{"ports":["80:80"],"network":"container:x"}"#,
        r#"{"rm":true,"restart":"always"}"#,
        r#"{"sysctls":{"net.core.somaxconn":"1"},"network":"host"}"#,
        r#"{"sysctls":{"kernel.shmmax":"1"},"ipc":"host"}"#,
        r#"{"sysctls":{"vm.overcommit_memory":"1"}}"#,
        r#"{"mounts":["/a:/x","/b:/x/."]}"#,
        r#"{"pids_limit":-2}"#,
        r#"{"stop_timeout":-2}"#,
        r#"{"cpuset_cpus":"3-1"}"#,
        r#"{"cpuset_cpus":"0,"}"#,
        r#"{"memory":"lots"}"#,
        r#"{"cpus":-1}"#,
        r#"{"env":["=x"]}"#,
        r#"{"cap_add":["FLY"]}"#,
        r#"{"stop_signal":"SIGNOTHING"}"#,
        r#"{"platform":"no/such/thing/at-all"}"#,
    ] {
        assert_eq!(parse(json).unwrap_err().kind(), Kind::Input, "{json}");
    }
}

#[test]
fn zero_means_unlimited() {
    let wishes = parse(r#"{"memory":0,"cpus":0,"pids_limit":0,"cpu_shares":0}"#).unwrap();
    assert!(
        wishes.memory.is_none()
            && wishes.nano_cpus.is_none()
            && wishes.pids.is_none()
            && wishes.cpu_shares.is_none()
    );
}

proptest::proptest! {
    /// No string, however odd, takes a parser down.
    #[test]
    fn no_string_panics(text in "\\PC{0,40}|[-/:=,.\\[\\]\"0-9a-z%]{0,40}") {
        let _ = (bytes(&text), signal(&text), device(&text), ulimit(&text), sysctl(&text), port::parse_port(&text));
        let _ = (mount::parse(&text), mount::parse_volume(&text), mount::parse_mount(&text), mount::parse_tmpfs(&text));
        let _ = mount::mount(&record::MountWish::Text(text.clone()));
        let _ = (env::env(&text), env::env_file(&text, "f"), cpu_list(&text), hostname(&text));
        let _ = (NetworkMode::parse(&text), IpcMode::parse(&text), RestartPolicy::parse(&text));
        let _ = Security::parse(std::slice::from_ref(&text));
        let _ = nano_cpus(&record::Quantity::Text(text.clone()));
        let files = crate::users::UserFiles { passwd: Some(text.clone()), group: Some(text.clone()) };
        let _ = crate::users::resolve(&text, std::slice::from_ref(&text), &files);
    }
}
