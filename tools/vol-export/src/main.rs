#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<vol_export::Args>(vol_export::run)
}
