//! How long it takes to choose 20 000 files and to know what they are by digest: cold (nothing is known of them), warm, and to write them.
//!
//!     cargo run --release -p context --example twenty_thousand [DIRECTORY]

use context::{Context, Ignore, Memory, Options, Ownership, Target, Times};
use rustix::fd::AsFd;
use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};
use store::Store;

const DIRECTORIES: usize = 1000;
const FILES: usize = 20;
const ROUNDS: usize = 15;

fn main() -> Result<(), Box<dyn Error>> {
    let mut out = std::io::stdout().lock();
    let scratch = tempfile::tempdir()?;
    let given = std::env::args_os().nth(1);
    let directory = given.as_ref().map_or_else(|| scratch.path().join("context"), Into::into);
    if given.is_none() {
        fill(&directory)?;
        // What was written a moment ago is not remembered.
        std::thread::sleep(Duration::from_millis(2500));
    }
    let store = Store::at(scratch.path().join("root"), scratch.path().join("run"));
    let ignore = b".git\n**/node_modules\n*.log\n!keep.log\ntmp/*\n**/*.tmp\n";
    let mut times = Vec::new();
    let cpu = || rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let mut spent = Vec::new();
    for round in 0..=ROUNDS {
        let (begun, before) = (Instant::now(), cpu());
        let context = Context::directory(
            &directory,
            Ignore::parse(ignore, ".dockerignore")?,
            Memory::of(&store, &directory),
        )?;
        let opened = begun.elapsed();
        let begun_to_select = Instant::now();
        let chosen = context.select(&["."], &Options { wildcards: true, ..Options::default() })?;
        let selected = begun_to_select.elapsed();
        let begun_to_digest = Instant::now();
        let digest = chosen.digest()?;
        let digested = begun_to_digest.elapsed();
        let whole = begun.elapsed();
        let after = cpu();
        spent.push((after.tv_sec - before.tv_sec) * 1_000_000 + (after.tv_nsec - before.tv_nsec) / 1000);
        let begun_to_remember = Instant::now();
        context.remember()?;
        let remembered = begun_to_remember.elapsed();
        if round == 0 {
            writeln!(out, "{} files, {} bytes, {digest}", chosen.count(), chosen.bytes())?;
            writeln!(out, "cold: select {selected:.1?}, digest {digested:.1?}, remember {remembered:.1?}")?;
        } else {
            times.push((whole, opened, selected, digested));
        }
    }
    times.sort();
    let (whole, open, select, digest) = times[times.len() / 2];
    writeln!(
        out,
        "warm: {whole:.1?} (open {open:.1?}, select {select:.1?}, digest {digest:.1?}), median of {ROUNDS}"
    )?;
    spent.sort_unstable();
    writeln!(out, "best: {:.1?}; of the processor, median: {} µs", times[0].0, spent[spent.len() / 2])?;
    write(&directory, scratch.path(), &mut out)
}

fn write(directory: &Path, scratch: &Path, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let context = Context::directory(directory, Ignore::none(), Memory::none())?;
    let chosen = context.select(&["."], &Options::default())?;
    let root = scratch.join("layer");
    std::fs::create_dir(&root)?;
    let root = std::fs::File::open(root)?;
    let begun = Instant::now();
    let written = chosen.write(&Target {
        root: root.as_fd(),
        destination: b"/app/",
        ownership: Ownership::Keep,
        chmod: None,
        times: Times::Keep,
        unpack: false,
    })?;
    writeln!(out, "write: {} files in {:.1?}", written.files, begun.elapsed())?;
    Ok(())
}

fn fill(directory: &Path) -> std::io::Result<()> {
    for number in 0..DIRECTORIES {
        let dir = directory.join(format!("src/module-{}/part-{number}", number / 25));
        std::fs::create_dir_all(&dir)?;
        for file in 0..FILES {
            let text = format!("file {file} of {number}\n").repeat(100 + (number * 7 + file * 31) % 400);
            std::fs::write(dir.join(format!("source-file-{file}.rs")), text)?;
        }
    }
    Ok(())
}
