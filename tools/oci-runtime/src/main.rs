#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    oci_runtime::main(&std::env::args_os().collect::<Vec<_>>()).into()
}
