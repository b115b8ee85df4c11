//! Pull, unpack, create, attach to a network and start in one.
#![forbid(unsafe_code)]

use cli::{Common, Context, Fault, Result, Tool};

/// Pull, unpack, create, attach to a network and start in one
#[derive(Debug, clap::Parser)]
#[command(name = "ctr-run", version)]
pub struct Args {
    #[command(flatten)]
    pub common: Common,
}

impl Tool for Args {
    const NAME: &'static str = "ctr-run";

    fn common(&self) -> &Common {
        &self.common
    }
}

pub fn run(_args: &Args, _context: &mut Context) -> Result<()> {
    Err(Fault::failed("this build cannot do that yet"))
}
