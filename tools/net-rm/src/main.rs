#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<net_rm::Args>(net_rm::run)
}
