#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<ctr_events::Args>(ctr_events::run)
}
