//! Tell what this machine offers for containers, and lacks.
#![forbid(unsafe_code)]

use cli::{Common, Context, Fault, Result, Tool};

/// Tell what this machine offers for containers, and lacks
#[derive(Debug, clap::Parser)]
#[command(name = "sys-check", version)]
pub struct Args {
    #[command(flatten)]
    pub common: Common,
}

impl Tool for Args {
    const NAME: &'static str = "sys-check";

    fn common(&self) -> &Common {
        &self.common
    }
}

pub fn run(_args: &Args, _context: &mut Context) -> Result<()> {
    Err(Fault::failed("this build cannot do that yet"))
}
