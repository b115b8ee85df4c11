#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<net_create::Args>(net_create::run)
}
