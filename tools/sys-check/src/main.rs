#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<sys_check::Args>(sys_check::run)
}
