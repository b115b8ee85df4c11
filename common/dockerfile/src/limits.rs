//! How much a Dockerfile may hold, and make of it. Docker's own bounds where it has them.

/// Bytes of a Dockerfile, as docker's for those it fetches.
pub const FILE_BYTES: usize = 2 << 20;
/// Bytes of one line, its end not counted: the buffer of the scanner BuildKit reads lines with.
pub const LINE_BYTES: usize = 65_535;
pub const INSTRUCTIONS: usize = 10_000;
/// `ONBUILD ONBUILD …`, which is refused as an instruction at depth two.
pub const ONBUILD_DEPTH: usize = 8;
/// `${a:-${b:-…}}`.
pub const EXPANSION_DEPTH: usize = 100;
/// Bytes one word may grow to, and all words of an instruction together.
pub const WORD_BYTES: usize = 4 << 20;
/// What matching the patterns of a whole plan may cost, in comparisons: a tenth of a second, and a few with a sanitizer.
pub const PATTERN_WORK: usize = 10_000_000;
/// Bytes of all variables together: what the kernel takes for arguments and environment with the usual stack (execve(2)).
pub const ENVIRONMENT_BYTES: usize = 2 << 20;
/// Bytes of the history the steps of a stage make.
pub const HISTORY_BYTES: usize = 16 << 20;
/// Ports of one `EXPOSE`: every port of three protocols.
pub const PORTS: usize = 3 * 65_536;
/// Instructions that base images add to a stage, and their bytes.
pub const TRIGGERS: usize = 1_000;
