#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<vol_prune::Args>(vol_prune::run)
}
