#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<ctr_run::Args>(ctr_run::run)
}
