//! Detach containers from their networks.
#![forbid(unsafe_code)]

use cli::{Common, Context, Fault, Result, Tool};

/// Detach containers from their networks
#[derive(Debug, clap::Parser)]
#[command(name = "net-detach", version)]
pub struct Args {
    #[command(flatten)]
    pub common: Common,
}

impl Tool for Args {
    const NAME: &'static str = "net-detach";

    fn common(&self) -> &Common {
        &self.common
    }
}

pub fn run(_args: &Args, _context: &mut Context) -> Result<()> {
    Err(Fault::failed("this build cannot do that yet"))
}
