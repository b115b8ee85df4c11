//! Replacing JSON while keeping the order people and scripts saw before.

use serde_json::Value;

/// `new` with the member order of `old`, at every depth; members only `new` has come last, in its order.
pub fn in_place(old: &Value, new: Value) -> Value {
    match (old, new) {
        (Value::Object(old), Value::Object(mut new)) => {
            let mut merged = serde_json::Map::with_capacity(new.len());
            for (name, old_value) in old {
                // Taken out in place: to close the gap each time would take the square of the members' number.
                if let Some(value) = new.get_mut(name) {
                    merged.insert(name.clone(), in_place(old_value, value.take()));
                }
            }
            merged.extend(new.into_iter().filter(|(name, _)| !old.contains_key(name)));
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn order_is_kept_at_every_depth_and_new_members_come_last() {
        let old = json!({"z": 1, "gone": 0, "a": {"y": 1, "x": [{"q": 1, "p": 2}]}});
        let new = json!({"new": 5, "a": {"w": 1, "x": [{"p": 3, "q": 4}], "y": 2}, "z": null});
        let merged = in_place(&old, new).to_string();
        assert_eq!(merged, r#"{"z":null,"a":{"y":2,"x":[{"q":4,"p":3}],"w":1},"new":5}"#);
    }

    #[test]
    fn an_object_of_very_many_members_is_merged_in_no_time() {
        // An image may have that many labels.
        let labels: Value = (0..300_000).map(|n| (n.to_string(), Value::Null)).collect();
        let begun = std::time::Instant::now();
        assert_eq!(in_place(&labels, labels.clone()), labels);
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{:?}", begun.elapsed());
    }
}
