#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<vol_inspect::Args>(vol_inspect::run)
}
