//! A systemd that is none, at the other end of a socket pair.
