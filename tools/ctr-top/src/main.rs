#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<ctr_top::Args>(ctr_top::run)
}
