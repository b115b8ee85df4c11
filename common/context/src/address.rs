//! What addresses of web servers say by themselves.

use rootfs::show;

/// The last name of an address's path.
pub fn name_of(url: &str) -> Option<String> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = rest.split(['?', '#']).next().unwrap_or(rest).split_once('/')?.1;
    let name = registry::percent_decoded(
        path.trim_end_matches('/').rsplit('/').next().unwrap_or_default().as_bytes(),
    );
    usable(&name)
}

/// `attachment; filename="x.tar"` (RFC 6266).
pub fn disposition(text: &str) -> Option<String> {
    let mut found = None;
    for part in text.split(';').skip(1) {
        let (name, value) = part.split_once('=')?;
        if name.trim().eq_ignore_ascii_case("filename") {
            let value = value.trim().trim_matches('"');
            found = usable(value.rsplit(['/', '\\']).next().unwrap_or(value).as_bytes());
        }
    }
    found
}

/// A name that is one name.
fn usable(name: &[u8]) -> Option<String> {
    let name = show(name);
    let is_plain =
        !matches!(name.as_str(), "" | "." | "..") && name.len() <= 255 && !name.contains(['/', '\0', '\n']);
    is_plain.then_some(name)
}

/// A context from an archive, or a Dockerfile, of an HTTP server: which it is its content tells.
pub fn is_url(text: &str) -> bool {
    let scheme =
        |wanted: &str| text.get(..wanted.len()).is_some_and(|start| start.eq_ignore_ascii_case(wanted));
    scheme("http://") || scheme("https://")
}

/// For messages: an address without what may be secret in it.
pub fn shown(url: &str) -> String {
    let plain = url.split(['?', '#']).next().unwrap_or(url);
    match plain.split_once("://") {
        Some((scheme, rest)) => {
            let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            format!("{scheme}://{}{path}", host.rsplit('@').next().unwrap_or(host))
        }
        None => plain.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_path() {
        for (url, name) in [
            ("http://h/a/b.tar.gz?x=/y#z", Some("b.tar.gz")),
            ("https://h/a/", Some("a")),
            ("https://h/a%20b", Some("a b")),
            ("https://h/a%2Fb", None),
            ("https://h/..", None),
            ("https://h/", None),
            ("https://h", None),
            ("https://h?a/b", None),
        ] {
            assert_eq!(name_of(url).as_deref(), name, "{url}");
        }
        for (text, name) in [
            ("attachment; filename=\"x.tar\"", Some("x.tar")),
            ("attachment; FileName = ../../x", Some("x")),
            ("attachment; filename=\"a\\b\"", Some("b")),
            ("attachment", None),
            ("attachment; filename=\"..\"", None),
            ("", None),
        ] {
            assert_eq!(disposition(text).as_deref(), name, "{text}");
        }
        assert_eq!(shown("https://u:p@h/a?token=x#y"), "https://h/a");
    }
}
