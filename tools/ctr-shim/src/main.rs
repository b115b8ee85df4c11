#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    if ctr_shim::init::is_asked_for(&arguments) {
        return ctr_shim::init::main(&arguments);
    }
    // The one way ctr-create calls it, without the cost of a parser.
    if let [_, bundle, run, tools] = arguments.as_slice()
        && !bundle.as_encoded_bytes().starts_with(b"-")
    {
        return ctr_shim::serve(bundle.as_ref(), run.as_ref(), Some(tools.as_ref()));
    }
    cli::main::<ctr_shim::Args>(ctr_shim::run)
}
