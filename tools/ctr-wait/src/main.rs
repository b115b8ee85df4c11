#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<ctr_wait::Args>(ctr_wait::run)
}
