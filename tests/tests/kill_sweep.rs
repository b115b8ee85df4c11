//! Tools killed with SIGKILL at moments spread over their run. After each: the listing tools work, the same step succeeds
//! when repeated, and after the prune tools nothing of ours is left anywhere.
//!
//! `STAVES_SWEEP` sets the number of moments, 200 by default.

use pipelines::{Bench, Leftovers, Ran};
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// What is swept: a step that is killed, between a preparation and a repetition. All are shell scripts.
struct Sweep {
    /// Before each time; makes `$DIR/in`.
    prepare: &'static str,
    /// The tool that is killed, reading `$DIR/in`.
    tool: &'static str,
    /// Afterwards; must succeed, whatever the killed tool had done.
    repeat: &'static str,
}

/// Removes all containers, and the bridge and firewall table with the last of them.
const EMPTY: &str = "ctr-ls --all -q | xargs -r ctr-rm -f >/dev/null; net-prune >/dev/null";

#[test]
fn img_pull() {
    sweep(&Sweep {
        prepare: "rm -rf $STAVES_ROOT $STAVES_RUN",
        tool: "img-pull $R/busybox:1",
        repeat: "img-pull $R/busybox:1 | img-unpack | ctr-create -- true | ctr-start --attach",
    });
}

#[test]
fn img_unpack() {
    sweep(&Sweep {
        prepare: "rm -rf $STAVES_ROOT $STAVES_RUN; img-pull $R/layers:1 >$DIR/in",
        tool: "img-unpack",
        repeat: "img-unpack <$DIR/in | ctr-create -- true | ctr-start --attach",
    });
}

#[test]
fn img_pull_into_img_unpack() {
    sweep(&Sweep {
        prepare: "rm -rf $STAVES_ROOT $STAVES_RUN",
        // Both in the group that is killed; the layers are unpacked while they come.
        tool: "bash -c 'img-pull $R/layers:1 | img-unpack'",
        repeat: "img-pull $R/layers:1 | img-unpack | ctr-create -- true | ctr-start --attach",
    });
}

#[test]
fn img_load() {
    sweep(&Sweep {
        prepare: "rm -rf $STAVES_ROOT $STAVES_RUN; [ -e $DIR/a.tar ] || { img-pull $R/layers:1 | img-save -o $DIR/a.tar; \
            rm -rf $STAVES_ROOT $STAVES_RUN; }; ln -sf a.tar $DIR/in",
        tool: "img-load --name app:1",
        repeat: "img-load --name app:1 <$DIR/in | img-unpack | ctr-create -- true | ctr-start --attach",
    });
}

#[test]
fn img_copy_into_the_store() {
    sweep(&Sweep {
        prepare: "rm -rf $STAVES_ROOT $STAVES_RUN",
        tool: "img-copy docker://$R/layers:1 app:1",
        repeat: "img-copy docker://$R/layers:1 app:1 | img-unpack | ctr-create -- true | ctr-start --attach",
    });
}

#[test]
fn img_import() {
    sweep(&Sweep {
        prepare: "rm -rf $STAVES_ROOT $STAVES_RUN; [ -e $DIR/r.tar ] || tar -C /usr/share/misc -cf $DIR/r.tar .; ln -sf r.tar $DIR/in",
        tool: "img-import - app:1",
        repeat: "img-import - app:1 <$DIR/in | img-unpack",
    });
}

/// Two images that share what is below, one of them going; the other stays whole.
#[test]
fn img_rm() {
    sweep(&Sweep {
        prepare: "img-pull $R/busybox:1 $R/layers:1 | img-unpack >/dev/null",
        tool: "img-rm $R/layers:1",
        // What is gone already is not found, which is as good.
        repeat: "{ img-rm $R/layers:1 || [ $? = 4 ]; } && ctr-run --rm --network none $R/busybox:1 true",
    });
}

#[test]
fn img_prune() {
    sweep(&Sweep {
        prepare: "img-pull $R/busybox:1 $R/layers:1 | img-unpack >/dev/null; \
            img-pull $R/busybox:1 | img-unpack | ctr-create -- true | ctr-start --attach; mkdir -p $STAVES_ROOT/tmp/1-1-0/fs $STAVES_ROOT/partial; \
            head -c 100000 /dev/zero >$STAVES_ROOT/partial/sha256-$(printf '0%.0s' $(seq 64))",
        tool: "img-prune --all",
        repeat: "img-prune --all && ctr-run --rm --network none $R/busybox:1 true",
    });
}

#[test]
fn ctr_create() {
    sweep(&Sweep {
        prepare: "img-pull $R/busybox:1 | img-unpack >$DIR/in",
        tool: "ctr-create -- true",
        repeat: "ctr-create -- true <$DIR/in | net-attach | ctr-start --attach",
    });
}

#[test]
fn net_attach() {
    sweep(&Sweep {
        prepare: "img-pull $R/busybox:1 | img-unpack | ctr-create -- true >$DIR/in",
        tool: "net-attach -p 8080:80",
        repeat: "net-attach -p 8080:80 <$DIR/in | ctr-start --attach",
    });
}

#[test]
fn net_detach() {
    sweep(&Sweep {
        prepare: "net-create -q --ipv6 web; img-pull $R/busybox:1 | img-unpack | ctr-create --name one -- sleep 1000 \
            | net-attach --network web -p 8080:80 | ctr-start >$DIR/in",
        tool: "net-detach",
        // Nothing of it is in the way of another that asks for the same address, port and name.
        repeat: "net-detach -q <$DIR/in && [ -z \"$(ls $STAVES_ROOT/networks/web/leases)\" ] \
            && ctr-inspect one | net-attach --network web -p 8080:80 | net-detach | ctr-rm -f && net-rm web",
    });
}

/// Without a bridge: ways and neighbours of both families, and what a container is let do by itself.
#[test]
fn net_attach_without_a_bridge() {
    sweep(&Sweep {
        prepare: "net-create -q --driver routed --ipv6 --ignore apart; img-pull $R/busybox:1 | img-unpack | ctr-create -- true >$DIR/in",
        tool: "net-attach --network apart -p 8080:80",
        repeat: "net-attach --network apart -p 8080:80 <$DIR/in | ctr-start --attach && net-reload -q apart",
    });
}

#[test]
fn net_detach_without_a_bridge() {
    sweep(&Sweep {
        prepare: "net-create -q --driver routed --ipv6 --ignore apart; img-pull $R/busybox:1 | img-unpack | ctr-create --name one -- sleep 1000 \
            | net-attach --network apart -p 8080:80 | ctr-start >$DIR/in",
        tool: "net-detach",
        repeat: "net-detach -q <$DIR/in && [ -z \"$(ls $STAVES_ROOT/networks/apart/leases; ip -4 route | grep stv; ip -6 route | grep stv)\" ] \
            && ctr-inspect one | net-attach --network apart -p 8080:80 | net-detach | ctr-rm -f && net-rm apart",
    });
}

#[test]
fn net_create() {
    sweep(&Sweep {
        prepare: "rm -rf $STAVES_ROOT/networks; img-pull $R/busybox:1 | img-unpack >$DIR/in",
        tool: "net-create --ipv6 web",
        repeat: "net-create --ipv6 web && ctr-create -- true <$DIR/in | net-attach --network web | ctr-start --attach",
    });
}

#[test]
fn net_rm() {
    sweep(&Sweep {
        prepare: "net-create -q --ipv6 web; img-pull $R/busybox:1 | img-unpack | ctr-create -- sleep 1000 \
            | net-attach --network web -p 8080:80 | ctr-start >/dev/null",
        tool: "net-rm --force web",
        repeat: "net-rm --force web && [ ! -e $STAVES_ROOT/networks/web ]",
    });
}

#[test]
fn ctr_start() {
    sweep(&Sweep {
        prepare: "img-pull $R/busybox:1 | img-unpack | ctr-create -- true | net-attach -p 8080:80 >$DIR/in",
        tool: "ctr-start --attach",
        // Killed after the release, it may find the container running, or ending at that very moment.
        repeat: "for try in 1 2 3; do ctr-start --attach <$DIR/in && break; done",
    });
}

#[test]
fn ctr_rm() {
    sweep(&Sweep {
        prepare: "img-pull $R/busybox:1 | img-unpack | ctr-create -- sleep 1000 | net-attach -p 8080:80 | ctr-start >$DIR/in",
        tool: "ctr-rm -f",
        // What is gone already is not found, which is as good.
        repeat: "ctr-rm -f <$DIR/in || [ $? = 4 ]",
    });
}

#[test]
fn ctr_shim() {
    let Some((bench, mut leftovers, _turn)) = begin() else { return };
    let run = "ctr-run --rm -p 8080:80 $R/busybox:1 true";
    let usual = usual_time(&bench, || drop(bench.sh(run).expect(0)));
    for moment in 0..moments() {
        let mut child = spawn(&bench, run);
        std::thread::sleep(at(usual, moment));
        for shim in processes_named("ctr-shim") {
            kill(shim);
        }
        let _ = child.wait();
        judge(&bench, &mut leftovers, run, moment);
    }
}

/// The resolver, which outlives the tools that start it: killed while it starts, answers, reads leases that come and go, and ends, alone
/// or with the tools that are at work. Whoever comes by next starts it again.
#[test]
fn net_dns() {
    let Some((bench, mut leftovers, _turn)) = begin() else { return };
    let attach = "<$DIR/in | net-attach --network web | ctr-start -q";
    bench.sh("img-pull $R/busybox:1 | img-unpack >$DIR/in; net-create -q web").expect(0);
    let run = format!(
        "ctr-create --name one -- sleep 1000 {attach}; ctr-exec one nslookup -type=a one; \
         ctr-create --name two -- sleep 1000 {attach}; ctr-exec one nslookup -type=a two; ctr-rm -q -f two; ctr-rm -q -f one; \
         while [ -s $STAVES_RUN/networks/web/dns.lock ] && ! flock -n $STAVES_RUN/networks/web/dns.lock true; do sleep 0.01; done"
    );
    let usual = usual_time(&bench, || drop(bench.sh(&format!("set -e; {run}")).expect(0)));
    for moment in 0..moments() {
        leftovers.note_ids(&bench.place);
        let mut child = spawn(&bench, &run);
        std::thread::sleep(at(usual, moment));
        let resolvers = processes_named("net-dns");
        if moment % 2 == 1 {
            kill_group(child.id());
        }
        resolvers.iter().copied().for_each(kill);
        let _ = child.wait();
        // One that is being killed holds its lock still.
        pipelines::wait_until("the killed to be gone", || {
            !processes_named("net-dns").iter().any(|pid| resolvers.contains(pid))
        });
        // Of the container that is still there names are known again as soon as anybody has looked at the networks.
        let healed = "net-ls -q && for name in $(ctr-ls --output json | jq -r '.container | select(.status == \"running\") | .name'); do \
            ctr-exec $name nslookup -type=a $name || exit; done";
        let told = bench.sh(healed);
        assert_eq!(told.status, 0, "moment {moment}: {}{}", told.stdout, told.stderr);
        let again = format!(
            "set -e -o pipefail; ctr-ls --all -q | xargs -r ctr-rm -f >/dev/null; ctr-create --name three -- sleep 1000 {attach}; \
             ctr-exec three nslookup -type=a three; ctr-rm -q -f three; net-rm -q web; [ ! -e $STAVES_RUN/networks/web ]"
        );
        judge(&bench, &mut leftovers, &again, moment);
        bench.sh("img-pull $R/busybox:1 | img-unpack >$DIR/in; net-create -q web").expect(0);
    }
}

/// A build that does everything in one: stages side by side, many files, an archive, a cache of a command's, networks, names, files and
/// a cache put out. Killed alone, so that the processes that run its commands have to notice, and with them.
#[test]
fn img_build() {
    let Some((bench, mut leftovers, _turn)) = begin() else { return };
    bench.sh(PROJECT).expect(0);
    let prepare = format!(
        "{EMPTY}; rm -rf $STAVES_ROOT $STAVES_RUN $DIR/out $DIR/cache; img-pull $R/busybox:1 | img-unpack >/dev/null"
    );
    // What it makes when nobody disturbs it, and a store for which all of it is somebody else's.
    let note = format!(
        "set -e; {prepare}; cp -a $STAVES_ROOT $DIR/other; {BUILD} | jq -r .image.digest >$DIR/expected; {FILES} >$DIR/files"
    );
    bench.sh(&note).expect(0);
    let command = format!("exec {BUILD} >/dev/null");
    let usual = usual_time_after(&bench, &prepare, || drop(bench.sh(&command).expect(0)));
    // The same comes of it, nothing that was finished is done again, and the cache that was put out is a whole one.
    let again = format!(
        "set -e -o pipefail; mkdir -p $STAVES_ROOT/cache/build; finished=$(find $STAVES_ROOT/cache/build -type f | wc -l)
         {BUILD} 2>$DIR/said | jq -r .image.digest | cmp - $DIR/expected; {FILES} | cmp - $DIR/files
         [ $(grep -c ' CACHED$' $DIR/said || true) -ge $finished ] || {{ echo $finished were finished; cat $DIR/said; exit 1; }}
         STAVES_ROOT=$DIR/other img-build --print --build-arg R=$R --cache-from type=local,src=$DIR/cache $DIR/app >$DIR/print
         [ $(jq -s 'map(select(.cached)) | length' $DIR/print) = 10 ] || {{ cat $DIR/print; exit 1; }}
         [ $(ctr-run --rm --network none app:1 cat /w/one) = one ]"
    );
    for moment in 0..moments() {
        bench.sh(&prepare).expect(0);
        leftovers.note_ids(&bench.place);
        let mut child = spawn(&bench, &command);
        std::thread::sleep(at(usual, moment));
        // Containers of builds are in no list.
        leftovers.note_runners();
        if moment % 2 == 0 {
            kill(child.id());
        } else {
            processes_named("img-build").into_iter().for_each(kill);
        }
        let _ = child.wait();
        judge(&bench, &mut leftovers, &again, moment);
    }
}

const PROJECT: &str = "set -e; mkdir -p $DIR/app/src $DIR/tar; for i in $(seq 500); do echo $i >$DIR/app/src/$i; echo $i >$DIR/tar/$i; done
    tar -C $DIR/tar -czf $DIR/app/files.tar.gz .
    cat >$DIR/app/Dockerfile <<'END'
ARG R
FROM $R/busybox:1 AS one
RUN --mount=type=cache,target=/cache for i in $(seq 50); do echo $i >/cache/$i; done; echo one >/one
RUN echo more >/more; sleep 0.05
FROM $R/busybox:1 AS two
ADD files.tar.gz /added/
RUN ls /added | wc -l >/two
FROM $R/busybox:1
COPY src /src
COPY --from=one /one /more /
COPY --from=two /two /added /two/
WORKDIR /w
RUN cat /src/* | md5sum >sum; sleep 0.05
RUN --mount=from=one,target=/mnt cat /mnt/one >one
END";

const BUILD: &str = "img-build --build-arg R=$R -t app:1 --load --output type=local,dest=$DIR/out \
    --cache-to type=local,dest=$DIR/cache,mode=max $DIR/app";

const FILES: &str = "(cd $DIR/out && find . -type f -print0 | sort -z | xargs -0 md5sum)";

fn sweep(sweep: &Sweep) {
    let Some((bench, mut leftovers, _turn)) = begin() else { return };
    let command = format!("exec {} <$DIR/in >/dev/null", sweep.tool);
    bench.sh("touch $DIR/in").expect(0);
    let prepare = format!("{EMPTY}; {}", sweep.prepare);
    let usual = usual_time_after(&bench, &prepare, || drop(bench.sh(&command).expect(0)));
    for moment in 0..moments() {
        bench.sh(&prepare).expect(0);
        leftovers.note_ids(&bench.place);
        let mut child = spawn(&bench, &command);
        std::thread::sleep(at(usual, moment));
        kill_group(child.id());
        let _ = child.wait();
        judge(&bench, &mut leftovers, sweep.repeat, moment);
    }
}

/// Processes are recognised as descendants of this one, so tests that share it take turns (nextest gives each its own).
static TURN: Mutex<()> = Mutex::new(());

fn begin() -> Option<(Bench, Leftovers, MutexGuard<'static, ()>)> {
    let turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let bench = Bench::new()?;
    // Once without a kill, so that what is found later is not what even a good end leaves.
    bench.sh("ctr-run --rm -p 8080:80 $R/busybox:1 true").expect(0);
    bench.sh(EMPTY).expect(0);
    Some((bench, Leftovers::new(), turn))
}

/// Every image that is listed is whole: its blobs are what their names say, it can be inspected and, in a directory of its own,
/// unpacked. No layer is taken for complete that was not.
const WHOLE: &str = "set -e; img-ls | while read -r record; do
        digest=$(jq -r .image.digest <<<\"$record\"); img-inspect $digest >/dev/null
        for blob in $digest $(jq -r '.image.id, .image.layers[].digest' <<<\"$record\"); do
            file=$STAVES_ROOT/blobs/${blob/://}; [ $(sha256sum <$file | cut -c1-64) = ${blob#*:} ] || { echo $blob is damaged; exit 1; }
        done
        rm -rf $DIR/whole; img-unpack --to $DIR/whole $digest >/dev/null
    done; rm -rf $DIR/whole
    for file in $(find $STAVES_ROOT/blobs/sha256 -type f 2>/dev/null); do
        [ $(sha256sum <$file | cut -c1-64) = ${file##*/} ] || { echo $file is damaged; exit 1; }
    done
    for layer in $STAVES_ROOT/layers/*; do [ ! -e $layer ] || [ -d $layer/fs -a -s $layer/layer.json ] || { echo $layer is half; exit 1; }; done";

/// The promises.
#[track_caller]
fn judge(bench: &Bench, leftovers: &mut Leftovers, repeat: &str, moment: u32) {
    leftovers.note_ids(&bench.place);
    let told = |ran: &Ran, what: &str| {
        assert_eq!(ran.status, 0, "moment {moment}: {what}: {}{}", ran.stdout, ran.stderr);
    };
    told(&bench.sh("ctr-ls --all && img-ls && net-ls && sys-df"), "listing");
    told(&bench.sh(WHOLE), "what is listed");
    told(&bench.sh(repeat), "the same again");
    leftovers.note_ids(&bench.place);
    told(&bench.sh("ctr-ls -q | xargs -r ctr-stop -t 0 >/dev/null"), "stopping");
    told(
        &bench.sh("ctr-prune -f --created >/dev/null && net-prune >/dev/null && img-prune >/dev/null"),
        "pruning",
    );
    // Processes that were told to end may take a moment.
    let give_up = Instant::now() + Duration::from_mins(1);
    loop {
        let found = leftovers.find(&bench.place);
        if found.is_empty() {
            return;
        }
        assert!(Instant::now() < give_up, "moment {moment}: left behind:\n{}", found.join("\n"));
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn moments() -> u32 {
    std::env::var("STAVES_SWEEP").ok().and_then(|number| number.parse().ok()).unwrap_or(200)
}

/// Moments reach a little past the usual end.
fn at(usual: Duration, moment: u32) -> Duration {
    usual.mul_f64(1.1) * moment / moments().max(1)
}

fn usual_time(bench: &Bench, act: impl Fn()) -> Duration {
    usual_time_after(bench, "true", act)
}

/// Median of a few runs.
fn usual_time_after(bench: &Bench, prepare: &str, act: impl Fn()) -> Duration {
    let mut times: Vec<Duration> = (0..5)
        .map(|_| {
            bench.sh(prepare).expect(0);
            let start = Instant::now();
            act();
            start.elapsed()
        })
        .collect();
    times.sort();
    times[2]
}

fn spawn(bench: &Bench, script: &str) -> Child {
    let mut command = bench.place.command("bash");
    // A group of its own, so that several tools of one pipeline can be killed at once.
    command.args(["-c", script]).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    command.spawn().expect("run bash")
}

/// The process with every other of its group; what has left it (shims, the process that settles blobs) stays.
fn kill_group(leader: u32) {
    let group = nix::unistd::Pid::from_raw(leader.cast_signed());
    let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
}

fn kill(pid: u32) {
    // It may have ended by itself.
    let _ = nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid.cast_signed()),
        nix::sys::signal::Signal::SIGKILL,
    );
}

/// Descendants of this test with that name.
fn processes_named(name: &str) -> Vec<u32> {
    pipelines::descendants()
        .into_iter()
        .filter(|(_, n)| n == name)
        .map(|(pid, _)| pid.cast_unsigned())
        .collect()
}
