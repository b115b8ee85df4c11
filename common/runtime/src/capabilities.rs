//! Capability sets of the process (capabilities(7)).

use crate::spec::CapabilityLists;
use fault::{Explain, Fault, Result};
use oci::capabilities::{CapSet, NAMES};
use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
};
use std::collections::BTreeSet;

/// The sets as bits, worked out before anything is given up. Names no capability has are not in them, as the specification
/// has it; [`warnings`] tells of them.
#[derive(Clone, Copy, Debug)]
pub struct Sets {
    bounding: u64,
    effective: u64,
    inheritable: u64,
    permitted: u64,
    ambient: u64,
}

impl Sets {
    pub fn of(lists: &CapabilityLists) -> Sets {
        Sets {
            bounding: bits(&lists.bounding),
            effective: bits(&lists.effective),
            inheritable: bits(&lists.inheritable),
            permitted: bits(&lists.permitted),
            ambient: bits(&lists.ambient),
        }
    }

    /// Takes the bounding set down; while CAP_SETPCAP is still there, so before the user is changed.
    pub fn limit_bounding(&self) -> Result<()> {
        for number in 0..64 {
            let bit = 1 << number;
            if self.bounding & bit != 0 {
                continue;
            }
            match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(bit)) {
                Ok(()) => {}
                // The first number the kernel does not know.
                Err(Errno::INVAL) if number > 0 => break,
                Err(error) => {
                    return Err(std::io::Error::from(error)).explain(|| "limit the bounding set".into());
                }
            }
        }
        Ok(())
    }

    /// Sets the rest, after the user was changed with capabilities kept. What this process does not have it cannot give; the
    /// specification wants the container to run all the same.
    pub fn apply(&self) -> Result<()> {
        let mut sets = *self;
        match set(&sets) {
            Err(Errno::PERM) => {
                let own = capabilities(None)
                    .map_err(std::io::Error::from)
                    .explain(|| "look at the own capabilities".into())?;
                sets = sets.within(own.permitted.bits(), own.inheritable.bits());
                set(&sets)
            }
            other => other,
        }
        .map_err(std::io::Error::from)
        .explain(|| "set capabilities".into())
        .map_err(|fault| fault.hint("sys-check lists what this machine lacks"))?;
        // Kernels without ambient capabilities have none to clear.
        let _ = clear_ambient_capability_set();
        for number in numbers(sets.raisable()) {
            match configure_capability_in_ambient_set(CapabilitySet::from_bits_retain(1 << number), true) {
                // Not known to this kernel, or forbidden by a secure bit.
                Ok(()) | Err(Errno::INVAL | Errno::PERM) => {}
                Err(error) => {
                    return Err(std::io::Error::from(error)).explain(|| "raise an ambient capability".into());
                }
            }
        }
        Ok(())
    }

    /// What capset(2) lets a process with these sets set.
    fn within(mut self, permitted: u64, inheritable: u64) -> Sets {
        self.permitted &= permitted;
        self.effective &= self.permitted;
        self.inheritable &= inheritable | (permitted & self.bounding);
        self
    }

    /// Ambient capabilities have to be permitted and inheritable as well.
    fn raisable(&self) -> u64 {
        self.ambient & self.permitted & self.inheritable
    }
}

fn set(sets: &Sets) -> rustix::io::Result<()> {
    let set = CapabilitySet::from_bits_retain;
    set_capabilities(
        None,
        CapabilitySets {
            effective: set(sets.effective),
            permitted: set(sets.permitted),
            inheritable: set(sets.inheritable),
        },
    )
}

/// Refuses sets that contradict each other: capset(2) takes none that are effective and not permitted, nor any that are
/// inheritable and not in the bounding set.
pub fn check(lists: &CapabilityLists) -> Result<()> {
    let sets = Sets::of(lists);
    for (member, bits, of) in [
        ("effective", sets.effective & !sets.permitted, "permitted"),
        ("inheritable", sets.inheritable & !sets.bounding, "bounding"),
    ] {
        if let Some(number) = numbers(bits).next() {
            let what = format!("process.capabilities.{member}: CAP_{} is not in {of}", NAMES[number]);
            return Err(Fault::input(what).because(std::io::Error::from(Errno::PERM)));
        }
    }
    Ok(())
}

/// What this process may give away; `None` if it cannot tell.
pub fn held() -> Option<CapSet> {
    capabilities(None).ok().map(|sets| CapSet(sets.permitted.bits()))
}

/// What will not be given of what is asked for, in words for a log; `held` bounds what can be, if anything does.
pub fn warnings(lists: &CapabilityLists, held: Option<CapSet>) -> Vec<String> {
    let mut warnings = Vec::new();
    let unknown: BTreeSet<&str> =
        [&lists.bounding, &lists.effective, &lists.inheritable, &lists.permitted, &lists.ambient]
            .into_iter()
            .flatten()
            .map(String::as_str)
            .filter(|name| number(name).is_none())
            .collect();
    if !unknown.is_empty() {
        let unknown: Vec<&str> = unknown.into_iter().collect();
        warnings.push(format!("ignoring unknown or unavailable capabilities: [{}]", unknown.join(" ")));
    }
    let asked = Sets::of(lists);
    let mut given = asked;
    if let Some(held) = held {
        given = asked.within(held.0, held.0);
        let all = asked.bounding | asked.effective | asked.inheritable | asked.permitted;
        let missing = CapSet(all).without(held);
        if !missing.is_empty() {
            let names: Vec<String> = missing.names().collect();
            warnings.push(format!("not given, because this process does not have them: {}", names.join(" ")));
        }
    }
    for number in numbers(asked.ambient & !given.raisable()) {
        warnings.push(format!(
            "can't raise ambient capability CAP_{}: it has to be permitted and inheritable as well",
            NAMES[number]
        ));
    }
    warnings
}

fn numbers(bits: u64) -> impl Iterator<Item = usize> {
    (0..NAMES.len()).filter(move |number| bits & 1 << number != 0)
}

fn number(name: &str) -> Option<usize> {
    let bare = name.strip_prefix("CAP_").unwrap_or(name);
    NAMES.iter().position(|known| *known == bare)
}

fn bits(names: &[String]) -> u64 {
    names.iter().filter_map(|name| number(name)).fold(0, |bits, number| bits | 1 << number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists(json: &str) -> CapabilityLists {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn names_become_their_kernel_numbers() {
        let lists =
            lists(r#"{"bounding":["CAP_CHOWN","CAP_SYS_ADMIN","CAP_CHECKPOINT_RESTORE","CAP_NONE"]}"#);
        assert_eq!(Sets::of(&lists).bounding, 1 | 1 << 21 | 1 << 40);
    }

    #[test]
    fn what_is_left_out_is_told() {
        let asked = lists(
            r#"{"bounding":["CAP_X","CAP_KILL","CAP_CHOWN"],"permitted":["CAP_KILL","CAP_X"],"effective":null,
                "inheritable":["CAP_KILL"],"ambient":["CAP_KILL","CAP_CHOWN"]}"#,
        );
        let warned = warnings(&asked, None);
        assert_eq!(warned.len(), 2, "{warned:?}");
        assert_eq!(warned[0], "ignoring unknown or unavailable capabilities: [CAP_X]");
        assert!(warned[1].starts_with("can't raise ambient capability CAP_CHOWN: "), "{warned:?}");
        let warned = warnings(&asked, Some(CapSet(1)));
        assert!(warned[1].ends_with("does not have them: CAP_KILL"), "{warned:?}");
        assert_eq!(warned.len(), 4, "{warned:?}");
        assert!(warnings(&lists("{}"), Some(CapSet::EMPTY)).is_empty());
    }

    #[test]
    fn sets_that_contradict_each_other_are_refused() {
        for good in [
            "{}",
            r#"{"bounding": ["CAP_KILL"], "inheritable": ["CAP_KILL"], "ambient": ["CAP_CHOWN"]}"#,
            r#"{"permitted": ["CAP_KILL", "CAP_CHOWN"], "effective": ["CAP_KILL", "TEST_CAP"]}"#,
        ] {
            check(&lists(good)).unwrap();
        }
        for (bad, words) in [
            (r#"{"effective": ["CAP_KILL"]}"#, "effective: CAP_KILL is not in permitted"),
            (
                r#"{"inheritable": ["CAP_CHOWN"], "bounding": null}"#,
                "inheritable: CAP_CHOWN is not in bounding",
            ),
        ] {
            let fault = check(&lists(bad)).unwrap_err().to_string();
            assert!(fault.contains(words) && fault.contains("peration not permitted"), "{fault}");
        }
    }

    #[test]
    fn sets_are_taken_down_to_what_can_be_set() {
        let asked = Sets {
            bounding: 0b1111,
            effective: 0b0111,
            inheritable: 0b1001,
            permitted: 0b0111,
            ambient: 0b1,
        };
        let given = asked.within(0b0011, 0b1000);
        assert_eq!((given.permitted, given.effective, given.inheritable), (0b0011, 0b0011, 0b1001));
        assert_eq!(given.raisable(), 1);
    }
}
