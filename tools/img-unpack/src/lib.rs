//! Unpack the layers of images.
#![forbid(unsafe_code)]

use cli::{Common, Context, Fault, Result, Tool};

/// Unpack the layers of images
#[derive(Debug, clap::Parser)]
#[command(name = "img-unpack", version)]
pub struct Args {
    #[command(flatten)]
    pub common: Common,
}

impl Tool for Args {
    const NAME: &'static str = "img-unpack";

    fn common(&self) -> &Common {
        &self.common
    }
}

pub fn run(_args: &Args, _context: &mut Context) -> Result<()> {
    Err(Fault::failed("this build cannot do that yet"))
}
