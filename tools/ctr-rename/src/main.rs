#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<ctr_rename::Args>(ctr_rename::run)
}
