#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<img_edit::Args>(img_edit::run)
}
