//! Tags, repositories, referrers.

use super::{Answer, FakeRegistry, Request, State};
use oci::Digest;
use oci::manifest::media_type;
use serde_json::{Value, json};
use std::collections::BTreeSet;

impl FakeRegistry {
    /// Lists come in pages of so many entries at most.
    pub fn page(&self, entries: usize) {
        self.lock().page = Some(entries);
    }

    /// From now on the registry is one from before referrers.
    pub fn know_no_referrers(&self) {
        self.lock().knows_no_referrers = true;
    }
}

impl State {
    /// The answer if a list was asked for.
    pub(super) fn list(&self, path: &str, request: &Request) -> Option<Answer> {
        if path == "_catalog" {
            let names: BTreeSet<&str> =
                self.manifests.keys().filter_map(|key| Some(key.rsplit_once('/')?.0)).collect();
            return Some(self.paged("repositories", &names, request));
        }
        if let Some(repository) = path.strip_suffix("/tags/list") {
            let tags: BTreeSet<&str> = self
                .manifests
                .keys()
                .filter_map(|key| key.rsplit_once('/'))
                .filter(|(other, tag)| *other == repository && !tag.contains(':'))
                .map(|(_, tag)| tag)
                .collect();
            return Some(if tags.is_empty() {
                Answer::error(404, "NAME_UNKNOWN")
            } else {
                self.paged("tags", &tags, request)
            });
        }
        let (repository, subject) = path.split_once("/referrers/")?;
        if self.knows_no_referrers {
            return Some(Answer::error(404, "NOT_FOUND"));
        }
        let found: Vec<Value> = self
            .manifests
            .iter()
            .filter(|(key, _)| key.starts_with(&format!("{repository}/sha256:")))
            .filter_map(|(_, (media_type, bytes))| {
                let manifest: Value = serde_json::from_slice(bytes).ok()?;
                (manifest["subject"]["digest"] == subject).then(|| {
                    json!({"mediaType": media_type, "digest": Digest::of(bytes), "size": bytes.len(),
                        "artifactType": manifest["artifactType"], "annotations": manifest["annotations"]})
                })
            })
            .collect();
        let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": found});
        let body = index.to_string().into_bytes();
        Some(Answer { status: 200, headers: Vec::new(), body }.with("Content-Type", media_type::OCI_INDEX))
    }

    fn paged(&self, what: &str, all: &BTreeSet<&str>, request: &Request) -> Answer {
        let query = request.path.split_once('?').map_or("", |(_, query)| query);
        let value = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        let asked = value("n").and_then(|text| text.parse().ok()).unwrap_or(usize::MAX);
        let size = self.page.unwrap_or(usize::MAX).min(asked);
        let mut rest = all.iter().filter(|name| value("last").is_none_or(|last| **name > last)).peekable();
        let page: Vec<&str> = rest.by_ref().take(size).copied().collect();
        let body = json!({what: page}).to_string().into_bytes();
        let answer = Answer { status: 200, headers: Vec::new(), body };
        let path = request.path.split('?').next().unwrap_or_default();
        match (page.last(), rest.peek()) {
            (Some(last), Some(_)) => {
                answer.with("Link", format!("<{path}?last={last}&n={size}>; rel=\"next\""))
            }
            _ => answer,
        }
    }
}
