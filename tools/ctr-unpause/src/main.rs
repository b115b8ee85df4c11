#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<ctr_unpause::Args>(ctr_unpause::run)
}
