//! Lists of processors and memory nodes (cpuset(7), "List format").

/// Largest number taken: far above what any machine has, and small enough to set aside bits for.
const MAX_NUMBER: u64 = 64 * 1024;

/// The bits of a list like `0-3,7`; none for an empty one.
pub fn parse(text: &str) -> Result<Vec<usize>, String> {
    let mut bits: Vec<usize> = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(format!("invalid range {part}"));
        }
        let width = usize::BITS as usize;
        bits.resize(bits.len().max(last / width + 1), 0);
        // A word at a time: a list may name the widest range again and again.
        for (at, word) in bits.iter_mut().enumerate().take(last / width + 1).skip(first / width) {
            let low = if at == first / width { first % width } else { 0 };
            let high = if at == last / width { last % width } else { width - 1 };
            *word |= usize::MAX << low & usize::MAX >> (width - 1 - high);
        }
    }
    if bits.is_empty() && !text.is_empty() {
        return Err(format!("no members found in set {text:?}"));
    }
    Ok(bits)
}

pub fn count(bits: &[usize]) -> u32 {
    bits.iter().map(|word| word.count_ones()).sum()
}

fn number(text: &str) -> Result<usize, String> {
    // A sign is no digit, though the standard library takes one.
    match text.parse::<u64>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit())) {
        Some(number) if number <= MAX_NUMBER => Ok(number as usize),
        Some(number) => Err(format!("{number} is larger than {MAX_NUMBER}")),
        None => Err(format!("{text:?} is not a number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_become_bits() {
        assert_eq!(parse("").unwrap(), Vec::<usize>::new());
        assert_eq!(parse("0-3,7").unwrap(), [0b1000_1111]);
        assert_eq!(parse(" 1 ,, 0 ").unwrap(), [0b11]);
        assert_eq!(parse("64").unwrap(), [0, 1]);
        assert_eq!(parse("63-128,5-5").unwrap(), [1 << 63 | 1 << 5, usize::MAX, 1]);
        assert_eq!(count(&parse("0-65535").unwrap()), 65536);
        for text in
            [",", " ", "a", "-1", "1-", "3-1", "0-9876543210", "65537", "+1", "1-2-3", "99999999999999999999"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_list_as_long_as_a_specification_is_read_in_no_time() {
        let list = "0-65535,".repeat(500_000);
        let begun = std::time::Instant::now();
        assert_eq!(count(&parse(&list).unwrap()), 65536);
        assert!(begun.elapsed() < std::time::Duration::from_secs(30), "{:?}", begun.elapsed());
    }
}
