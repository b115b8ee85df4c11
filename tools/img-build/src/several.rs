//! Builds for several platforms: an image each, and one index of them under every name.

use crate::Build;
use crate::export::Export;
use cli::{Context, Explain, Fault, Result};
use oci::{Platform, Reference};
use record::Record;
use std::process::{Command, Stdio};

/// # Errors
/// [`cli::Kind::Usage`] for what is made of one image only.
pub fn check(
    platforms: &[Platform],
    exports: &[Export],
    names: &[Reference],
    writes_cache: bool,
) -> Result<()> {
    if platforms.len() < 2 {
        return Ok(());
    }
    if names.is_empty() && exports.iter().any(Export::needs_image) {
        return Err(Fault::usage("images for several platforms are found by a name").hint("-t NAME"));
    }
    if writes_cache {
        return Err(Fault::usage("--cache-to: the cache of one platform would take the place of another's")
            .hint("one build for each platform, with a tag or directory of its own"));
    }
    let of_one = |export: &&Export| !matches!(export, Export::Image { .. } | Export::Nothing);
    if exports.iter().any(|export| of_one(&export)) {
        return Err(Fault::usage("--output: archives and files are made of one platform's image")
            .hint("--platform names one; --output type=registry takes all"));
    }
    Ok(())
}

impl Build<'_> {
    /// One platform after the other, as each uses all processors.
    pub(crate) fn platforms(
        &self,
        context: &mut Context,
        platforms: &[Platform],
        names: &[Reference],
    ) -> Result<()> {
        let mut images = Vec::new();
        for platform in platforms {
            let made =
                self.platform(context, platform, &[]).map_err(|fault| fault.within(platform.to_string()))?;
            images.extend(made.map(|details| details.image.digest));
        }
        if images.is_empty() {
            return Ok(());
        }
        let mut printed = None;
        for name in names {
            printed = Some(index(name, &images)?);
        }
        if self.exports.iter().any(|export| matches!(export, Export::Image { push: true })) {
            for name in names {
                crate::export::push(&["--all-platforms", &name.stored_name()], self.report)?;
            }
        }
        let Some(record) = printed else { return Ok(()) };
        self.report.finish(true);
        let image: record::Image = record.require("image")?;
        context.print_result(
            &record,
            &image.digest,
            &format!("built {} for {} platforms", image.reference, images.len()),
        )
    }
}

fn index(name: &Reference, images: &[String]) -> Result<Record> {
    let program = shim::sibling("img-index")?;
    let output = Command::new(&program)
        .args(["--output", "json", "--replace", &name.stored_name()])
        .args(images)
        .stdin(Stdio::null())
        .output()
        .explain(|| format!("run {}", program.display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Fault::failed(said.lines().next().unwrap_or("img-index failed").to_owned()));
    }
    let text = String::from_utf8(output.stdout).explain(|| "read what img-index printed".into())?;
    Record::parse(text.trim_end()).map_err(|fault| fault.within("read what img-index printed"))
}
