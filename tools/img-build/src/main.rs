#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<img_build::Args>(img_build::run)
}
