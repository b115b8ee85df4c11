//! What of the specification works here: asked of libseccomp, which asks the kernel.

use super::profile::{ACTIONS, Architecture, FLAGS, OPERATORS, all_architectures};
use libseccomp::{ScmpAction, ScmpArgCompare, ScmpFilterContext, ScmpSyscall};

/// Names as `features` lists them, each list sorted.
pub struct Support {
    pub actions: Vec<&'static str>,
    pub operators: Vec<&'static str>,
    pub architectures: Vec<&'static str>,
    /// Those this program has a meaning for.
    pub known_flags: Vec<&'static str>,
    /// Those of them the kernel takes.
    pub flags: Vec<&'static str>,
}

impl Support {
    pub fn here() -> Support {
        let mut architectures: Vec<_> =
            all_architectures().filter(|one| knows_architecture(*one)).map(|one| one.name).collect();
        architectures.sort_unstable();
        Support {
            actions: ACTIONS
                .into_iter()
                .filter(|(_, action)| takes_action(*action))
                .map(|(name, _)| name)
                .collect(),
            operators: OPERATORS
                .into_iter()
                .filter(|(_, operator)| {
                    takes_rule(ScmpAction::Errno(1), &[ScmpArgCompare::new(0, *operator, 0)])
                })
                .map(|(name, _)| name)
                .collect(),
            architectures,
            known_flags: FLAGS.iter().map(|(name, _)| *name).collect(),
            flags: FLAGS
                .iter()
                .filter(|(_, flag)| sys::seccomp::knows_flag(*flag))
                .map(|(name, _)| *name)
                .collect(),
        }
    }
}

/// Every architecture has this call.
pub(super) fn knows_architecture(architecture: Architecture) -> bool {
    ScmpSyscall::from_name_by_arch("read", architecture.scmp).is_ok()
}

fn takes_action(action: ScmpAction) -> bool {
    // The default action cannot be that of a rule.
    action == ScmpAction::Allow || takes_rule(action, &[])
}

fn takes_rule(action: ScmpAction, conditions: &[ScmpArgCompare]) -> bool {
    let rule = || {
        let mut context = ScmpFilterContext::new(ScmpAction::Allow)?;
        context.add_rule_conditional(action, ScmpSyscall::from_name("read")?, conditions).map(drop)
    };
    rule().is_ok()
}
