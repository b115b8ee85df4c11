#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<net_detach::Args>(net_detach::run)
}
