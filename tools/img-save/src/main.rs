#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<img_save::Args>(img_save::run)
}
