//! What is changed about a container that runs: paused, run again, given other limits.

#[allow(clippy::wildcard_imports)] // A part of one type.
use super::*;
use cgroup::LinuxResources;
use fault::Kind;
use oci::wishes::RestartPolicy;
use record::Extra;
use serde_json::{Value, json};

/// Sections of `linux.resources` that can be changed.
const SECTIONS: [&str; 4] = ["memory", "cpu", "pids", "blockIO"];

/// A run that is being ended for another one.
#[derive(Debug)]
pub struct Ending {
    /// When it is killed; `None`: never, or already.
    deadline: Option<Instant>,
}

impl Ending {
    /// Time until there is something to do.
    pub fn left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }
}

impl Server {
    pub(super) fn pause(&mut self) -> Result<()> {
        let run = self.running()?;
        if self.paused {
            return Err(Fault::conflict("the container is paused already"));
        }
        run.freeze(&self.dir.id)?;
        self.paused = true;
        self.write_state("paused").inspect_err(|_| {
            // Nobody would know why it stands still.
            let _ = self.thaw();
        })?;
        self.tell("pause", Value::Null);
        Ok(())
    }

    pub(super) fn unpause(&mut self) -> Result<()> {
        self.running()?;
        if !self.paused {
            return Err(Fault::conflict("the container is not paused"));
        }
        self.let_run()
    }

    /// Nothing to do for a container that is not paused.
    pub(super) fn let_run(&mut self) -> Result<()> {
        if !self.paused {
            return Ok(());
        }
        self.thaw()?;
        self.tell("unpause", Value::Null);
        self.write_state("running")
    }

    fn thaw(&mut self) -> Result<()> {
        if let Some(run) = &self.run {
            run.thaw(&self.dir.id)?;
        }
        self.paused = false;
        Ok(())
    }

    fn running(&self) -> Result<&Run> {
        let status = match self.phase {
            Phase::Running => {
                return self.run.as_ref().ok_or_else(|| Fault::conflict("the container has ended"));
            }
            Phase::Restarting(_) => "restarting",
            Phase::Waiting => "created",
            Phase::Over => "exited",
        };
        Err(Fault::conflict(format!("not running, but {status}")))
    }

    /// Ends the present run, and a new one follows. The client is told by [`Server::answer_restart`].
    pub(super) fn run_again(&mut self, signal: i32, timeout: Option<u64>) -> Result<()> {
        if let Phase::Restarting(at) = &mut self.phase {
            *at = Instant::now();
            return Ok(());
        }
        self.running()?;
        self.signal(signal)?;
        self.let_run()?;
        let deadline = timeout.and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds)));
        self.ending = Some(Ending { deadline });
        Ok(())
    }

    /// Kills a run that was to end for another one and has not.
    pub(super) fn end_in_time(&mut self) {
        if self.ending.as_ref().and_then(Ending::left).is_some_and(|left| left.is_zero()) {
            self.ending = Some(Ending { deadline: None });
            let _ = self.signal(libc::SIGKILL);
        }
    }

    /// Somebody wants the container to end, and to stay so.
    pub(super) fn forget_restart(&mut self) {
        self.ending = None;
        self.answer_restart(Err(Fault::conflict(shim::OVERTAKEN).into()));
    }

    pub(super) fn answer_restart(&mut self, outcome: Result<Reply, Refusal>) {
        let reply = outcome.unwrap_or_else(|Refusal { fault, exit_code }| Reply {
            error: Some(Failure::of(&fault, exit_code)),
            ..Reply::default()
        });
        for client in self.clients.iter_mut().filter(|client| client.awaits_restart && !client.gone) {
            client.awaits_restart = false;
            client.gone = shim::send(&client.socket, &reply, &[]).is_err();
        }
    }

    /// Sets limits and writes them down. After a failure everything is as it was.
    pub(super) fn update(&mut self, resources: &Extra, changes: &Extra) -> Result<()> {
        if !matches!(self.phase, Phase::Running | Phase::Restarting(_)) {
            self.running()?;
        }
        let restart = match changes.get("restart") {
            None => self.settings.restart,
            Some(policy) => RestartPolicy::parse(policy.as_str().unwrap_or("no"))?,
        };
        let path = self.dir.bundle.join("config.json");
        let text = store::atomic::read(&path)?
            .ok_or_else(|| Fault::not_found(format!("there is no {}", path.display())))?;
        let mut spec: Value =
            serde_json::from_slice(&text).explain_as(Kind::Input, || format!("read {}", path.display()))?;
        let old = limits(&spec["linux"]["resources"])?;
        let new = limits(&Value::Object(resources.clone()))?;
        set_sections(&mut spec, resources);
        // The caller holds the container's lock: waiting for it here would be for ever.
        let mut record = self.dir.load()?;
        let mut config = record.get::<Extra>("config")?.unwrap_or_default();
        for (member, value) in changes {
            if value.is_null() {
                config.shift_remove(member);
            } else {
                config.insert(member.clone(), value.clone());
            }
        }
        record.set("config", &config)?;
        if let Some(mut own) = record.get::<Value>("spec")? {
            set_sections(&mut own, resources);
            record.set("spec", &own)?;
        }
        if let Some(run) = &self.run {
            run.replace_limits(&self.dir, &old, &new)?;
        }
        let spec = serde_json::to_vec(&spec).explain(|| "write the specification".into())?;
        let written = store::atomic::write(&path, &spec, 0o600).and_then(|()| self.dir.save(&record));
        if let Err(fault) = written {
            let _ = store::atomic::write(&path, &text, 0o600);
            if let Some(run) = &self.run {
                let _ = run.replace_limits(&self.dir, &new, &old);
            }
            return Err(fault);
        }
        self.settings.restart = restart;
        self.tell("update", Value::Null);
        Ok(())
    }
}

/// The sections that can be changed.
fn limits(resources: &Value) -> Result<LinuxResources> {
    let mut some = Extra::new();
    for section in SECTIONS {
        if let Some(value) = resources.get(section).filter(|value| !value.is_null()) {
            some.insert(section.to_owned(), value.clone());
        }
    }
    serde_json::from_value(Value::Object(some)).explain_as(Kind::Input, || "linux.resources".into())
}

fn set_sections(spec: &mut Value, resources: &Extra) {
    let Some(linux) = spec.as_object_mut().map(|spec| spec.entry("linux").or_insert_with(|| json!({})))
    else {
        return;
    };
    let Some(linux) = linux.as_object_mut() else { return };
    let Some(own) = linux.entry("resources").or_insert_with(|| json!({})).as_object_mut() else { return };
    for section in SECTIONS {
        match resources.get(section) {
            Some(value) => {
                own.insert(section.to_owned(), value.clone());
            }
            None => {
                own.shift_remove(section);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_replaced_and_others_stay() {
        let mut spec =
            json!({"linux": {"resources": {"devices": [], "memory": {"limit": 1}, "cpu": {"shares": 2}}}});
        let Value::Object(new) = json!({"memory": {"limit": 3}, "devices": [1]}) else { unreachable!() };
        set_sections(&mut spec, &new);
        assert_eq!(spec, json!({"linux": {"resources": {"devices": [], "memory": {"limit": 3}}}}));
        let mut odd = json!({"linux": 7});
        set_sections(&mut odd, &new);
        assert_eq!(odd, json!({"linux": 7}));
        assert_eq!(limits(&json!(null)).unwrap(), LinuxResources::default());
        assert!(limits(&json!({"memory": {"limit": "x"}})).is_err());
    }
}
