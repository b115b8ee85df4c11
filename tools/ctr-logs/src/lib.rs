//! Show what containers have written.
#![forbid(unsafe_code)]

use cli::{Common, Context, Fault, Result, Tool};

/// Show what containers have written
#[derive(Debug, clap::Parser)]
#[command(name = "ctr-logs", version)]
pub struct Args {
    #[command(flatten)]
    pub common: Common,
}

impl Tool for Args {
    const NAME: &'static str = "ctr-logs";

    fn common(&self) -> &Common {
        &self.common
    }
}

pub fn run(_args: &Args, _context: &mut Context) -> Result<()> {
    Err(Fault::failed("this build cannot do that yet"))
}
