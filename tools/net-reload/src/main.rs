#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<net_reload::Args>(net_reload::run)
}
