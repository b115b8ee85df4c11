#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<vol_import::Args>(vol_import::run)
}
