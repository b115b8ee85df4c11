//! Show the OCI runtime specification a container would get.
#![forbid(unsafe_code)]

use cli::{Common, Context, Fault, Result, Tool};

/// Show the OCI runtime specification a container would get
#[derive(Debug, clap::Parser)]
#[command(name = "ctr-spec", version)]
pub struct Args {
    #[command(flatten)]
    pub common: Common,
}

impl Tool for Args {
    const NAME: &'static str = "ctr-spec";

    fn common(&self) -> &Common {
        &self.common
    }
}

pub fn run(_args: &Args, _context: &mut Context) -> Result<()> {
    Err(Fault::failed("this build cannot do that yet"))
}
