//! Helpers of the whole-pipeline tests in `tests/tests/`.
#![forbid(unsafe_code)]
