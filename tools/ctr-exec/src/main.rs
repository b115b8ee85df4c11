#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<ctr_exec::Args>(ctr_exec::run)
}
