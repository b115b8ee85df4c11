//! The two dialects of manifests: OCI's and docker's. Content is the same, names of types differ, and with them the digest.

use crate::manifest::media_type as t;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Oci,
    Docker,
}

/// Types in pairs: OCI's, docker's.
const PAIRS: [(&str, &str); 6] = [
    (t::OCI_MANIFEST, t::DOCKER_MANIFEST),
    (t::OCI_INDEX, t::DOCKER_LIST),
    (t::OCI_CONFIG, t::DOCKER_CONFIG),
    (t::OCI_LAYER_GZIP, t::DOCKER_LAYER_GZIP),
    (t::OCI_LAYER, t::DOCKER_LAYER),
    (t::OCI_LAYER_ZSTD, t::DOCKER_LAYER_ZSTD),
];

impl Format {
    /// The same type in this dialect; types of neither stay.
    #[must_use]
    pub fn translate(self, media_type: &str) -> &str {
        let pair = PAIRS.iter().find(|(oci, docker)| *oci == media_type || *docker == media_type);
        match (self, pair) {
            (Format::Oci, Some((oci, _))) => oci,
            (Format::Docker, Some((_, docker))) => docker,
            (_, None) => media_type,
        }
    }

    /// Whether a type is one of the other dialect.
    #[must_use]
    pub fn is_other(self, media_type: &str) -> bool {
        self.translate(media_type) != media_type
    }
}
