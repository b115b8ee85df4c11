#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<ctr_start::Args>(ctr_start::run)
}
