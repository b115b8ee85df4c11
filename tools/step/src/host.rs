//! On this machine: a command with the files it reads and the files it makes.

use crate::Args;
use crate::files::{Files, settled};
use crate::kept::{self, Kept};
use crate::stdout::Stdout;
use crate::words;
use cli::{Context, Explain, Fault, Result};
use context::Options;
use img_build::{Key, Report};
use oci::Digest;
use std::io::IsTerminal;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use store::{Settle, Store};

/// What is asked for.
struct Asked<'a> {
    args: &'a Args,
    store: Store,
    title: String,
    variables: Vec<(String, String)>,
    /// As given, and from the root on.
    outputs: Vec<(&'a String, PathBuf)>,
}

pub fn run(args: &Args, context: &mut Context, report: &Report) -> Result<()> {
    if args.command.is_empty() {
        return Err(Fault::usage("there is no command").hint("step --input FILE --output FILE -- COMMAND"));
    }
    let outputs = args.outputs().map(output).collect::<Result<_>>()?;
    let asked = Asked {
        args,
        store: Store::from_env()?,
        title: args.title(),
        variables: words::environment(&args.env, |name| std::env::var(name).ok())?,
        outputs,
    };
    let inputs = asked.inputs()?;
    let key = asked.key(&inputs)?;
    let settle = Arc::new(Settle::new());
    if args.dry_run {
        let found = if args.steps.no_cache { None } else { asked.find(&key, &settle)? };
        let why = if found.is_some() {
            "nothing it depends on has changed"
        } else {
            "the cache has nothing of this key"
        };
        let line = serde_json::json!({"step": 1, "instruction": asked.title, "key": key, "cached": found.is_some(), "why": why});
        return context.print(&format!("{line}\n"));
    }
    let result = asked.do_it(context, report, &inputs, &key, &settle);
    if let Ok(settle) = Arc::try_unwrap(settle) {
        settle.finish();
    }
    result
}

/// An output, as given and from the root on.
fn output(text: &String) -> Result<(&String, PathBuf)> {
    let path = Files::absolute(text)?;
    let here = std::env::current_dir().explain(|| "find the working directory".into())?;
    if here.starts_with(settled(&path)) {
        return Err(Fault::usage(format!(
            "--output {text}: the command runs in it, and it would be replaced"
        ))
        .hint("name what the command makes"));
    }
    Ok((text, path))
}

impl Asked<'_> {
    fn do_it(
        &self,
        context: &mut Context,
        report: &Report,
        inputs: &[Digest],
        key: &Digest,
        settle: &Arc<Settle>,
    ) -> Result<()> {
        let vertex = report.start(&self.title);
        // Of several at once one runs, and the others take what it made.
        let lock = self.store.lock_step(key)?;
        if !self.args.steps.no_cache
            && let Some(kept) = self.find(key, settle)?
        {
            for (number, (text, path)) in self.outputs.iter().enumerate() {
                kept.put_back(&self.store, number, &settled(path))
                    .map_err(|fault| fault.on((*text).clone()))?;
            }
            kept.repeat_stdout()?;
            self.store.unlock_step(key);
            vertex.cached();
            return Ok(());
        }
        let (status, stdout) = self.execute()?;
        if !status.success() {
            let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
            vertex.failed(&Fault::failed(format!("ended with status {code}")));
            // It has said why, and nobody takes its status for another's.
            context.exit_with(u8::try_from(code).unwrap_or(1));
            return Ok(());
        }
        vertex.done();
        let changed = self.inputs()?.iter().zip(inputs).position(|(now, before)| now != before);
        if let Some(place) = changed {
            report.warn(&format!(
                "{} changed while the command ran, so that nothing is kept; what the command makes is an --output",
                self.args.input[place]
            ));
            return Ok(());
        }
        if stdout.as_ref().is_some_and(|stdout| stdout.is_cut) {
            report.warn("it wrote too much to stdout, so that nothing is kept; a file can be an --output");
            return Ok(());
        }
        img_build::keep(&self.store, key, &self.title, lock, settle, |root| {
            kept::collect(&self.store, root, &self.outputs, stdout.map(|stdout| stdout.kept))
        })
    }

    /// What the inputs are now.
    fn inputs(&self) -> Result<Vec<Digest>> {
        let outputs: Vec<PathBuf> = self.outputs.iter().map(|(_, path)| settled(path)).collect();
        let mut digests = Vec::new();
        for text in &self.args.input {
            let files = Files::open(&self.store, text, true).map_err(|fault| fault.within("--input"))?;
            let mut exclude = Vec::new();
            for output in &outputs {
                // What it makes is not what it is made from.
                if let Ok(below) = output.strip_prefix(&files.path)
                    && let Some(below) = below.to_str().filter(|below| !below.is_empty())
                {
                    exclude.push(words::literal(below));
                }
            }
            let options = Options { exclude, ..Options::default() };
            digests.push(files.context.select(&[&files.choice], &options)?.digest()?);
            // What is forgotten is read again.
            let _ = files.context.remember();
        }
        Ok(digests)
    }

    fn key(&self, inputs: &[Digest]) -> Result<Digest> {
        let place = if let Some(name) = &self.args.name {
            format!("named {name}")
        } else {
            let directory = std::env::current_dir().explain(|| "find the working directory".into())?;
            format!("in {}", directory.display())
        };
        let variables: Vec<String> =
            self.variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let inputs: Vec<&str> = inputs.iter().map(Digest::as_str).collect();
        let outputs: Vec<&String> = self.outputs.iter().map(|(text, _)| *text).collect();
        Ok(Key::new("host")
            .with("place", place)
            .with_all("argv", &self.args.command)
            .with_all("env", &variables)
            .with_all("input name", &self.args.input)
            .with_all("input", &inputs)
            .with_all("output", &outputs)
            .with_all("key", &self.args.key)
            .finish())
    }

    /// What is kept for this key, if it tells all that is asked for.
    fn find(&self, key: &Digest, settle: &Settle) -> Result<Option<Kept>> {
        let Some(root) = img_build::find_kept(&self.store, key, settle)? else { return Ok(None) };
        let Some(kept) = Kept::read(root)? else { return Ok(None) };
        // To a terminal it wrote itself; that cannot be told again.
        let is_heard = kept.has_stdout() || std::io::stdout().is_terminal();
        Ok((is_heard && kept.outputs() == self.outputs.len()).then_some(kept))
    }

    fn execute(&self) -> Result<(ExitStatus, Option<Stdout>)> {
        let (program, words) =
            self.args.command.split_first().ok_or_else(|| Fault::usage("there is no command"))?;
        let is_terminal = std::io::stdout().is_terminal();
        let mut command = Command::new(program);
        command
            .args(words)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            // What comes from there would be an input nobody has declared.
            .stdin(Stdio::null())
            .stdout(if is_terminal { Stdio::inherit() } else { Stdio::piped() });
        let mut child = sys::process::spawn_bound(&mut command).map_err(|error| not_run(program, error))?;
        let stdout = child.stdout.take().map(Stdout::pass).transpose()?;
        let status = child.wait().explain(|| format!("wait for {program}"))?;
        Ok((status, stdout))
    }
}

fn not_run(program: &str, error: std::io::Error) -> Fault {
    Fault::new(cli::Kind::of_io(&error), format!("run {program}")).because(error)
}
