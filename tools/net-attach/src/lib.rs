//! Attach containers to a network.
#![forbid(unsafe_code)]

use cli::{Common, Context, Fault, Result, Tool};

/// Attach containers to a network
#[derive(Debug, clap::Parser)]
#[command(name = "net-attach", version)]
pub struct Args {
    #[command(flatten)]
    pub common: Common,
}

impl Tool for Args {
    const NAME: &'static str = "net-attach";

    fn common(&self) -> &Common {
        &self.common
    }
}

pub fn run(_args: &Args, _context: &mut Context) -> Result<()> {
    Err(Fault::failed("this build cannot do that yet"))
}
