#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<reg_logout::Args>(reg_logout::run)
}
