//! Pull, unpack, create, attach to a network and start in one.
//!
//! A composer: it does nothing of its own. Stages that link no network code are called as libraries, `img-pull` and
//! `net-attach` run as programs; `--show` prints the pipeline that would do the same.
#![forbid(unsafe_code)]

mod plan;
mod pull;
mod show;
mod stages;

pub use pull::PullFlags;

use cli::{Common, Context, Fault, Result, Tool};
use ctr_create::args::CreateFlags;
use ctr_start::session::{End, Options};
use ctr_start::terminal::DetachKeys;
use record::{Container, Record};
use rustix::termios::isatty;
use shim::{Client, Request};
use store::{ContainerDir, Store};

/// Run a command in a new container
///
/// Pulls the image if it is missing, unpacks it, creates a container, attaches it to its network and starts it. The exit
/// status is the container's; 125 means that this tool failed, 126 that the command could not be executed, 127 that
/// it was not found.
#[derive(Debug, clap::Parser)]
#[command(
    name = "ctr-run",
    version,
    disable_help_flag = true,
    after_help = "Examples:
  ctr-run -it debian:12 bash
  ctr-run -d --name web -p 8080:80 nginx
  printf 'a\\nb\\n' | ctr-run -i --rm busybox wc -l
  ctr-run --show -e A=b debian:12 env"
)]
pub struct Args {
    #[command(flatten)]
    pub common: Common,

    /// Print the pipeline that would run, ready to paste, and run nothing
    #[arg(long)]
    pub show: bool,

    /// Print what would be done as one step a line, and make nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Start it and leave; prints its id
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false,
        hide_default_value = true, hide_possible_values = true, action = clap::ArgAction::Set)]
    pub detach: bool,

    /// When to pull the image
    #[arg(long, value_enum, value_name = "WHEN", default_value_t)]
    pub pull: Pull,

    /// Attach only these: stdin, stdout, stderr
    #[arg(short, long, value_enum, value_name = "STREAM")]
    pub attach: Vec<Stream>,

    /// Remove the image, too, when the container has ended; implies --rm
    #[arg(long)]
    pub rmi: bool,

    /// Pass signals on to the container
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value_t = true, action = clap::ArgAction::Set)]
    pub sig_proxy: bool,

    /// Keys that detach from a terminal; empty for none
    #[arg(long, value_name = "KEYS", default_value = DetachKeys::DEFAULT)]
    pub detach_keys: String,

    /// Do not pass signals on to the container
    #[arg(long)]
    pub no_sig_proxy: bool,

    /// Do not show how pulling goes
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,

    #[command(flatten)]
    pub pulling: PullFlags,

    #[command(flatten)]
    pub flags: CreateFlags,

    /// Image, as docker writes it (left out with --rootfs), then the command and its arguments
    // One list, so that flags after the image are the command's.
    #[arg(value_name = "IMAGE [COMMAND]", trailing_var_arg = true, required_unless_present = "rootfs")]
    pub words: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Pull {
    /// If it is not in the store
    #[default]
    Missing,
    /// Ask the registry whether there is a newer one
    Always,
    /// Fail if it is not in the store
    Never,
    /// As always, but use what is in the store if the registry cannot be reached
    Newer,
}

/// A standard stream of the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Stream {
    Stdin,
    Stdout,
    Stderr,
}

impl Tool for Args {
    const NAME: &'static str = "ctr-run";
    const USAGE_STATUS: u8 = 125;

    fn common(&self) -> &Common {
        &self.common
    }

    fn own_failure_status(&self) -> Option<u8> {
        Some(125)
    }
}

impl Args {
    /// Image and command. With `--rootfs` there is no image, and the first word is the command's.
    fn image_and_command(&self) -> (Option<&str>, Vec<String>) {
        match self.words.split_first() {
            Some((image, command)) if self.flags.rootfs.is_none() => (Some(image), command.to_vec()),
            _ => (None, self.words.clone()),
        }
    }

    /// The flags as a configuration.
    fn config(&self, command: &[String]) -> Result<record::Config> {
        let mut config = record::Config::default();
        self.flags.apply(command, &mut config)?;
        config.platform = config.platform.or_else(|| self.pulling.platform());
        config.auto_remove |= self.rmi;
        Ok(config)
    }

    fn passes_signals(&self) -> bool {
        self.sig_proxy && !self.no_sig_proxy && !self.flags.tty
    }

    /// Whether stdout and stderr are attached.
    fn outputs(&self) -> [bool; 2] {
        [Stream::Stdout, Stream::Stderr].map(|stream| self.attach.is_empty() || self.attach.contains(&stream))
    }

    fn check(&self) -> Result<()> {
        self.pulling.check()?;
        if self.detach && (self.rmi || !self.attach.is_empty()) {
            return Err(Fault::usage("--detach excludes --attach and --rmi: nobody is there at the end"));
        }
        if self.attach.contains(&Stream::Stdin) && !self.flags.interactive {
            return Err(Fault::usage("--attach stdin: the container has none").hint("give -i too"));
        }
        if self.rmi && self.flags.rootfs.is_some() {
            return Err(Fault::usage("--rmi and --rootfs exclude each other: there is no image"));
        }
        if self.rmi && self.flags.restart.as_deref().is_some_and(|policy| policy != "no") {
            return Err(Fault::usage("--rmi implies --rm, which excludes a restart policy"));
        }
        if self.detach && !self.show && self.flags.interactive && self.flags.tty {
            // docker allows it: attach later.
            return Ok(());
        }
        let needs_keyboard = self.flags.tty && self.flags.interactive && !self.detach && !self.show;
        if needs_keyboard && !isatty(rustix::stdio::stdin()) {
            return Err(Fault::usage("-it needs a terminal, and stdin is none")
                .hint("leave -t out to pipe something in"));
        }
        Ok(())
    }
}

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let keys = DetachKeys::parse(&args.detach_keys)?;
    args.check()?;
    let (image, command) = args.image_and_command();
    let config = args.config(&command)?;
    if args.show {
        return context.print(&show::pipeline(args, image, &config));
    }
    let store = Store::from_env()?;
    if args.dry_run {
        return plan::print(args, context, &store, image, config);
    }
    // Both get ready while the image is looked for.
    let mut prepared = ctr_create::prepare(&store)?;
    let network = stages::NetAttach::start(&config)?;
    let mut record = Record::new();
    if let Some(image) = image {
        let found = stages::image(&store, image, args)?;
        record = found;
        let described = record.require("image")?;
        record.set("rootfs", &img_unpack::unpack(&store, &described)?)?;
    }
    if args.flags.rest.replace {
        ctr_create::make_way(&store, config.name.as_deref())?;
    }
    let record = {
        let mut warn = |warning: &str| context.warn("", warning);
        let cidfile = args.flags.cidfile.as_deref();
        ctr_create::create_with_cidfile(&store, record, config, cidfile, Some(&mut prepared), &mut warn)?
    };
    let container: Container = record.require("container")?;
    let dir = store.container_dir(&container.id);
    let attached = network.map_or(Ok(()), |network| network.attach(&record));
    let started = attached.and_then(|()| start(args, context, &dir, keys));
    if started.is_err() && (args.flags.rm || args.rmi) {
        discard(&dir);
    }
    if let (true, Some(image)) = (args.rmi, image)
        && let Err(fault) = stages::remove_image(image)
    {
        context.warn(image, &fault.to_string());
    }
    started.map_err(|fault| fault.on(container.name))
}

fn start(args: &Args, context: &mut Context, dir: &ContainerDir, keys: DetachKeys) -> Result<()> {
    let client = Client::connect(dir)?.ok_or_else(|| Fault::failed("the container's shim ended at once"))?;
    if args.detach {
        return match ctr_start::start(&client, dir) {
            Ok(_) => context.print(&format!("{}\n", dir.id)),
            Err((fault, exit_code)) => {
                let status = exit_code.filter(|code| matches!(code, 126 | 127)).unwrap_or(125);
                context.report_as(&fault, status as u8);
                Ok(())
            }
        };
    }
    let flags = &args.flags;
    let options = Options {
        input: if flags.interactive && !flags.tty { Some(ctr_start::own_stdin()?) } else { None },
        interactive: flags.interactive,
        terminal: flags.tty,
        outputs: args.outputs(),
        detach_keys: keys,
        signal_proxy: args.passes_signals(),
        patience: None,
    };
    if args.outputs() == [false, false] {
        // As docker has it: there is nothing else to know it by.
        context.print(&format!("{}\n", dir.id))?;
    }
    let end = ctr_start::run_session(context, dir, client, options)?;
    // Its reader is gone (`… | head`), and what removes itself nobody can look at later: it would run for nobody.
    if end == Some(End::OutputClosed) && (flags.rm || args.rmi) {
        discard(dir);
    }
    Ok(())
}

/// Ends a container that removes itself then.
fn discard(dir: &ContainerDir) {
    if let Ok(Some(client)) = Client::connect(dir) {
        let _ = client.request(&Request::Signal { signal: libc::SIGKILL, stop: true }, &[]);
        let _ = client.wait();
    }
}
