#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<img_copy::Args>(img_copy::run)
}
