#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<img_rm::Args>(img_rm::run)
}
