#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<ctr_restore::Args>(ctr_restore::run)
}
