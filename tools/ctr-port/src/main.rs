#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<ctr_port::Args>(ctr_port::run)
}
