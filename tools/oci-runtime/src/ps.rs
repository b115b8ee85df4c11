//! `ps`.

use crate::call::Call;
use crate::inspect::print;
use crate::options::Opt;
use crate::state::Container;
use fault::{Explain, Fault, Result};
use std::collections::HashSet;
use std::fmt::Write;
use std::process::Command;

pub fn ps(call: &Call<'_>) -> Result<u8> {
    let format = call.options.text(Opt::Format)?.unwrap_or("table");
    let container = Container::load(call)?;
    let pids = match container.cgroup()? {
        Some(group) => group.all_processes()?,
        // Without groups only the first is known.
        None => Vec::from_iter(container.has_init().then_some(container.stored.pid)),
    };
    match format {
        "json" => {
            let text = serde_json::to_string(&pids).explain(|| "print the processes".into())?;
            print(&format!("{text}\n"))?;
        }
        "table" => print(&of_container(&table(call)?, &pids.into_iter().collect())?)?,
        _ => return Err(Fault::usage("invalid format option")),
    }
    Ok(0)
}

/// What ps(1) prints of all processes.
fn table(call: &Call<'_>) -> Result<String> {
    let mut command = Command::new("ps");
    match call.options.operands.get(1..) {
        None | Some([]) => command.arg("-ef"),
        Some(arguments) => command.args(arguments),
    };
    let output = command
        .output()
        .explain(|| "run ps".into())
        .map_err(|fault| fault.hint("Debian has it in procps; --format json does without"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim().to_owned();
        return Err(Fault::failed(format!("ps: {}: {said}", output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The heading, and the lines of the container's processes.
fn of_container(table: &str, pids: &HashSet<i32>) -> Result<String> {
    let mut lines = table.lines();
    let heading = lines.next().unwrap_or_default();
    let column = heading
        .split_whitespace()
        .position(|word| word == "PID")
        .ok_or_else(|| Fault::failed("couldn't find PID field in ps output"))?;
    let mut text = format!("{heading}\n");
    for line in lines.filter(|line| !line.trim().is_empty()) {
        let field = line.split_whitespace().nth(column).unwrap_or_default();
        let pid = field.parse().map_err(|_| Fault::failed(format!("unable to parse pid: {field:?}")))?;
        if pids.contains(&pid) {
            let _ = writeln!(text, "{line}");
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_processes_are_left_out() {
        let table = "UID  PID CMD\nroot   1 init\nroot  42 sleep 7\n";
        assert_eq!(of_container(table, &HashSet::from([42])).unwrap(), "UID  PID CMD\nroot  42 sleep 7\n");
        assert!(of_container("X Y\n1 2\n", &HashSet::new()).is_err());
        assert!(of_container("PID\nx\n", &HashSet::new()).is_err());
        assert!(of_container("", &HashSet::new()).is_err());
    }
}
