#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<img_ls::Args>(img_ls::run)
}
