#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<ctr_rm::Args>(ctr_rm::run)
}
