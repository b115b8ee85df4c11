//! Work that goes on after a tool has printed its result.
