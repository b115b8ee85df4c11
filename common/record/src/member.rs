//! Which member of a JSON text an error of serde_json is about: its errors know a line and a column alone.

/// The path of the member at which reading stopped, such as `process.rlimits[2].type`; empty for the whole text. It is found by
/// reading the text once more, so that reading what is right pays nothing for it.
pub fn path_of(text: &[u8], error: &serde_json::Error) -> String {
    path_at(text, offset(text, error.line(), error.column()))
}

/// How many bytes were read: lines count from 1, columns are bytes of a line.
fn offset(text: &[u8], line: usize, column: usize) -> usize {
    let line_start = match line.saturating_sub(2) {
        _ if line < 2 => 0,
        breaks => text
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == b'\n')
            .nth(breaks)
            .map_or(text.len(), |(at, _)| at + 1),
    };
    line_start.saturating_add(column)
}

/// An object or array that is open.
enum Open<'a> {
    Object(Option<&'a [u8]>),
    Array(usize),
}

/// The first value, or key, that ends where reading stopped, or later.
fn path_at(text: &[u8], offset: usize) -> String {
    let mut open: Vec<Open<'_>> = Vec::new();
    let mut at = 0;
    // After `{` and `,` a string is a key.
    let mut key_comes = false;
    while let Some(byte) = text.get(at) {
        let start = at;
        at += 1;
        match byte {
            b'{' | b'[' => {
                if at >= offset {
                    break;
                }
                key_comes = *byte == b'{';
                open.push(if key_comes { Open::Object(None) } else { Open::Array(0) });
            }
            b'}' | b']' => {
                open.pop();
                if at >= offset {
                    break;
                }
            }
            b',' => match open.last_mut() {
                Some(Open::Array(index)) => *index += 1,
                Some(Open::Object(_)) => key_comes = true,
                None => {}
            },
            b'"' => {
                at = end_of_string(text, at);
                if key_comes && let Some(Open::Object(key)) = open.last_mut() {
                    *key = Some(&text[start + 1..at.saturating_sub(1).max(start + 1)]);
                    key_comes = false;
                }
                if at >= offset {
                    break;
                }
            }
            b':' | b' ' | b'\n' | b'\r' | b'\t' => {}
            _ => {
                while text.get(at).is_some_and(|byte| !b",:]}[{\" \n\r\t".contains(byte)) {
                    at += 1;
                }
                if at >= offset {
                    break;
                }
            }
        }
    }
    written(&open)
}

/// Behind the closing quote, or at the end of a text without one.
fn end_of_string(text: &[u8], mut at: usize) -> usize {
    while let Some(byte) = text.get(at) {
        at += match byte {
            b'"' => return at + 1,
            b'\\' => 2,
            _ => 1,
        };
    }
    text.len()
}

fn written(open: &[Open<'_>]) -> String {
    let mut path = String::new();
    for container in open {
        match container {
            Open::Object(Some(key)) => {
                if !path.is_empty() {
                    path.push('.');
                }
                path += &String::from_utf8_lossy(key);
            }
            Open::Object(None) => {}
            Open::Array(index) => path.extend(["[", &index.to_string(), "]"]),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use std::collections::BTreeMap;

    #[derive(Debug, Deserialize)]
    #[expect(dead_code)]
    struct Outer {
        name: String,
        #[serde(default)]
        inner: Vec<Inner>,
        #[serde(default)]
        limits: BTreeMap<String, u8>,
        #[serde(default)]
        kind: Option<Kind>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code)]
    struct Inner {
        count: u32,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        Bind,
    }

    #[test]
    fn the_member_is_found() {
        for (text, wanted) in [
            (r#"{"name": 1}"#, "name"),
            (r#"{"name": [1]}"#, "name"),
            (r#"{"name": {"a": 1}}"#, "name"),
            (r#"{"name": null}"#, "name"),
            (r#"{"name": "a", "inner": [{"count": 1}, {"count": "2"}]}"#, "inner[1].count"),
            ("{\"name\": \"a\",\n \"inner\": [\n{\"count\": 1},\n {\"count\":\n [2]}]}", "inner[1].count"),
            (r#"{"name": "a", "inner": [{"count": 1}, {}]}"#, "inner[1]"),
            (r#"{"name": "a", "inner": [{"count": 1, "more": 2}]}"#, "inner[0].more"),
            (r#"{"name": "a", "inner": [3]}"#, "inner[0]"),
            (r#"{"name": "a", "inner": {}}"#, "inner"),
            (r#"{"name": "\"a,{", "limits": {"\"[,": 1, "cpu": 300}}"#, "limits.cpu"),
            (r#"{"name": "a", "limits": {"cpu": -1}}"#, "limits.cpu"),
            (r#"{"name": "a", "kind": "tmpfs"}"#, "kind"),
            (r#"{"limits": {"cpu": 1}}"#, ""),
            (r#"{"name": "a", "inner": [{"count": 1"#, "inner[0].count"),
            ("[]", ""),
            ("", ""),
        ] {
            let error = serde_json::from_str::<Outer>(text).unwrap_err();
            assert_eq!(path_of(text.as_bytes(), &error), wanted, "{text}: {error}");
        }
    }

    #[test]
    fn any_text_and_any_place_will_do() {
        let text = br#"{"a":[1,{"b\"":"\\"}],"c":tru"#;
        for end in 0..=text.len() {
            for offset in 0..text.len() + 3 {
                path_at(&text[..end], offset);
            }
        }
        path_at(b"]]}},,::\"\\", 100);
        assert_eq!(offset(b"ab\ncd\n", 2, 1), 4);
        assert_eq!(offset(b"ab", 9, usize::MAX), usize::MAX);
    }
}
