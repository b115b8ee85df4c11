#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<net_dns::Args>(net_dns::run)
}
