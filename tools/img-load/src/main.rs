#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<img_load::Args>(img_load::run)
}
