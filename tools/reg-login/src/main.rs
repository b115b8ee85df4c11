#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<reg_login::Args>(reg_login::run)
}
