//! For people and for programs.

use crate::Row;
use cli::Table;
use serde_json::{Value, json};

/// Null for a container that does not run.
pub fn json(row: &Row, now: &str) -> Value {
    let Some(sample) = &row.sample else { return Value::Null };
    let usage = &sample.usage;
    json!({
        "time": now,
        "cpu": {"usage_ns": usage.cpu, "percent": row.cpu_percent},
        "memory": {
            "usage": usage.memory,
            "limit": usage.memory_limit,
            "percent": memory_percent(usage.memory, usage.memory_limit),
        },
        "networks": sample.networks,
        "io": {"read_bytes": usage.read, "written_bytes": usage.written},
        "pids": {"current": usage.pids, "limit": usage.pids_limit},
    })
}

/// docker's columns.
pub fn table(rows: &[Row], whole: bool) -> Table {
    let mut table = Table::new(&[
        "CONTAINER ID",
        "NAME",
        "CPU %",
        "MEM USAGE / LIMIT",
        "MEM %",
        "NET I/O",
        "BLOCK I/O",
        "PIDS",
    ]);
    for row in rows {
        let id = if whole { &row.id } else { row.id.get(..12).unwrap_or(&row.id) };
        let percent = |number: Option<f64>| number.map_or("--".to_owned(), |number| format!("{number:.2}%"));
        let cells = match &row.sample {
            None => ["--", "-- / --", "--", "--", "--", "--"].map(str::to_owned),
            Some(sample) => {
                let usage = &sample.usage;
                let limit = usage.memory_limit.unwrap_or_else(machine_memory);
                let sum = |of: fn(&crate::sample::Traffic) -> u64| {
                    sample.networks.values().fold(0u64, |sum, traffic| sum.saturating_add(of(traffic)))
                };
                [
                    percent(row.cpu_percent),
                    format!("{} / {}", binary(usage.memory), binary(limit)),
                    percent(memory_percent(usage.memory, usage.memory_limit)),
                    format!(
                        "{} / {}",
                        decimal(sum(|traffic| traffic.rx_bytes)),
                        decimal(sum(|traffic| traffic.tx_bytes))
                    ),
                    format!("{} / {}", decimal(usage.read), decimal(usage.written)),
                    usage.pids.to_string(),
                ]
            }
        };
        table.row([id.to_owned(), row.name.clone()].into_iter().chain(cells));
    }
    table
}

/// Over what was drawn before, line by line, so that nothing flickers.
pub fn redrawn(table: &Table) -> String {
    let width = rustix::termios::tcgetwinsize(rustix::stdio::stdout()).map(|size| usize::from(size.ws_col));
    let text = table.render(width.ok().filter(|width| *width > 0));
    // To the top left; each line cleared to its end; what is below cleared.
    format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n"))
}

/// Of the limit, or of the machine's memory where there is none.
fn memory_percent(usage: u64, limit: Option<u64>) -> Option<f64> {
    let limit = limit.unwrap_or_else(machine_memory);
    (limit > 0).then(|| (usage as f64 / limit as f64 * 10_000.0).round() / 100.0)
}

fn machine_memory() -> u64 {
    let info = rustix::system::sysinfo();
    (info.totalram as u64).saturating_mul(u64::from(info.mem_unit))
}

/// `12.34MiB`, as docker writes memory.
fn binary(bytes: u64) -> String {
    in_units(bytes, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB"])
}

/// `12.3MB`, as docker writes traffic.
fn decimal(bytes: u64) -> String {
    in_units(bytes, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB"])
}

fn in_units(bytes: u64, step: f64, units: &[&str]) -> String {
    let mut number = bytes as f64;
    let mut unit = 0;
    while number >= step && unit + 1 < units.len() {
        number /= step;
        unit += 1;
    }
    // Four digits are enough.
    let digits = if unit == 0 || number >= 1000.0 {
        0
    } else if number >= 100.0 {
        1
    } else {
        2
    };
    format!("{number:.digits$}{}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_in_words() {
        assert_eq!([binary(0), binary(1536), binary(512 << 20)], ["0B", "1.50KiB", "512.0MiB"]);
        assert_eq!([decimal(999), decimal(1500), decimal(u64::MAX)], ["999B", "1.50kB", "18447PB"]);
    }

    #[test]
    fn one_that_does_not_run_has_no_numbers() {
        let row = Row {
            id: "a".repeat(64),
            name: "w".into(),
            status: store::Status::Exited,
            sample: None,
            cpu_percent: None,
        };
        assert_eq!(json(&row, "now"), Value::Null);
        assert!(table(&[row], false).render(None).contains("-- / --"));
    }
}
