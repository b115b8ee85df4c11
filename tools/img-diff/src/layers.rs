//! Layers, as a whole and entry by entry.

use crate::print::{First, LayerChange, Printer};
use crate::{What, scan_both};
use cli::Result;
use contents::{FileRecord, Opened};
use layer::scan::first_difference;
use layer::{Budget, Item, Limits};
use record::Layer;
use std::hash::{BuildHasher, RandomState};

/// Says which layers are not the same, by their place.
pub fn compare(old: &Opened<'_>, new: &Opened<'_>, printer: &mut Printer<'_>) -> Result<()> {
    for (index, old, new) in pairs(&old.image.layers, &new.image.layers) {
        let what = why(old, new);
        printer.layer(&LayerChange { index, old, new, what, entry: None, offset: None, first: None })?;
    }
    Ok(())
}

/// Layers by their place, where they are not the same.
fn pairs<'a>(
    old: &'a [Layer],
    new: &'a [Layer],
) -> impl Iterator<Item = (usize, Option<&'a Layer>, Option<&'a Layer>)> {
    let both = (0..old.len().max(new.len())).map(|index| (index, old.get(index), new.get(index)));
    both.filter(|(_, old, new)| old.map(|layer| &layer.digest) != new.map(|layer| &layer.digest))
}

/// The same archive packed in another way is no other layer.
fn why(old: Option<&Layer>, new: Option<&Layer>) -> Option<&'static str> {
    let same = |old: &Layer, new: &Layer| old.diff_id == new.diff_id;
    old.zip(new).filter(|(old, new)| same(old, new)).map(|_| "compression")
}

/// Of each pair of layers that are not the same, why.
pub fn compare_archives(old: &Opened<'_>, new: &Opened<'_>, printer: &mut Printer<'_>) -> Result<()> {
    let (old_lists, new_lists) = scan_both(old, new, &Budget::default())?;
    for (index, one, other) in pairs(&old.image.layers, &new.image.layers) {
        let mut change = LayerChange {
            index,
            old: one,
            new: other,
            what: why(one, other),
            entry: None,
            offset: None,
            first: None,
        };
        if let (Some(one), Some(other), None) = (one, other, change.what) {
            entries(&old_lists[index], &new_lists[index], &mut change);
            if change.what.is_none() {
                // The same is listed: what is left is how it is written down.
                change.what = Some("headers");
                let (a, b) = (old.source.open(one)?, new.source.open(other)?);
                change.offset = first_difference(a, b, &Limits::default())?;
            }
        }
        printer.layer(&change)?;
    }
    Ok(())
}

/// The first entry that is not the same.
fn entries<'a>(old: &'a [Item], new: &'a [Item], change: &mut LayerChange<'a>) {
    let length = old.len().max(new.len());
    let Some(at) = (0..length).find(|at| old.get(*at) != new.get(*at)) else { return };
    change.what = Some(if same_set(old, new) { "order" } else { "entries" });
    change.entry = Some(at);
    let record = |items: &'a [Item], layer: Option<&'a Layer>| {
        items.get(at).map(|item| FileRecord::of_item(item, layer.map_or("", |layer| &layer.digest)))
    };
    let differs = old.get(at).zip(new.get(at)).map(|(old, new)| differences(old, new)).unwrap_or_default();
    change.first = Some(First { differs, old: record(old, change.old), new: record(new, change.new) });
}

fn differences(old: &Item, new: &Item) -> Vec<&'static str> {
    let checks = [
        ("path", old.path != new.path),
        (What::Type.name(), old.kind != new.kind),
        (What::Content.name(), old.content != new.content),
        (What::Size.name(), old.size != new.size),
        (What::Mode.name(), old.mode != new.mode),
        (What::Owner.name(), (old.uid, old.gid) != (new.uid, new.gid)),
        (What::Mtime.name(), old.mtime != new.mtime),
        (What::Link.name(), old.link != new.link),
        (What::Device.name(), old.device != new.device),
        (What::Xattrs.name(), old.xattrs != new.xattrs),
    ];
    checks.into_iter().filter(|(_, different)| *different).map(|(what, _)| what).collect()
}

/// Whether both list the same in another order. By hashes under a secret key: one path may be listed a million times.
fn same_set(old: &[Item], new: &[Item]) -> bool {
    let key = RandomState::new();
    let sorted = |items: &[Item]| {
        let hash = |item: &Item| key.hash_one(Item { number: 0, ..item.clone() });
        let mut hashes: Vec<u64> = items.iter().map(hash).collect();
        hashes.sort_unstable();
        hashes
    };
    old.len() == new.len() && sorted(old) == sorted(new)
}
