//! `--all-restartable`: what a restart policy says when the machine comes up, where there is no daemon to say it.

use cli::{Context, Kind, Result};
use oci::wishes::RestartPolicy;
use store::{ContainerDir, LastRun, Status, StoppedBy, Store, Subject};

/// The containers that are to run again, those created first in front. One that cannot be read is reported.
pub fn all(context: &mut Context, store: &Store) -> Result<Vec<Subject>> {
    let mut found = Vec::new();
    for dir in store.containers()? {
        match wanted(&dir) {
            Ok(Some(created)) => found.push((created, dir.id)),
            Ok(None) => {}
            // Removed since the directory was read.
            Err(fault) if fault.kind() == Kind::NotFound => {}
            Err(fault) => context.report(&fault.on(dir.id)),
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, id)| Subject::from(id)).collect())
}

/// When it was created, if it is to be started.
fn wanted(dir: &ContainerDir) -> Result<Option<String>> {
    // One with a shim is being looked after.
    if dir.status()? != Status::Exited || dir.has_shim() {
        return Ok(None);
    }
    let Some(last) = dir.last_run()? else { return Ok(None) };
    let record = dir.load()?;
    let policy = RestartPolicy::parse(record.config()?.restart.as_deref().unwrap_or_default())?;
    let created = record.container()?.and_then(|container| container.created_at).unwrap_or_default();
    Ok(is_wanted(policy, &last).then_some(created))
}

/// docker's rules for the start of its daemon.
fn is_wanted(policy: RestartPolicy, last: &LastRun) -> bool {
    let by_user = last.stopped_by == Some(StoppedBy::User);
    match policy {
        RestartPolicy::No => false,
        RestartPolicy::Always => true,
        RestartPolicy::UnlessStopped => !by_user,
        // Cut off with its machine it has not done what it was to do, whatever it said about that.
        RestartPolicy::OnFailure(most) => {
            let by_machine = last.stopped_by == Some(StoppedBy::Machine);
            let given_up = !by_machine && most.is_some_and(|most| last.restarts >= most);
            !by_user && !given_up && (last.exit_code != Some(0) || by_machine)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_at_boot() {
        let run = |exit_code, stopped_by| LastRun { exit_code, stopped_by, ..LastRun::default() };
        let cut = run(None, None);
        let failed = run(Some(1), None);
        let done = run(Some(0), None);
        let stopped = run(Some(143), Some(StoppedBy::User));
        let shut_down = run(Some(0), Some(StoppedBy::Machine));
        let given_up = LastRun { restarts: 2, ..run(Some(1), None) };
        let all = [&cut, &failed, &done, &stopped, &shut_down, &given_up];
        for (policy, wanted) in [
            (RestartPolicy::No, [false; 6]),
            (RestartPolicy::Always, [true; 6]),
            (RestartPolicy::UnlessStopped, [true, true, true, false, true, true]),
            (RestartPolicy::OnFailure(Some(2)), [true, true, false, false, true, false]),
            (RestartPolicy::OnFailure(None), [true, true, false, false, true, true]),
        ] {
            assert_eq!(all.map(|last| is_wanted(policy, last)), wanted, "{policy:?}");
        }
    }
}
