//! `hosts.toml` below `certs.d` (containerd's docs/hosts.md): where a registry is, and other hosts to ask first.

use crate::certificates::folders_of;
use crate::paths;
use fault::{Fault, Result};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use toml::map::Map;

/// What a file says.
#[derive(Debug, Default)]
pub(crate) struct HostsToml {
    /// To ask in this order.
    pub(crate) hosts: Vec<Host>,
    /// The registry itself, if it is not where its name says or has settings.
    pub(crate) server: Option<Host>,
}

/// A host and how to talk to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Host {
    /// `https://host:port`; empty for where the registry's name leads.
    pub(crate) base: String,
    /// `/v2`, or whatever stands before repositories there.
    pub(crate) prefix: String,
    /// Manifests by digest and blobs.
    pub(crate) pull: bool,
    /// Manifests by tag.
    pub(crate) resolve: bool,
    pub(crate) push: bool,
    pub(crate) skip_verify: bool,
    pub(crate) ca: Vec<PathBuf>,
    /// Certificate and key; the key may be in the certificate's file.
    pub(crate) client: Option<(PathBuf, Option<PathBuf>)>,
    pub(crate) headers: Headers,
}

/// To send along: names and values.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Headers(pub(crate) Vec<(String, String)>);

// Never derived: a value may be a token.
impl std::fmt::Debug for Headers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

#[derive(Debug, Deserialize)]
struct Content {
    server: Option<String>,
    #[serde(default)]
    host: Map<String, toml::Value>,
    #[serde(flatten)]
    own: Settings,
}

#[derive(Debug, Default, Deserialize)]
struct Settings {
    capabilities: Option<Vec<String>>,
    ca: Option<OneOrMore>,
    client: Option<Client>,
    #[serde(default)]
    skip_verify: bool,
    #[serde(default)]
    override_path: bool,
    #[serde(default)]
    header: Map<String, toml::Value>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(PathBuf),
    More(Vec<PathBuf>),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Client {
    File(PathBuf),
    Files(Vec<PathBuf>),
    Pairs(Vec<Vec<PathBuf>>),
}

/// The file for a registry: of the first folder that has one, else containerd's `_default`.
pub(crate) fn load(domain: &str) -> Result<HostsToml> {
    for name in [domain, "_default"] {
        for folder in folders_of(name) {
            let file = folder.join("hosts.toml");
            if let Some(content) = paths::read_toml::<Content>(&file)? {
                return understand(content, &folder)
                    .map_err(|what| Fault::input(format!("{}: {what}", file.display())));
            }
        }
    }
    Ok(HostsToml::default())
}

fn understand(content: Content, folder: &Path) -> Result<HostsToml, String> {
    let mut hosts = Vec::new();
    for (address, value) in content.host {
        let settings: Settings = value
            .try_into()
            .map_err(|error: toml::de::Error| format!("host {address:?}: {}", error.message()))?;
        hosts.push(host(Some(&address), settings, folder)?);
    }
    let own = host(content.server.as_deref(), content.own, folder)?;
    let is_plain =
        own == Host { pull: true, resolve: true, push: true, prefix: "/v2".into(), ..Host::default() };
    Ok(HostsToml { hosts, server: (!is_plain).then_some(own) })
}

fn host(address: Option<&str>, settings: Settings, folder: &Path) -> Result<Host, String> {
    let mut host = Host { prefix: "/v2".to_owned(), skip_verify: settings.skip_verify, ..Host::default() };
    if let Some(address) = address {
        let (base, path) = split(address).ok_or_else(|| format!("{address:?} is not an address"))?;
        host.base = base;
        if settings.override_path || path.ends_with("/v2") {
            host.prefix = path;
        } else {
            host.prefix = path + "/v2";
        }
    }
    let below = |path: PathBuf| folder.join(path);
    host.ca = match settings.ca {
        None => Vec::new(),
        Some(OneOrMore::One(file)) => vec![below(file)],
        Some(OneOrMore::More(files)) => files.into_iter().map(below).collect(),
    };
    host.client = match settings.client {
        None => None,
        Some(Client::File(file)) => Some((below(file), None)),
        Some(Client::Files(files)) => files.into_iter().next().map(|file| (below(file), None)),
        Some(Client::Pairs(pairs)) => pairs.into_iter().find_map(|pair| {
            let mut files = pair.into_iter().filter(|file| !file.as_os_str().is_empty()).map(below);
            files.next().map(|certificate| (certificate, files.next()))
        }),
    };
    let capabilities =
        settings.capabilities.unwrap_or_else(|| ["pull", "resolve", "push"].map(str::to_owned).to_vec());
    for capability in capabilities {
        match capability.as_str() {
            "pull" => host.pull = true,
            "resolve" => host.resolve = true,
            "push" => host.push = true,
            // Of later versions: nothing this could do there.
            _ => {}
        }
    }
    for (name, value) in settings.header {
        let values = match value {
            toml::Value::Array(values) => values,
            one => vec![one],
        };
        for value in values {
            let text = value.as_str().filter(|text| is_header(&name, text));
            let text = text.ok_or_else(|| format!("header {name:?} cannot be sent"))?;
            host.headers.0.push((name.clone(), text.to_owned()));
        }
    }
    Ok(host)
}

fn is_header(name: &str, value: &str) -> bool {
    ureq::http::HeaderName::from_bytes(name.as_bytes()).is_ok()
        && ureq::http::HeaderValue::from_str(value).is_ok()
}

/// `https://host:port` and the path without its last slash. Without a scheme it is `https`, on this machine `http`.
fn split(address: &str) -> Option<(String, String)> {
    let whole = match address.split_once("://") {
        Some(("http" | "https", _)) => address.to_owned(),
        Some(_) => return None,
        None if crate::endpoint::is_this_machine(address.split('/').next()?) => format!("http://{address}"),
        None => format!("https://{address}"),
    };
    let uri: ureq::http::Uri = whole.parse().ok()?;
    let authority = uri.authority()?.as_str();
    // A password in an address would be shown in errors.
    if authority.contains('@') || uri.query().is_some() {
        return None;
    }
    Some((format!("{}://{authority}", uri.scheme_str()?), uri.path().trim_end_matches('/').to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<HostsToml, String> {
        understand(toml::from_str(text).map_err(|error| error.message().to_owned())?, Path::new("/f"))
    }

    #[test]
    fn hosts_keep_their_order_and_settings() {
        let found = parse(
            r#"
            server = "https://r.example"
            [host."https://z.example:8443"]
              capabilities = ["pull"]
              ca = "z.crt"
              client = [["c.cert", "c.key"]]
              [host."https://z.example:8443".header]
                x-one = "1"
                x-two = ["2", "3"]
            [host."localhost:5000/cache"]
              skip_verify = true
            [host."http://a.example/other/api"]
              override_path = true
            "#,
        )
        .unwrap();
        let [first, second, third] = found.hosts.as_slice() else { panic!("{found:?}") };
        assert_eq!((first.base.as_str(), first.prefix.as_str()), ("https://z.example:8443", "/v2"));
        assert_eq!((first.pull, first.resolve, first.push), (true, false, false));
        assert_eq!(first.ca, [PathBuf::from("/f/z.crt")]);
        assert_eq!(first.client, Some(("/f/c.cert".into(), Some("/f/c.key".into()))));
        assert_eq!(first.headers.0.len(), 3);
        assert_eq!((second.base.as_str(), second.prefix.as_str()), ("http://localhost:5000", "/cache/v2"));
        assert!(second.skip_verify && second.push);
        assert_eq!((third.base.as_str(), third.prefix.as_str()), ("http://a.example", "/other/api"));
        assert_eq!(found.server.unwrap().base, "https://r.example");
        assert!(parse("").unwrap().server.is_none());
        assert!(parse("skip_verify = true").unwrap().server.unwrap().skip_verify);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, word) in [
            ("server = \"ftp://x\"", "not an address"),
            ("[host.\"https://u:p@x\"]", "not an address"),
            ("[host.\"https://x\"]\nca = 5", "https://x"),
            ("[header]\n\"a b\" = \"c\"", "cannot be sent"),
            ("[header]\na = \"c\\nd\"", "cannot be sent"),
        ] {
            assert!(parse(text).unwrap_err().contains(word), "{text}: {:?}", parse(text));
        }
    }
}
