//! Send a signal to containers.
#![forbid(unsafe_code)]

use cli::{Common, Context, Fault, Result, Tool};

/// Send a signal to containers
#[derive(Debug, clap::Parser)]
#[command(name = "ctr-kill", version)]
pub struct Args {
    #[command(flatten)]
    pub common: Common,
}

impl Tool for Args {
    const NAME: &'static str = "ctr-kill";

    fn common(&self) -> &Common {
        &self.common
    }
}

pub fn run(_args: &Args, _context: &mut Context) -> Result<()> {
    Err(Fault::failed("this build cannot do that yet"))
}
