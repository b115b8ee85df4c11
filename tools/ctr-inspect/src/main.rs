#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<ctr_inspect::Args>(ctr_inspect::run)
}
