//! Replacing JSON while keeping the order people and scripts saw before.

use serde_json::Value;

/// `new` with the member order of `old`, at every depth; members only `new` has come last, in its order.
pub fn in_place(old: &Value, new: Value) -> Value {
    match (old, new) {
        (Value::Object(old), Value::Object(mut new)) => {
            let mut merged = serde_json::Map::with_capacity(new.len());
            for (name, old_value) in old {
                if let Some(value) = new.shift_remove(name) {
                    merged.insert(name.clone(), in_place(old_value, value));
                }
            }
            merged.extend(new);
            Value::Object(merged)
        }
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            Value::Array(old.iter().zip(new).map(|(old, new)| in_place(old, new)).collect())
        }
        (_, new) => new,
    }
}

/// Appends JSON text, leaving out line breaks between tokens. Inside strings JSON allows none, so plain
/// text without any is copied whole.
pub fn push_on_one_line(out: &mut String, json: &str) {
    if json.bytes().any(|b| b == b'\n' || b == b'\r') {
        out.extend(json.split(['\n', '\r']).map(str::trim_start));
    } else {
        out.push_str(json);
    }
}
