#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    cred_pass::main(&arguments).into()
}
