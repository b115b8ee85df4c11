//! Other tools of ours, and how far they have come.

use crate::report::Vertex;
use cli::{Explain, Result};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, ExitStatus, Stdio};

/// How it ended, and what it said.
pub struct Ran {
    pub status: ExitStatus,
    /// Where stdout was piped.
    pub stdout: Vec<u8>,
    /// Lines on stderr.
    pub said: Vec<String>,
}

/// Options by which it tells what [`run`] understands; they go before its own words.
pub fn progress(vertex: &Vertex<'_>) -> [&'static str; 2] {
    ["--progress", if vertex.is_followed() { "json" } else { "none" }]
}

/// Runs it; how far it comes is how far `vertex` has come.
///
/// # Errors
/// When it cannot be run; that it fails is no error here.
pub fn run(command: &mut Command, vertex: &Vertex<'_>) -> Result<Ran> {
    let name = command.get_program().display().to_string();
    let says = || format!("run {name}");
    let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().explain(says)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    // Both at once: a full pipe would stop it.
    let (stdout, said) = std::thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let mut bytes = Vec::new();
            stdout.map_or(Ok(0), |mut stdout| stdout.read_to_end(&mut bytes)).map(|_| bytes)
        });
        let mut said = Vec::new();
        for line in stderr.into_iter().flat_map(|stderr| BufReader::new(stderr).split(b'\n')) {
            let Ok(line) = line else { break };
            if !event(&line, vertex) {
                said.push(String::from_utf8_lossy(&line).into_owned());
            }
        }
        (reader.join(), said)
    });
    let stdout = stdout.unwrap_or_else(|_| Ok(Vec::new())).explain(|| format!("read what {name} printed"))?;
    let status = child.wait().explain(says)?;
    Ok(Ran { status, stdout, said })
}

/// Passes an event on; `false` for what is none.
fn event(line: &[u8], vertex: &Vertex<'_>) -> bool {
    if !line.starts_with(b"{\"event\":") {
        return false;
    }
    let Ok(event) = serde_json::from_slice::<Value>(line) else { return false };
    let number = |name: &str| event.get(name).and_then(Value::as_u64);
    let item = event.get("item").and_then(Value::as_str).unwrap_or_default();
    match event.get("event").and_then(Value::as_str) {
        Some("start" | "progress") => vertex.moved(item, number("current").unwrap_or(0), number("total")),
        Some("done") => vertex.arrived(item),
        _ => {}
    }
    true
}
