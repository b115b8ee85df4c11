//! Remove addresses, links and rules nobody uses.
#![forbid(unsafe_code)]

use cli::{Common, Context, Fault, Result, Tool};

/// Remove addresses, links and rules nobody uses
#[derive(Debug, clap::Parser)]
#[command(name = "net-prune", version)]
pub struct Args {
    #[command(flatten)]
    pub common: Common,
}

impl Tool for Args {
    const NAME: &'static str = "net-prune";

    fn common(&self) -> &Common {
        &self.common
    }
}

pub fn run(_args: &Args, _context: &mut Context) -> Result<()> {
    Err(Fault::failed("this build cannot do that yet"))
}
