//! Look after one container (started by ctr-create).
#![forbid(unsafe_code)]

use cli::{Common, Context, Fault, Result, Tool};

/// Look after one container (started by ctr-create)
#[derive(Debug, clap::Parser)]
#[command(name = "ctr-shim", version)]
pub struct Args {
    #[command(flatten)]
    pub common: Common,
}

impl Tool for Args {
    const NAME: &'static str = "ctr-shim";

    fn common(&self) -> &Common {
        &self.common
    }
}

pub fn run(_args: &Args, _context: &mut Context) -> Result<()> {
    Err(Fault::failed("this build cannot do that yet"))
}
