#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<img_pull::Args>(img_pull::run)
}
