#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<ctr_shim::Args>(ctr_shim::run)
}
