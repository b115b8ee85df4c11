#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main::<img_prune::Args>(img_prune::run)
}
