#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<ctr_checkpoint::Args>(ctr_checkpoint::run)
}
