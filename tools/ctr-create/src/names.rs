//! Ids and names for containers that were given none.

use fault::{Explain, Result};

const ADJECTIVES: [&str; 64] = [
    "able", "agile", "amber", "ample", "apt", "balmy", "bold", "brave", "breezy", "bright", "brisk", "calm",
    "candid", "cheery", "civil", "clear", "clever", "cosy", "crisp", "deft", "eager", "early", "easy",
    "fair", "fine", "firm", "fleet", "fond", "frank", "fresh", "gentle", "glad", "golden", "grand", "happy",
    "hardy", "hearty", "honest", "jolly", "keen", "kind", "lively", "loyal", "lucid", "mellow", "merry",
    "mild", "neat", "nimble", "noble", "patient", "plain", "plucky", "prompt", "proud", "quiet", "ready",
    "sober", "sound", "steady", "sunny", "swift", "tidy", "witty",
];

/// Trades of a harbour and its workshops.
const TRADES: [&str; 64] = [
    "archer",
    "baker",
    "barger",
    "binder",
    "boatman",
    "brewer",
    "builder",
    "caulker",
    "carter",
    "carver",
    "chandler",
    "clerk",
    "cobbler",
    "collier",
    "cooper",
    "courier",
    "cutler",
    "drover",
    "dyer",
    "falconer",
    "farrier",
    "ferryman",
    "fisher",
    "fletcher",
    "forester",
    "fuller",
    "gardener",
    "glazier",
    "glover",
    "grocer",
    "hatter",
    "hooper",
    "joiner",
    "lighter",
    "mason",
    "mercer",
    "miller",
    "miner",
    "netter",
    "pilot",
    "planter",
    "plumber",
    "porter",
    "potter",
    "printer",
    "purser",
    "reeve",
    "rigger",
    "roper",
    "saddler",
    "sailor",
    "sawyer",
    "shepherd",
    "skipper",
    "slater",
    "smith",
    "stevedore",
    "tanner",
    "thatcher",
    "tinker",
    "turner",
    "warden",
    "weaver",
    "wheeler",
];

/// 64 random hexadecimal digits.
pub fn new_id() -> Result<String> {
    let digit = |value: u8| char::from_digit(value.into(), 16).unwrap_or('0');
    Ok(random::<32>()?.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect())
}

/// `brisk_cooper`; from the second attempt on with a number after it.
pub fn new_name(attempt: u32) -> Result<String> {
    let [first, second, third] = random::<3>()?;
    let name = format!("{}_{}", ADJECTIVES[usize::from(first) % 64], TRADES[usize::from(second) % 64]);
    Ok(if attempt == 0 { name } else { format!("{name}{}", u32::from(third) + attempt * 256) })
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())
            .explain(|| "get random numbers".into())?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_names_are_valid() {
        assert!(store::is_id(&new_id().unwrap()));
        for attempt in 0..3 {
            store::check_name(&new_name(attempt).unwrap()).unwrap();
        }
    }
}
