#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    staves::dispatch(std::env::args_os().collect()).into()
}
