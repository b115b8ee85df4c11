#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<ctr_attach::Args>(ctr_attach::run)
}
