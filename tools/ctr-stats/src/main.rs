#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<ctr_stats::Args>(ctr_stats::run)
}
