//! From the command line to what the plan and the build take.

use crate::args::Args;
use crate::build::{Options, Time, epoch};
use crate::images::Images;
use cli::{Explain, Fault, Result};
use dockerfile::{Base, Dockerfile, Plan, Request};
use oci::Platform;
use record::{Config, Quantity};
use std::collections::BTreeMap;
use std::path::PathBuf;

const EPOCH: &str = "SOURCE_DATE_EPOCH";
/// How deep triggers of base images may call for other plans: bases do not change by their own triggers.
const PLANS: usize = 2;

/// What there is a name for and no way.
pub fn refuse(args: &Args) -> Result<()> {
    if args.squash {
        return Err(Fault::usage(
            "--squash is not taken: the layer of a step is what makes the next build quick",
        )
        .hint("FROM scratch and COPY --from=STAGE / / in a last stage have all files in one layer"));
    }
    if !args.cache_from.is_empty() || !args.cache_to.is_empty() {
        return Err(Fault::usage("--cache-from and --cache-to are not taken yet")
            .hint("the cache is $STAVES_ROOT/cache/build, with layers/ and blobs/"));
    }
    let known = ["network.host", "security.insecure"];
    if let Some(unknown) = args.allow.iter().find(|name| !known.contains(&name.as_str())) {
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
pub fn plan(dockerfile: &Dockerfile, request: &mut Request, images: &Images<'_>) -> Result<Plan> {
    let mut plan = dockerfile::plan(dockerfile, request).map_err(Fault::from)?;
    for _ in 1..PLANS {
        let mut found = BTreeMap::new();
        for stage in &plan.stages {
            let Base::Image { reference, platform } = &stage.base else { continue };
            let image = images.find(reference, platform)?;
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

pub fn options(args: &Args) -> Result<Options> {
    let quantity = |text: &Option<String>| text.clone().map(Quantity::Text);
    let run = Config {
        add_host: args.add_host.clone(),
        cgroup_parent: args.cgroup_parent.clone(),
        ulimits: args.ulimit.clone(),
        shm_size: quantity(&args.shm_size),
        ..args.limits.asked()
    };
    // What is wrong with them is said before anything is built.
    oci::wishes::Wishes::parse(&run)?;
    let mut options = Options {
        no_cache: args.no_cache,
        no_cache_filter: args.no_cache_filter.clone(),
        allow: args.allow.clone(),
        network: args.network.clone(),
        run,
        ..Options::default()
    };
    for text in &args.secret {
        let (id, source) = secret(text)?;
        options.secrets.insert(id, source);
    }
    for text in &args.ssh {
        let (id, socket) = ssh(text)?;
        options.ssh.insert(id, socket);
    }
    Ok(options)
}

/// `id=ID[,src=FILE|,env=NAME]`: docker's. Without a source it is a variable of that name, or else a file.
fn secret(text: &str) -> Result<(String, String)> {
    let wrong = |why: &str| {
        Fault::usage(format!("--secret \"{text}\": {why}")).hint("id=ID,src=FILE or id=ID,env=VARIABLE")
    };
    let (mut id, mut source) = (None, None);
    let mut is_variable = None;
    for field in text.split(',') {
        let (key, value) =
            field.split_once('=').ok_or_else(|| wrong(&format!("\"{field}\" has no value")))?;
        match key {
            "id" => id = Some(value),
            "src" | "source" => source = Some(value),
            "env" => {
                source = Some(value);
                is_variable = Some(true);
            }
            "type" if value == "env" => is_variable = Some(true),
            "type" if value == "file" => is_variable = Some(false),
            "type" => return Err(wrong("type is file or env")),
            _ => return Err(wrong(&format!("there is no \"{key}\""))),
        }
    }
    let id = id.filter(|id| !id.is_empty()).ok_or_else(|| wrong("id is missing"))?;
    let is_variable = is_variable.unwrap_or_else(|| source.is_none() && std::env::var_os(id).is_some());
    let source = source.unwrap_or(id);
    if is_variable {
        if std::env::var_os(source).is_none() {
            return Err(wrong(&format!("the variable {source} is not set")));
        }
        return Ok((id.to_owned(), format!("env={source}")));
    }
    let path = std::path::absolute(source).explain(|| format!("find {source}"))?;
    if !path.is_file() {
        return Err(Fault::not_found(format!("--secret \"{text}\": there is no file {}", path.display())));
    }
    Ok((id.to_owned(), format!("src={}", path.display())))
}

/// `ID[=SOCKET]`.
fn ssh(text: &str) -> Result<(String, PathBuf)> {
    let (id, socket) = if let Some((id, socket)) = text.split_once('=') {
        (id, PathBuf::from(socket))
    } else {
        let socket = std::env::var_os("SSH_AUTH_SOCK").ok_or_else(|| {
            Fault::usage(format!("--ssh {text}: $SSH_AUTH_SOCK is not set"))
                .hint("eval $(ssh-agent); ssh-add; or --ssh ID=SOCKET")
        })?;
        (text, PathBuf::from(socket))
    };
    let is_socket =
        socket.metadata().is_ok_and(|status| std::os::unix::fs::FileTypeExt::is_socket(&status.file_type()));
    if !is_socket {
        return Err(Fault::usage(format!("--ssh {text}: {} is no socket of an agent", socket.display()))
            .hint("a key is given to an agent with ssh-add"));
    }
    Ok((id.to_owned(), socket))
}

/// The time: an option goes before the Dockerfile's, that before the environment's.
pub fn with_epoch(mut options: Options, args: &Args, plan: &Plan) -> Result<Options> {
    let of_environment = || std::env::var(EPOCH).ok().filter(|text| !text.is_empty());
    options.time = match args.timestamp.as_deref() {
        Some("now") => Time::Now,
        Some(text) => Time::At(epoch(text)?),
        None => match plan.source_date_epoch.clone().or_else(of_environment) {
            Some(text) => Time::At(epoch(&text)?),
            None => Time::Base,
        },
    };
    Ok(options)
}
