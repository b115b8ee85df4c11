//! From the command line to what the plan and the build take.

use crate::args::Args;
use crate::build::{Options, Time, epoch};
use crate::contexts::Contexts;
use crate::images::Images;
use crate::layout::Place;
use cli::{Fault, Result};
use dockerfile::{Base, Dockerfile, Plan, Request, Stage};
use oci::Platform;
use std::collections::BTreeMap;

const EPOCH: &str = "SOURCE_DATE_EPOCH";
/// How deep triggers of base images may call for other plans: bases do not change by their own triggers.
const PLANS: usize = 2;

/// What there is a name for and no way.
pub fn refuse(args: &Args) -> Result<()> {
    args.habits.check()?;
    for (name, value) in contexts(args)? {
        Place::parse(&value).map_err(|fault| fault.within(format!("--build-context {name}")))?;
    }
    let known = ["network.host", "security.insecure", "device", "device=VENDOR/CLASS=NAME"];
    let is_known = |name: &str| name.starts_with("device=") || known.contains(&name);
    if let Some(unknown) = args.allow.iter().find(|name| !is_known(name)) {
        return Err(
            Fault::usage(format!("--allow: there is no entitlement {unknown}")).hint(known.join(", "))
        );
    }
    Ok(())
}

pub fn request(args: &Args, platform: &Platform) -> Result<Request> {
    let mut request = Request::new(platform.clone(), Platform::host());
    request.target.clone_from(&args.target);
    for text in &args.build_arg {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => {
                request.build_args.insert(name.to_owned(), value.to_owned());
            }
            None if !text.is_empty() => {
                // One that is not set is not given.
                if let Ok(value) = std::env::var(text) {
                    request.build_args.insert(text.clone(), value);
                }
            }
            _ => return Err(Fault::usage(format!("--build-arg \"{text}\" is not of the form name=value"))),
        }
    }
    request.contexts = contexts(args)?.into_keys().collect();
    Ok(request)
}

pub fn contexts(args: &Args) -> Result<BTreeMap<String, String>> {
    cli::words::pairs("--build-context", &args.build_context, false)
}

/// The plan; once more where base images have triggers.
pub fn plan(
    dockerfile: &Dockerfile,
    request: &mut Request,
    images: &Images<'_>,
    contexts: &Contexts,
) -> Result<Plan> {
    let mut plan = dockerfile::plan(dockerfile, request).map_err(Fault::from)?;
    for _ in 1..PLANS {
        let mut found = BTreeMap::new();
        for stage in &plan.stages {
            let image = match &stage.base {
                Base::Image { reference, platform } => images.find(reference, platform)?,
                Base::Context(name) => match contexts.image(name, images, &stage.platform)? {
                    Some(image) => image,
                    None => continue,
                },
                Base::Scratch | Base::Stage(_) => continue,
            };
            let triggers = image.image.config.pointer("/config/OnBuild").and_then(|list| list.as_array());
            let triggers: Vec<String> =
                triggers.into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect();
            if !triggers.is_empty() {
                found.insert(stage.index, triggers);
            }
        }
        if found.is_empty() {
            break;
        }
        request.triggers = found;
        plan = dockerfile::plan(dockerfile, request).map_err(Fault::from)?;
    }
    Ok(plan)
}

/// What is to be built anew must be there, or nothing would be.
pub fn check_filter(args: &Args, dockerfile: &Dockerfile) -> Result<()> {
    let name = |(place, stage): (usize, &Stage)| stage.name.clone().unwrap_or(format!("stage-{place}"));
    let names: Vec<String> = dockerfile.stages.iter().enumerate().map(name).collect();
    let is_there = |wanted: &String| names.iter().any(|name| name.eq_ignore_ascii_case(wanted));
    match args.no_cache_filter.iter().find(|wanted| !is_there(wanted)) {
        Some(unknown) => Err(Fault::usage(format!("--no-cache-filter: there is no stage {unknown}"))
            .hint(format!("there are: {}", names.join(" ")))),
        None => Ok(()),
    }
}

pub fn options(args: &Args) -> Result<Options> {
    Ok(Options {
        no_cache: args.steps.no_cache,
        no_cache_filter: args.no_cache_filter.clone(),
        allow: args.allow.clone(),
        ..args.run.options()?
    })
}

/// The time: an option goes before the Dockerfile's, that before the environment's.
pub fn with_epoch(mut options: Options, args: &Args, plan: &Plan) -> Result<Options> {
    options.time = time(args.steps.timestamp.as_deref().or(plan.source_date_epoch.as_deref()))?;
    Ok(options)
}

/// What was said of it, or else what the environment says.
///
/// # Errors
/// [`cli::Kind::Usage`] for what is no time.
pub fn time(text: Option<&str>) -> Result<Time> {
    let of_environment = || std::env::var(EPOCH).ok().filter(|text| !text.is_empty());
    match text {
        Some("now") => Ok(Time::Now),
        Some(text) => Ok(Time::At(epoch(text)?)),
        None => match of_environment() {
            Some(text) => Ok(Time::At(epoch(&text)?)),
            None => Ok(Time::Base),
        },
    }
}
