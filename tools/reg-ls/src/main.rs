#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<reg_ls::Args>(reg_ls::run)
}
