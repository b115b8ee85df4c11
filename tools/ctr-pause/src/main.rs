#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<ctr_pause::Args>(ctr_pause::run)
}
