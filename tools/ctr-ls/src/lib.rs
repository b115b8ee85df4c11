//! List containers.
#![forbid(unsafe_code)]

use cli::{Common, Context, Fault, Result, Tool};

/// List containers
#[derive(Debug, clap::Parser)]
#[command(name = "ctr-ls", version)]
pub struct Args {
    #[command(flatten)]
    pub common: Common,
}

impl Tool for Args {
    const NAME: &'static str = "ctr-ls";

    fn common(&self) -> &Common {
        &self.common
    }
}

pub fn run(_args: &Args, _context: &mut Context) -> Result<()> {
    Err(Fault::failed("this build cannot do that yet"))
}
