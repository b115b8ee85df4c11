#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<ctr_stop::Args>(ctr_stop::run)
}
