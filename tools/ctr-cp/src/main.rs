#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<ctr_cp::Args>(ctr_cp::run)
}
