//! Print files of images, without unpacking them.
#![forbid(unsafe_code)]

mod find;
mod plain;
mod tar;

use cli::{Common, Context, Explain, Fault, Result};
use contents::Places;
use img_pull::Connection;
use std::ffi::OsString;
use std::fs::File;
use std::io::{IsTerminal, stdout};
use std::os::fd::AsFd;
use store::Subject;

/// Print files of images, without unpacking them
///
/// The content of each PATH goes to stdout, as of cat. Symbolic links are followed, inside the image. Of the layers only as many are read as
/// it takes to be certain, the highest first, and the one that has the file only as far as its end. An image in a registry stays there, and
/// of one file no more is fetched than that.
#[derive(Debug, clap::Parser)]
#[command(
    name = "img-cat",
    version,
    override_usage = "img-cat [OPTIONS] IMAGE PATH...\n       ... | img-cat [OPTIONS] - PATH...",
    after_help = "Examples:\n  img-cat debian:12 /etc/os-release\n  img-cat docker://debian:12 /etc/os-release\n  img-pull app:1 | img-cat - app/package.json | jq .version\n  img-cat --tar app:1 usr/share/doc | tar -x -C ./doc\n  img-cat --tar app:1 / | tar -t\n  diff <(img-cat app:1 etc/app.conf) <(img-cat app:2 etc/app.conf)"
)]
pub struct Args {
    /// Reference, id or a beginning of it; docker://REF, oci:DIR and others of img-copy's places; `-` for the image of the record on stdin
    #[arg(value_name = "IMAGE")]
    pub image: String,

    /// Files in the image, from its root with or without a slash in front
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<OsString>,

    /// Write an archive of the paths instead, directories with all that is in them; a link at the end of a path is not followed
    #[arg(long)]
    pub tar: bool,

    /// Of an image for several platforms, look into the one for this platform
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<String>,

    #[command(flatten)]
    pub connection: Connection,

    #[command(flatten)]
    pub common: Common,
}

cli::tool!(Args, "img-cat", common);

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    if args.tar && stdout().is_terminal() {
        return Err(Fault::usage("stdout is a terminal, which an archive would garble").hint("| or >"));
    }
    let places = Places::new(args.connection.client()?, args.platform.as_deref())?;
    let subjects: Vec<Subject> = if args.image == "-" {
        context.require_records()?.into_iter().map(Subject::from).collect()
    } else {
        vec![Subject::Name(args.image.clone())]
    };
    if args.tar && subjects.len() > 1 {
        return Err(
            Fault::input("several images, which cannot be one archive").hint("one img-cat for each of them")
        );
    }
    // A descriptor of its own: what is printed is no text and goes past the buffer of lines.
    let out: File = stdout().as_fd().try_clone_to_owned().explain(|| "use stdout".into())?.into();
    context.each(subjects, |context, subject| {
        let opened = places.open(&subject)?;
        if args.tar {
            tar::write(&opened, &args.paths, &out)
        } else {
            plain::write(&opened, &args.paths, &out, context)
        }
    });
    Ok(())
}
