#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<img_tag::Args>(img_tag::run)
}
