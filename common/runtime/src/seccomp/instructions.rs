//! Work on programs that libseccomp has compiled, instruction by instruction (linux/filter.h).

use super::profile::Architecture;
use libseccomp::ScmpArch;
use sys::seccomp::INSTRUCTION_BYTES;

const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JUMP_GREATER: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

// linux/seccomp.h
const RET_ERRNO: u32 = 0x0005_0000;
const RET_USER_NOTIF: u32 = 0x7fc0_0000;
const RET_ALLOW: u32 = 0x7fff_0000;
/// SECCOMP_RET_ACTION_FULL.
const ACTION: u32 = 0xffff_0000;

// Offsets in struct seccomp_data.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

/// x32's calls carry this bit on x86-64's architecture.
const X32_BIT: u32 = 0x4000_0000;

/// Puts a test before the program: a call newer than every call of the profile is answered with `ENOSYS`, as a kernel
/// without it would, so that the C library falls back to an older one. The profile's own answer, `EPERM`, would
/// make programs fail that know how to do without.
///
/// `newest`: the highest number the profile speaks of, by architecture.
pub(super) fn answer_enosys(program: &[u8], newest: &[(Architecture, u32)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(program.len() + newest.len() * 7 * INSTRUCTION_BYTES);
    let mut emit = |code: u16, jump_true: u8, jump_false: u8, k: u32| {
        out.extend(code.to_ne_bytes());
        out.extend([jump_true, jump_false]);
        out.extend(k.to_ne_bytes());
    };
    for (architecture, highest) in newest {
        // Over the two instructions at the end, and one more where there is one.
        let extra = u8::from(matches!(architecture.scmp, ScmpArch::X8664 | ScmpArch::S390 | ScmpArch::S390X));
        emit(LOAD_WORD, 0, 0, ARCHITECTURE);
        emit(JUMP_EQUAL, 0, 3 + extra, architecture.audit);
        emit(LOAD_WORD, 0, 0, NUMBER);
        match architecture.scmp {
            // x32's numbers are all above, and have a test of their own where x32 is asked for.
            ScmpArch::X8664 => emit(JUMP_GREATER, 2, 0, X32_BIT - 1),
            // A call too new for the kernel's way of passing big numbers shows as number 0, long out of use.
            ScmpArch::S390 | ScmpArch::S390X => emit(JUMP_EQUAL, 1, 0, 0),
            _ => {}
        }
        emit(JUMP_GREATER, 0, 1, *highest);
        emit(RETURN, 0, 0, RET_ERRNO | libc::ENOSYS as u32);
    }
    out.extend(program);
    out
}

/// Takes a program apart into what it says of every call but those left to somebody else, and of those alone. Loaded one after
/// the other they are the same as the whole, in either order: of several answers the kernel takes the strictest, and each
/// of the two allows what the other decides.
pub(super) fn split(program: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (mut rest, mut notify) = (program.to_vec(), program.to_vec());
    let parts = rest.chunks_exact_mut(INSTRUCTION_BYTES).zip(notify.chunks_exact_mut(INSTRUCTION_BYTES));
    for (rest, notify) in parts {
        let (code, operand) = (
            u16::from_ne_bytes([rest[0], rest[1]]),
            u32::from_ne_bytes([rest[4], rest[5], rest[6], rest[7]]),
        );
        if code != RETURN {
            continue;
        }
        let allowed = if operand & ACTION == RET_USER_NOTIF { rest } else { notify };
        allowed[4..8].copy_from_slice(&RET_ALLOW.to_ne_bytes());
    }
    (rest, notify)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instruction(code: u16, operand: u32) -> Vec<u8> {
        let mut bytes = code.to_ne_bytes().to_vec();
        bytes.extend([0, 0]);
        bytes.extend(operand.to_ne_bytes());
        bytes
    }

    #[test]
    fn each_part_allows_what_the_other_decides() {
        let program = |returns: [u32; 3]| {
            let mut bytes = instruction(LOAD_WORD, RET_USER_NOTIF);
            bytes.extend(returns.into_iter().flat_map(|value| instruction(RETURN, value)));
            bytes
        };
        let whole = program([RET_ERRNO | 1, RET_USER_NOTIF, RET_ALLOW]);
        let (rest, notify) = split(&whole);
        assert_eq!(rest, program([RET_ERRNO | 1, RET_ALLOW, RET_ALLOW]));
        assert_eq!(notify, program([RET_ALLOW, RET_USER_NOTIF, RET_ALLOW]));
    }
}
