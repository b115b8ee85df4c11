#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<img_inspect::Args>(img_inspect::run)
}
