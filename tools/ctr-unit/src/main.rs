#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<ctr_unit::Args>(ctr_unit::run)
}
