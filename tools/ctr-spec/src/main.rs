#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<ctr_spec::Args>(ctr_spec::run)
}
