#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<net_attach::Args>(net_attach::run)
}
