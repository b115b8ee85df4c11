//! One record, or tables for people.

use crate::Disk;
use cli::{Context, OutputMode, Result, Table};
use img_ls::words;
use record::Record;
use serde_json::Value;

/// Columns of a kind's objects: heading, member, how it is shown.
type Columns = &'static [(&'static str, &'static str, Shown)];

#[derive(Clone, Copy)]
enum Shown {
    Text,
    /// A digest or an id, its first twelve digits.
    Short,
    Size,
}

use Shown::{Short, Size, Text};

const IMAGES: Columns = &[
    ("IMAGE", "references", Text),
    ("DIGEST", "digest", Short),
    ("SIZE", "size", Size),
    ("SHARED", "shared", Size),
    ("UNIQUE", "unique", Size),
    ("CONTAINERS", "containers", Text),
];
const LAYERS: Columns = &[
    ("DIFF ID", "diff_id", Short),
    ("FILES", "entries", Text),
    ("SIZE", "size", Size),
    ("COMPLETE", "complete", Text),
    ("IN USE", "in_use", Text),
];
const CONTAINERS: Columns = &[
    ("CONTAINER", "id", Short),
    ("NAME", "name", Text),
    ("IMAGE", "image", Text),
    ("STATUS", "status", Text),
    ("WRITABLE", "writable", Size),
    ("SIZE", "size", Size),
];
const VOLUMES: Columns =
    &[("VOLUME", "name", Text), ("CONTAINERS", "containers", Text), ("SIZE", "size", Size)];
const DOWNLOADS: Columns = &[("BLOB", "digest", Short), ("ACTIVE", "active", Text), ("SIZE", "size", Size)];
const UNFINISHED: Columns = &[("NAME", "name", Text), ("ACTIVE", "active", Text), ("SIZE", "size", Size)];
const CACHE: Columns = &[("NAME", "name", Text), ("STALE", "stale", Size), ("SIZE", "size", Size)];

pub fn print(disk: &Disk, context: &mut Context) -> Result<()> {
    if context.mode() == OutputMode::Json {
        let mut record = Record::new();
        record.set("disk", disk)?;
        return context.print_record(&record);
    }
    let mut table = Table::new(&["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]);
    for (name, row) in disk.rows() {
        table.row([
            name.to_owned(),
            row.count.to_string(),
            row.active.to_string(),
            words::size(row.size),
            reclaimable(row.size, row.reclaimable),
        ]);
    }
    let total = &disk.total;
    table.row(["Total", "", "", &words::size(total.size), &reclaimable(total.size, total.reclaimable)]);
    context.print_table(&table)?;
    let kinds = [IMAGES, LAYERS, CONTAINERS, VOLUMES, DOWNLOADS, UNFINISHED, CACHE];
    for ((_, row), columns) in disk.rows().into_iter().zip(kinds) {
        if let Some(objects) = row.objects.as_ref().filter(|objects| !objects.is_empty()) {
            context.print("\n")?;
            context.print_table(&objects_table(objects, columns))?;
        }
    }
    Ok(())
}

/// `1.2GB (66%)`.
fn reclaimable(size: u64, reclaimable: u64) -> String {
    let part = u128::from(reclaimable) * 100;
    match part.checked_div(u128::from(size)) {
        Some(percent) => format!("{} ({percent}%)", words::size(reclaimable)),
        None => words::size(reclaimable),
    }
}

fn objects_table(objects: &[Value], columns: Columns) -> Table {
    let headings: Vec<&str> = columns.iter().map(|(heading, _, _)| *heading).collect();
    let mut table = Table::new(&headings);
    for object in objects {
        table.row(columns.iter().map(|(_, member, shown)| cell(object.get(member), *shown)));
    }
    table
}

fn cell(value: Option<&Value>, shown: Shown) -> String {
    match (value, shown) {
        (None | Some(Value::Null), _) => "<none>".to_owned(),
        (Some(Value::String(text)), Short) => {
            let digits = text.split_once(':').map_or(text.as_str(), |(_, digits)| digits);
            digits.chars().take(12).collect()
        }
        (Some(Value::String(text)), _) => text.clone(),
        (Some(Value::Array(names)), _) if names.is_empty() => "<none>".to_owned(),
        (Some(Value::Array(names)), _) => {
            names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
        }
        (Some(Value::Bool(value)), _) => if *value { "yes" } else { "no" }.to_owned(),
        (Some(value), Size) => words::size(value.as_u64().unwrap_or(0)),
        (Some(value), _) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn parts_of_nothing_and_of_much() {
        assert_eq!(reclaimable(0, 0), "0B");
        assert_eq!(reclaimable(3_000_000, 2_000_000), "2MB (66%)");
        assert_eq!(reclaimable(u64::MAX, u64::MAX), "18.4EB (100%)");
        let row = crate::Row {
            objects: Some(vec![json!({"name": "a\u{1b}b", "stale": 0, "size": 7})]),
            ..crate::Row::default()
        };
        let text = objects_table(row.objects.as_deref().unwrap(), CACHE).render(None);
        assert!(text.contains("7B") && !text.contains('\u{1b}'), "{text}");
        assert_eq!(cell(Some(&json!("sha256:0123456789abcdef")), Short), "0123456789ab");
        assert_eq!(cell(Some(&json!([])), Text), "<none>");
    }
}
