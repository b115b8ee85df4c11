//! A writer of archives that writes anything it is told to.

use std::io::Write;
use tar::Header;

#[derive(Default)]
pub struct Layer(Vec<u8>);

pub struct Item<'a> {
    pub kind: u8,
    pub path: &'a [u8],
    pub link: &'a [u8],
    pub data: &'a [u8],
    pub mode: u32,
    pub ids: (u64, u64),
    pub mtime: u64,
    pub device: (u32, u32),
}

impl Default for Item<'_> {
    fn default() -> Self {
        Item {
            kind: b'0',
            path: b"",
            link: b"",
            data: b"",
            mode: 0o644,
            ids: (0, 0),
            mtime: 1,
            device: (0, 0),
        }
    }
}

impl Layer {
    pub fn new() -> Layer {
        Layer::default()
    }

    pub fn dir(self, path: &str) -> Layer {
        self.item(&Item { kind: b'5', path: path.as_bytes(), mode: 0o755, ..Item::default() })
    }

    pub fn file(self, path: &str, data: &[u8]) -> Layer {
        self.item(&Item { path: path.as_bytes(), data, ..Item::default() })
    }

    pub fn symlink(self, path: &str, to: &str) -> Layer {
        self.item(&Item {
            kind: b'2',
            path: path.as_bytes(),
            link: to.as_bytes(),
            mode: 0o777,
            ..Item::default()
        })
    }

    pub fn hard_link(self, path: &str, to: &str) -> Layer {
        self.item(&Item { kind: b'1', path: path.as_bytes(), link: to.as_bytes(), ..Item::default() })
    }

    pub fn device(self, kind: u8, path: &str, device: (u32, u32)) -> Layer {
        self.item(&Item { kind, path: path.as_bytes(), device, mode: 0o600, ..Item::default() })
    }

    pub fn item(mut self, item: &Item<'_>) -> Layer {
        let header = header(item);
        self.0.extend_from_slice(header.as_bytes());
        self.data(item.data)
    }

    /// A PAX header for the entry that follows.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Layer {
        let mut data = Vec::new();
        for (key, value) in records {
            let body = key.len() + value.len() + 3;
            let mut length = body + 1;
            while length != body + length.to_string().len() {
                length = body + length.to_string().len();
            }
            write!(data, "{length} {key}=").unwrap();
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        self.item(&Item { kind: b'x', path: b"PaxHeaders/x", data: &data, ..Item::default() })
    }

    pub fn raw(mut self, bytes: &[u8]) -> Layer {
        self.0.extend_from_slice(bytes);
        self
    }

    pub fn data(mut self, data: &[u8]) -> Layer {
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// Without the blocks that mark the end.
    pub fn open_end(self) -> Vec<u8> {
        self.0
    }

    pub fn tar(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }

    pub fn gzip(self) -> Vec<u8> {
        gzip(&self.tar())
    }
}

pub fn header(item: &Item<'_>) -> Header {
    let mut header = Header::new_gnu();
    {
        let gnu = header.as_gnu_mut().unwrap();
        gnu.name[..item.path.len()].copy_from_slice(item.path);
        gnu.linkname[..item.link.len()].copy_from_slice(item.link);
        gnu.typeflag[0] = item.kind;
        gnu.set_device_major(item.device.0);
        gnu.set_device_minor(item.device.1);
    }
    header.set_size(item.data.len() as u64);
    header.set_mode(item.mode);
    header.set_uid(item.ids.0);
    header.set_gid(item.ids.1);
    header.set_mtime(item.mtime);
    header.set_cksum();
    header
}

pub fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}
