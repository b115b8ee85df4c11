#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<img_diff::Args>(img_diff::run)
}
