#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<ctr_diff::Args>(ctr_diff::run)
}
