//! `names/<name>`: a name is taken by making the link.

use crate::container::check_name;
use crate::{ContainerDir, Lock, Store, make_dirs};
use fault::{Explain, Fault, Kind, Result};
use record::{Container, Record};

impl Store {
    /// Takes a name for a container by making its link. Taken by a container that is gone, it is free.
    ///
    /// Fails with a conflict naming the holder.
    pub fn take_name(&self, name: &str, id: &str) -> Result<()> {
        check_name(name)?;
        let names = self.root().join("names");
        make_dirs(&names)?;
        let link = names.join(name);
        for _ in 0..3 {
            match std::os::unix::fs::symlink(format!("../containers/{id}"), &link) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).explain(|| format!("take the name {name}")),
            }
            match self.id_of_name(name) {
                Some(holder) if holder == id => return Ok(()),
                // A directory without a record yet belongs to a ctr-create at work, which holds its lock.
                Some(holder) if self.is_taken(name, &holder) => {
                    return Err(Fault::conflict(format!(
                        "the name is in use by container {}",
                        &holder[..12.min(holder.len())]
                    ))
                    .on(name)
                    .hint(format!("remove it with ctr-rm {name}, or choose another name")));
                }
                _ => self.free_dead_name(name),
            }
        }
        Err(Fault::conflict("the name is being taken by somebody else").on(name))
    }

    /// Gives a name back if this container holds it.
    pub fn release_name(&self, name: &str, id: &str) {
        if check_name(name).is_ok() && self.id_of_name(name).as_deref() == Some(id) {
            // Best effort: a dead name is free to take.
            let _ = std::fs::remove_file(self.root().join("names").join(name));
        }
    }

    /// The container whose link it is; whether it still has that name is told by its record.
    pub(crate) fn id_of_name(&self, name: &str) -> Option<String> {
        check_name(name).ok()?;
        let target = std::fs::read_link(self.root().join("names").join(name)).ok()?;
        Some(target.file_name()?.to_str()?.to_owned())
    }

    /// Whether a container has this name, or somebody is at work on one whose link it is: making or renaming it.
    fn is_taken(&self, name: &str, id: &str) -> bool {
        let dir = self.container_dir(id);
        // In this order: what was at work a moment ago has left its record behind.
        Lock::is_held(&dir.bundle) || dir.is_called(name)
    }

    /// Removing a dead link is a race against others doing so and taking the name; locks make one win.
    fn free_dead_name(&self, name: &str) {
        let names = self.root().join("names");
        let Ok(_lock) = Lock::exclusive(&names) else { return };
        let Some(id) = self.id_of_name(name) else { return };
        let dir = self.container_dir(&id);
        // Nobody renames it meanwhile.
        let bundle = Lock::try_directory(&dir.bundle);
        let free = match &bundle {
            Ok(Some(_)) => !dir.is_called(name),
            Ok(None) => false,
            Err(fault) => fault.kind() == Kind::NotFound,
        };
        if free {
            let _ = std::fs::remove_file(names.join(name));
        }
    }

    /// Gives a container another name, running or not, and returns its record. Killed meanwhile, it has left the old
    /// name or the new one: the record says which, and a link that says otherwise is dead.
    ///
    /// Fails with a conflict naming the holder if the name is another container's.
    pub fn rename_container(&self, dir: &ContainerDir, name: &str) -> Result<Record> {
        check_name(name)?;
        let _lock = Lock::directory(&dir.bundle).map_err(|fault| fault.on(dir.id.as_str()))?;
        let mut record = dir.load()?;
        let mut container: Container = record.require("container")?;
        let old = std::mem::replace(&mut container.name, name.to_owned());
        if old == name {
            return Err(Fault::conflict("the container has that name already").on(name));
        }
        let changed = (|| {
            self.take_name(name, &dir.id)?;
            let mut config = record.config()?;
            if config.name.as_deref() == Some(old.as_str()) {
                config.name = Some(name.to_owned());
                record.set("config", &config)?;
            }
            record.set("container", &container)?;
            dir.save(&record)
        })();
        if let Err(fault) = changed {
            self.release_name(name, &dir.id);
            return Err(fault);
        }
        self.release_name(&old, &dir.id);
        Ok(record)
    }

    /// Names whose container is gone, freed. For the prune tools.
    pub fn sweep_names(&self) {
        let Ok(entries) = std::fs::read_dir(self.root().join("names")) else { return };
        for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
            self.free_dead_name(&name);
        }
    }
}
