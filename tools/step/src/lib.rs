//! Skip a command whose inputs have not changed.
//!
//! In a pipe of image records a step is what RUN is in a Dockerfile: crate `img-build` does it, and finds it done. On this machine it is a
//! command with files it reads and files it makes ([`host`]).
#![forbid(unsafe_code)]

mod args;
mod files;
mod host;
mod image;
mod kept;
mod stdout;
mod words;

pub use args::Args;

use cli::{Context, Fault, Result};
use img_build::{Form, Report};
use std::io::IsTerminal;

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    if args.tell.run_step.is_some() {
        return img_build::run_one();
    }
    let is_host = args.host
        || args.outputs().next().is_some()
        || (args.from.is_none() && std::io::stdin().is_terminal());
    let form = if args.quiet { Form::Output } else { Form::Bare };
    let report = Report::new("step", form, img_build::events(args.tell.progress_fd)?);
    if !is_host {
        return image::run(args, context, &report);
    }
    match args.of_images() {
        Some(option) => {
            Err(Fault::usage(format!("{option} is for images, and the command runs on this machine"))
                .hint("images come from --from IMAGE, or as records: img-pull IMAGE | step …"))
        }
        None => host::run(args, context, &report),
    }
}
