//! Where an image's layers are read from.

use fault::{Fault, Kind, Result};
use layer::scan::scan;
use layer::{Budget, Item, Limits, View};
use oci::Digest;
use record::Layer;
use std::collections::BTreeMap;
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use store::{Settle, Store};

/// Opens layers, each as often as it is asked for.
pub trait Source: Sync {
    /// A layer's bytes as the registry has them. They are known to be what the digest says before the first is read, or, of a
    /// place of others, when the last was: a reader fails at its end when they were not.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when it is not there.
    fn open(&self, layer: &Layer) -> Result<Box<dyn Read + Send + '_>>;

    /// Whether it is the store, which a pull mends.
    fn is_ours(&self) -> bool {
        false
    }

    /// Whether opening a layer once more means to fetch it once more.
    fn is_far(&self) -> bool {
        false
    }
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
    fn open(&self, layer: &Layer) -> Result<Box<dyn Read + Send + '_>> {
        check_readable(layer)?;
        Ok(Box::new(self.store.open_blob(&Digest::parse(&layer.digest)?, &self.settle)?))
    }

    fn is_ours(&self) -> bool {
        true
    }
}

pub(crate) fn check_readable(layer: &Layer) -> Result<()> {
    if layer.media_type.ends_with("+encrypted") {
        return Err(Fault::input("encrypted layers are not supported"));
    }
    Ok(())
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
            let list = list.map(Arc::new).map_err(|fault| explain(source, fault, name, layer));
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

fn explain(source: &dyn Source, fault: Fault, name: &str, layer: &Layer) -> Fault {
    let fault = match fault.kind() {
        Kind::NotFound if source.is_ours() => fault.hint(format!("img-pull {name} fetches it")),
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
