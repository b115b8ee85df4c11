//! Manifests, indexes and image configurations as views: what is needed is read out, the bytes themselves are
//! kept untouched by whoever holds them, because a reformatted manifest has another digest.
//!
//! OCI image spec v1.1 (`manifest.md`, `image-index.md`, `config.md`, `layer.md`), docker's image manifest version 2
//! schema 2.

use crate::digest::shorten;
use crate::{Digest, Platform};
use fault::{Explain, Fault, Kind, Result};
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::fmt;

/// The size to which distribution clients agree to accept manifests (distribution spec, "Pushing manifests").
pub const MAX_MANIFEST_BYTES: u64 = 4 << 20;
/// Far above real configurations, which grow with the history.
pub const MAX_CONFIG_BYTES: u64 = 8 << 20;
/// An overlay takes 500 lower layers; docker stops at 125.
pub const MAX_LAYERS: usize = 500;
/// Entries of an index.
pub const MAX_INDEX_ENTRIES: usize = 2000;

pub mod media_type {
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";

    /// What a client asks a registry for.
    pub const ACCEPTED: [&str; 4] = [OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST];
}

/// The annotation naming an entry of a layout's `index.json`.
pub const ANNOTATION_REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Digest of the image configuration, docker's image id; our own.
pub const ANNOTATION_CONFIG_DIGEST: &str = "dev.staves.config.digest";
/// The index a manifest was chosen from; our own.
pub const ANNOTATION_INDEX_DIGEST: &str = "dev.staves.index.digest";

/// A pointer to content: what it is, its digest, its size in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(remote = "Self", rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(default)]
    pub platform: Option<Platform>,
    #[serde(default)]
    pub annotations: Option<BTreeMap<String, String>>,
    /// Where else the content may be; never followed, see [`Descriptor::layer_compression`].
    #[serde(default)]
    pub urls: Option<Vec<String>>,
}

impl<'de> Deserialize<'de> for Descriptor {
    /// From an object alone: serde would take the members in an array, too, in their order here, and no other reader of the
    /// same document would see a descriptor there.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Descriptor, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Descriptor;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a descriptor, which is an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> std::result::Result<Descriptor, A::Error> {
                // The derived one: it comes before the trait's.
                Descriptor::deserialize(MapAccessDeserializer::new(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// How a layer's tar is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Descriptor {
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(name).map(String::as_str)
    }

    pub fn is_index(&self) -> bool {
        matches!(self.media_type.as_str(), media_type::OCI_INDEX | media_type::DOCKER_LIST)
    }

    /// For a layer: how it is packed.
    ///
    /// # Errors
    /// [`Kind::Input`] for foreign layers (whose bytes would come from an address the manifest's writer chose) and
    /// for media types that are not layers.
    pub fn layer_compression(&self) -> Result<Compression> {
        let name = self.media_type.as_str();
        if name.contains(".nondistributable.")
            || name.contains(".foreign.")
            || self.urls.as_ref().is_some_and(|u| !u.is_empty())
        {
            return Err(Fault::input(format!(
                "layer {} is kept outside the registry, which is not supported",
                self.digest
            )));
        }
        match name {
            media_type::OCI_LAYER | media_type::DOCKER_LAYER => Ok(Compression::None),
            media_type::OCI_LAYER_GZIP | media_type::DOCKER_LAYER_GZIP => Ok(Compression::Gzip),
            media_type::OCI_LAYER_ZSTD | media_type::DOCKER_LAYER_ZSTD => Ok(Compression::Zstd),
            _ => Err(Fault::input(format!(
                "layer {} has the unsupported media type {}",
                self.digest,
                shorten(name)
            ))),
        }
    }
}

/// A manifest or an index, told apart by media type and content.
#[derive(Clone, Debug)]
// There is one at a time.
#[allow(clippy::large_enum_variant)]
pub enum Document {
    Manifest(Manifest),
    Index(Index),
}

/// One image for one platform.
#[derive(Clone, Debug)]
pub struct Manifest {
    pub media_type: String,
    pub config: Descriptor,
    /// Lowest first.
    pub layers: Vec<Descriptor>,
}

/// One image for several platforms.
#[derive(Clone, Debug)]
pub struct Index {
    pub media_type: String,
    pub manifests: Vec<Descriptor>,
}

/// Everything either document can have, to see which one it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Either {
    schema_version: u64,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    schema_version: Option<u64>,
}

impl Document {
    /// Reads a document of at most [`MAX_MANIFEST_BYTES`]. `claimed` is the media type it was handed over with, if
    /// any (a `Content-Type`, a descriptor); a document may not be two things to two readers (CVE-2021-41190), so the
    /// claim, the document's own `mediaType` and its members have to agree.
    pub fn parse(bytes: &[u8], claimed: Option<&str>) -> Result<Document> {
        if bytes.len() as u64 > MAX_MANIFEST_BYTES {
            return Err(Fault::input(format!("the manifest is larger than {MAX_MANIFEST_BYTES} bytes")));
        }
        // A parameter (`; charset=utf-8`) is no part of the type.
        let claimed = claimed.map(|text| text.split(';').next().unwrap_or_default().trim());
        if claimed.is_some_and(is_schema_1) {
            return Err(schema_1());
        }
        check_object(bytes)?;
        let version: Version =
            serde_json::from_slice(bytes).explain_as(Kind::Input, || "malformed manifest".into())?;
        if version.schema_version == Some(1) {
            return Err(schema_1());
        }
        let document: Either =
            serde_json::from_slice(bytes).explain_as(Kind::Input, || "malformed manifest".into())?;
        if document.schema_version != 2 {
            return Err(Fault::input(format!(
                "unsupported manifest schema version {}",
                document.schema_version
            )));
        }
        let own = document.media_type.as_deref().filter(|text| !text.is_empty());
        let claimed = claimed.filter(|text| is_known(text));
        if let (Some(own), Some(claimed)) = (own, claimed)
            && own != claimed
        {
            return Err(Fault::input(format!(
                "the manifest says it is {} but was handed over as {}",
                shorten(own),
                shorten(claimed)
            )));
        }
        let media_type = own.or(claimed).map(str::to_owned);
        match (document.config, document.layers, document.manifests) {
            (Some(config), Some(layers), None) => manifest(media_type, config, layers),
            (None, None, Some(manifests)) => index(media_type, manifests),
            (Some(_), None, None) => Err(Fault::input("the manifest has no layers, it is not an image")),
            (None, None, None) => {
                Err(Fault::input("malformed manifest: neither \"layers\" nor \"manifests\""))
            }
            _ => Err(Fault::input("malformed manifest: it is a manifest and an index at once")),
        }
    }
}

fn manifest(media_type: Option<String>, config: Descriptor, layers: Vec<Descriptor>) -> Result<Document> {
    let media_type = media_type.unwrap_or_else(|| media_type::OCI_MANIFEST.to_owned());
    if !matches!(media_type.as_str(), media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST) {
        return Err(unsupported(&media_type));
    }
    // An artifact (a chart, a signature) also is a manifest with a config and layers.
    if !matches!(config.media_type.as_str(), media_type::OCI_CONFIG | media_type::DOCKER_CONFIG) {
        return Err(Fault::input(format!(
            "not a container image: its config is {}",
            shorten(&config.media_type)
        )));
    }
    if config.size > MAX_CONFIG_BYTES {
        return Err(Fault::input(format!("the image configuration is larger than {MAX_CONFIG_BYTES} bytes")));
    }
    if layers.len() > MAX_LAYERS {
        return Err(Fault::input(format!("the image has {} layers, more than {MAX_LAYERS}", layers.len())));
    }
    for layer in &layers {
        layer.layer_compression()?;
    }
    let total = layers.iter().try_fold(0u64, |sum, layer| sum.checked_add(layer.size));
    if total.is_none_or(|total| i64::try_from(total).is_err()) {
        return Err(Fault::input("the sizes of the layers add up to more than there can be"));
    }
    Ok(Document::Manifest(Manifest { media_type, config, layers }))
}

fn index(media_type: Option<String>, manifests: Vec<Descriptor>) -> Result<Document> {
    let media_type = media_type.unwrap_or_else(|| media_type::OCI_INDEX.to_owned());
    if !matches!(media_type.as_str(), media_type::OCI_INDEX | media_type::DOCKER_LIST) {
        return Err(unsupported(&media_type));
    }
    if manifests.len() > MAX_INDEX_ENTRIES {
        return Err(Fault::input(format!(
            "the index has {} entries, more than {MAX_INDEX_ENTRIES}",
            manifests.len()
        )));
    }
    Ok(Document::Index(Index { media_type, manifests }))
}

/// A manifest is an object (image spec, "manifest.md"); a reader made from a struct would take an array for one, too.
///
/// # Errors
/// [`Kind::Input`].
pub fn check_object(bytes: &[u8]) -> Result<()> {
    match bytes.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'{') => Ok(()),
        _ => Err(Fault::input("malformed manifest: it is no JSON object")),
    }
}

fn is_known(name: &str) -> bool {
    media_type::ACCEPTED.contains(&name)
}

fn is_schema_1(name: &str) -> bool {
    name.starts_with("application/vnd.docker.distribution.manifest.v1+")
}

fn schema_1() -> Fault {
    Fault::input("docker's image manifest version 2, schema 1 is not supported: it has no checkable digests")
        .hint("push the image again with a current tool")
}

fn unsupported(name: &str) -> Fault {
    Fault::input(format!("unsupported media type {}", shorten(name)))
}

impl Manifest {
    /// Checks that the configuration describes these layers and pairs each with its diff id.
    pub fn layers_with_diff_ids(&self, config: &ImageConfig) -> Result<Vec<record::Layer>> {
        if config.diff_ids.len() != self.layers.len() {
            return Err(Fault::input(format!(
                "the manifest has {} layers but the configuration {} diff ids",
                self.layers.len(),
                config.diff_ids.len()
            )));
        }
        let layer = |(layer, diff_id): (&Descriptor, &Digest)| record::Layer {
            digest: layer.digest.to_string(),
            diff_id: diff_id.to_string(),
            size: layer.size,
            media_type: layer.media_type.clone(),
            ..record::Layer::default()
        };
        Ok(self.layers.iter().zip(&config.diff_ids).map(layer).collect())
    }
}

impl Index {
    /// The manifest that suits the platform best; among equals the first (image spec, "image-index.md").
    ///
    /// # Errors
    /// [`Kind::NotFound`], listing what there is.
    pub fn choose(&self, wanted: &Platform) -> Result<&Descriptor> {
        let ranked = self.manifests.iter().filter_map(|entry| {
            // One without a platform may be right: its configuration tells, later.
            let rank = match &entry.platform {
                Some(platform) => wanted.rank(platform)?,
                None => u32::MAX,
            };
            Some((rank, entry))
        });
        // `min_by_key` keeps the first of equals.
        ranked.min_by_key(|(rank, _)| *rank).map(|(_, entry)| entry).ok_or_else(|| self.no_match(wanted))
    }

    /// The first that is an image, for those who are content with any.
    pub fn first_image(&self) -> Option<&Descriptor> {
        // Attestations of a build are entries for an unknown platform.
        let known = |entry: &&Descriptor| entry.platform.as_ref().is_none_or(|p| p.os != "unknown");
        self.manifests.iter().filter(|entry| !entry.is_index()).find(known)
    }

    fn no_match(&self, wanted: &Platform) -> Fault {
        let platforms: Vec<String> = self
            .manifests
            .iter()
            .filter_map(|entry| entry.platform.as_ref())
            // How build attestations hide from those who look for an image.
            .filter(|platform| platform.os != "unknown")
            .take(20)
            .map(Platform::to_string)
            .collect();
        let fault = Fault::not_found(format!("no image for platform {wanted}"));
        if platforms.is_empty() {
            fault
        } else {
            fault.hint(format!("there is one for {}", platforms.join(", ")))
        }
    }
}

/// An image configuration: a few members read out, the text whole beside them, so that docker's own members
/// (`Healthcheck`, `OnBuild`, `Shell`) are not lost.
#[derive(Clone, Debug)]
pub struct ImageConfig {
    pub platform: Platform,
    /// RFC 3339, as the image says.
    pub created: Option<String>,
    /// Digests of the uncompressed layers, lowest first.
    pub diff_ids: Vec<Digest>,
    /// The whole document.
    pub json: serde_json::Value,
}

#[derive(Deserialize)]
struct ConfigMembers {
    #[serde(default)]
    os: Option<String>,
    #[serde(default)]
    architecture: Option<String>,
    #[serde(default)]
    variant: Option<String>,
    #[serde(default)]
    created: Option<String>,
    rootfs: RootfsMember,
}

#[derive(Deserialize)]
struct RootfsMember {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    diff_ids: Option<Vec<Digest>>,
}

impl ImageConfig {
    pub fn parse(bytes: &[u8]) -> Result<ImageConfig> {
        if bytes.len() as u64 > MAX_CONFIG_BYTES {
            return Err(Fault::input(format!(
                "the image configuration is larger than {MAX_CONFIG_BYTES} bytes"
            )));
        }
        let malformed = || "malformed image configuration".to_owned();
        let members: ConfigMembers = serde_json::from_slice(bytes).explain_as(Kind::Input, malformed)?;
        let json = serde_json::from_slice(bytes).explain_as(Kind::Input, malformed)?;
        if members.rootfs.kind != "layers" {
            return Err(Fault::input(format!("unsupported rootfs type {}", shorten(&members.rootfs.kind))));
        }
        let platform = Platform {
            os: members.os.filter(|os| !os.is_empty()).unwrap_or_else(|| "linux".to_owned()),
            architecture: members.architecture.unwrap_or_default(),
            variant: members.variant.filter(|variant| !variant.is_empty()),
            os_version: None,
        };
        let diff_ids = members.rootfs.diff_ids.unwrap_or_default();
        Ok(ImageConfig { platform, created: members.created, diff_ids, json })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn digest(n: u8) -> String {
        format!("sha256:{}", format!("{n:02x}").repeat(32))
    }

    fn descriptor(kind: &str, n: u8) -> serde_json::Value {
        json!({"mediaType": kind, "digest": digest(n), "size": 10})
    }

    fn parse(value: &serde_json::Value, claimed: Option<&str>) -> Result<Document> {
        Document::parse(value.to_string().as_bytes(), claimed)
    }

    fn image() -> serde_json::Value {
        json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
            "config": descriptor(media_type::OCI_CONFIG, 1), "layers": [descriptor(media_type::OCI_LAYER_GZIP, 2)]})
    }

    #[test]
    fn manifests_and_indexes_are_told_apart() {
        assert!(matches!(parse(&image(), Some(media_type::OCI_MANIFEST)).unwrap(), Document::Manifest(_)));
        assert!(matches!(parse(&image(), Some("application/json")).unwrap(), Document::Manifest(_)));
        let index = json!({"schemaVersion": 2, "manifests": [descriptor(media_type::OCI_MANIFEST, 3)]});
        assert!(matches!(parse(&index, None).unwrap(), Document::Index(_)));
        let typed = format!("{}; charset=utf-8", media_type::DOCKER_LIST);
        assert!(matches!(parse(&index, Some(&typed)).unwrap(), Document::Index(_)));
    }

    #[test]
    fn what_is_not_one_thing_or_not_an_image_is_refused() {
        let mut both = image();
        both["manifests"] = json!([]);
        let mut artifact = image();
        artifact["config"]["mediaType"] = json!("application/vnd.oci.empty.v1+json");
        let mut foreign = image();
        foreign["layers"][0]["urls"] = json!(["http://169.254.169.254/"]);
        let mut nondistributable = image();
        nondistributable["layers"][0]["mediaType"] =
            json!("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip");
        let mut negative = image();
        negative["layers"][0]["size"] = json!(-1);
        let mut endless = image();
        endless["layers"] = json!([
            {"mediaType": media_type::OCI_LAYER, "digest": digest(1), "size": u64::MAX},
            {"mediaType": media_type::OCI_LAYER, "digest": digest(2), "size": 2}]);
        let mut many = image();
        many["layers"] = json!(vec![descriptor(media_type::OCI_LAYER, 1); MAX_LAYERS + 1]);
        let mut path = image();
        path["layers"][0]["digest"] = json!("sha256:../../../../etc/passwd");
        for bad in [
            both,
            artifact,
            foreign,
            nondistributable,
            negative,
            endless,
            many,
            path,
            json!({"schemaVersion": 3}),
            json!({"schemaVersion": 1, "fsLayers": []}),
            json!({}),
            json!([]),
            json!({"schemaVersion": 2}),
        ] {
            assert_eq!(parse(&bad, None).unwrap_err().kind(), Kind::Input, "{bad}");
        }
        assert!(parse(&image(), Some(media_type::OCI_INDEX)).is_err());
        let schema_1 = Some("application/vnd.docker.distribution.manifest.v1+prettyjws");
        assert!(parse(&json!({}), schema_1).unwrap_err().to_string().contains("schema 1"));
        assert!(Document::parse(&vec![b' '; 5 << 20], None).is_err());
        assert!(Document::parse("[".repeat(100_000).as_bytes(), None).is_err());
    }

    #[test]
    fn the_platform_chooses() {
        let entry = |n: u8, architecture: &str| {
            let mut entry = descriptor(media_type::OCI_MANIFEST, n);
            entry["platform"] = json!({"os": "linux", "architecture": architecture});
            entry
        };
        let index = json!({"schemaVersion": 2, "manifests": [entry(1, "386"), entry(2, "arm64"), entry(3, "amd64"), entry(4, "amd64")]});
        let Document::Index(index) = parse(&index, None).unwrap() else { panic!("not an index") };
        let chosen = |text: &str| index.choose(&Platform::parse(text).unwrap()).map(|d| d.digest.to_string());
        assert_eq!(chosen("linux/amd64").unwrap(), digest(3));
        assert_eq!(chosen("linux/386").unwrap(), digest(1));
        let missing = chosen("linux/s390x").unwrap_err();
        assert_eq!(missing.kind(), Kind::NotFound);
        assert!(missing.hint_text().unwrap().contains("linux/arm64"));
    }

    #[test]
    fn a_configuration_keeps_what_docker_added() {
        let text = json!({"architecture": "amd64", "os": "linux", "config": {"Healthcheck": {"Test": ["NONE"]}, "OnBuild": ["RUN x"]},
            "rootfs": {"type": "layers", "diff_ids": [digest(9)]}});
        let config = ImageConfig::parse(text.to_string().as_bytes()).unwrap();
        assert_eq!(config.json, text);
        let Document::Manifest(manifest) = parse(&image(), None).unwrap() else { panic!("not a manifest") };
        assert_eq!(manifest.layers_with_diff_ids(&config).unwrap()[0].diff_id, digest(9));
        let none = ImageConfig { diff_ids: Vec::new(), ..config };
        assert_eq!(manifest.layers_with_diff_ids(&none).unwrap_err().kind(), Kind::Input);
        assert!(ImageConfig::parse(b"{\"rootfs\":{\"type\":\"base\"}}").is_err());
    }
}
