//! Packets between a container's shim and the tools.
//!
//! Input: packets, each on a line. As requests they are read as the shim does, as answers by a client.

use super::scratch::Scratch;
use rustix::net::{SendFlags, Shutdown, SocketFlags, accept_with, send, shutdown};
use shim::{Client, Request};
use store::Store;

/// So many fit into a socket nobody reads from yet.
const MOST_PACKETS: usize = 8;
const LONGEST_PACKET: usize = 8 << 10;

pub fn check(data: &[u8]) {
    let packets: Vec<&[u8]> =
        data.split(|b| *b == b'\n').filter(|packet| !packet.is_empty()).take(MOST_PACKETS).collect();
    for packet in &packets {
        if let Ok(request) = serde_json::from_slice::<Request>(packet) {
            let text = serde_json::to_vec(&request).expect("a request is JSON");
            assert_eq!(serde_json::from_slice::<Request>(&text).expect("its own spelling"), request);
        }
    }
    answer(&packets);
}

fn answer(packets: &[&[u8]]) {
    let scratch = Scratch::new("shim");
    let store = Store::at(scratch.path().join("root"), scratch.path().join("run"));
    let dir = store.container_dir(&"c".repeat(64));
    std::fs::create_dir_all(&dir.run).expect("make a directory");
    let listener = shim::listen(&dir.run).expect("listen");
    let client = Client::connect(&dir).expect("connect").expect("somebody listens");
    let server = accept_with(&listener, SocketFlags::CLOEXEC).expect("accept");
    // All before the client asks, so that one thread will do; they wait in the socket.
    for packet in packets {
        send(&server, &packet[..packet.len().min(LONGEST_PACKET)], SendFlags::NOSIGNAL).expect("send");
    }
    shutdown(&server, Shutdown::Write).expect("say that there is no more");
    let _ = client.request(&Request::Ready, &[]);
    // The rest, and at last that the other side is gone.
    while client.exit().expect("events or the end").is_some() {}
}
