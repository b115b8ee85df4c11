use crate::Watch;
use cli::progress::{Item, Progress};
use oci::Descriptor;

/// The progress of a copy as bars and events, one for each blob.
#[derive(Debug)]
pub struct Bars<'a> {
    pub progress: &'a Progress,
    /// What the user asked for.
    pub subject: &'a str,
}

impl Watch for Bars<'_> {
    fn present(&self, blob: &Descriptor) {
        self.progress.present(self.subject, blob.digest.as_str());
    }

    fn start<'a>(&'a self, blob: &Descriptor) -> Box<dyn FnMut(u64) + 'a> {
        let size = blob.size;
        let start = self.progress.start(self.subject, blob.digest.as_str(), blob.digest.short(), Some(size));
        let mut item: Option<Item<'a>> = Some(start);
        Box::new(move |bytes| {
            if bytes < size {
                if let Some(item) = &mut item {
                    item.set(bytes);
                }
            } else if let Some(item) = item.take() {
                item.done();
            }
        })
    }
}
