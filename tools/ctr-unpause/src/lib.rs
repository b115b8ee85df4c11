//! Let paused containers run on.
#![forbid(unsafe_code)]

use chosen::Chosen;
use cli::{Context, Result};
use ctr_pause::Verb;

/// Let paused containers run on
///
/// What ctr-pause stopped goes on where it was.
#[derive(Debug, clap::Parser)]
#[command(
    name = "ctr-unpause",
    version,
    after_help = "Examples:\n  ctr-unpause db\n  ctr-ls --filter status=paused | ctr-unpause"
)]
pub struct Args {
    /// Every container that is paused
    #[arg(short, long, conflicts_with = "containers")]
    pub all: bool,

    #[command(flatten)]
    pub chosen: Chosen,
}

cli::tool!(Args, "ctr-unpause", chosen.output.common, chosen.output.quiet);

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    ctr_pause::act(Verb::Unpause, &args.chosen, args.all, context)
}
