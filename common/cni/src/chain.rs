//! Running the plugins of a network (specification, section 3).

use crate::configuration::{Configuration, Plugin, check_container, check_interface};
use crate::execution::{Execution, Failure, find};
use crate::{DEFAULT_PATH, Success, Version, shown};
use fault::{Explain, Fault, Kind, Result};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Long enough for an address from a DHCP server that hesitates.
const TIME_LIMIT: Duration = Duration::from_mins(2);

/// Where plugins are, and how long one may take.
#[derive(Clone, Debug)]
pub struct Runtime {
    pub path: Vec<PathBuf>,
    pub time_limit: Duration,
    /// Whether a namespace, by its path, surely has no interface of a name. What a plugin then cannot undo there it is asked to
    /// undo without a namespace.
    pub lacks: fn(&str, &str) -> bool,
}

/// What is attached, in the words of the specification an attachment's parameters.
#[derive(Clone, Debug)]
pub struct Attachment<'a> {
    /// The container's id.
    pub container: &'a str,
    /// Path of its network namespace; empty once that is gone.
    pub namespace: &'a str,
    /// Name of the interface in the container.
    pub interface: &'a str,
    /// `CNI_ARGS`.
    pub arguments: &'a [(String, String)],
    /// Capability arguments: of these each plugin gets what its configuration declares.
    pub capabilities: Map<String, Value>,
}

impl Attachment<'_> {
    fn check(&self) -> Result<()> {
        check_container(self.container)?;
        check_interface(self.interface)?;
        if self.namespace.contains('\0') {
            return Err(Fault::input("the path of a network namespace holds a NUL"));
        }
        let plain = |text: &String| !text.contains([';', '=', '\0']);
        match self.arguments.iter().find(|(key, value)| key.is_empty() || !plain(key) || !plain(value)) {
            None => Ok(()),
            Some((key, value)) => {
                let pair = shown(&format!("{key}={value}"));
                Err(Fault::input(format!("\"{pair}\" cannot be an argument of a CNI plugin"))
                    .hint("neither \";\" nor another \"=\" can be in it"))
            }
        }
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let arguments: Vec<String> =
            self.arguments.iter().map(|(key, value)| format!("{key}={value}")).collect();
        vec![
            ("CNI_CONTAINERID", self.container.to_owned()),
            ("CNI_NETNS", self.namespace.to_owned()),
            ("CNI_IFNAME", self.interface.to_owned()),
            ("CNI_ARGS", arguments.join(";")),
        ]
    }
}

/// A configuration whose plugins are all there.
struct Chain<'c> {
    runtime: &'c Runtime,
    network: &'c str,
    plugins: Vec<(&'c Plugin, PathBuf)>,
}

impl Runtime {
    /// Plugins are looked for in `STAVES_CNI_PATH`, else in [`DEFAULT_PATH`]. Relative folders do not count.
    pub fn from_env() -> Runtime {
        let path = std::env::var_os("STAVES_CNI_PATH").filter(|path| !path.is_empty());
        Runtime::in_path(path.unwrap_or_else(|| DEFAULT_PATH.into()))
    }

    /// With folders given as in `PATH`.
    pub fn in_path(path: impl AsRef<std::ffi::OsStr>) -> Runtime {
        let path = std::env::split_paths(path.as_ref()).filter(|folder| folder.is_absolute()).collect();
        Runtime { path, time_limit: TIME_LIMIT, lacks: |_, _| false }
    }

    /// Whether there is a plugin of this name.
    pub fn has(&self, plugin: &str) -> bool {
        crate::is_plugin_name(plugin) && find(&self.path, plugin).is_ok()
    }

    /// Attaches: runs `ADD` of all plugins, each given the result of the one before. Returns the last result as it was
    /// printed, which [`Runtime::delete`] and [`Runtime::check`] want back.
    ///
    /// When one fails what was done is undone by `DEL`; the failure is that of `ADD`.
    pub fn add(&self, network: &Configuration, attachment: &Attachment<'_>) -> Result<Value> {
        attachment.check()?;
        let chain = self.chain(network)?;
        let version = self.version(network, &chain)?;
        let mut previous: Option<Value> = None;
        for (plugin, program) in &chain.plugins {
            let added = chain
                .run("ADD", version, plugin, program, attachment, previous.as_ref())
                .and_then(|output| answer(&output, version).map_err(Failure::from));
            match added {
                Ok(result) => previous = Some(result),
                Err(failure) => {
                    let fault = chain.explain(failure.fault, plugin, "ADD");
                    if failure.is_unknown_container {
                        return Err(fault);
                    }
                    return Err(match chain.undo(version, attachment, previous.as_ref()) {
                        None => fault,
                        Some(other) => {
                            let hint = fault.hint_text().map(|hint| format!("{hint}; ")).unwrap_or_default();
                            fault.hint(format!("{hint}undoing it failed as well: {other}"))
                        }
                    });
                }
            }
        }
        previous.ok_or_else(|| Fault::input("no plugins").on(network.name.as_str()))
    }

    /// Detaches: runs `DEL` of all plugins in reverse order. `result` is what [`Runtime::add`] returned, if it did.
    pub fn delete(
        &self,
        network: &Configuration,
        attachment: &Attachment<'_>,
        result: Option<&Value>,
    ) -> Result<()> {
        attachment.check()?;
        let chain = self.chain(network)?;
        let version = self.version_of(network, result, &chain)?;
        for (plugin, program) in chain.plugins.iter().rev() {
            chain
                .delete(version, plugin, program, attachment, result)
                .map_err(|fault| chain.explain(fault, plugin, "DEL"))?;
        }
        Ok(())
    }

    /// Asks all plugins whether the attachment is as they made it. `false` where that cannot be asked: before version
    /// 0.4.0, or because the configuration does not want it.
    pub fn check(
        &self,
        network: &Configuration,
        attachment: &Attachment<'_>,
        result: &Value,
    ) -> Result<bool> {
        attachment.check()?;
        let chain = self.chain(network)?;
        let version = self.version_of(network, Some(result), &chain)?;
        if network.disable_check || !version.has_check() {
            return Ok(false);
        }
        for (plugin, program) in &chain.plugins {
            chain
                .run("CHECK", version, plugin, program, attachment, Some(result))
                .map_err(|failure| chain.explain(failure.fault, plugin, "CHECK"))?;
        }
        Ok(true)
    }

    /// Tells all plugins which attachments, as container and interface, there still are, so that they give back what
    /// others hold. `false` where that cannot be said: before version 1.1.0, or because the configuration does not want it.
    ///
    /// No attachment may be made or undone meanwhile. All plugins are run; of several failures it returns the first.
    pub fn collect(&self, network: &Configuration, valid: &[(String, String)]) -> Result<bool> {
        let chain = self.chain(network)?;
        let version = self.version(network, &chain)?;
        if network.disable_gc || !version.has_gc() {
            return Ok(false);
        }
        let valid: Vec<Value> = valid
            .iter()
            .map(|(container, interface)| json!({"containerID": container, "ifname": interface}))
            .collect();
        let mut first = None;
        for (plugin, program) in &chain.plugins {
            let mut input = plugin.derived(chain.network, version, &Map::new(), None);
            input.insert("cni.dev/valid-attachments".into(), valid.clone().into());
            if let Err(failure) = chain.execute("GC", plugin, program, &input, Vec::new()) {
                first.get_or_insert_with(|| chain.explain(failure.fault, plugin, "GC"));
            }
        }
        first.map_or(Ok(true), Err)
    }

    /// Asks all plugins whether they could attach something now. `false` where that cannot be asked: before version 1.1.0.
    pub fn status(&self, network: &Configuration) -> Result<bool> {
        let chain = self.chain(network)?;
        let version = self.version(network, &chain)?;
        if !version.has_gc() {
            return Ok(false);
        }
        for (plugin, program) in &chain.plugins {
            let input = plugin.derived(chain.network, version, &Map::new(), None);
            chain
                .execute("STATUS", plugin, program, &input, Vec::new())
                .map_err(|failure| chain.explain(failure.fault, plugin, "STATUS"))?;
        }
        Ok(true)
    }

    /// The versions a plugin says it speaks, ascending; those that are not known here are left out.
    pub fn versions(&self, plugin: &str) -> Result<Vec<Version>> {
        let of_plugin = |fault: Fault| fault.within(format!("CNI plugin {}: VERSION", shown(plugin)));
        if !crate::is_plugin_name(plugin) {
            return Err(Fault::input(format!("\"{}\" cannot be a plugin's name", shown(plugin))));
        }
        self.probe(plugin, &find(&self.path, plugin)?).map_err(of_plugin)
    }

    fn probe(&self, name: &str, program: &Path) -> Result<Vec<Version>> {
        let input = json!({"cniVersion": Version::NEWEST.name()}).to_string();
        let execution = Execution {
            name,
            program,
            input: input.as_bytes(),
            environment: vec![
                ("CNI_COMMAND", "VERSION".into()),
                ("CNI_PATH", self.joined()?),
                // Plugins before 0.3.0 want these whatever they are asked.
                ("CNI_CONTAINERID", "dummy".into()),
                ("CNI_NETNS", "dummy".into()),
                ("CNI_IFNAME", "dummy".into()),
            ],
            time_limit: self.time_limit,
        };
        let output = execution.run().map_err(|failure| failure.fault)?;
        let told: Value = serde_json::from_slice(&output).explain(|| "read the versions it speaks".into())?;
        let listed = told.get("supportedVersions").and_then(Value::as_array);
        let mut versions: Vec<Version> = listed
            .ok_or_else(|| Fault::failed("it does not say which versions it speaks"))?
            .iter()
            .filter_map(|version| Version::known(version.as_str().filter(|text| !text.is_empty())?))
            .collect();
        versions.sort_unstable();
        versions.dedup();
        Ok(versions)
    }

    fn joined(&self) -> Result<String> {
        let wrong = || Fault::usage("STAVES_CNI_PATH is no list of folders that can be passed on");
        let joined = std::env::join_paths(&self.path).map_err(|_| wrong())?;
        joined.into_string().map_err(|_| wrong())
    }

    /// All programs are looked up before the first is run.
    fn chain<'c>(&'c self, network: &'c Configuration) -> Result<Chain<'c>> {
        let found = network.plugins().iter().map(|plugin| Ok((plugin, find(&self.path, &plugin.name)?)));
        let plugins = found.collect::<Result<_>>().map_err(|fault| fault.on(network.name.as_str()))?;
        Ok(Chain { runtime: self, network: &network.name, plugins })
    }

    /// The newest version the configuration and all its plugins have in common. Plugins are asked only where there is a
    /// choice; with one version they say themselves that it is not theirs.
    fn version(&self, network: &Configuration, chain: &Chain<'_>) -> Result<Version> {
        let mut common = network.versions.clone();
        let mut asked: Vec<&str> = Vec::new();
        for (plugin, program) in &chain.plugins {
            if common.len() < 2 {
                break;
            }
            if !asked.contains(&plugin.name.as_str()) {
                asked.push(&plugin.name);
                let known = self
                    .probe(&plugin.name, program)
                    .map_err(|fault| chain.explain(fault, plugin, "VERSION"))?;
                common.retain(|version| known.contains(version));
            }
        }
        common.last().copied().ok_or_else(|| {
            Fault::input("its plugins have no version of CNI in common with the configuration")
                .on(network.name.as_str())
                .hint("name another one in cniVersions, or install other plugins")
        })
    }

    /// That of the result, so that `DEL` is said in the version `ADD` was.
    fn version_of(
        &self,
        network: &Configuration,
        result: Option<&Value>,
        chain: &Chain<'_>,
    ) -> Result<Version> {
        let told = result.and_then(|result| result.get("cniVersion")?.as_str());
        match told.and_then(Version::known) {
            Some(version) if network.versions.contains(&version) => Ok(version),
            _ => self.version(network, chain),
        }
    }
}

impl Chain<'_> {
    fn explain(&self, fault: Fault, plugin: &Plugin, command: &str) -> Fault {
        fault.within(format!("CNI plugin {}: {command}", plugin.name)).on(self.network)
    }

    fn run(
        &self,
        command: &'static str,
        version: Version,
        plugin: &Plugin,
        program: &Path,
        attachment: &Attachment<'_>,
        previous: Option<&Value>,
    ) -> std::result::Result<Vec<u8>, Failure> {
        let input = plugin.derived(self.network, version, &attachment.capabilities, previous);
        self.execute(command, plugin, program, &input, attachment.environment())
    }

    fn delete(
        &self,
        version: Version,
        plugin: &Plugin,
        program: &Path,
        attachment: &Attachment<'_>,
        result: Option<&Value>,
    ) -> Result<()> {
        let previous = result.filter(|_| version.has_check());
        match self.run("DEL", version, plugin, program, attachment, previous) {
            // There is nothing of it, which is what DEL is to reach.
            Err(failure) if failure.is_unknown_container => Ok(()),
            // DEL is not to fail for what is missing, but that of host-device does, and would for ever.
            Err(failure) if self.is_missing(attachment) => {
                let elsewhere = Attachment { namespace: "", ..attachment.clone() };
                let again = self.run("DEL", version, plugin, program, &elsewhere, previous);
                again.map(drop).map_err(|_| failure.fault)
            }
            Err(failure) => Err(failure.fault),
            Ok(_) => Ok(()),
        }
    }

    fn is_missing(&self, attachment: &Attachment<'_>) -> bool {
        !attachment.namespace.is_empty() && (self.runtime.lacks)(attachment.namespace, attachment.interface)
    }

    /// `DEL` of all plugins, past failures; the first of them.
    fn undo(&self, version: Version, attachment: &Attachment<'_>, result: Option<&Value>) -> Option<Fault> {
        let failed = self.plugins.iter().rev().filter_map(|(plugin, program)| {
            let deleted = self.delete(version, plugin, program, attachment, result);
            deleted.err().map(|fault| self.explain(fault, plugin, "DEL"))
        });
        // All of them, not up to the first.
        failed.collect::<Vec<_>>().into_iter().next()
    }

    fn execute(
        &self,
        command: &'static str,
        plugin: &Plugin,
        program: &Path,
        input: &Map<String, Value>,
        environment: Vec<(&'static str, String)>,
    ) -> std::result::Result<Vec<u8>, Failure> {
        let input = serde_json::to_vec(input).explain(|| "write the configuration".into())?;
        let mut environment = environment;
        environment.push(("CNI_COMMAND", command.to_owned()));
        environment.push(("CNI_PATH", self.runtime.joined()?));
        Execution {
            name: &plugin.name,
            program,
            input: &input,
            environment,
            time_limit: self.runtime.time_limit,
        }
        .run()
    }
}

/// A plugin's answer, if it is one: what is handed on must make sense to the next.
fn answer(output: &[u8], version: Version) -> Result<Value> {
    let mut answer: Value = serde_json::from_slice(output)
        .map_err(|error| Fault::new(Kind::Failed, "its answer is no JSON").because(error))?;
    Success::parse(&answer, version)?;
    if let Value::Object(members) = &mut answer
        && members.get("cniVersion").and_then(Value::as_str).is_none_or(str::is_empty)
    {
        members.insert("cniVersion".into(), version.name().into());
    }
    Ok(answer)
}
