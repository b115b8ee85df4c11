#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<img_import::Args>(img_import::run)
}
