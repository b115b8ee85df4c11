//! Pull images from a registry into the store.
#![forbid(unsafe_code)]

use cli::{Common, Context, Fault, Result, Tool};

/// Pull images from a registry into the store
#[derive(Debug, clap::Parser)]
#[command(name = "img-pull", version)]
pub struct Args {
    #[command(flatten)]
    pub common: Common,
}

impl Tool for Args {
    const NAME: &'static str = "img-pull";

    fn common(&self) -> &Common {
        &self.common
    }
}

pub fn run(_args: &Args, _context: &mut Context) -> Result<()> {
    Err(Fault::failed("this build cannot do that yet"))
}
