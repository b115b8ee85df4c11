//! The client against a registry that misbehaves, and against a real one.

mod lists;
mod reader;
mod uploads;

use oci::{Descriptor, Digest, Reference};
use registry::{Client, Options, Repository};
use std::time::Duration;
use testkit::FakeRegistry;

fn client(retries: u32) -> Client {
    // No file of the machine's own may be asked for credentials.
    Client::new(Options { timeout: Duration::from_millis(800), retries, ..Options::default() })
}

fn repository(registry: &FakeRegistry, retries: u32) -> Repository {
    client(retries).repository(&Reference::parse(&format!("{}/team/app", registry.address())).unwrap())
}

fn descriptor(bytes: &[u8]) -> Descriptor {
    Descriptor {
        media_type: String::new(),
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
        platform: None,
        annotations: None,
        urls: None,
    }
}

/// Bytes no two of which are at the wrong place unnoticed.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1u32;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(length)
    .collect()
}

fn lines(registry: &FakeRegistry) -> Vec<String> {
    registry.requests().iter().map(testkit::fake_registry::Request::line).collect()
}
