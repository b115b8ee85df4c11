//! What goes in and out of the container: from it to its log and its clients, from them to it.

use super::{Errno, Server, write_some};

impl Server {
    /// Passes on what a stream holds. `false` at its end.
    pub(super) fn read_output(&mut self, stream: usize) -> bool {
        let Some(fd) = self.run.as_ref().and_then(|run| run.outputs[stream].as_ref()) else { return false };
        let count = match rustix::io::read(fd, &mut self.chunk[..]) {
            Ok(0) => 0,
            Ok(count) => count,
            Err(Errno::AGAIN | Errno::INTR) => return true,
            // A terminal nobody has open any more.
            Err(_) => 0,
        };
        if count == 0 {
            if let Some(run) = &mut self.run {
                run.outputs[stream] = None;
            }
            return false;
        }
        let bytes = &self.chunk[..count];
        self.log.write(stream, bytes);
        for client in &mut self.clients {
            if let Some(sink) = &mut client.outputs[stream]
                && !sink.write(bytes)
            {
                client.outputs[stream] = None;
            }
        }
        true
    }

    pub(super) fn flush_client(&mut self, index: usize, stream: usize) {
        let client = &mut self.clients[index];
        let Some(sink) = &mut client.outputs[stream] else { return };
        if !sink.has_pending() {
            // Either its reader has gone away, or the container's output, read since the poll, took what was pending along.
            if sink.is_closed() {
                client.outputs[stream] = None;
            }
        } else if !sink.flush() {
            client.outputs[stream] = None;
        }
    }

    pub(super) fn read_client(&mut self, index: usize) {
        let Some(fd) = &self.clients[index].input else { return };
        let count = match rustix::io::read(fd, &mut self.chunk[..]) {
            Ok(count) => count,
            Err(Errno::AGAIN | Errno::INTR) => return,
            Err(_) => 0,
        };
        if count == 0 {
            self.clients[index].input = None;
            // At a terminal end of input is a character; leaving is not typing it.
            if !self.settings.terminal {
                self.input_ended = true;
                self.flush_input();
            }
            return;
        }
        self.input.extend_from_slice(&self.chunk[..count]);
        self.flush_input();
    }

    pub(super) fn flush_input(&mut self) {
        let Some(run) = &mut self.run else { return };
        let Some(fd) = &run.input else {
            self.input.clear();
            return;
        };
        if let Ok(count) = write_some(fd, &self.input) {
            self.input.drain(..count);
        } else {
            // The container has closed its stdin.
            self.input.clear();
            self.input_ended = true;
        }
        if self.input.is_empty() && self.input_ended {
            run.input = None;
        }
    }
}
