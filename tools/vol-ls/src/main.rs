#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<vol_ls::Args>(vol_ls::run)
}
