//! Sizes by directory.

use serde::Serialize;
use std::collections::{BTreeMap, HashSet};

/// A directory with all that is in it, whatever the depth.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Usage {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Absolute.
    pub path: String,
    /// Bytes of content; a file with several names counts where it is met first.
    pub size: u64,
    /// Entries, directories among them.
    pub files: u64,
}

/// Adds up paths (without a slash in front), sizes, and the inode where one can come twice. The largest first.
pub fn of<'a>(files: impl Iterator<Item = (&'a [u8], u64, Option<u32>)>, depth: Option<usize>) -> Vec<Usage> {
    let mut seen = HashSet::new();
    let mut totals: BTreeMap<&[u8], (u64, u64)> = BTreeMap::new();
    for (path, size, inode) in files {
        let again = inode.is_some_and(|inode| size > 0 && !seen.insert(inode));
        let size = if again { 0 } else { size };
        let ends = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at);
        let above = ends.take(depth.unwrap_or(usize::MAX)).map(|end| &path[..end]);
        for dir in std::iter::once(&path[..0]).filter(|_| !path.is_empty()).chain(above) {
            let total = totals.entry(dir).or_default();
            total.0 = total.0.saturating_add(size);
            total.1 += 1;
        }
    }
    let mut all: Vec<Usage> = totals
        .into_iter()
        .map(|(path, (size, files))| Usage {
            image: None,
            path: format!("/{}", String::from_utf8_lossy(path)),
            size,
            files,
        })
        .collect();
    all.sort_by_key(|one| std::cmp::Reverse(one.size));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_what_is_below_it() {
        let files = [
            (&b""[..], 0, Some(0)),
            (b"a", 0, Some(1)),
            (b"a/b", 0, Some(2)),
            (b"a/b/c", 5, Some(3)),
            (b"d", 5, Some(3)),
            (b"e", 9, None),
        ];
        let told = |depth| -> Vec<(String, u64, u64)> {
            of(files.iter().copied(), depth).into_iter().map(|one| (one.path, one.size, one.files)).collect()
        };
        assert_eq!(told(None), [("/".into(), 14, 5), ("/a".into(), 5, 2), ("/a/b".into(), 5, 1)]);
        assert_eq!(told(Some(0)), [("/".into(), 14, 5)]);
        assert_eq!(told(Some(1)).len(), 2);
    }
}
