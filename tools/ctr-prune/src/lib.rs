//! Remove containers that have ended, and what dead tools left.
#![forbid(unsafe_code)]

use cli::{Common, Context, Fault, Result, Tool};

/// Remove containers that have ended, and what dead tools left
#[derive(Debug, clap::Parser)]
#[command(name = "ctr-prune", version)]
pub struct Args {
    #[command(flatten)]
    pub common: Common,
}

impl Tool for Args {
    const NAME: &'static str = "ctr-prune";

    fn common(&self) -> &Common {
        &self.common
    }
}

pub fn run(_args: &Args, _context: &mut Context) -> Result<()> {
    Err(Fault::failed("this build cannot do that yet"))
}
