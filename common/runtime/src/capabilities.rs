//! Capability sets of the process (capabilities(7)).

use fault::{Explain, Fault, Result};
use oci::capabilities::NAMES;
use oci_spec::runtime::{Capabilities, LinuxCapabilities};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, configure_capability_in_ambient_set,
    remove_capability_from_bounding_set, set_capabilities,
};

/// The sets as bits, worked out before anything is given up.
#[derive(Clone, Copy, Debug)]
pub struct Sets {
    bounding: u64,
    effective: u64,
    inheritable: u64,
    permitted: u64,
    ambient: u64,
}

impl Sets {
    pub fn of(capabilities: &LinuxCapabilities) -> Result<Sets> {
        Ok(Sets {
            bounding: bits(capabilities.bounding().as_ref())?,
            effective: bits(capabilities.effective().as_ref())?,
            inheritable: bits(capabilities.inheritable().as_ref())?,
            permitted: bits(capabilities.permitted().as_ref())?,
            ambient: bits(capabilities.ambient().as_ref())?,
        })
    }

    /// Takes the bounding set down; while CAP_SETPCAP is still there, so before the user is changed.
    pub fn limit_bounding(&self) -> Result<()> {
        for number in 0..64 {
            let bit = 1 << number;
            if self.bounding & bit != 0 {
                continue;
            }
            match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(bit)) {
                Ok(()) => {}
                // The first number the kernel does not know.
                Err(rustix::io::Errno::INVAL) if number > 0 => break,
                Err(error) => {
                    return Err(std::io::Error::from(error)).explain(|| "limit the bounding set".into());
                }
            }
        }
        Ok(())
    }

    /// Sets the rest, after the user was changed with capabilities kept.
    pub fn apply(&self) -> Result<()> {
        let set = CapabilitySet::from_bits_retain;
        set_capabilities(
            None,
            CapabilitySets {
                effective: set(self.effective),
                permitted: set(self.permitted),
                inheritable: set(self.inheritable),
            },
        )
        .map_err(std::io::Error::from)
        .explain(|| "set capabilities".into())
        .map_err(|fault| {
            fault.hint("one of them may be missing here: sys-check lists what this machine lacks")
        })?;
        // Kernels without ambient capabilities have none to clear.
        let _ = clear_ambient_capability_set();
        for number in (0..64).filter(|number| self.ambient & 1 << number != 0) {
            configure_capability_in_ambient_set(set(1 << number), true)
                .map_err(std::io::Error::from)
                .explain(|| "raise an ambient capability".into())?;
        }
        Ok(())
    }
}

fn bits(capabilities: Option<&Capabilities>) -> Result<u64> {
    let mut bits = 0;
    for capability in capabilities.into_iter().flatten() {
        let name = capability.to_string();
        let bare = name.strip_prefix("CAP_").unwrap_or(&name);
        let number = NAMES
            .iter()
            .position(|known| *known == bare)
            .ok_or_else(|| Fault::input(format!("capability {name} is unknown")))?;
        bits |= 1 << number;
    }
    Ok(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_their_kernel_numbers() {
        let set: Capabilities =
            serde_json::from_str(r#"["CAP_CHOWN","CAP_SYS_ADMIN","CAP_CHECKPOINT_RESTORE"]"#).unwrap();
        assert_eq!(bits(Some(&set)).unwrap(), 1 | 1 << 21 | 1 << 40);
    }
}
