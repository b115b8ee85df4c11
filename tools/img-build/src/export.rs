//! `--output`: what is made of the target.

use crate::build::Builder;
use crate::report::Report;
use crate::stage::Built;
use cli::{Explain, Fault, Result};
use context::{Context, Options, Ownership, Target, Times};
use layer::output::Output;
use oci::Reference;
use rootfs::{Tally, Tarball, Walk};
use rustix::fd::AsFd;
use std::io::{BufWriter, IsTerminal, stdout};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Written at once, in bytes.
const CHUNK: usize = 256 << 10;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Export {
    /// In the store.
    Image {
        push: bool,
    },
    /// An archive, a docker one and an OCI one at once; `None`: stdout.
    Archive(Option<PathBuf>),
    /// An OCI layout.
    Layout(PathBuf),
    /// The files.
    Local(PathBuf),
    Tar(Option<PathBuf>),
    /// The cache alone.
    Nothing,
}

/// Reads one; further names for the image go to `names`.
///
/// # Errors
/// [`cli::Kind::Usage`].
pub fn parse(text: &str, names: &mut Vec<String>) -> Result<Export> {
    if !text.contains('=') {
        return Ok(match text {
            "-" => Export::Tar(None),
            // As docker: a word that is a type by itself is one.
            "registry" => Export::Image { push: true },
            "image" => Export::Image { push: false },
            "" => return Err(Fault::usage("--output: it says nothing")),
            path => Export::Local(PathBuf::from(path)),
        });
    }
    let (mut kind, mut dest, mut push, mut tar) = (None, None, false, true);
    for field in text.split(',') {
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| Fault::usage(format!("--output {text}: \"{field}\" has no value")))?;
        let truth = || {
            cli::words::boolean(value)
                .ok_or_else(|| Fault::usage(format!("--output {text}: {key} is true or false")))
        };
        match key {
            "type" => kind = Some(value),
            "dest" => dest = Some(value),
            "name" => names.push(value.to_owned()),
            "push" => push = truth()?,
            "tar" => tar = truth()?,
            _ => {
                return Err(Fault::usage(format!("--output {text}: there is no \"{key}\"")).hint(
                    "type, dest, name, push, tar; --compression and --format are options of their own",
                ));
            }
        }
    }
    let file = |dest: Option<&str>| dest.filter(|dest| *dest != "-").map(PathBuf::from);
    let needed = || dest.ok_or_else(|| Fault::usage(format!("--output {text}: dest is missing")));
    Ok(match kind {
        Some("image") => Export::Image { push },
        Some("registry") => Export::Image { push: true },
        Some("oci") if !tar => Export::Layout(PathBuf::from(needed()?)),
        Some("docker" | "oci") => Export::Archive(file(dest)),
        Some("local") => Export::Local(PathBuf::from(needed()?)),
        Some("tar") => Export::Tar(file(dest)),
        Some("cacheonly") => Export::Nothing,
        other => {
            return Err(Fault::usage(format!(
                "--output {text}: there is no type {}",
                other.unwrap_or("(none)")
            ))
            .hint("image, registry, docker, oci, local, tar, cacheonly"));
        }
    })
}

impl Export {
    /// Whether the image has to be in the store for it.
    pub fn needs_image(&self) -> bool {
        !matches!(self, Export::Local(_) | Export::Tar(_) | Export::Nothing)
    }

    /// Whether it takes stdout, so that nothing else may be printed.
    pub fn is_stdout(&self) -> bool {
        matches!(self, Export::Tar(None) | Export::Archive(None))
    }

    /// Files, of the stage as it is.
    pub fn files(&self, builder: &Builder<'_>, built: &Built) -> Result<()> {
        match self {
            Export::Local(dir) => local(builder, built, dir),
            Export::Tar(path) => tar(builder, built, path.as_deref()),
            _ => Ok(()),
        }
    }

    /// What is made of the image in the store, by its digest.
    pub fn image(&self, digest: &str, names: &[Reference], report: &Report) -> Result<()> {
        match self {
            Export::Image { push: true } => {
                names.iter().try_for_each(|name| push(&[&name.stored_name()], report))
            }
            Export::Archive(dest) => {
                let images = names.iter().map(Reference::stored_name).collect::<Vec<_>>();
                let mut words: Vec<&str> = Vec::new();
                let path = dest.as_ref().map(|dest| dest.display().to_string());
                if let Some(path) = &path {
                    words.extend(["-q", "--into", path]);
                }
                words.extend(images.iter().map(String::as_str));
                if images.is_empty() {
                    words.push(digest);
                }
                tool("img-save", &words, "write the archive", report)
            }
            Export::Layout(dir) => {
                let to = match names.first() {
                    Some(name) => format!("oci:{}:{}", dir.display(), name.familiar()),
                    None => format!("oci:{}", dir.display()),
                };
                let from = names.first().map_or_else(|| digest.to_owned(), Reference::stored_name);
                tool("img-copy", &["-q", &from, &to], "write the layout", report)
            }
            _ => Ok(()),
        }
    }
}

pub fn push(words: &[&str], report: &Report) -> Result<()> {
    tool("img-push", words, &format!("push {}", words.last().copied().unwrap_or_default()), report)
}

/// Another tool, with our stderr; what it prints of itself is not wanted.
fn tool(name: &str, words: &[&str], title: &str, report: &Report) -> Result<()> {
    let program = shim::sibling(name)?;
    let is_archive = name == "img-save" && !words.contains(&"--into");
    let mut command = Command::new(&program);
    command.stdin(Stdio::null()).stdout(if is_archive { Stdio::inherit() } else { Stdio::null() });
    let status = if report.is_live() {
        // Its bars would be drawn where ours are.
        let vertex = report.another(title);
        let ran = crate::tool::run(command.args(crate::tool::progress(&vertex)).args(words), &vertex)?;
        ran.said.iter().for_each(|line| report.pass(line));
        if ran.status.success() {
            vertex.done();
        } else {
            vertex.failed(&Fault::failed(ran.status.to_string()));
        }
        ran.status
    } else {
        command.args(words).status().explain(|| format!("run {}", program.display()))?
    };
    if status.success() { Ok(()) } else { Err(Fault::failed(format!("{name}: {status}"))) }
}

fn local(builder: &Builder<'_>, built: &Built, dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).explain(|| format!("make directory {}", dir.display()))?;
    let root = Context::root(built.files.open(builder.store, &builder.finish.settle)?);
    let to = crate::normalise::open_directory(dir)?;
    let target = Target {
        root: to.as_fd(),
        destination: b"/",
        ownership: Ownership::Keep,
        chmod: None,
        times: Times::Keep,
        unpack: false,
    };
    root.select(&["/"], &Options::default())?.write(&target)?;
    Ok(())
}

fn tar(builder: &Builder<'_>, built: &Built, path: Option<&Path>) -> Result<()> {
    if path.is_none() && stdout().is_terminal() {
        return Err(Fault::usage("stdout is a terminal, which an archive would garble")
            .hint("--output type=tar,dest=FILE, or | or >"));
    }
    let root = built.files.open(builder.store, &builder.finish.settle)?;
    let mut output = Output::open(path)?;
    let mut tarball = Tarball::new(BufWriter::with_capacity(CHUNK, output.file()), true);
    rootfs::walk(root.as_fd(), Walk::default(), &mut tarball, &mut Tally::default())?;
    tarball.finish()?;
    output.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made() {
        let path = PathBuf::from;
        for (text, expected) in [
            ("-", Export::Tar(None)),
            ("out", Export::Local(path("out"))),
            ("type=local,dest=out", Export::Local(path("out"))),
            ("type=tar,dest=a.tar", Export::Tar(Some(path("a.tar")))),
            ("type=tar", Export::Tar(None)),
            ("type=image,push=true", Export::Image { push: true }),
            ("type=registry", Export::Image { push: true }),
            ("type=docker", Export::Archive(None)),
            ("type=oci,dest=-", Export::Archive(None)),
            ("type=oci,tar=false,dest=dir", Export::Layout(path("dir"))),
            ("type=cacheonly", Export::Nothing),
        ] {
            assert_eq!(parse(text, &mut Vec::new()).unwrap(), expected, "{text}");
        }
        let mut names = Vec::new();
        parse("type=image,name=a:1", &mut names).unwrap();
        assert_eq!(names, ["a:1"]);
        for wrong in [
            "",
            "type=local",
            "type=oci,tar=false",
            "type=x",
            "type=image,push=perhaps",
            "dest=x",
            "type=image,compression=zstd",
        ] {
            assert!(parse(wrong, &mut Vec::new()).is_err(), "{wrong}");
        }
    }
}
