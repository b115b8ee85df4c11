//! The seeds of the fuzz targets, replayed through the same functions, so that they stay true without a fuzzer.

#[path = "../../fuzz/src/lib.rs"]
mod surfaces;

use std::path::Path;

#[test]
fn every_surface_takes_its_seeds() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds");
    let mut known: Vec<&str> = surfaces::ALL.map(|(name, _)| name).to_vec();
    known.sort_unstable();
    let mut found: Vec<String> = names(&seeds);
    found.sort_unstable();
    assert_eq!(found, known, "a directory of seeds for each surface");
    for (name, check) in surfaces::ALL {
        let directory = seeds.join(name);
        let files = names(&directory);
        assert!(files.len() >= 3, "{name} has seeds");
        for file in files {
            let path = directory.join(file);
            let data = std::fs::read(&path).unwrap();
            // What failed is told by the panic itself; this says by which seed.
            assert!(std::panic::catch_unwind(|| check(&data)).is_ok(), "replay of {}", path.display());
        }
    }
}

#[test]
fn every_surface_is_a_target() {
    let targets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/fuzz_targets");
    for (name, _) in surfaces::ALL {
        assert!(targets.join(name).with_extension("rs").is_file(), "{name}");
    }
    assert_eq!(names(&targets).len(), surfaces::ALL.len());
}

/// The fuzzer mends the checksums of what it changed; what was right stays so.
#[test]
fn a_good_archive_needs_no_mending() {
    let seed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/layer/tree");
    let good = std::fs::read(seed).unwrap();
    let mut mended = good.clone();
    surfaces::layer::mend(&mut mended);
    assert!(mended == good);
    mended[0] ^= 1;
    surfaces::layer::mend(&mut mended);
    assert!(mended != good);
    surfaces::layer::check(&mended);
}

fn names(directory: &Path) -> Vec<String> {
    std::fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}
