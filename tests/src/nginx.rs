//! nginx as a cache between a client and a registry.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use testkit::{die_with_parent, find_program, skip};

/// One process, on ports of a network namespace of the test's own. Ends when dropped.
#[derive(Debug)]
pub struct Nginx {
    process: Child,
    dir: PathBuf,
}

/// A `server` on a port of loopback.
#[derive(Clone, Copy, Debug)]
pub struct Server<'a> {
    pub port: u16,
    /// Directives of it.
    pub directives: &'a str,
}

impl Nginx {
    /// Serves these, with `http` before them. What they keep is in the zone `kept`, found again by [`Nginx::kept`]. `None`, said
    /// aloud, where nginx is not installed.
    pub fn start(dir: &Path, http: &str, servers: &[Server<'_>]) -> Option<Nginx> {
        let Some(program) =
            find_program("nginx").or_else(|| Some(PathBuf::from("/usr/sbin/nginx")).filter(|p| p.is_file()))
        else {
            skip("nginx is not installed");
            return None;
        };
        std::fs::create_dir(dir).expect("make a directory");
        let place = dir.display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {place}/{kind};\n"))
            .concat();
        let port = servers.first().expect("there is a server").port;
        let block = |server: &Server<'_>| {
            format!("server {{ listen 127.0.0.1:{}; {} }}\n", server.port, server.directives)
        };
        let servers = servers.iter().map(block).collect::<Vec<_>>().concat();
        // One process: none is left behind when it is killed.
        let text = format!(
            "daemon off; master_process off; pid {place}/pid; error_log {place}/error.log;\n\
             events {{ worker_connections 256; }}\n\
             http {{\n{temporary}\
             log_format asked '$server_port $request_method $uri $status $upstream_cache_status $http_range';\n\
             access_log {place}/access.log asked;\n\
             proxy_cache_path {place}/kept keys_zone=kept:1m inactive=1h use_temp_path=off;\n\
             proxy_http_version 1.1; proxy_set_header Host $http_host; client_max_body_size 0;\n{http}\n{servers}}}\n"
        );
        let file = dir.join("nginx.conf");
        std::fs::write(&file, text).expect("write a file");
        let mut process = die_with_parent(program)
            .arg("-e")
            .arg(dir.join("error.log"))
            .arg("-p")
            .arg(dir)
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("run nginx");
        let give_up = Instant::now() + Duration::from_mins(1);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let is_running = matches!(process.try_wait(), Ok(None));
            let why = || std::fs::read_to_string(dir.join("error.log")).unwrap_or_default();
            assert!(is_running && Instant::now() < give_up, "nginx does not start: {}", why());
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(Nginx { process, dir: dir.to_owned() })
    }

    /// What it was asked for since the last time, `PORT METHOD PATH STATUS CACHE RANGE`, `-` for what there is not.
    pub fn asked(&self) -> Vec<String> {
        let file = self.dir.join("access.log");
        let read = || std::fs::read_to_string(&file).unwrap_or_default();
        let mut lines = read();
        // A request is noted when nginx is done with it, which may be a moment after the client is.
        loop {
            std::thread::sleep(Duration::from_millis(300));
            let later = read();
            if later.len() == lines.len() {
                break;
            }
            lines = later;
        }
        // It appends.
        std::fs::write(&file, "").expect("empty a file");
        lines.lines().map(str::to_owned).collect()
    }

    /// The file in which it keeps what was asked for by a path that ends so.
    #[track_caller]
    pub fn kept(&self, path: &str) -> PathBuf {
        let files = std::fs::read_dir(self.dir.join("kept")).expect("list a directory");
        let is_it = |file: &PathBuf| {
            let bytes = std::fs::read(file).unwrap_or_default();
            let head =
                String::from_utf8_lossy(bytes.get(..1024.min(bytes.len())).unwrap_or_default()).into_owned();
            head.lines()
                .any(|line| line.starts_with("KEY: ") && line.split(' ').any(|word| word.ends_with(path)))
        };
        let found = files.flatten().map(|entry| entry.path()).find(is_it);
        found.unwrap_or_else(|| panic!("nginx keeps nothing of {path}"))
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
