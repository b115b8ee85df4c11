#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<ctr_restart::Args>(ctr_restart::run)
}
