#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<img_files::Args>(img_files::run)
}
