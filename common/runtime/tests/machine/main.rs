//! What the runtime does to a process: its own settings, and the namespaces it makes. Namespaces are entered and processes made
//! in processes of one thread only, and the standard harness runs tests in threads; so this has a small one of its own, which
//! gives each test a process.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod dev;
mod mounts;
mod namespaces;
mod owners;
mod process;
mod world;

use runtime::hooks::Hooks;
use runtime::process::Command;
use runtime::{Linux, Process, State};
use serde::Deserialize;
use std::process::ExitCode;

/// What a test prints that could not run.
const SKIPPED: &str = "SKIPPED: ";

type Test = (&'static str, fn());

fn main() -> ExitCode {
    if let Ok(json) = std::env::var(CHILD) {
        return become_command(&json);
    }
    let tests: Vec<Test> =
        [process::TESTS, namespaces::TESTS, mounts::TESTS, owners::TESTS, dev::TESTS].concat();
    let mut filters = Vec::new();
    let (mut list, mut ignored, mut exact) = (false, false, false);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--list" => list = true,
            "--ignored" => ignored = true,
            "--exact" => exact = true,
            "--format" | "--test-threads" | "--skip" | "--color" => drop(arguments.next()),
            option if option.starts_with('-') => {}
            filter => filters.push(filter.to_owned()),
        }
    }
    let chosen: Vec<Test> = tests
        .into_iter()
        .filter(|(name, _)| {
            let matches =
                |filter: &String| if exact { filter == name } else { name.contains(filter.as_str()) };
            !ignored && (filters.is_empty() || filters.iter().any(matches))
        })
        .collect();
    if list {
        for (name, _) in &chosen {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    if let ([(_, test)], true) = (chosen.as_slice(), exact) {
        test();
        return ExitCode::SUCCESS;
    }
    let own = std::env::current_exe().expect("the own executable");
    let mut failed = 0;
    println!("\nrunning {} tests", chosen.len());
    for (name, _) in &chosen {
        let status = std::process::Command::new(&own).args([name, "--exact"]).status().expect("run a test");
        println!("test {name} ... {}", if status.success() { "ok" } else { "FAILED" });
        failed += usize::from(!status.success());
    }
    let result = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {result}. {} passed; {failed} failed; 0 ignored", chosen.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether the test can be run; says so if not.
fn root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("{SKIPPED}needs root");
    }
    root
}

/// In the environment of a process that is to become a command: what to do, as JSON.
const CHILD: &str = "RUNTIME_TEST_CHILD";

#[derive(Default, Deserialize)]
#[serde(default)]
struct Wish {
    process: Process,
    linux: Linux,
    hooks: Hooks,
    state: Option<State>,
    home: bool,
    preserve: u32,
    affinity: bool,
    first: bool,
    limited: bool,
    /// Wants the signal KILL when its parent ends.
    dies_with_parent: bool,
}

fn become_command(json: &str) -> ExitCode {
    let wish: Wish = serde_json::from_str(json).expect("a wish");
    let failure = match command(&wish) {
        Ok(command) => command.execute(&[]),
        Err(fault) => fault.into(),
    };
    eprintln!("{}", failure.fault);
    ExitCode::from(failure.exit_code.unwrap_or(125) as u8)
}

fn command(wish: &Wish) -> fault::Result<Command> {
    if wish.dies_with_parent {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
            .expect("a signal");
    }
    let mut command = Command::new(&wish.process, None)?.in_container(&wish.linux)?.preserving(wish.preserve);
    if wish.home {
        command = command.with_home()?;
    }
    if wish.limited {
        runtime::process::Limits::of(&wish.process).set(std::process::id() as i32)?;
        command = command.limited_from_outside();
    }
    if wish.affinity {
        command.enter_initial_affinity()?;
        command.enter_final_affinity(wish.first)?;
    }
    if let Some(state) = &wish.state {
        command = command.with_start_hooks(&wish.hooks, state.clone());
    }
    Ok(command)
}
