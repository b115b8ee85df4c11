#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<net_ls::Args>(net_ls::run)
}
