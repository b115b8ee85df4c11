#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<img_history::Args>(img_history::run)
}
