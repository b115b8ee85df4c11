#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<ctr_create::Args>(ctr_create::run)
}
