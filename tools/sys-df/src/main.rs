#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<sys_df::Args>(sys_df::run)
}
