//! Show containers in full.
#![forbid(unsafe_code)]

use cli::{Common, Context, Fault, Result, Tool};

/// Show containers in full
#[derive(Debug, clap::Parser)]
#[command(name = "ctr-inspect", version)]
pub struct Args {
    #[command(flatten)]
    pub common: Common,
}

impl Tool for Args {
    const NAME: &'static str = "ctr-inspect";

    fn common(&self) -> &Common {
        &self.common
    }
}

pub fn run(_args: &Args, _context: &mut Context) -> Result<()> {
    Err(Fault::failed("this build cannot do that yet"))
}
