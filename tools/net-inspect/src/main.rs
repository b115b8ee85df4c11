#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<net_inspect::Args>(net_inspect::run)
}
