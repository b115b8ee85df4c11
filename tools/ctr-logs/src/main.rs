#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<ctr_logs::Args>(ctr_logs::run)
}
