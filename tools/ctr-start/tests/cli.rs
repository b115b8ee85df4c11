//! What runs again after a reboot.

use testkit::busybox;

#[test]
fn policies_are_heeded_after_a_reboot() {
    let Some(place) = busybox() else { return };
    place
        .sh(r#"run() { ctr-run -d --network none "$@" >/dev/null; }
            run --name always --restart always busybox:1 sleep 1000
            run --name unless --restart unless-stopped busybox:1 sleep 1000
            run --name user --restart unless-stopped busybox:1 sleep 1000
            run --name plain busybox:1 sleep 1000
            run --name cut --restart on-failure busybox:1 sleep 1000
            run --name polite --restart on-failure busybox:1 sh -c 'trap "exit 0" TERM; echo ready; while :; do sleep 0.1; done'
            img-pull --policy missing busybox:1 | img-unpack | ctr-create --name never --restart always -- true >/dev/null
            ctr-stop -q -t 0 user >/dev/null
            # Shut down in order, as systemd does.
            id=$(ctr-inspect polite | jq -r .container.id)
            until ctr-logs polite | grep -q ready; do sleep 0.05; done; kill $(jq .shim_pid $STAVES_RUN/containers/$id/state.json)
            ctr-wait polite >/dev/null || exit 9
            # The power goes, and nothing runs on.
            pids=$(jq -s '.[] | .shim_pid, .pid' $STAVES_RUN/containers/*/state.json)
            kill -9 $(jq .shim_pid $STAVES_RUN/containers/*/state.json)
            for pid in $pids; do while [ "$(awk '$1 == "State:" && $2 != "Z"' /proc/$pid/status 2>/dev/null)" ]; do sleep 0.02; done; done
            rm -r $STAVES_RUN"#)
        .expect(0);
    let steps = place
        .sh("ctr-start --all-restartable --dry-run | jq -r 'select(.step == \"execute\").container' | wc -l")
        .expect(0);
    assert_eq!(steps.stdout.trim(), "4");
    let started = place.sh("ctr-start --all-restartable --output table").expect(0).stdout;
    assert_eq!(started.lines().collect::<Vec<_>>(), ["always", "unless", "cut", "polite"]);
    assert_eq!(place.sh("ctr-start --all-restartable").expect(0).stdout, "");
    let running = place.sh("ctr-ls | jq -r .container.name | sort | tr '\\n' ' '").expect(0).stdout;
    assert_eq!(running, "always cut polite unless ");
    place.sh("ctr-start --all-restartable web").expect(2);
}

#[test]
fn a_service_manager_is_told_when_the_container_runs() {
    let Some(place) = busybox() else { return };
    let path = place.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_mins(1))).unwrap();
    let script = |flags: &str| {
        let make = "img-pull --policy never busybox:1 | img-unpack | ctr-create --rm --network none --";
        format!("export NOTIFY_SOCKET={}; {make} env | ctr-start {flags}", path.display())
    };
    let ran = place.sh(&script("--attach --sdnotify")).expect(0);
    assert!(!ran.stdout.contains("NOTIFY_SOCKET"), "{}", ran.stdout);
    let mut message = [0; 64];
    let length = socket.recv(&mut message).unwrap();
    assert_eq!(&message[..length], b"READY=1");
    place.sh(&script("--attach")).expect(0);
    socket.set_nonblocking(true).unwrap();
    assert!(socket.recv(&mut message).is_err());
    place.sh(&script("--sdnotify")).expect(2);
}
