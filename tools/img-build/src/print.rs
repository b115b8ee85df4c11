//! `--print` and `--check`.

use crate::build::Builder;
use crate::contexts::Opened;
use crate::request;
use cli::{Context, Explain, Fault, Result};
use dockerfile::Step;
use oci::{Digest, Platform};
use serde_json::{Value, json};

/// What would be done, a step a line.
pub fn plan(context: &mut Context, builder: &Builder<'_>) -> Result<()> {
    builder.build()?;
    let steps = builder.printed.as_ref().map(|steps| std::mem::take(&mut *crate::build::lock(steps)));
    let mut steps = steps.unwrap_or_default();
    // Stages are worked through side by side.
    steps.sort_by_key(|(order, _)| *order);
    steps.iter().try_for_each(|(_, step)| context.print(&format!("{step}\n")))
}

/// A line of it. `key` is `None` where nobody can tell before an earlier step is done.
pub fn line(stage: &str, number: usize, step: &Step, key: Option<&Digest>, cached: bool, why: &str) -> Value {
    json!({
        "stage": stage,
        "step": number,
        "instruction": step.title,
        "lines": [step.lines.first, step.lines.last],
        "key": key.map(Digest::as_str),
        "cached": cached,
        "why": why,
    })
}

/// What is odd in the Dockerfile.
///
/// # Errors
/// When it cannot be built at all, or the Dockerfile says that what is odd is an error.
pub fn check(args: &crate::Args, context: &mut Context, opened: &Opened) -> Result<()> {
    let file = dockerfile::parse(&opened.dockerfile)
        .map_err(|problem| Fault::from(problem).within(opened.name.clone()))?;
    let platform =
        args.platform.first().map_or_else(|| Ok(Platform::host()), |text| Platform::parse(text))?;
    let request = request::request(args, &platform)?;
    let facts = dockerfile::lint::Facts {
        is_ignored: &|_| false,
        image: &|_, _| None,
        all_stages: args.target.is_none(),
    };
    let checked = dockerfile::check(&file, &request, &facts);
    for finding in &checked.findings {
        let line = match context.mode() {
            cli::OutputMode::Json => serde_json::to_string(finding).explain(|| "write a finding".into())?,
            _ => format!("{}:{}: {}: {}", opened.name, finding.lines.first, finding.rule, finding.message),
        };
        context.print(&format!("{line}\n"))?;
    }
    if let Some(problem) = checked.problem {
        return Err(Fault::from(problem).within(opened.name.clone()));
    }
    if checked.error && !checked.findings.is_empty() {
        return Err(Fault::input(format!(
            "{} findings, and the Dockerfile has them be errors",
            checked.findings.len()
        ))
        .on(opened.name.clone()));
    }
    Ok(())
}
