#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<ctr_kill::Args>(ctr_kill::run)
}
