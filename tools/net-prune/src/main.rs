#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<net_prune::Args>(net_prune::run)
}
