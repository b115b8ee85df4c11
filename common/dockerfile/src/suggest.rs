//! "Did you mean …?"

/// Edits that still count as a slip of the finger, as in BuildKit.
const FAR: usize = 3;

/// The one of `known` that `word` was meant to be, if any is close enough.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // The distance costs the product of the lengths.
    if word.len() > 128 {
        return None;
    }
    known
        .into_iter()
        .filter(|candidate| candidate.len() <= 128)
        .map(|candidate| (strsim::levenshtein(word, candidate), candidate))
        .filter(|(distance, _)| *distance > 0 && *distance < FAR)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The same as the hint of an error.
pub fn hint<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(word, known).map(|meant| format!("did you mean {meant}?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant() {
        assert_eq!(nearest("FORM", ["RUN", "FROM"]), Some("FROM"));
        assert_eq!(nearest("FROM", ["FROM"]), None);
        assert_eq!(nearest("XYZZY", ["RUN", "FROM"]), None);
        assert_eq!(nearest(&"x".repeat(1 << 20), ["RUN"]), None);
    }
}
