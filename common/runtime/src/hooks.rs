//! Programs the specification wants run at points of a container's life (config.md, "POSIX-platform Hooks").

use crate::spec::null_is_default;
use crate::state::State;
use fault::{Explain, Fault, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, OFlags, SeekFrom, fcntl_setfl, memfd_create, seek};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How much of what a hook prints is kept for the error, in bytes: the end of it.
const MAX_OUTPUT_BYTES: usize = 8 << 10;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hooks {
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub prestart: Vec<Hook>,
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub create_runtime: Vec<Hook>,
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub create_container: Vec<Hook>,
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub start_container: Vec<Hook>,
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub poststart: Vec<Hook>,
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub poststop: Vec<Hook>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hook {
    pub path: String,
    /// The first is the program's name as it sees it.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Absent is not empty: see [`Place::environment`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<Vec<String>>,
    /// Seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
}

/// When hooks run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    Prestart,
    CreateRuntime,
    CreateContainer,
    StartContainer,
    Poststart,
    Poststop,
}

impl Point {
    pub const ALL: [Point; 6] = [
        Point::Prestart,
        Point::CreateRuntime,
        Point::CreateContainer,
        Point::StartContainer,
        Point::Poststart,
        Point::Poststop,
    ];

    /// The member of `hooks`.
    pub const fn name(self) -> &'static str {
        match self {
            Point::Prestart => "prestart",
            Point::CreateRuntime => "createRuntime",
            Point::CreateContainer => "createContainer",
            Point::StartContainer => "startContainer",
            Point::Poststart => "poststart",
            Point::Poststop => "poststop",
        }
    }
}

/// What surrounds a hook, where the specification is silent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place<'a> {
    /// Working directory, if it is there: runc's is the bundle outside the container, and its root in it before it is the root. `None` is the caller's.
    pub directory: Option<&'a Path>,
    /// For hooks that name none; `None` is the caller's. runc gives `startContainer` hooks the container's.
    pub environment: Option<&'a [String]>,
}

impl Hooks {
    pub fn at(&self, point: Point) -> &[Hook] {
        match point {
            Point::Prestart => &self.prestart,
            Point::CreateRuntime => &self.create_runtime,
            Point::CreateContainer => &self.create_container,
            Point::StartContainer => &self.start_container,
            Point::Poststart => &self.poststart,
            Point::Poststop => &self.poststop,
        }
    }

    pub fn is_empty(&self) -> bool {
        Point::ALL.iter().all(|point| self.at(*point).is_empty())
    }

    pub(crate) fn check(&self) -> Result<()> {
        for point in Point::ALL {
            for (index, hook) in self.at(point).iter().enumerate() {
                hook.check().map_err(|(member, what)| {
                    Fault::input(format!("hooks.{}[{index}].{member}: {what}", point.name()))
                })?;
            }
        }
        Ok(())
    }
}

impl Hook {
    fn check(&self) -> Result<(), (&'static str, String)> {
        if !self.path.starts_with('/') {
            return Err(("path", format!("{:?} is not absolute", self.path)));
        }
        if let Some(timeout) = self.timeout.filter(|timeout| *timeout <= 0) {
            return Err(("timeout", format!("{timeout} is not greater than zero")));
        }
        if let Some(pair) = self.env.iter().flatten().find(|pair| pair.find('=').is_none_or(|at| at == 0)) {
            return Err(("env", format!("{pair:?} is not NAME=VALUE")));
        }
        let strings = std::iter::once(&self.path).chain(&self.args).chain(self.env.iter().flatten());
        if let Some(text) = strings.into_iter().find(|text| text.contains('\0')) {
            return Err(("path, args, env", format!("{text:?} holds a NUL byte")));
        }
        Ok(())
    }
}

/// Runs the hooks of a point in their order, the container's state on their stdin; the first that fails ends it.
pub fn run(hooks: &Hooks, point: Point, state: &State, place: Place<'_>) -> Result<()> {
    match run_each(hooks.at(point), point, state, place, true).pop() {
        None => Ok(()),
        Some(fault) => Err(fault),
    }
}

/// The same, going on after failures: what becomes warnings (`poststop`).
pub fn run_all(hooks: &Hooks, point: Point, state: &State, place: Place<'_>) -> Vec<Fault> {
    run_each(hooks.at(point), point, state, place, false)
}

fn run_each(list: &[Hook], point: Point, state: &State, place: Place<'_>, stop: bool) -> Vec<Fault> {
    let mut faults = Vec::new();
    if list.is_empty() {
        return faults;
    }
    let json = match serde_json::to_vec(state) {
        Ok(json) => json,
        Err(error) => return vec![Fault::failed("write the container's state").because(error)],
    };
    for (index, hook) in list.iter().enumerate() {
        if let Err(fault) = run_one(hook, &json, place) {
            // Callers of runtimes know this by runc's words.
            faults.push(fault.within(format!("error running {} hook #{index}: {}", point.name(), hook.path)));
            if stop {
                break;
            }
        }
    }
    faults
}

fn run_one(hook: &Hook, json: &[u8], place: Place<'_>) -> Result<()> {
    let [(out, out_end), (err, err_end)] = [pipe()?, pipe()?];
    let mut command = Command::new(&hook.path);
    if let Some((name, arguments)) = hook.args.split_first() {
        command.arg0(name).args(arguments);
    }
    if let Some(environment) = hook.env.as_deref().or(place.environment) {
        command.env_clear().envs(environment.iter().filter_map(|pair| pair.split_once('=')));
    }
    if let Some(directory) = place.directory.filter(|directory| directory.is_dir()) {
        command.current_dir(directory);
    }
    // In a group of its own, so that what it started ends with it when its time is up.
    command.process_group(0).stdin(input(json)?).stdout(out_end).stderr(err_end);
    let mut child = sys::process::spawn_with_default_signals(&mut command).explain(|| "start it".into())?;
    // The command holds our copies of the hook's ends, which would keep the pipes open.
    drop(command);
    let deadline = hook.timeout.and_then(|seconds| {
        Instant::now().checked_add(Duration::from_secs(u64::try_from(seconds).unwrap_or(u64::MAX)))
    });
    let mut outputs = [Output::new(out), Output::new(err)];
    wait(&mut child, deadline, hook.timeout, &mut outputs)
}

/// The state as a file, which takes any length at once and needs no reader.
fn input(json: &[u8]) -> Result<Stdio> {
    let file = memfd_create("state", MemfdFlags::CLOEXEC).explain(|| "make a file for the state".into())?;
    let mut rest = json;
    while !rest.is_empty() {
        let written = rustix::io::write(&file, rest).explain(|| "write the container's state".into())?;
        rest = &rest[written..];
    }
    seek(&file, SeekFrom::Start(0)).explain(|| "write the container's state".into())?;
    Ok(file.into())
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).explain(|| "make a pipe".into())?;
    fcntl_setfl(&read, OFlags::NONBLOCK).explain(|| "set up a pipe".into())?;
    Ok((read, write))
}

/// The end of what a hook prints.
struct Output {
    /// `None` once it is closed.
    pipe: Option<OwnedFd>,
    text: Vec<u8>,
}

impl Output {
    fn new(pipe: OwnedFd) -> Output {
        Output { pipe: Some(pipe), text: Vec::new() }
    }

    /// Takes what there is.
    fn read(&mut self) {
        let mut buffer = [0; 4096];
        while let Some(pipe) = &self.pipe {
            match rustix::io::read(pipe, &mut buffer) {
                Ok(0) => self.pipe = None,
                Ok(length) => {
                    self.text.extend_from_slice(&buffer[..length]);
                    let excess = self.text.len().saturating_sub(MAX_OUTPUT_BYTES);
                    self.text.drain(..excess);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => self.pipe = None,
            }
        }
    }
}

/// Waits for the hook's own process; what it left running may go on holding the pipes.
fn wait(
    child: &mut Child,
    deadline: Option<Instant>,
    timeout: Option<i64>,
    outputs: &mut [Output; 2],
) -> Result<()> {
    let pid = Pid::from_child(child);
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).explain(|| "watch it".into());
    let ended = pidfd.and_then(|pidfd| watch(&pidfd, deadline, outputs));
    if !matches!(ended, Ok(true)) {
        let _ = kill_process_group(pid, Signal::KILL);
    }
    let status = child.wait().explain(|| "wait for it".into())?;
    if !ended? {
        let seconds = timeout.unwrap_or_default();
        return Err(Fault::new(
            fault::Kind::Retryable,
            format!("hook ran past specified timeout of {seconds}.0s"),
        ));
    }
    if status.success() {
        return Ok(());
    }
    for output in outputs.iter_mut() {
        output.read();
    }
    let [out, err] = outputs.each_ref().map(|output| String::from_utf8_lossy(&output.text).trim().to_owned());
    Err(Fault::failed(format!("{}, stdout: {out}, stderr: {err}", in_words(status))))
}

/// As runc says it, whose words engines know: `exit status 1`, `signal: bad system call (SIGSYS)`.
fn in_words(status: ExitStatus) -> String {
    let text = status.to_string();
    let Some(signal) = status.signal() else { return text.replacen(": ", " ", 1) };
    let words = match signal {
        libc::SIGHUP => "hangup",
        libc::SIGINT => "interrupt",
        libc::SIGILL => "illegal instruction",
        libc::SIGTRAP => "trace/breakpoint trap",
        libc::SIGABRT => "aborted",
        libc::SIGBUS => "bus error",
        libc::SIGFPE => "floating point exception",
        libc::SIGKILL => "killed",
        libc::SIGSEGV => "segmentation fault",
        libc::SIGPIPE => "broken pipe",
        libc::SIGALRM => "alarm clock",
        libc::SIGTERM => "terminated",
        libc::SIGXCPU => "CPU time limit exceeded",
        libc::SIGXFSZ => "file size limit exceeded",
        libc::SIGSYS => "bad system call",
        _ => return text,
    };
    text.replacen(&signal.to_string(), words, 1)
}

/// Reads the outputs until the process has ended; false when its time is up first.
fn watch(pidfd: &OwnedFd, deadline: Option<Instant>, outputs: &mut [Output; 2]) -> Result<bool> {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(false);
        }
        let left = left.map(|left| Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        let mut watched = vec![PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
        for pipe in outputs.iter().filter_map(|output| output.pipe.as_ref()) {
            watched.push(PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN));
        }
        match poll(&mut watched, left.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(std::io::Error::from(error)).explain(|| "watch it".into()),
        }
        let ended = !watched[0].revents().is_empty();
        drop(watched);
        for output in outputs.iter_mut() {
            output.read();
        }
        if ended {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Status;
    use std::collections::BTreeMap;

    fn state() -> State {
        State {
            oci_version: "1.3.0".into(),
            id: "c1".into(),
            status: Status::Creating,
            pid: Some(7),
            bundle: "/b".into(),
            annotations: BTreeMap::new(),
        }
    }

    fn hooks(json: &serde_json::Value) -> Hooks {
        serde_json::from_value(json.clone()).unwrap()
    }

    fn shell(script: &str) -> serde_json::Value {
        serde_json::json!({"path": "/bin/sh", "args": ["hook", "-c", script]})
    }

    #[test]
    fn what_a_hook_died_of_is_said_in_words() {
        for (script, words) in [
            ("exit 3", "exit status 3, stdout: , stderr: "),
            ("kill -SYS $$", "signal: bad system call (SIGSYS)"),
            ("kill -KILL $$", "signal: killed (SIGKILL), stdout: "),
            ("kill -USR1 $$", "signal: 10 (SIGUSR1), stdout: "),
        ] {
            let place = Place::default();
            let fault =
                run_at(Point::StartContainer, &serde_json::json!([shell(script)]), place).unwrap_err();
            assert!(fault.to_string().contains(words), "{fault}");
        }
    }

    fn run_at(point: Point, list: &serde_json::Value, place: Place<'_>) -> Result<()> {
        let hooks = hooks(&serde_json::json!({ point.name(): list }));
        hooks.check()?;
        run(&hooks, point, &state(), place)
    }

    #[test]
    fn a_hook_gets_the_state_its_arguments_and_its_directory() {
        let dir = std::env::temp_dir().join(format!("runtime-hooks-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let mut hook = shell("cat >state; pwd >where; env >environment; echo \"$0 $1\" >name");
        hook["args"].as_array_mut().unwrap().extend(["zero".into(), "one".into()]);
        hook["env"] = serde_json::json!(["A=b=c", "E="]);
        let place = Place { directory: Some(&dir), environment: Some(&["NO=no".to_owned()]) };
        run_at(Point::Prestart, &serde_json::json!([hook]), place).unwrap();
        let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
        assert_eq!(serde_json::from_str::<State>(&read("state")).unwrap(), state());
        assert_eq!(Path::new(read("where").trim()), dir);
        assert_eq!(read("name"), "zero one\n");
        let environment = read("environment");
        assert!(environment.contains("A=b=c\n") && environment.contains("E=\n"), "{environment}");
        assert!(!environment.contains("NO=no") && !environment.contains("PATH="), "{environment}");
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_hook_without_environment_gets_the_places() {
        let test = shell("test \"$FOO\" = bar");
        let environment = ["FOO=bar".to_owned()];
        let place = Place { environment: Some(&environment), ..Place::default() };
        run_at(Point::StartContainer, &serde_json::json!([test]), place).unwrap();
        let mut none = test;
        none["env"] = serde_json::json!([]);
        run_at(Point::StartContainer, &serde_json::json!([none]), place).unwrap_err();
    }

    #[test]
    fn the_first_failure_ends_it_and_is_told() {
        let mark = std::env::temp_dir().join(format!("runtime-hooks-mark-{}", std::process::id()));
        let touch = shell(&format!("touch {}", mark.display()));
        let failing = shell("echo said; echo wrong >&2; exit 3");
        let list = serde_json::json!([shell("true"), failing, touch]);
        let fault = run_at(Point::CreateRuntime, &list, Place::default()).unwrap_err().to_string();
        let wanted =
            "error running createRuntime hook #1: /bin/sh: exit status 3, stdout: said, stderr: wrong";
        assert_eq!(fault, wanted);
        assert!(!mark.exists());
        let after = hooks(&serde_json::json!({ "poststop": list }));
        assert_eq!(run_all(&after, Point::Poststop, &state(), Place::default()).len(), 1);
        std::fs::remove_file(mark).unwrap();
        let missing = serde_json::json!([{"path": "/nonexistent/hook"}]);
        let fault = run_at(Point::Prestart, &missing, Place::default()).unwrap_err();
        assert_eq!(fault.os_error(), Some(libc::ENOENT), "{fault}");
    }

    #[test]
    fn time_is_limited_for_all_it_started() {
        let file = std::env::temp_dir().join(format!("runtime-hooks-pid-{}", std::process::id()));
        let mut hook = shell(&format!("sleep 1000 & echo $! >{}; wait", file.display()));
        hook["timeout"] = 1.into();
        let began = Instant::now();
        let fault = run_at(Point::Poststart, &serde_json::json!([hook]), Place::default()).unwrap_err();
        assert!(fault.to_string().contains("hook ran past specified timeout of 1.0s"), "{fault}");
        assert!(began.elapsed() < Duration::from_mins(1));
        let pid: i32 = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        let mut gone = false;
        for _ in 0..1000 {
            // Reparented and killed, it may be a zombie for a moment, or for good where nobody reaps.
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            gone = stat.is_empty() || stat.contains(") Z ");
            if gone {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(gone);
        std::fs::remove_file(file).unwrap();
    }

    #[test]
    fn much_is_read_and_written_and_nobody_left_behind_is_waited_for() {
        let mut state = state();
        state.annotations.insert("long".into(), "x".repeat(1 << 20));
        // Does not read its stdin, prints more than a pipe holds, and leaves a process with its stdout.
        let script = "head -c 1000000 /dev/zero | tr '\\0' y; sleep 5 & exit 1";
        let list = hooks(&serde_json::json!({"prestart": [shell(script)]}));
        let began = Instant::now();
        let fault = run(&list, Point::Prestart, &state, Place::default()).unwrap_err().to_string();
        assert!(began.elapsed() < Duration::from_secs(4));
        assert!(fault.len() < MAX_OUTPUT_BYTES + 200 && fault.contains("yyyy"));
    }

    #[test]
    fn malformed_hooks_are_refused_by_name() {
        for (hook, member) in [
            (serde_json::json!({"path": "bin/true"}), "hooks.poststop[0].path"),
            (serde_json::json!({"path": "/bin/true", "timeout": 0}), "hooks.poststop[0].timeout"),
            (serde_json::json!({"path": "/bin/true", "env": ["A"]}), "hooks.poststop[0].env"),
            (serde_json::json!({"path": "/bin/true", "args": ["a\u{0}b"]}), "hooks.poststop[0].path, args"),
        ] {
            let fault = hooks(&serde_json::json!({ "poststop": [hook] })).check().unwrap_err().to_string();
            assert!(fault.starts_with(member), "{fault}");
        }
    }
}
