//! A bundle's `config.json`, and what is worked out from it before the system is touched.

use runtime::{Process, Spec};
use std::path::Path;

pub fn check(data: &[u8]) {
    if let Ok(process) = Process::parse(data) {
        process_of(&process);
    }
    let spec = match Spec::parse(data) {
        Ok(spec) => spec,
        Err(fault) => {
            assert_eq!(fault.kind(), fault::Kind::Input, "{fault}");
            return;
        }
    };
    if let Ok(process) = spec.process() {
        process_of(process);
    }
    let _ = (spec.terminal(), spec.root_is_readonly(), spec.root_path(Path::new("/bundle")), spec.warnings());
    if let Some(resources) = &spec.linux.resources {
        // A group of no directories: everything is worked out, nothing is written.
        let cgroup = cgroup::Cgroup::open(&[]).expect("a group of no directories");
        let _ = cgroup.apply(resources);
    }
    if let Some(section) = &spec.linux.seccomp {
        super::seccomp::section(section.get());
    }
}

fn process_of(process: &Process) {
    assert!(process.args.first().is_some_and(|program| !program.is_empty()));
    assert!(process.cwd().is_absolute());
    assert!(process.args.iter().chain(&process.env).all(|text| !text.contains('\0')));
    let _ = (process.console_size(), process.warnings(true), process.warnings(false));
}
