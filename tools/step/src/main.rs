#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<step::Args>(step::run)
}
