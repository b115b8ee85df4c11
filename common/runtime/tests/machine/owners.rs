//! Mounts whose files' owners are mapped, and mounts made in a user namespace.

use crate::mounts::has;
use crate::world::{FIRST_ID, IDS, World, bind, entry, in_user_namespace, range, spec, with_mappings};
use crate::{SKIPPED, Test, root};
use runtime::mounts::prepare;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

pub const TESTS: &[Test] = &[
    ("owners_are_mapped", owners_are_mapped),
    ("owners_are_mapped_in_a_user_namespace", owners_are_mapped_in_a_user_namespace),
    ("sources_out_of_reach_are_taken_outside", sources_out_of_reach_are_taken_outside),
    ("what_a_user_namespace_may_not_mount", what_a_user_namespace_may_not_mount),
];

/// Files of several owners, below each other on two file systems.
fn owned(world: &World) {
    world.source("tree", "");
    world.source("tree/sub", "");
    for (name, uid, gid) in [("tree/a", 0, 0), ("tree/b", 100, 211), ("tree/sub/c", 100, 211)] {
        let path = world.write(name, "");
        std::os::unix::fs::chown(path, Some(uid), Some(gid)).expect("an owner");
    }
}

fn owner(path: &Path) -> (u32, u32) {
    let stat = path.metadata().expect("a file");
    (stat.uid(), stat.gid())
}

/// Whether the machine maps owners on the file system of the tests.
fn can_map(world: &World) -> bool {
    let mapped = with_mappings(bind("tree", "/try", "bind"), range(0, 1, 1), range(0, 1, 1));
    let made = prepare(&spec(std::slice::from_ref(&mapped), false), &world.dir, None);
    let tried = made.and_then(|prepared| world.mount_in(&world.root(), &[mapped], prepared));
    if let Err(fault) = &tried {
        println!("{SKIPPED}no idmapped mounts here: {fault}");
    }
    tried.is_ok()
}

fn owners_are_mapped() {
    if !root() {
        return;
    }
    let world = World::new();
    owned(&world);
    if !can_map(&world) {
        return;
    }
    let mounts = [
        with_mappings(bind("tree", "/plain", "rbind"), range(0, FIRST_ID, IDS), range(0, FIRST_ID, IDS)),
        with_mappings(bind("tree", "/deep", "rbind,ridmap"), range(100, 1000, 3), range(200, 2000, 100)),
        bind("tree", "/text", "rbind,idmap=uids=0-5-1#100-7-1;gids=0-6-300"),
        bind("tree", "/not", "rbind"),
        // What is mounted in the container already.
        with_mappings(bind(world.in_root("/not"), "/again", "bind"), range(0, 9, 200), range(0, 9, 300)),
    ];
    let prepared = prepare(&spec(&mounts, false), &world.dir, None).expect("prepare");
    let root = world.root();
    world.mount_in(&root, &mounts, prepared).expect("the mounts");
    let seen = |name: &str| owner(&world.in_root(name));
    assert_eq!(seen("/plain/a"), (FIRST_ID, FIRST_ID));
    assert_eq!(seen("/plain/b"), (FIRST_ID + 100, FIRST_ID + 211));
    assert_eq!(seen("/plain/sub/c"), (100, 211));
    assert_eq!(seen("/deep/b"), (1000, 2011));
    assert_eq!(seen("/deep/sub/c"), (1000, 2011));
    assert_eq!(seen("/text/a"), (5, 6));
    assert_eq!(seen("/text/b"), (7, 217));
    assert_eq!(seen("/not/b"), (100, 211));
    assert_eq!(seen("/again/b"), (109, 220));
    // Its root has no number on that disk.
    let error = std::fs::write(world.in_root("/plain/new"), "").expect_err("a file of nobody");
    assert_eq!(error.raw_os_error(), Some(libc::EOVERFLOW));
}

fn owners_are_mapped_in_a_user_namespace() {
    if !root() {
        return;
    }
    let world = World::new();
    owned(&world);
    if !can_map(&world) {
        return;
    }
    std::os::unix::fs::chown(world.path("root"), Some(FIRST_ID), Some(FIRST_ID)).expect("an owner");
    let mounts = [
        bind("tree", "/container", "rbind,idmap,shared"),
        bind("tree", "/deep", "rbind,ridmap"),
        with_mappings(
            bind("tree", "/own", "bind,ro"),
            range(100, FIRST_ID + 1000, 3),
            range(200, FIRST_ID, 100),
        ),
        bind("tree", "/not", "rbind"),
    ];
    let prepared = std::cell::Cell::new(prepare(&spec(&mounts, true), &world.dir, None).expect("prepare"));
    in_user_namespace(0, || {
        let root = world.root();
        world.mount_in(&root, &mounts, prepared.take()).expect("the mounts");
        let seen = |name: &str| owner(&world.in_root(name));
        assert_eq!((seen("/container/a"), seen("/container/b")), ((0, 0), (100, 211)));
        assert_eq!(seen("/container/sub/c"), (65534, 65534));
        assert_eq!(seen("/deep/sub/c"), (100, 211));
        assert_eq!(seen("/own/b"), (1000, 11));
        assert!(has(&world.options("/own"), "ro"));
        assert!(world.mounted("/container").pop().expect("a mount")[1].contains("shared:"));
        assert_eq!(seen("/not/a"), (65534, 65534));
        std::fs::write(world.in_root("/container/new"), "").expect("write where root is root");
    });
    assert_eq!(owner(&world.path("tree/new")), (0, 0));
    let alone = [bind("tree", "/x", "bind,idmap")];
    let fault = prepare(&spec(&alone, false), &world.dir, None).expect_err("no mappings").to_string();
    assert!(fault.contains("mounts[0] on /x: idmap needs uidMappings"), "{fault}");
}

fn sources_out_of_reach_are_taken_outside() {
    if !root() {
        return;
    }
    let world = World::new();
    world.make("closed/source");
    world.write("closed/source/file", "seen");
    world.write("open/file", "open");
    std::fs::set_permissions(world.path("closed"), PermissionsExt::from_mode(0o700)).expect("a mode");
    std::os::unix::fs::chown(world.path("root"), Some(FIRST_ID), Some(FIRST_ID)).expect("an owner");
    let mounts = [
        bind("closed/source", "/closed", "bind,ro"),
        bind("open", "/open", "bind"),
        entry("tmpfs", "tmpfs", "/inner", ""),
        // On the container's own mount, which is not there yet when this is prepared.
        bind(world.in_root("/inner"), "/again", "rbind"),
    ];
    let prepared = std::cell::Cell::new(prepare(&spec(&mounts, true), &world.dir, None).expect("prepare"));
    in_user_namespace(0, || {
        world.refused(&mounts[..1]);
        world.mount_in(&world.root(), &mounts, prepared.take()).expect("the mounts");
        assert_eq!(std::fs::read_to_string(world.in_root("/closed/file")).expect("a file"), "seen");
        assert!(has(&world.options("/closed"), "ro") && has(&world.options("/again"), "rw"));
        std::fs::write(world.in_root("/inner/x"), "").expect("a file");
        assert!(world.in_root("/again/x").exists());
    });
}

fn what_a_user_namespace_may_not_mount() {
    if !root() {
        return;
    }
    let world = World::new();
    std::os::unix::fs::chown(world.path("root"), Some(FIRST_ID), Some(FIRST_ID)).expect("an owner");
    in_user_namespace(0, || {
        // Nor is the host's network, which a sysfs shows: runc binds nothing in its place either.
        let fault = world.refused(&[entry("sysfs", "sysfs", "/sys", "ro,nosuid,noexec,nodev")]);
        assert!(fault.contains("sysfs"), "{fault}");
        // The host's processes are not for it.
        world.refused(&[entry("proc", "proc", "/proc", "")]);
    });
    in_user_namespace(libc::CLONE_NEWNET | libc::CLONE_NEWPID | libc::CLONE_NEWIPC, || {
        world.mounts(&[
            entry("sysfs", "sysfs", "/sys2", "ro"),
            entry("proc", "proc", "/proc", "nosuid"),
            entry("mqueue", "mqueue", "/mq", ""),
            entry("tmpfs", "tmpfs", "/tmp", "nosuid,size=1m"),
            entry("devpts", "devpts", "/pts", "newinstance"),
        ]);
    });
}
