//! All tools in one program: small on disk, for releases. Which tool it is, is told by the name it was called by (a
//! link) or by its first argument. It also writes the manual pages and completions of them all.
#![forbid(unsafe_code)]

mod documents;

use cli::{Common, Context, Fault, Result};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// Makes the table of tools: a name, the crate. After the semicolon those that are no tools of pipes and read their own command
/// line.
macro_rules! tools {
    ($($name:literal = $tool:ident),*; $($own_name:literal = $own_tool:ident),*) => {
        /// Names of all tools, in the order of their index.
        pub const TOOLS: &[&str] = &[$($name,)* $($own_name),*];

        fn run_tool(name: &str, arguments: Vec<OsString>) -> Option<u8> {
            match name {
                $($name => Some(cli::run_with::<$tool::Args>(arguments, $tool::run)),)*
                $($own_name => Some($own_tool::main(&arguments)),)*
                _ => None,
            }
        }

        /// The command lines of all tools, as data.
        fn command_lines() -> Vec<clap::Command> {
            use clap::CommandFactory;
            vec![$($tool::Args::command(),)* $($own_tool::command()),*]
        }
    };
}

tools! {
    "img-build" = img_build,
    "img-cat" = img_cat,
    "img-copy" = img_copy,
    "img-diff" = img_diff,
    "img-edit" = img_edit,
    "img-files" = img_files,
    "img-history" = img_history,
    "img-import" = img_import,
    "img-index" = img_index,
    "img-inspect" = img_inspect,
    "img-load" = img_load,
    "img-ls" = img_ls,
    "img-prune" = img_prune,
    "img-pull" = img_pull,
    "img-push" = img_push,
    "img-rm" = img_rm,
    "img-save" = img_save,
    "img-tag" = img_tag,
    "img-unpack" = img_unpack,
    "step" = step,
    "ctr-attach" = ctr_attach,
    "ctr-checkpoint" = ctr_checkpoint,
    "ctr-commit" = ctr_commit,
    "ctr-cp" = ctr_cp,
    "ctr-create" = ctr_create,
    "ctr-diff" = ctr_diff,
    "ctr-events" = ctr_events,
    "ctr-exec" = ctr_exec,
    "ctr-export" = ctr_export,
    "ctr-inspect" = ctr_inspect,
    "ctr-kill" = ctr_kill,
    "ctr-logs" = ctr_logs,
    "ctr-ls" = ctr_ls,
    "ctr-pause" = ctr_pause,
    "ctr-port" = ctr_port,
    "ctr-prune" = ctr_prune,
    "ctr-rename" = ctr_rename,
    "ctr-restart" = ctr_restart,
    "ctr-restore" = ctr_restore,
    "ctr-rm" = ctr_rm,
    "ctr-run" = ctr_run,
    "ctr-shim" = ctr_shim,
    "ctr-spec" = ctr_spec,
    "ctr-start" = ctr_start,
    "ctr-stats" = ctr_stats,
    "ctr-stop" = ctr_stop,
    "ctr-top" = ctr_top,
    "ctr-unit" = ctr_unit,
    "ctr-unpause" = ctr_unpause,
    "ctr-update" = ctr_update,
    "ctr-wait" = ctr_wait,
    "net-attach" = net_attach,
    "net-detach" = net_detach,
    "net-create" = net_create,
    "net-ls" = net_ls,
    "net-inspect" = net_inspect,
    "net-rm" = net_rm,
    "net-dns" = net_dns,
    "net-prune" = net_prune,
    "net-reload" = net_reload,
    "vol-create" = vol_create,
    "vol-ls" = vol_ls,
    "vol-inspect" = vol_inspect,
    "vol-rm" = vol_rm,
    "vol-prune" = vol_prune,
    "vol-clone" = vol_clone,
    "vol-export" = vol_export,
    "vol-import" = vol_import,
    "reg-ls" = reg_ls,
    "reg-login" = reg_login,
    "reg-logout" = reg_logout,
    "sys-check" = sys_check,
    "sys-df" = sys_df;
    "cred-file" = cred_file,
    "cred-pass" = cred_pass,
    "oci-runtime" = oci_runtime
}

/// Names docker calls tools by: a credential helper is `docker-credential-` and a name of its own.
pub const OTHER_NAMES: &[(&str, &str)] =
    &[("docker-credential-staves-file", "cred-file"), ("docker-credential-staves-pass", "cred-pass")];

/// All tools in one program
///
/// Called by the name of a tool (a link to it), or with one as first argument, it is that tool.
#[derive(Debug, clap::Parser)]
#[command(
    name = "staves",
    version,
    after_help = "Examples:\n  staves ctr-ls --all\n  staves links /usr/local/bin\n  staves man /usr/local/share/man/man1"
)]
pub struct Args {
    #[command(subcommand)]
    action: Option<Action>,

    #[command(flatten)]
    pub common: Common,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Print the names of the tools
    Tools,
    /// Write a manual page for every tool into a directory
    Man { dir: PathBuf },
    /// Write completions for every tool into bash/, zsh/ and fish/ below a directory
    Completions { dir: PathBuf },
    /// Make links to this program, named after the tools, in a directory
    Links { dir: PathBuf },
}

cli::tool!(Args, "staves", common);

/// Runs the tool the arguments ask for, the program's name first; returns the exit status.
pub fn dispatch(arguments: Vec<OsString>) -> u8 {
    let named = arguments.first().map(|name| tool_name(name)).unwrap_or_default();
    if TOOLS.contains(&named.as_str()) {
        return run_tool(&named, arguments).unwrap_or(1);
    }
    let first = arguments.get(1).map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if TOOLS.contains(&first.as_str()) {
        return run_tool(&first, arguments.into_iter().skip(1).collect()).unwrap_or(1);
    }
    cli::run_with::<Args>(arguments, run)
}

fn tool_name(argument: &OsStr) -> String {
    let name = Path::new(argument).file_name().unwrap_or_default().to_string_lossy().into_owned();
    OTHER_NAMES.iter().find(|(other, _)| *other == name).map_or(name, |(_, tool)| (*tool).to_owned())
}

fn run(args: &Args, context: &mut Context) -> Result<()> {
    match &args.action {
        None | Some(Action::Tools) => context.print(&(TOOLS.join("\n") + "\n")),
        Some(Action::Man { dir }) => documents::manual_pages(dir, command_lines()),
        Some(Action::Completions { dir }) => documents::completions(dir, command_lines()),
        Some(Action::Links { dir }) => links(dir),
    }
}

fn links(dir: &Path) -> Result<()> {
    let own = std::env::current_exe().map_err(|error| Fault::failed("find this program").because(error))?;
    documents::make_dir(dir)?;
    // Beside the program a link needs no path, and the directory may be moved.
    let beside = own.parent().and_then(|parent| parent.canonicalize().ok()) == dir.canonicalize().ok();
    let target = if beside { own.file_name().map(PathBuf::from).unwrap_or(own) } else { own };
    for name in TOOLS.iter().chain(OTHER_NAMES.iter().map(|(name, _)| name)) {
        let link = dir.join(name);
        let fail = |error| Fault::failed(format!("link {}", link.display())).because(error);
        match std::fs::remove_file(&link) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(fail(error)),
        }
        std::os::unix::fs::symlink(&target, &link).map_err(fail)?;
    }
    Ok(())
}
