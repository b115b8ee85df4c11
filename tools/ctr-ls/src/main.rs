#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<ctr_ls::Args>(ctr_ls::run)
}
