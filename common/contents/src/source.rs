//! Where an image's layers are read from.

use fault::{Explain, Fault, Kind, Result};
use layer::scan::scan;
use layer::{Budget, Item, Limits, View};
use oci::manifest::MAX_MANIFEST_BYTES;
use oci::{Digest, Platform};
use record::{Image, Layer};
use std::collections::BTreeMap;
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use store::{Settle, Store, Subject};

/// Opens layers, each as often as it is asked for.
pub trait Source: Sync {
    /// A layer's bytes as the registry has them, known to be what its digest says.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when it is not there.
    fn open(&self, layer: &Layer) -> Result<Box<dyn Read + Send>>;
}

/// The local store. A blob that another program put there is hashed once, and then trusted until the next boot.
#[derive(Debug)]
pub struct InStore<'a> {
    store: &'a Store,
    settle: Settle,
}

impl<'a> InStore<'a> {
    pub fn new(store: &'a Store) -> InStore<'a> {
        InStore { store, settle: Settle::new() }
    }
}

impl Source for InStore<'_> {
    fn open(&self, layer: &Layer) -> Result<Box<dyn Read + Send>> {
        if layer.media_type.ends_with("+encrypted") {
            return Err(Fault::input("encrypted layers are not supported"));
        }
        Ok(Box::new(self.store.open_blob(&Digest::parse(&layer.digest)?, &self.settle)?))
    }
}

/// An image and where its layers are.
pub struct Opened<'a> {
    pub image: Image,
    /// The manifest, whole.
    pub manifest: serde_json::Value,
    pub source: Box<dyn Source + 'a>,
}

/// Finds the image a tool's subject means: the one place to add further sources.
///
/// # Errors
/// As [`Store::find_subject`] and [`Store::load_image`].
pub fn open<'a>(store: &'a Store, subject: &Subject) -> Result<Opened<'a>> {
    let entry = store.find_subject(subject)?;
    let image = store.load_image(&entry, &Platform::host())?;
    let bytes = store.read_blob(&Digest::parse(&image.digest)?, MAX_MANIFEST_BYTES)?;
    let manifest = serde_json::from_slice(&bytes).explain_as(Kind::Input, || "malformed manifest".into())?;
    Ok(Opened { image, manifest, source: Box::new(InStore::new(store)) })
}

/// Lists layers, as many at once as there are processors; of those that are the same one is read.
///
/// # Errors
/// Of [`Source::open`] and [`scan`], naming the layer and the image's `name`.
pub fn scan_layers(
    source: &dyn Source,
    name: &str,
    layers: &[Layer],
    budget: &Budget,
    hash: bool,
) -> Result<Vec<Arc<Vec<Item>>>> {
    // Where each digest is first.
    let mut first: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, layer) in layers.iter().enumerate() {
        first.entry(&layer.digest).or_insert(index);
    }
    let mut order: Vec<usize> = first.values().copied().collect();
    // The largest first, so that the last to end is a small one.
    order.sort_by_key(|index| std::cmp::Reverse(layers[*index].size));
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let lists: Mutex<BTreeMap<usize, Result<Arc<Vec<Item>>>>> = Mutex::default();
    let work = || {
        while !failed.load(Ordering::Relaxed)
            && let Some(index) = order.get(next.fetch_add(1, Ordering::Relaxed))
        {
            let layer = &layers[*index];
            let list = source.open(layer).and_then(|blob| scan(blob, &Limits::default(), budget, hash));
            failed.fetch_or(list.is_err(), Ordering::Relaxed);
            let list = list.map(Arc::new).map_err(|fault| explain(fault, name, layer));
            lists.lock().unwrap_or_else(PoisonError::into_inner).insert(*index, list);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(order.len());
    std::thread::scope(|scope| {
        for _ in 1..threads {
            // Those that do start do the work.
            let _ = std::thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    let mut done = BTreeMap::new();
    for (index, list) in lists.into_inner().unwrap_or_else(PoisonError::into_inner) {
        done.insert(index, list?);
    }
    let list = |layer: &Layer| first.get(layer.digest.as_str()).and_then(|index| done.get(index)).cloned();
    layers.iter().map(|layer| list(layer).ok_or_else(|| Fault::failed("a layer was not read"))).collect()
}

fn explain(fault: Fault, name: &str, layer: &Layer) -> Fault {
    let fault = match fault.kind() {
        Kind::NotFound => fault.hint(format!("img-pull {name} fetches it")),
        _ => fault,
    };
    fault.within(format!("{name}: layer {}", layer.digest))
}

/// The tree of all layers of the image that is called `name`.
///
/// # Errors
/// As [`View::of`].
pub fn view(name: &str, lists: &[Arc<Vec<Item>>], budget: &Budget) -> Result<View> {
    View::of(lists, budget).map_err(|fault| fault.within(name))
}
