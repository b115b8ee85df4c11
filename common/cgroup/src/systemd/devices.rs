//! Device rules as `DevicePolicy=` and `DeviceAllow=` (systemd.resource-control(5)).
//!
//! systemd's own rules and the container's both have to allow an access. So where systemd has no words for a rule it is told
//! more than that, never less; what is allowed in the end is what the container's own rules say.

use super::properties::Property;
use super::value::Value;
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};
use std::path::Path;

/// The first version that knows `char-5`, and devices without a node.
const DEVICES_BY_NUMBER: u32 = 240;

const ALL: u8 = 7;

/// Devices of one kind that may be used; `None`: whatever the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Allowed {
    is_block: bool,
    major: Option<i64>,
    minor: Option<i64>,
    access: u8,
}

/// Replaces what a unit has of them.
pub fn properties(rules: &[LinuxDeviceCgroup], systemd: u32) -> Vec<Property> {
    let allowed = allowed(rules);
    let policy = if allowed.is_some() { "strict" } else { "auto" };
    let list = |entries: Vec<Value>| ("DeviceAllow".to_owned(), Value::Array("(ss)".to_owned(), entries));
    let mut properties = vec![list(Vec::new()), ("DevicePolicy".to_owned(), Value::text(policy))];
    let entry =
        |one: &Allowed| Value::Struct(vec![Value::Text(one.words(systemd)), Value::Text(one.letters())]);
    let entries: Vec<Value> = allowed.iter().flatten().map(entry).collect();
    if !entries.is_empty() {
        // Added to the empty one, which takes away what there was.
        properties.push(list(entries));
    }
    properties
}

/// At least what the rules allow, of which the last that matches decides; `None` is everything.
fn allowed(rules: &[LinuxDeviceCgroup]) -> Option<Vec<Allowed>> {
    let mut allowed = Some(Vec::new());
    for rule in rules {
        let both = Allowed::of(rule);
        if both.len() == 2 && both[0].is_everything_of_its_kind() {
            allowed = if rule.allow() { None } else { Some(Vec::new()) };
            continue;
        }
        // Of everything nothing can be taken away.
        let Some(list) = &mut allowed else { continue };
        for one in both {
            if rule.allow() {
                one.add_to(list);
            } else {
                one.take_from(list);
            }
        }
    }
    allowed
}

impl Allowed {
    fn of(rule: &LinuxDeviceCgroup) -> Vec<Allowed> {
        let kinds: &[bool] = match rule.typ() {
            Some(LinuxDeviceType::B) => &[true],
            Some(LinuxDeviceType::C | LinuxDeviceType::U) => &[false],
            _ => &[false, true],
        };
        let text = crate::devices::access(rule);
        let access = "rwm".char_indices().filter(|(_, letter)| text.contains(*letter));
        let access = access.fold(0, |all, (bit, _)| all | 1 << bit);
        let number = |number: Option<i64>| number.filter(|number| *number >= 0);
        let one = |is_block: &bool| Allowed {
            is_block: *is_block,
            major: number(rule.major()),
            minor: number(rule.minor()),
            access,
        };
        kinds.iter().map(one).collect()
    }

    fn is_everything_of_its_kind(self) -> bool {
        self.major.is_none() && self.minor.is_none() && self.access == ALL
    }

    fn has_numbers_of(self, other: Allowed) -> bool {
        (self.is_block, self.major, self.minor) == (other.is_block, other.major, other.minor)
    }

    fn covers_numbers_of(self, other: Allowed) -> bool {
        let covers = |own: Option<i64>, others: Option<i64>| own.is_none() || own == others;
        self.is_block == other.is_block && covers(self.major, other.major) && covers(self.minor, other.minor)
    }

    fn add_to(self, list: &mut Vec<Allowed>) {
        match list.iter_mut().find(|there| there.has_numbers_of(self)) {
            Some(there) => there.access |= self.access,
            None => list.push(self),
        }
    }

    /// From those that are wider nothing can be taken.
    fn take_from(self, list: &mut Vec<Allowed>) {
        for there in list.iter_mut().filter(|there| self.covers_numbers_of(**there)) {
            there.access &= !self.access;
        }
        list.retain(|there| there.access != 0);
    }

    fn words(self, systemd: u32) -> String {
        let kind = if self.is_block { "block" } else { "char" };
        let by_number = systemd >= DEVICES_BY_NUMBER;
        match (self.major, self.minor) {
            (Some(major), Some(minor)) => {
                let node = format!("/dev/{kind}/{major}:{minor}");
                if by_number || Path::new(&node).exists() { node } else { format!("{kind}-*") }
            }
            (Some(major), None) if by_number => format!("{kind}-{major}"),
            _ => format!("{kind}-*"),
        }
    }

    fn letters(self) -> String {
        "rwm"
            .char_indices()
            .filter(|(bit, _)| self.access & 1 << bit != 0)
            .map(|(_, letter)| letter)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(json: &str, systemd: u32) -> String {
        let rules: Vec<LinuxDeviceCgroup> = serde_json::from_str(json).unwrap();
        let show = |value: &Value| match value {
            Value::Array(_, entries) => entries
                .iter()
                .map(|entry| match entry {
                    Value::Struct(pair) => match pair.as_slice() {
                        [Value::Text(what), Value::Text(how)] => format!("{what} {how}"),
                        _ => String::new(),
                    },
                    _ => String::new(),
                })
                .collect::<Vec<_>>()
                .join(","),
            Value::Text(text) => text.clone(),
            _ => String::new(),
        };
        let properties = properties(&rules, systemd);
        assert_eq!(show(&properties[0].1), "", "what there was goes first");
        properties[1..].iter().map(|(_, value)| show(value)).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn lists_are_systemds() {
        let usual = r#"[{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "access": "m"},
            {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
            {"allow": true, "type": "c", "major": 136, "access": "rw"},
            {"allow": true, "type": "b", "minor": 4, "access": "r"}]"#;
        assert_eq!(lines(usual, 252), "strict char-* m,/dev/char/1:3 rwm,char-136 rw,block-* r");
        assert_eq!(lines(usual, 239).matches("char-136").count(), 0);
        for (everything, wanted) in [
            (r#"[{"allow": true, "access": "rwm"}]"#, "auto"),
            (r#"[{"allow": true}, {"allow": false, "type": "c", "major": 1, "minor": 3}]"#, "auto"),
            (r#"[{"allow": true}, {"allow": false}]"#, "strict"),
            ("[]", "strict"),
        ] {
            assert_eq!(lines(everything, 252), wanted, "{everything}");
        }
    }

    #[test]
    fn what_is_taken_away_is_gone_and_never_more() {
        let taken = r#"[{"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"},
            {"allow": true, "type": "c", "major": 1, "minor": 5, "access": "r"},
            {"allow": false, "type": "c", "major": 1, "access": "r"}]"#;
        assert_eq!(lines(taken, 252), "strict /dev/char/1:3 w");
        let narrower = r#"[{"allow": true, "type": "a", "major": 8, "access": "r"},
            {"allow": false, "type": "b", "major": 8, "minor": 1, "access": "r"}]"#;
        assert_eq!(lines(narrower, 252), "strict char-8 r,block-8 r");
    }
}
