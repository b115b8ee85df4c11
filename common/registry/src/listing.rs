//! Lists a registry gives: tags, repositories, what refers to a manifest (distribution spec, "Content Discovery").
//!
//! They come in pages, each saying where the next one is. A hostile registry has pages without end: entries are counted,
//! and a page that brings nothing new is the last.

use crate::repository::{Repository, Target, broken_read, content_length, header};
use crate::retry::{Failed, Patience};
use crate::transport::{Content, encode, origin, resolve};
use fault::{Explain, Fault, Kind, Result};
use oci::manifest::media_type;
use oci::{Digest, Document, Reference};
use serde::Deserialize;
use std::collections::{BTreeMap, HashSet};
use std::io::Read;
use ureq::http::Method;

/// Entries asked for at a time; a registry may give fewer.
const PAGE: usize = 1000;
const MAX_PAGE_BYTES: u64 = 8 << 20;
/// Far above what registries hold.
const MAX_ENTRIES: usize = 500_000;
/// Some registries give a hundred at a time, whatever they are asked for.
const MAX_PAGES: usize = 5000;

/// A manifest that says it is about another one: a signature, a bill of materials.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Referrer {
    #[serde(default)]
    pub media_type: String,
    pub digest: Digest,
    /// Bytes of the manifest.
    pub size: u64,
    /// What sort of thing it is, as it says itself.
    #[serde(default)]
    pub artifact_type: Option<String>,
    #[serde(default)]
    pub annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct TagsPage {
    /// `null` for a repository without any.
    #[serde(default)]
    tags: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct CatalogPage {
    #[serde(default)]
    repositories: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReferrersPage {
    manifests: Vec<Referrer>,
}

/// A page, and where the next one is.
struct Page {
    bytes: Vec<u8>,
    media_type: Option<String>,
    next: Option<String>,
}

impl Repository {
    /// The repository's tags, in the registry's order.
    ///
    /// # Errors
    /// As [`Repository::manifest`]; [`Kind::Input`] for a list that is malformed or without end.
    pub fn tags(&self) -> Result<Vec<String>> {
        let all = self.names(&format!("tags/list?n={PAGE}"), |bytes| {
            let page: TagsPage =
                serde_json::from_slice(bytes).explain_as(Kind::Input, || malformed("tags"))?;
            Ok(page.tags.unwrap_or_default())
        })?;
        let own = Reference::parse(&format!("{}/{}", self.domain(), self.path()))?;
        for tag in &all {
            own.with_tag(tag).map_err(|fault| fault.within("the registry lists a tag that is none"))?;
        }
        Ok(all)
    }

    /// For the repository that stands for the whole registry.
    pub(crate) fn catalog(&self) -> Result<Vec<String>> {
        let all = self.names(&format!("_catalog?n={PAGE}"), |bytes| {
            let page: CatalogPage =
                serde_json::from_slice(bytes).explain_as(Kind::Input, || malformed("repositories"))?;
            Ok(page.repositories.unwrap_or_default())
        });
        let all = all.map_err(|fault| match fault.kind() {
            Kind::NotFound => Fault::not_found("the registry does not tell which repositories it has"),
            _ => fault,
        })?;
        for name in &all {
            Reference::parse(&format!("{}/{name}", self.domain()))
                .map_err(|fault| fault.within("the registry lists a repository that is none"))?;
        }
        Ok(all)
    }

    /// The manifests whose subject this is; of one artifact type if one is given. From the registry's own list, or where
    /// it has none from the index under the tag that stands in for it (distribution spec, "Referrers Tag Schema").
    ///
    /// # Errors
    /// As [`Repository::tags`].
    pub fn referrers(&self, digest: &Digest, artifact_type: Option<&str>) -> Result<Vec<Referrer>> {
        let mut found = match self.listed_referrers(digest, artifact_type)? {
            Some(found) => found,
            None => self.tagged_referrers(digest)?,
        };
        // A registry need not leave the others out.
        if let Some(wanted) = artifact_type {
            found.retain(|referrer| referrer.artifact_type.as_deref() == Some(wanted));
        }
        Ok(found)
    }

    /// `None` from a registry that does not know referrers.
    pub(crate) fn listed_referrers(
        &self,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Option<Vec<Referrer>>> {
        let what = match artifact_type {
            // The slash and the plus of a media type would mean something else in a query.
            Some(wanted) => format!("referrers/{digest}?artifactType={}", encode(wanted).replace('/', "%2F")),
            None => format!("referrers/{digest}"),
        };
        let mut found: Vec<Referrer> = Vec::new();
        let mut seen = HashSet::new();
        let mut next = None;
        for _ in 0..MAX_PAGES {
            let page = match self.page(&what, next.as_deref()) {
                Ok(page) => page,
                // 404, or what a registry from before version 1.1 makes of the path.
                Err(fault) if found.is_empty() && matches!(fault.kind(), Kind::NotFound | Kind::Input) => {
                    return Ok(None);
                }
                Err(fault) => return Err(fault),
            };
            if page.media_type.as_deref().is_none_or(|name| !name.starts_with(media_type::OCI_INDEX)) {
                return Ok(None);
            }
            let parsed: ReferrersPage =
                serde_json::from_slice(&page.bytes).explain_as(Kind::Input, || malformed("referrers"))?;
            let before = found.len();
            found.extend(parsed.manifests.into_iter().filter(|new| seen.insert(new.digest.clone())));
            if found.len() > MAX_ENTRIES {
                return Err(endless());
            }
            next = page.next.filter(|_| found.len() > before);
            if next.is_none() {
                return Ok(Some(found));
            }
        }
        Err(endless())
    }

    fn tagged_referrers(&self, digest: &Digest) -> Result<Vec<Referrer>> {
        let fetched = match self.manifest(&referrers_tag(digest)) {
            Ok(fetched) => fetched,
            Err(fault) if fault.kind() == Kind::NotFound => return Ok(Vec::new()),
            Err(fault) => return Err(fault),
        };
        let Document::Index(index) = Document::parse(&fetched.bytes, fetched.media_type.as_deref())? else {
            return Err(Fault::input("the tag that lists the referrers is not an index"));
        };
        if index.manifests.is_empty() {
            return Ok(Vec::new());
        }
        // Once more, for the artifact types, which images do not have.
        let page: ReferrersPage =
            serde_json::from_slice(&fetched.bytes).explain_as(Kind::Input, || malformed("referrers"))?;
        Ok(page.manifests)
    }

    /// Names from all pages, each once.
    fn names(&self, what: &str, parse: impl Fn(&[u8]) -> Result<Vec<String>>) -> Result<Vec<String>> {
        let mut all: Vec<String> = Vec::new();
        let mut seen: HashSet<String> = HashSet::new();
        let mut next = None;
        for _ in 0..MAX_PAGES {
            let page = self.page(what, next.as_deref())?;
            let before = all.len();
            for name in parse(&page.bytes)? {
                if seen.insert(name.clone()) {
                    all.push(name);
                }
            }
            if all.len() > MAX_ENTRIES {
                return Err(endless());
            }
            next = page.next.filter(|_| all.len() > before);
            if next.is_none() {
                return Ok(all);
            }
        }
        Err(endless())
    }

    fn page(&self, what: &str, next: Option<&str>) -> Result<Page> {
        let target = next.map_or(Target::Below(what), Target::At);
        Patience::new(&self.transport.options).until_done(|| self.try_page(target))
    }

    fn try_page(&self, target: Target<'_>) -> Result<Page, Failed> {
        let response = self.request_with(&Method::GET, target, &[], &mut Content::None)?;
        let base = self.base().unwrap_or_default();
        let asked = self.asked(target)?;
        let next = match header(&response, "link").and_then(next_link) {
            Some(link) => Some(resolve(&asked, link)?),
            None => None,
        };
        if next.as_ref().is_some_and(|next| origin(next) != origin(&base)) {
            return Err(Fault::input("the registry's list goes on at another host").into());
        }
        let too_large = || Fault::input(format!("a page of the list is larger than {MAX_PAGE_BYTES} bytes"));
        if content_length(&response).is_some_and(|length| length > MAX_PAGE_BYTES) {
            return Err(too_large().into());
        }
        let media_type = header(&response, "content-type").map(str::to_owned);
        let mut bytes = Vec::new();
        let read = response.into_body().into_reader().take(MAX_PAGE_BYTES + 1).read_to_end(&mut bytes);
        read.map_err(|error| broken_read("the list", error))?;
        if bytes.len() as u64 > MAX_PAGE_BYTES {
            return Err(too_large().into());
        }
        Ok(Page { bytes, media_type, next })
    }
}

/// `sha256-<hex>`: the tag whose index lists what refers to a manifest.
pub(crate) fn referrers_tag(digest: &Digest) -> String {
    // A tag has at most 128 characters.
    format!("{}-{}", digest.algorithm().name(), digest.hex()).chars().take(128).collect()
}

pub(crate) fn malformed(what: &str) -> String {
    format!("the registry's list of {what} is malformed")
}

fn endless() -> Fault {
    Fault::input(format!("the registry's list has more than {MAX_PAGES} pages or {MAX_ENTRIES} entries"))
}

/// The address in `<…>; rel="next"` (RFC 8288).
fn next_link(header: &str) -> Option<&str> {
    let mut rest = header;
    // One header may hold several links.
    for _ in 0..8 {
        let (_, after) = rest.split_once('<')?;
        let (address, after) = after.split_once('>')?;
        let parameters = after.split('<').next().unwrap_or_default();
        let is_next = parameters.split(';').any(|parameter| {
            let parameter = parameter.trim().trim_end_matches(',').trim();
            parameter.eq_ignore_ascii_case("rel=next") || parameter.eq_ignore_ascii_case("rel=\"next\"")
        });
        if is_next && !address.is_empty() {
            return Some(address);
        }
        rest = after;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found() {
        for (header, next) in [
            ("</v2/x/tags/list?last=b&n=2>; rel=\"next\"", Some("/v2/x/tags/list?last=b&n=2")),
            ("<https://r/a>; rel=prev, <https://r/b>; rel=next", Some("https://r/b")),
            ("<a>;rel=\"next\"", Some("a")),
            ("<>; rel=\"next\"", None),
            ("<a>; rel=\"prev\"", None),
            ("<a", None),
            ("", None),
        ] {
            assert_eq!(next_link(header), next, "{header}");
        }
    }

    #[test]
    fn the_tag_of_a_digest_is_one() {
        let tag = referrers_tag(&Digest::of(b"x"));
        assert!(tag.starts_with("sha256-") && tag.len() == 71);
        assert!(Reference::parse("a/b").unwrap().with_tag(&tag).is_ok());
    }
}
