#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<img_cat::Args>(img_cat::run)
}
