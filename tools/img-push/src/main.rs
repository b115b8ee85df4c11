#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<img_push::Args>(img_push::run)
}
