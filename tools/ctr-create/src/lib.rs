//! Create containers, ready to start.
#![forbid(unsafe_code)]

pub mod args;
pub mod facts;
pub mod userfiles;

use cli::{Common, Context, Fault, Result, Tool};

/// Create containers, ready to start
#[derive(Debug, clap::Parser)]
#[command(name = "ctr-create", version)]
pub struct Args {
    #[command(flatten)]
    pub common: Common,
}

impl Tool for Args {
    const NAME: &'static str = "ctr-create";

    fn common(&self) -> &Common {
        &self.common
    }
}

pub fn run(_args: &Args, _context: &mut Context) -> Result<()> {
    Err(Fault::failed("this build cannot do that yet"))
}
