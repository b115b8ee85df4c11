#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<vol_clone::Args>(vol_clone::run)
}
