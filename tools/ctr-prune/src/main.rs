#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<ctr_prune::Args>(ctr_prune::run)
}
