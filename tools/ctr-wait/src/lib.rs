//! Wait until containers end and print how.
#![forbid(unsafe_code)]

use cli::{Common, Context, Fault, Result, Tool};

/// Wait until containers end and print how
#[derive(Debug, clap::Parser)]
#[command(name = "ctr-wait", version)]
pub struct Args {
    #[command(flatten)]
    pub common: Common,
}

impl Tool for Args {
    const NAME: &'static str = "ctr-wait";

    fn common(&self) -> &Common {
        &self.common
    }
}

pub fn run(_args: &Args, _context: &mut Context) -> Result<()> {
    Err(Fault::failed("this build cannot do that yet"))
}
