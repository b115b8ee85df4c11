//! Device rules: lines for version 1, a BPF program for version 2. The last rule that matches decides.

use crate::{Cgroup, Version};
use fault::{Explain, Fault, Result};
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};
use std::os::fd::AsFd;
use sys::bpf::{Instruction, attach_device_program};

/// Refuses rules the kernel has no words for: what is left out of one would make it a wider one.
pub fn check(rules: &[LinuxDeviceCgroup]) -> Result<()> {
    for (index, rule) in rules.iter().enumerate() {
        let bad = |what: String| Err(Fault::input(format!("linux.resources.devices[{index}].{what}")));
        if rule.typ() == Some(LinuxDeviceType::P) {
            return bad("type: \"p\" is no device; it is a, b or c".to_owned());
        }
        let given = rule.access().as_deref().unwrap_or_default();
        if let Some(letter) = given.chars().find(|c| !"rwma".contains(*c)) {
            return bad(format!("access: {letter:?} is none of r, w and m"));
        }
        if !given.is_empty() && access(rule).is_empty() {
            return bad(format!("access: {given:?} has none of r, w and m"));
        }
        for (name, number) in [("major", rule.major()), ("minor", rule.minor())] {
            if let Some(number) = number.filter(|number| *number > i64::from(i32::MAX)) {
                return bad(format!("{name}: {number} is no device's number"));
            }
        }
    }
    Ok(())
}

/// What a rule is about, of "rwm"; all of it where it says nothing. runc takes an "a" and gives it no meaning.
pub fn access(rule: &LinuxDeviceCgroup) -> String {
    match rule.access().as_deref().unwrap_or_default() {
        "" => "rwm".to_owned(),
        given => given.replace('a', ""),
    }
}

/// File and line for each rule.
pub fn v1_lines(rules: &[LinuxDeviceCgroup]) -> Vec<(&'static str, String)> {
    rules
        .iter()
        .map(|rule| {
            let file = if rule.allow() { "devices.allow" } else { "devices.deny" };
            (file, v1_line(rule))
        })
        .collect()
}

fn v1_line(rule: &LinuxDeviceCgroup) -> String {
    let number = |n: Option<i64>| n.filter(|n| *n >= 0).map_or("*".to_owned(), |n| n.to_string());
    let kind = match rule.typ() {
        Some(LinuxDeviceType::B) => "b",
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => "c",
        _ => "a",
    };
    format!("{kind} {}:{} {}", number(rule.major()), number(rule.minor()), access(rule))
}

pub fn attach_v2(cgroup: &Cgroup, rules: &[LinuxDeviceCgroup]) -> Result<()> {
    debug_assert_eq!(cgroup.version(), Version::V2);
    let directory = cgroup.directories().first().ok_or_else(|| Fault::failed("the control group is gone"))?;
    let file = std::fs::File::open(directory).explain(|| format!("open {}", directory.display()))?;
    attach_device_program(file.as_fd(), &program(rules)).explain(|| "attach the device rules".into())
}

// Registers: 1 the context, 2 the device's type, 3 the access asked for, 4 and 5 its numbers, 6 to calculate with.
const LOAD_WORD: u8 = 0x61; // BPF_LDX | BPF_MEM | BPF_W
const AND_IMMEDIATE: u8 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const SHIFT_RIGHT: u8 = 0x74; // BPF_ALU | BPF_RSH | BPF_K
const MOVE_REGISTER: u8 = 0xbc; // BPF_ALU | BPF_MOV | BPF_X
const MOVE_IMMEDIATE: u8 = 0xb7; // BPF_ALU64 | BPF_MOV | BPF_K
const JUMP_NOT_EQUAL: u8 = 0x55; // BPF_JMP | BPF_JNE | BPF_K
const JUMP_EQUAL: u8 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const EXIT: u8 = 0x95;

// `struct bpf_cgroup_dev_ctx` and its constants (linux/bpf.h).
const TYPE_BLOCK: i32 = 1;
const TYPE_CHAR: i32 = 2;
const ACCESS_MKNOD: i32 = 1;
const ACCESS_READ: i32 = 2;
const ACCESS_WRITE: i32 = 4;

fn instruction(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: destination | source << 4, offset, immediate }
}

/// The rules as a program: looked at from the last to the first, the first that matches answers. Without a match the answer is no,
/// as a device nobody spoke of is not allowed.
fn program(rules: &[LinuxDeviceCgroup]) -> Vec<Instruction> {
    let mut program = vec![
        instruction(LOAD_WORD, 2, 1, 0, 0),
        instruction(MOVE_REGISTER, 3, 2, 0, 0),
        instruction(AND_IMMEDIATE, 2, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT, 3, 0, 0, 16),
        instruction(LOAD_WORD, 4, 1, 4, 0),
        instruction(LOAD_WORD, 5, 1, 8, 0),
    ];
    for rule in rules.iter().rev() {
        let block = rule_block(rule);
        let decides_all = block.len() == 2;
        program.extend(block);
        if decides_all {
            // The verifier refuses instructions that cannot be reached.
            return program;
        }
    }
    program.extend([instruction(MOVE_IMMEDIATE, 0, 0, 0, 0), instruction(EXIT, 0, 0, 0, 0)]);
    program
}

/// Tests that jump past the block where they fail, then the answer.
fn rule_block(rule: &LinuxDeviceCgroup) -> Vec<Instruction> {
    let mut tests: Vec<Vec<Instruction>> = Vec::new();
    let kind = match rule.typ() {
        Some(LinuxDeviceType::B) => Some(TYPE_BLOCK),
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some(TYPE_CHAR),
        _ => None,
    };
    if let Some(kind) = kind {
        tests.push(vec![instruction(JUMP_NOT_EQUAL, 2, 0, 0, kind)]);
    }
    let mut mask = 0;
    for letter in access(rule).chars() {
        mask |= match letter {
            'r' => ACCESS_READ,
            'w' => ACCESS_WRITE,
            'm' => ACCESS_MKNOD,
            _ => 0,
        };
    }
    if mask != ACCESS_READ | ACCESS_WRITE | ACCESS_MKNOD {
        let copy = instruction(MOVE_REGISTER, 6, 3, 0, 0);
        if rule.allow() {
            // Everything asked for must be covered.
            tests.push(vec![
                copy,
                instruction(AND_IMMEDIATE, 6, 0, 0, !mask & 7),
                instruction(JUMP_NOT_EQUAL, 6, 0, 0, 0),
            ]);
        } else {
            tests.push(vec![
                copy,
                instruction(AND_IMMEDIATE, 6, 0, 0, mask),
                instruction(JUMP_EQUAL, 6, 0, 0, 0),
            ]);
        }
    }
    for (register, number) in [(4, rule.major()), (5, rule.minor())] {
        if let Some(number) = number.filter(|n| *n >= 0) {
            tests.push(vec![instruction(JUMP_NOT_EQUAL, register, 0, 0, number as i32)]);
        }
    }
    let mut block: Vec<Instruction> = tests.into_iter().flatten().collect();
    let answer =
        [instruction(MOVE_IMMEDIATE, 0, 0, 0, i32::from(rule.allow())), instruction(EXIT, 0, 0, 0, 0)];
    block.extend(answer);
    let length = block.len();
    for (index, one) in block.iter_mut().enumerate() {
        if matches!(one.code, JUMP_NOT_EQUAL | JUMP_EQUAL) {
            one.offset = (length - index - 1) as i16;
        }
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxDeviceCgroupBuilder;

    fn rule(allow: bool, kind: LinuxDeviceType, major: i64, minor: i64, access: &str) -> LinuxDeviceCgroup {
        LinuxDeviceCgroupBuilder::default()
            .allow(allow)
            .typ(kind)
            .major(major)
            .minor(minor)
            .access(access)
            .build()
            .unwrap()
    }

    #[test]
    fn what_has_no_words_is_refused_and_not_made_wider() {
        assert!(
            check(&[
                rule(true, LinuxDeviceType::C, 1, 3, "rwm"),
                rule(false, LinuxDeviceType::A, -1, -1, ""),
                rule(false, LinuxDeviceType::C, 1, 11, "rwa")
            ])
            .is_ok()
        );
        for bad in [
            rule(true, LinuxDeviceType::P, 1, 3, "rwm"),
            rule(false, LinuxDeviceType::C, 1, 3, "x"),
            rule(true, LinuxDeviceType::C, 1, 3, "a"),
            rule(true, LinuxDeviceType::B, 4_294_967_299, 3, "r"),
        ] {
            let fault = check(std::slice::from_ref(&bad)).unwrap_err();
            assert!(fault.to_string().contains("linux.resources.devices[0]"), "{fault}");
        }
    }

    /// Runs a program as the kernel would.
    fn answer(program: &[Instruction], kind: i32, access: i32, major: i32, minor: i32) -> i32 {
        let mut r = [0i64; 11];
        let context = [kind | access << 16, major, minor];
        let mut at = 0;
        loop {
            let i = program[at];
            let (d, s) = (usize::from(i.registers & 15), usize::from(i.registers >> 4));
            at += 1;
            match i.code {
                LOAD_WORD => r[d] = i64::from(context[i.offset as usize / 4]),
                AND_IMMEDIATE => r[d] &= i64::from(i.immediate),
                SHIFT_RIGHT => r[d] >>= i.immediate,
                MOVE_REGISTER => r[d] = r[s],
                MOVE_IMMEDIATE => r[d] = i64::from(i.immediate),
                JUMP_NOT_EQUAL if r[d] != i64::from(i.immediate) => {
                    at = (at as i64 + i64::from(i.offset)) as usize;
                }
                JUMP_EQUAL if r[d] == i64::from(i.immediate) => {
                    at = (at as i64 + i64::from(i.offset)) as usize;
                }
                JUMP_NOT_EQUAL | JUMP_EQUAL => {}
                EXIT => return r[0] as i32,
                other => panic!("unknown code {other:#x}"),
            }
        }
    }

    #[test]
    fn the_last_match_decides() {
        let rules = [
            rule(false, LinuxDeviceType::A, -1, -1, "rwm"),
            rule(true, LinuxDeviceType::C, -1, -1, "m"),
            rule(true, LinuxDeviceType::C, 1, 3, "rwm"),
            rule(false, LinuxDeviceType::C, 1, 5, "w"),
            rule(true, LinuxDeviceType::B, 8, -1, "r"),
        ];
        let program = program(&rules);
        let ask = |kind, access, major, minor| answer(&program, kind, access, major, minor);
        assert_eq!(ask(TYPE_CHAR, ACCESS_READ | ACCESS_WRITE, 1, 3), 1);
        assert_eq!(ask(TYPE_CHAR, ACCESS_MKNOD, 9, 9), 1);
        assert_eq!(ask(TYPE_CHAR, ACCESS_READ, 9, 9), 0);
        assert_eq!(ask(TYPE_CHAR, ACCESS_READ | ACCESS_MKNOD, 9, 9), 0);
        assert_eq!(ask(TYPE_CHAR, ACCESS_WRITE, 1, 5), 0);
        assert_eq!(ask(TYPE_BLOCK, ACCESS_READ, 8, 1), 1);
        assert_eq!(ask(TYPE_BLOCK, ACCESS_WRITE, 8, 1), 0);
    }

    #[test]
    fn version_1_lines() {
        let rules =
            [rule(false, LinuxDeviceType::A, -1, -1, ""), rule(true, LinuxDeviceType::C, 136, -1, "rwm")];
        assert_eq!(
            v1_lines(&rules),
            [("devices.deny", "a *:* rwm".to_owned()), ("devices.allow", "c 136:* rwm".to_owned())]
        );
        assert_eq!(v1_line(&rule(false, LinuxDeviceType::C, 1, 11, "rwa")), "c 1:11 rw");
    }
}
