//! Whom to trust and who to be: the system's certificates, and those of `certs.d/HOST[:PORT]` (containers-certs.d(5)):
//! `*.crt` are authorities, `*.cert` and `*.key` of the same name a client's certificate and its key.

use crate::paths;
use fault::{Explain, Fault, Result};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, parse_pem};

/// Where Linux distributions keep the bundle of trusted certificates.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Where people put what is about single registries, after their own `~/.config/containers/certs.d`.
const FOLDERS: [&str; 3] = ["/etc/containers/certs.d", "/etc/docker/certs.d", "/etc/containerd/certs.d"];

/// The files for one host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Files {
    pub(crate) ca: Vec<PathBuf>,
    /// Certificate and key; the key may be in the certificate's file.
    pub(crate) client: Option<(PathBuf, Option<PathBuf>)>,
}

/// The folders of a host that may have something, most personal first. None for what is no host's name.
pub(crate) fn folders_of(authority: &str) -> Vec<PathBuf> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b':' | b'[' | b']' | b'_');
    if authority.is_empty() || authority.starts_with('.') || !authority.bytes().all(is_plain) {
        return Vec::new();
    }
    let own = paths::user_containers().map(|folder| folder.join("certs.d"));
    own.into_iter().chain(FOLDERS.map(PathBuf::from)).map(|folder| folder.join(authority)).collect()
}

impl Files {
    /// What `certs.d` has for a host, or the folder that is named in its place.
    pub(crate) fn of(authority: &str, instead: Option<&Path>) -> Result<Files> {
        let mut files = Files::default();
        match instead {
            Some(folder) => files.add_folder(folder)?,
            None => {
                for folder in folders_of(authority) {
                    files.add_folder(&folder)?;
                }
            }
        }
        Ok(files)
    }

    fn add_folder(&mut self, folder: &Path) -> Result<()> {
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            // What this user may not look at is not meant for this user.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::PermissionDenied
                ) =>
            {
                return Ok(());
            }
            Err(error) => return Err(error).explain(|| format!("read {}", folder.display())),
        };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in &paths {
            let missing = |other: &str| {
                let other = path.with_extension(other);
                (!paths.contains(&other)).then(|| {
                    Fault::input(format!("{} has no {} beside it", path.display(), other.display()))
                        .hint("authorities are *.crt, a client's certificate *.cert with its *.key")
                })
            };
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("crt" | "pem") => self.ca.push(path.clone()),
                Some("cert") => {
                    if let Some(fault) = missing("key") {
                        return Err(fault);
                    }
                    self.client.get_or_insert_with(|| (path.clone(), Some(path.with_extension("key"))));
                }
                Some("key") => {
                    if let Some(fault) = missing("cert") {
                        return Err(fault);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The authorities of these files.
    pub(crate) fn authorities(&self) -> Result<Vec<Certificate<'static>>> {
        let mut found = Vec::new();
        for file in &self.ca {
            read_pem(file, &mut found)?;
        }
        Ok(found)
    }

    /// What to show a server that asks who this is.
    pub(crate) fn client(&self) -> Result<Option<ClientCert>> {
        let Some((certificate, key)) = &self.client else { return Ok(None) };
        let mut chain = Vec::new();
        read_pem(certificate, &mut chain)?;
        if chain.is_empty() {
            return Err(Fault::input(format!("{} holds no certificate", certificate.display())));
        }
        let key = key.as_ref().unwrap_or(certificate);
        let bytes = std::fs::read(key).explain(|| format!("read the client key {}", key.display()))?;
        let key = PrivateKey::from_pem(&bytes)
            .map_err(|_| Fault::input(format!("{} holds no private key that can be used", key.display())))?;
        Ok(Some(ClientCert::new_with_certs(&chain, key)))
    }
}

/// The trusted certificates: `SSL_CERT_FILE`, `SSL_CERT_DIR`, else the system's. None is no error yet: a registry may
/// have its own.
pub(crate) fn system() -> Result<Vec<Certificate<'static>>> {
    let mut found = Vec::new();
    let file = paths::variable("SSL_CERT_FILE");
    let folder = paths::variable("SSL_CERT_DIR");
    if let Some(file) = &file {
        read_pem(file, &mut found)?;
    }
    for entry in folder.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "crt" || extension == "pem") {
            // One that cannot be read is missed when the connection is checked.
            let _ = read_pem(&path, &mut found);
        }
    }
    if file.is_none()
        && folder.is_none()
        && let Some(bundle) = BUNDLES.iter().map(Path::new).find(|path| path.exists())
    {
        read_pem(bundle, &mut found)?;
    }
    Ok(found)
}

fn read_pem(path: &Path, found: &mut Vec<Certificate<'static>>) -> Result<()> {
    let bytes = std::fs::read(path).explain(|| format!("read certificates from {}", path.display()))?;
    found.extend(parse_pem(&bytes).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    }));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_tells_by_the_ends_of_names() {
        let dir = tempfile::tempdir().unwrap();
        let files = || Files::of("x", Some(dir.path()));
        assert_eq!(files().unwrap(), Files::default());
        for name in ["ca.crt", "a.cert", "a.key", "b.cert", "b.key", "hosts.toml"] {
            std::fs::write(dir.path().join(name), "no pem").unwrap();
        }
        let found = files().unwrap();
        assert_eq!(found.ca, [dir.path().join("ca.crt")]);
        assert_eq!(found.client, Some((dir.path().join("a.cert"), Some(dir.path().join("a.key")))));
        assert!(found.authorities().unwrap().is_empty());
        assert!(found.client().unwrap_err().to_string().contains("holds no certificate"));
        std::fs::remove_file(dir.path().join("b.key")).unwrap();
        assert!(files().unwrap_err().to_string().contains("b.key beside it"));
        std::fs::remove_file(dir.path().join("b.cert")).unwrap();
        std::fs::write(dir.path().join("c.key"), "").unwrap();
        assert!(files().unwrap_err().to_string().contains("c.cert beside it"));
    }

    #[test]
    fn hosts_are_no_paths() {
        assert!(folders_of("r.example:5000").iter().all(|folder| folder.ends_with("certs.d/r.example:5000")));
        for bad in ["", "..", ".", "../x", "a/b", "a b"] {
            assert!(folders_of(bad).is_empty(), "{bad}");
        }
    }
}
