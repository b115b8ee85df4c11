//! What there is besides bridges: attachments by plugins, what links are on top of, containers of others.

use super::Pruner;
use crate::definition::{Definition, Driver};
use crate::host::Host;
use crate::{cni, link, vlan};
use fault::{Kind, Result};
use store::Lock;

impl Pruner<'_> {
    /// Runs `DEL` for containers that are gone, and `GC`.
    pub(crate) fn plugins(&mut self, network: &Definition) -> Result<()> {
        if !matches!(network.driver, Driver::Cni(_)) {
            return Ok(());
        }
        let mut undone = Vec::new();
        let done = cni::prune(self.host, network, self.plan.is_some(), &mut undone);
        for id in undone {
            self.note("attachment", network.name.clone(), Some(id));
        }
        match done {
            // As a definition nobody can read: what is of other networks goes all the same.
            Err(fault) if fault.kind() == Kind::Input => {
                self.host.note(format!("left alone: {}: {fault}", network.name));
                Ok(())
            }
            other => other,
        }
    }

    /// What links were on top of and was made for them, once nobody is attached. `true` if the network is not used any more.
    pub(crate) fn parent(&mut self, network: &Definition) -> Result<bool> {
        let gone = self.plan.as_ref();
        let leases = self.host.store.leases(&network.name)?.addresses()?;
        if leases
            .iter()
            .any(|address| gone.is_none_or(|plan| !plan.leases.contains(&(network.name.clone(), *address))))
        {
            return Ok(false);
        }
        if let Some(name) = vlan::remove_parent(self.host, network, self.plan.is_some())? {
            self.note("interface", name, None);
        }
        Ok(true)
    }

    /// What is known of containers of others that are gone. What they held has been given back.
    pub(super) fn foreigners(&self) -> Result<()> {
        let store = self.host.store;
        for id in store.foreigners()? {
            let dir = store.run().join("foreign").join(&id);
            if self.plan.is_none()
                && !store.is_foreign_alive(&id)
                && let Ok(Some(_lock)) = Lock::try_directory(&dir)
                // It may have been attached anew before the lock was taken.
                && !store.is_foreign_alive(&id)
            {
                store.forget_foreign(&id)?;
            }
        }
        Ok(())
    }
}

/// The interfaces on the host of containers of others.
pub(super) fn foreign_interfaces(host: &Host<'_>) -> Result<Vec<String>> {
    let alive = host.store.foreigners()?.into_iter().filter_map(|id| {
        let foreign = host.store.foreign(&id).ok()?.filter(store::Foreign::is_alive)?;
        Some(link::host_interface(&id, &foreign.attachment.name))
    });
    Ok(alive.collect())
}
