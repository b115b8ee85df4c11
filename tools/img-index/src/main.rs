#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<img_index::Args>(img_index::run)
}
