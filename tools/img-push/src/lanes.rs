//! Work on several things at once, the first failure ending all.

use cli::Result;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Results in the order of the items. `work` is told when another one has failed.
pub fn lanes<T: Sync, R: Send>(
    items: &[T],
    at_once: usize,
    work: impl Fn(&T, &AtomicBool) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let results = Mutex::new(Vec::new());
    let failure = Mutex::new(None);
    let lane = || {
        while !stop.load(Ordering::Relaxed) {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { return };
            match work(item, &stop) {
                Ok(result) => results.lock().unwrap_or_else(PoisonError::into_inner).push((at, result)),
                Err(fault) => {
                    // First the reason, then the others' end, or theirs could be taken for it.
                    failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(fault);
                    stop.store(true, Ordering::Relaxed);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..items.len().min(at_once) {
            scope.spawn(lane);
        }
        lane();
    });
    if let Some(fault) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(fault);
    }
    let mut results: Vec<(usize, R)> = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(at, _)| *at);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cli::Fault;

    #[test]
    fn results_keep_their_order_and_failures_end_all() {
        let items: Vec<u32> = (0..100).collect();
        let doubled = lanes(&items, 4, |item, _| Ok(item * 2)).unwrap();
        assert!(doubled.iter().zip(&items).all(|(double, item)| *double == item * 2));
        let failed = lanes(&items, 4, |item, stop| match item {
            7 => Err(Fault::failed("seven")),
            _ if stop.load(Ordering::Relaxed) => Err(Fault::failed("another one failed")),
            _ => Ok(()),
        });
        assert_eq!(failed.unwrap_err().to_string(), "seven");
        assert!(lanes(&[] as &[u32], 4, |_, _| Ok(())).unwrap().is_empty());
    }
}
