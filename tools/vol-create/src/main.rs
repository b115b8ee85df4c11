#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<vol_create::Args>(vol_create::run)
}
