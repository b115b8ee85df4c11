//! Remove what no image or container needs.
#![forbid(unsafe_code)]

use cli::{Common, Context, Fault, Result, Tool};

/// Remove what no image or container needs
#[derive(Debug, clap::Parser)]
#[command(name = "img-prune", version)]
pub struct Args {
    #[command(flatten)]
    pub common: Common,
}

impl Tool for Args {
    const NAME: &'static str = "img-prune";

    fn common(&self) -> &Common {
        &self.common
    }
}

pub fn run(_args: &Args, _context: &mut Context) -> Result<()> {
    Err(Fault::failed("this build cannot do that yet"))
}
