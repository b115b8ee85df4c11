//! Differences as lines.

use crate::Kind;
use crate::tree::{Change, Sides};
use cli::{Context, OutputMode, Result, Table};
use contents::FileRecord;
use img_ls::words;
use layer::Node;
use record::Layer;
use serde::Serialize;
use serde_json::{Value, json};

/// Bytes of output that are written at a time.
const CHUNK: usize = 64 << 10;
/// Characters of a value that a table shows.
const VALUE_WIDTH: usize = 60;

pub struct Printer<'a> {
    context: &'a mut Context,
    text: String,
    table: Table,
    count: u64,
}

/// A file that is not the same.
#[derive(Serialize)]
struct FileChange<'a> {
    kind: &'static str,
    change: &'static str,
    path: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    what: Vec<&'static str>,
    /// Bytes the second has more.
    size_change: i128,
    #[serde(skip_serializing_if = "Option::is_none")]
    old: Option<FileRecord<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    new: Option<FileRecord<'a>>,
}

/// A layer that is not the same.
#[derive(Debug)]
pub struct LayerChange<'a> {
    pub index: usize,
    pub old: Option<&'a Layer>,
    pub new: Option<&'a Layer>,
    /// `compression`, `headers`, `order`, `entries`.
    pub what: Option<&'static str>,
    /// The first entry that is not the same.
    pub entry: Option<usize>,
    /// The first byte of the archives that is not the same.
    pub offset: Option<u64>,
    pub first: Option<First<'a>>,
}

/// An entry of two archives.
#[derive(Clone, Debug, Serialize)]
pub struct First<'a> {
    /// In what, where both archives have one at that place: `path` or as of files.
    pub differs: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old: Option<FileRecord<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new: Option<FileRecord<'a>>,
}

const fn change_word(old: bool, new: bool) -> &'static str {
    match (old, new) {
        (false, _) => "added",
        (true, true) => "changed",
        (true, false) => "deleted",
    }
}

/// As docker diff has it.
fn letter(change: &str) -> &'static str {
    match change {
        "added" => "A",
        "deleted" => "D",
        _ => "C",
    }
}

impl<'a> Printer<'a> {
    pub fn new(context: &'a mut Context) -> Printer<'a> {
        let table = Table::new(&["", "KIND", "SIZE", "WHAT", "PATH"]);
        Printer { context, text: String::new(), table, count: 0 }
    }

    /// Whether there was any difference.
    pub fn finish(self) -> Result<bool> {
        if self.context.mode() == OutputMode::Table && self.count > 0 {
            self.context.print_table(&self.table)?;
        } else {
            self.context.print(&self.text)?;
        }
        Ok(self.count > 0)
    }

    fn line(&mut self, json: &impl Serialize, short: &str, row: [String; 5]) -> Result<()> {
        self.count += 1;
        match self.context.mode() {
            OutputMode::Table => {
                self.table.row(row);
                return Ok(());
            }
            // Texts and numbers: nothing JSON could not hold.
            OutputMode::Json => self.text.push_str(&serde_json::to_string(json).unwrap_or_default()),
            OutputMode::Quiet => {
                self.text.extend(short.chars().map(|c| if c == '\n' || c == '\r' { '\u{fffd}' } else { c }));
            }
        }
        self.text.push('\n');
        if self.text.len() > CHUNK {
            self.context.print(&self.text)?;
            self.text.clear();
        }
        Ok(())
    }

    pub fn file(&mut self, change: &Change<'_>, sides: Sides<'_>) -> Result<()> {
        let layer = |node: Node<'_>, layers: &'_ [Layer]| -> Option<String> {
            layers.get(node.layer()?).map(|layer| layer.digest.clone())
        };
        let old_layer = change.old.and_then(|node| layer(node, sides.old));
        let new_layer = change.new.and_then(|node| layer(node, sides.new));
        let old = change.old.map(|node| FileRecord::of_node(&change.path, node, old_layer.as_deref()));
        let new = change.new.map(|node| FileRecord::of_node(&change.path, node, new_layer.as_deref()));
        let word = change_word(old.is_some(), new.is_some());
        let path = new.as_ref().or(old.as_ref()).map(|file| file.path().to_owned()).unwrap_or_default();
        let size = |file: &Option<FileRecord<'_>>| file.as_ref().map_or(0, FileRecord::size);
        let difference = i128::from(size(&new)) - i128::from(size(&old));
        let what: Vec<&'static str> = change.what.iter().map(|what| what.name()).collect();
        let sign = if difference < 0 { "-" } else { "+" };
        let amount = words::size(u64::try_from(difference.unsigned_abs()).unwrap_or(u64::MAX));
        let row = [
            letter(word).to_owned(),
            Kind::File.name().to_owned(),
            if difference == 0 { String::new() } else { format!("{sign}{amount}") },
            what.join(","),
            path.clone(),
        ];
        let line = FileChange {
            kind: Kind::File.name(),
            change: word,
            path: &path,
            what,
            size_change: difference,
            old,
            new,
        };
        self.line(&line, &path, row)
    }

    /// A member of a document: its path as jq takes it without the dot in front.
    pub fn member(&mut self, kind: Kind, member: &str, old: &Value, new: &Value) -> Result<()> {
        let word = change_word(!old.is_null(), !new.is_null());
        let mut line = json!({"kind": kind.name(), "change": word, "member": member});
        if !old.is_null() {
            line["old"] = old.clone();
        }
        if !new.is_null() {
            line["new"] = new.clone();
        }
        let value = |value: &Value| {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            match text.char_indices().nth(VALUE_WIDTH) {
                Some((end, _)) => format!("{}…", &text[..end]),
                None => text,
            }
        };
        let shown = match word {
            "added" => format!("{member}: {}", value(new)),
            "deleted" => format!("{member}: {}", value(old)),
            _ => format!("{member}: {} -> {}", value(old), value(new)),
        };
        let row = [letter(word).to_owned(), kind.name().to_owned(), String::new(), String::new(), shown];
        self.line(&line, member, row)
    }

    pub fn layer(&mut self, change: &LayerChange<'_>) -> Result<()> {
        let word = change_word(change.old.is_some(), change.new.is_some());
        let mut line = json!({"kind": Kind::Layer.name(), "change": word, "index": change.index});
        if let Some(what) = change.what {
            line["what"] = json!(what);
        }
        for (name, layer) in [("old", change.old), ("new", change.new)] {
            if let Some(layer) = layer {
                line[name] = json!(layer);
            }
        }
        if let Some(entry) = change.entry {
            line["entry"] = json!(entry);
        }
        if let Some(offset) = change.offset {
            line["offset"] = json!(offset);
        }
        if let Some(first) = &change.first {
            line["first"] = json!(first);
        }
        let size = |layer: Option<&Layer>| layer.map_or(0, |layer| layer.size);
        let (old, new) = (size(change.old), size(change.new));
        let difference = match new.cmp(&old) {
            std::cmp::Ordering::Equal => String::new(),
            std::cmp::Ordering::Greater => format!("+{}", words::size(new - old)),
            std::cmp::Ordering::Less => format!("-{}", words::size(old - new)),
        };
        let row = [
            letter(word).to_owned(),
            Kind::Layer.name().to_owned(),
            difference,
            change.what.unwrap_or_default().to_owned(),
            in_words(change),
        ];
        self.line(&line, &format!("layer {}", change.index), row)
    }
}

fn in_words(change: &LayerChange<'_>) -> String {
    let short = |layer: Option<&Layer>| {
        let hex = layer.and_then(|layer| layer.digest.split_once(':')).map_or("-", |(_, hex)| hex);
        hex.get(..12).unwrap_or(hex).to_owned()
    };
    let text = format!("{}: {} -> {}", change.index, short(change.old), short(change.new));
    let shown = |file: Option<&FileRecord<'_>>| match file {
        Some(file) => {
            let [mode, owner, size, time, path] = file.columns();
            format!("{mode} {owner} {size} {time} {path}")
        }
        None => "nothing".to_owned(),
    };
    let mut parts = vec![text];
    if let (Some(entry), Some(first)) = (change.entry, &change.first) {
        let (old, new) = (shown(first.old.as_ref()), shown(first.new.as_ref()));
        let differs =
            if first.differs.is_empty() { String::new() } else { format!(" ({})", first.differs.join(",")) };
        parts.push(format!("entry {entry} is {new} where it was {old}{differs}"));
    }
    if let Some(offset) = change.offset {
        parts.push(format!("from byte {offset} on"));
    }
    parts.join("; ")
}
