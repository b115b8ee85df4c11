#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<ctr_export::Args>(ctr_export::run)
}
