//! Unpacked layers, shared by the images that have them.

use crate::{Row, walk};
use cli::{Context, Result};
use oci::Digest;
use serde_json::json;
use std::collections::HashSet;
use store::Store;

/// The bytes of a layer are noted down when it is unpacked; only what is half made is looked through.
pub fn look(store: &Store, needed: &HashSet<Digest>, verbose: bool, context: &mut Context) -> Result<Row> {
    let mut row = Row::new(verbose);
    for diff_id in store.layers()? {
        let info = store.layer_info(&diff_id).ok().flatten();
        let size = match &info {
            Some(info) => info.size,
            None => match walk::disk_bytes(&store.layer_dir(&diff_id)) {
                Ok(size) => size,
                Err(fault) => {
                    context.report(&fault);
                    continue;
                }
            },
        };
        row.add(size, needed.contains(&diff_id), || {
            json!({"diff_id": diff_id, "size": size, "entries": info.as_ref().map(|info| info.entries),
                "created": info.as_ref().map(|info| info.created.as_str()), "complete": store.has_layer(&diff_id),
                "in_use": needed.contains(&diff_id)})
        });
    }
    Ok(row)
}
