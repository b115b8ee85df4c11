#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<ctr_commit::Args>(ctr_commit::run)
}
