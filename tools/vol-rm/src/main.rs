#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<vol_rm::Args>(vol_rm::run)
}
