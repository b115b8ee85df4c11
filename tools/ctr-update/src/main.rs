#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<ctr_update::Args>(ctr_update::run)
}
