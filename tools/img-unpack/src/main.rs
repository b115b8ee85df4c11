#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<img_unpack::Args>(img_unpack::run)
}
