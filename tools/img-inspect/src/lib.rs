//! Show images in full.
#![forbid(unsafe_code)]

use cli::{Common, Context, Fault, Result, Tool};

/// Show images in full
#[derive(Debug, clap::Parser)]
#[command(name = "img-inspect", version)]
pub struct Args {
    #[command(flatten)]
    pub common: Common,
}

impl Tool for Args {
    const NAME: &'static str = "img-inspect";

    fn common(&self) -> &Common {
        &self.common
    }
}

pub fn run(_args: &Args, _context: &mut Context) -> Result<()> {
    Err(Fault::failed("this build cannot do that yet"))
}
