//! What is known before the first `FROM`, and to whom.

use super::environment::Environment;
use super::{Globals, Request};
use crate::shell::{Lex, Variables, Work};
use crate::{Dockerfile, Instruction, Problem, limits, suggest};
use oci::Platform;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

/// What `ARG`s bring into scope without a value of their own.
pub(crate) const PLATFORM_ARGS: [&str; 11] = [
    "BUILDPLATFORM",
    "BUILDOS",
    "BUILDOSVERSION",
    "BUILDARCH",
    "BUILDVARIANT",
    "TARGETPLATFORM",
    "TARGETOS",
    "TARGETOSVERSION",
    "TARGETARCH",
    "TARGETVARIANT",
    "TARGETSTAGE",
];

/// Build arguments that need no `ARG`: they are in every `RUN`'s environment, and in no key and no history.
const PROXIES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

const EPOCH: &str = "SOURCE_DATE_EPOCH";

pub(super) fn globals(dockerfile: &Dockerfile, request: &Request, target: &str) -> Result<Globals, Problem> {
    Ok(Globals {
        escape: dockerfile.escape,
        args: global_args(dockerfile, request, target, &request.build_args)?,
        build_args: request.build_args.clone(),
        proxies: proxies(&request.build_args),
        work: Arc::new(AtomicUsize::new(limits::PATTERN_WORK)),
    })
}

/// The platforms' arguments and the `ARG`s before the first `FROM`. An `ARG` without value declares and sets nothing.
pub(crate) fn global_args(
    dockerfile: &Dockerfile,
    request: &Request,
    target: &str,
    build_args: &BTreeMap<String, String>,
) -> Result<Environment, Problem> {
    let mut args = Environment::default();
    for (name, value) in platform_args(&request.build_platform, &request.platform, target) {
        args.set(name, request.build_args.get(name).cloned().unwrap_or(value))?;
    }
    let lex = Lex::new(dockerfile.escape);
    let mut work = Work(limits::PATTERN_WORK);
    for located in &dockerfile.global_args {
        let locate = |problem: Problem| problem.at(located.lines).of(&located.text);
        for arg in &located.value {
            let value = match (build_args.get(&arg.name), &arg.default) {
                (Some(value), _) => value.clone(),
                (None, Some(default)) => lex.word_within(default, &args, &mut work).map_err(locate)?.text,
                (None, None) => continue,
            };
            args.set(&arg.name, value).map_err(locate)?;
        }
    }
    Ok(args)
}

fn platform_args(build: &Platform, target: &Platform, stage: &str) -> Vec<(&'static str, String)> {
    let of = |platform: &Platform| {
        [
            platform.to_string(),
            platform.os.clone(),
            platform.os_version.clone().unwrap_or_default(),
            platform.architecture.clone(),
            platform.variant.clone().unwrap_or_default(),
        ]
    };
    let values = of(build).into_iter().chain(of(target)).chain([stage.to_owned()]);
    PLATFORM_ARGS.into_iter().zip(values).collect()
}

/// In both spellings, because programs read one or the other.
fn proxies(build_args: &BTreeMap<String, String>) -> Vec<String> {
    let mut proxies = Vec::new();
    for name in PROXIES {
        let mut given = build_args.iter().filter(|(given, _)| given.eq_ignore_ascii_case(name));
        if let Some((_, value)) = given.next_back().filter(|(_, value)| !value.is_empty()) {
            proxies.push(format!("{name}={value}"));
            proxies.push(format!("{}={value}", name.to_ascii_lowercase()));
        }
    }
    proxies
}

pub(super) fn source_date_epoch(globals: &Globals) -> Option<String> {
    let of_args = || globals.args.value(EPOCH).filter(|value| !value.is_empty());
    globals.build_args.get(EPOCH).map(String::as_str).or_else(of_args).map(str::to_owned)
}

/// Build arguments that nothing declares, and those that mean nothing here.
pub(super) fn warnings<'a>(
    dockerfile: &'a Dockerfile,
    request: &Request,
    triggers: impl Iterator<Item = &'a Instruction>,
) -> Vec<String> {
    let instructions = dockerfile.stages.iter().flat_map(|stage| &stage.instructions);
    let of_stages = instructions.map(|located| &located.value).chain(triggers).filter_map(|i| match i {
        Instruction::Arg(args) => Some(args),
        _ => None,
    });
    let of_file = dockerfile.global_args.iter().map(|located| &located.value);
    let declared: BTreeSet<&str> = of_file.chain(of_stages).flatten().map(|arg| arg.name.as_str()).collect();
    let warning = |name: &&str| match *name {
        "BUILDKIT_SYNTAX" => {
            "the build argument BUILDKIT_SYNTAX is ignored: the reader of Dockerfiles is built in".to_owned()
        }
        name => match suggest::nearest(name, declared.iter().copied().take(1000)) {
            Some(meant) => format!("no ARG declares the build argument {name} (did you mean {meant}?)"),
            None => format!("no ARG declares the build argument {name}"),
        },
    };
    let is_used = |name: &str| {
        declared.contains(name)
            || PLATFORM_ARGS.contains(&name)
            || PROXIES.iter().any(|proxy| proxy.eq_ignore_ascii_case(name))
            || name == EPOCH
            || (name.starts_with("BUILDKIT_") && name != "BUILDKIT_SYNTAX")
    };
    request.build_args.keys().map(String::as_str).filter(|name| !is_used(name)).map(|n| warning(&n)).collect()
}
