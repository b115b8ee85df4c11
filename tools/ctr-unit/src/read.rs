//! A quadlet as a record: every setting of `[Container]` as the flag of `ctr-create` it stands for.

use crate::keys::{self, Take};
use crate::section::{self, Unit};
use crate::specifier::Specifiers;
use crate::syntax::{self, Backslash, Setting, at};
use clap::Parser;
use ctr_create::args::CreateFlags;
use fault::{Fault, Kind, Result};
use oci::wishes::RestartPolicy;
use record::{Config, Image, Record};
use std::path::{Path, PathBuf};

/// Where a quadlet came from.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    pub specifiers: Specifiers,
    /// What paths that begin with a dot are below.
    pub directory: PathBuf,
}

/// One flag with its value, and the line it came from.
struct Flag {
    line: usize,
    key: String,
    words: Vec<String>,
}

#[derive(Debug, Parser)]
#[command(name = "ctr-create", no_binary_name = true, disable_help_flag = true, args_override_self = true)]
struct Line {
    #[command(flatten)]
    flags: CreateFlags,
}

/// A record with what the file says in `image`, `config` and `unit`.
///
/// # Errors
/// Input, with the number of the line.
pub fn quadlet(text: &str, origin: &Origin) -> Result<Record> {
    let settings = syntax::parse(text)?;
    let (own, others): (Vec<Setting>, Vec<Setting>) =
        settings.into_iter().partition(|setting| setting.section == "Container");
    if own.is_empty() {
        return Err(Fault::input("there is no [Container]")
            .hint("a quadlet of a container has one, with Image= in it"));
    }
    let mut unit = Unit { name: origin.specifiers.name.clone(), ..Unit::default() };
    let mut config = Config::default();
    for setting in &others {
        pass_on(setting, &mut unit).map_err(|fault| at(setting.line, fault))?;
    }
    let reader = Reader { origin, settings: &own };
    reader.check()?;
    let image = reader.whole("Image", Reader::image)?;
    reader.apply(&mut config)?;
    reader.rest(&mut config, &mut unit)?;
    if image.is_some() == config.rootfs.is_some() {
        return Err(Fault::input("[Container] has neither Image= nor Rootfs=, or both of them"));
    }
    take_restart(&mut unit, &mut config)?;
    if config.name.is_none() {
        // podman's name, so that what knows the container knows it still.
        config.name = origin.specifiers.name.as_ref().map(|name| {
            let name = unit.name.as_ref().unwrap_or(name);
            format!("systemd-{}", name.trim_end_matches('@').replace('@', "_"))
        });
    }
    if let Some(name) = &config.name {
        store::check_name(name).map_err(|fault| fault.as_kind(Kind::Input))?;
    }
    let mut record = Record::new();
    if let Some(reference) = image {
        record.set("image", &serde_json::json!({ "reference": reference }))?;
    }
    record.set("config", &config)?;
    if !unit.is_empty() {
        record.set(section::NAME, &unit)?;
    }
    // What `unit` says is held to the same rules as what comes in by a record.
    Unit::of(&record)?;
    let _: Option<Image> = record.image()?;
    Ok(record)
}

/// What is systemd's goes on as it is.
fn pass_on(setting: &Setting, unit: &mut Unit) -> Result<()> {
    let Setting { section, key, value, .. } = setting;
    let list = match section.as_str() {
        "Unit" => &mut unit.unit,
        "Service" => &mut unit.service,
        "Install" => &mut unit.install,
        "Quadlet" if key == "DefaultDependencies" => {
            unit.default_dependencies = Some(boolean(value)?);
            return Ok(());
        }
        // Everybody's own; systemd passes over them, too.
        _ if section.starts_with("X-") => return Ok(()),
        _ => {
            return Err(Fault::input(format!(
                "{key}= in [{section}]: a quadlet of a container has no such setting"
            ))
            .hint("[Unit], [Container], [Service], [Install], DefaultDependencies= in [Quadlet]"));
        }
    };
    if !syntax::is_plain(value) {
        return Err(Fault::input(format!("{key}= has a control character, or ends in a backslash")));
    }
    list.push(format!("{key}={value}"));
    Ok(())
}

/// systemd's word for what a restart policy says, and the policy for the word.
fn take_restart(unit: &mut Unit, config: &mut Config) -> Result<()> {
    let exact = section::last(&unit.service, "X-RestartPolicy").map(str::to_owned);
    let Some(word) = section::last(&unit.service, "Restart").map(str::to_owned) else { return Ok(()) };
    let policy = match (word.as_str(), exact) {
        (word, Some(exact)) if crate::service::restart_word(RestartPolicy::parse(&exact)?) == word => exact,
        ("no" | "always" | "on-failure", _) => word,
        // systemd's alone.
        _ => return Ok(()),
    };
    unit.service
        .retain(|setting| !setting.starts_with("Restart=") && !setting.starts_with("X-RestartPolicy="));
    config.restart = Some(policy);
    Ok(())
}

pub fn boolean(value: &str) -> Result<bool> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "yes" | "y" | "true" | "t" | "on" => Ok(true),
        "0" | "no" | "n" | "false" | "f" | "off" => Ok(false),
        _ => Err(Fault::input(format!("\"{value}\" is neither yes nor no"))),
    }
}

struct Reader<'a> {
    origin: &'a Origin,
    settings: &'a [Setting],
}

impl Reader<'_> {
    /// No setting is passed over.
    fn check(&self) -> Result<()> {
        for setting in self.settings {
            let key = setting.key.as_str();
            let known = keys::FLAGS.iter().any(|flag| flag.0 == key) || keys::OTHERS.contains(&key);
            if known || key.starts_with("X-") {
                continue;
            }
            let fault = match keys::REFUSED.iter().find(|refused| refused.0 == key) {
                Some((_, why, instead)) => Fault::input(format!("{key}= is not supported: {why}"))
                    .hint(format!("instead: {instead}")),
                None => Fault::input(format!("there is no setting {key}= in [Container]"))
                    .hint("podman-container.unit(5) lists them; a flag without one: PodmanArgs="),
            };
            return Err(at(setting.line, fault));
        }
        Ok(())
    }

    /// Those of one key, without what an empty one takes away.
    fn all(&self, key: &str) -> Vec<&Setting> {
        let mut found = Vec::new();
        for setting in self.settings.iter().filter(|setting| setting.key == key) {
            if setting.value.is_empty() {
                found.clear();
            } else {
                found.push(setting);
            }
        }
        found
    }

    /// The last one, empty or not.
    fn last(&self, key: &str) -> Option<&Setting> {
        self.settings.iter().rev().find(|setting| setting.key == key)
    }

    /// The last one's value if it is not empty, made into something by `read`.
    fn whole<T>(&self, key: &str, read: impl Fn(&Self, &str) -> Result<T>) -> Result<Option<T>> {
        let Some(setting) = self.last(key) else { return Ok(None) };
        let value = unquoted(&setting.value);
        if value.is_empty() {
            return Ok(None);
        }
        read(self, value).map(Some).map_err(|fault| at(setting.line, fault.within(format!("{key}="))))
    }

    fn expand(&self, word: &str) -> Result<String> {
        self.origin.specifiers.expand(word)
    }

    /// The words of a value as in ExecStart=.
    fn command(&self, value: &str) -> Result<Vec<String>> {
        syntax::words(value, Backslash::Escapes)?.iter().map(|word| self.expand(word)).collect()
    }

    fn image(&self, value: &str) -> Result<String> {
        let name = self.expand(value)?;
        if Path::new(&name).extension().is_some_and(|suffix| suffix == "image" || suffix == "build") {
            return Err(Fault::input(format!("\"{name}\" is another unit, and other units are not read"))
                .hint("the reference of the image: docker.io/library/nginx:1"));
        }
        Ok(oci::Reference::parse(&name)?.to_string())
    }

    /// Puts the flags the settings stand for over `config`.
    fn apply(&self, config: &mut Config) -> Result<()> {
        let mut flags = Vec::new();
        for (key, take, name, prefix) in keys::FLAGS {
            for (line, value) in self.values(key, *take)? {
                let value =
                    self.own_value(key, value).map_err(|fault| at(line, fault.within(format!("{key}="))))?;
                let Some(value) = value else { continue };
                flags.push(Flag {
                    line,
                    key: (*key).to_owned(),
                    words: vec![format!("{name}={prefix}{value}")],
                });
            }
        }
        flags.iter_mut().for_each(switch);
        self.users(&mut flags)?;
        for setting in self.all("PodmanArgs") {
            let words = self.command(&setting.value).map_err(|fault| at(setting.line, fault))?;
            flags.push(Flag { line: setting.line, key: setting.key.clone(), words });
        }
        let Some(fault) = put(&flags, config).err() else { return Ok(()) };
        // Whose fault it was.
        for flag in &flags {
            if let Err(fault) = put(std::slice::from_ref(flag), &mut Config::default()) {
                return Err(at(flag.line, fault.within(format!("{}=", flag.key))));
            }
        }
        Err(fault)
    }

    /// The values of a setting, each with its line.
    fn values(&self, key: &str, take: Take) -> Result<Vec<(usize, String)>> {
        let mut values = Vec::new();
        match take {
            Take::Last => {
                let read = self.whole(key, Reader::expand)?;
                values.extend(read.zip(self.last(key)).map(|(value, setting)| (setting.line, value)));
            }
            Take::Switch | Take::Bool => {
                let read = self.whole(key, |_, value| boolean(value))?;
                let said = read.filter(|on| *on || take == Take::Bool).zip(self.last(key));
                let text = |on: bool| if take == Take::Bool { on.to_string() } else { String::new() };
                values.extend(said.map(|(on, setting)| (setting.line, text(on))));
            }
            Take::Each => {
                for setting in self.all(key) {
                    let value = self.expand(&setting.value).map_err(|fault| at(setting.line, fault))?;
                    values.push((setting.line, value));
                }
            }
            Take::Names | Take::Words => {
                let backslash = if take == Take::Names { Backslash::Stands } else { Backslash::Escapes };
                for setting in self.all(key) {
                    let words = syntax::words(&setting.value, backslash)
                        .and_then(|words| {
                            words.iter().map(|word| self.expand(word)).collect::<Result<Vec<_>>>()
                        })
                        .map_err(|fault| at(setting.line, fault.within(format!("{key}="))))?;
                    values.extend(words.into_iter().map(|word| (setting.line, word)));
                }
            }
        }
        if key == "Network" && values.len() > 1 {
            let fault = Fault::input("Network= is given more than once, and a container has one network");
            return Err(at(values[1].0, fault));
        }
        Ok(values)
    }

    /// What a key has beside the text of its flag; `None` where it does not count.
    fn own_value(&self, key: &str, value: String) -> Result<Option<String>> {
        match key {
            "AddDevice" => match value.strip_prefix('-') {
                // To be left out where there is none.
                Some(device) if !Path::new(device.split(':').next().unwrap_or_default()).exists() => Ok(None),
                Some(device) => Ok(Some(device.to_owned())),
                None => Ok(Some(value)),
            },
            "EnvironmentFile" => Ok(Some(self.below(&value)?)),
            "SeccompProfile" if value.contains('/') => Ok(Some(self.below(&value)?)),
            "Network" if value.ends_with(".network") || value.ends_with(".container") => {
                Err(Fault::input(format!("\"{value}\" is another unit, and other units are not read"))
                    .hint("a mode: bridge, host, none, container:NAME"))
            }
            "Volume" => {
                let (source, rest) = value.split_once(':').unwrap_or(("", &value));
                if is_unit(source) {
                    return Err(Fault::input(format!(
                        "\"{source}\" is another unit, and other units are not read"
                    ))
                    .hint("the name of the volume"));
                }
                if source.starts_with('.') {
                    return Ok(Some(format!("{}:{rest}", self.below(source)?)));
                }
                Ok(Some(value))
            }
            "Mount" => self.mount(&value).map(Some),
            _ => Ok(Some(value)),
        }
    }

    /// Sources below the file's directory are made absolute.
    fn mount(&self, value: &str) -> Result<String> {
        let mut mount = oci::wishes::mount::parse_mount(value)?;
        let Some(source) = mount.source.take() else { return Ok(value.to_owned()) };
        if is_unit(&source) {
            return Err(Fault::input(format!("\"{source}\" is another unit, and other units are not read"))
                .hint("the name of the volume, or the reference of the image"));
        }
        if !source.starts_with('.') || mount.kind.as_deref() != Some("bind") {
            return Ok(value.to_owned());
        }
        if value.contains('"') {
            return Err(
                Fault::input("a source below the file's directory, and quotes").hint("an absolute path")
            );
        }
        let absolute = self.below(&source)?;
        let field = |field: &str| match field.split_once('=') {
            Some((key, value)) if value == source => format!("{key}={absolute}"),
            _ => field.to_owned(),
        };
        Ok(value.split(',').map(field).collect::<Vec<_>>().join(","))
    }

    fn below(&self, path: &str) -> Result<String> {
        if path.starts_with('/') {
            return Ok(path.to_owned());
        }
        let path = self.origin.directory.join(path.strip_prefix("./").unwrap_or(path));
        path.into_os_string().into_string().map_err(|_| Fault::input("the file's directory is not UTF-8"))
    }

    fn users(&self, flags: &mut Vec<Flag>) -> Result<()> {
        let user = self.whole("User", Reader::expand)?;
        let group = self.whole("Group", Reader::expand)?;
        let Some(setting) = self.last(if user.is_some() { "User" } else { "Group" }) else { return Ok(()) };
        let value = match (user, group) {
            (Some(user), Some(group)) => format!("{user}:{group}"),
            (Some(user), None) => user,
            (None, Some(_)) => return Err(at(setting.line, Fault::input("there is a Group= and no User="))),
            (None, None) => return Ok(()),
        };
        flags.push(Flag {
            line: setting.line,
            key: "User".to_owned(),
            words: vec![format!("--user={value}")],
        });
        Ok(())
    }

    /// What has rules of its own.
    fn rest(&self, config: &mut Config, unit: &mut Unit) -> Result<()> {
        if let Some(setting) = self.last("Exec").filter(|setting| !setting.value.is_empty()) {
            // Quotes around all of it make one word, as in ExecStart=.
            config.command = Some(self.command(&setting.value).map_err(|fault| at(setting.line, fault))?);
        }
        if let Some(setting) = self.last("Entrypoint") {
            let value = self.expand(unquoted(&setting.value)).map_err(|fault| at(setting.line, fault))?;
            config.entrypoint = Some(list(&value).unwrap_or_else(|| vec![value]));
        }
        if let Some(text) = self.whole("HealthCmd", Reader::expand)? {
            let check = config.healthcheck.get_or_insert_default();
            check.test = match (text.as_str(), list(&text)) {
                ("none", _) => vec!["NONE".to_owned()],
                (_, Some(words))
                    if matches!(words.first().map(String::as_str), Some("CMD" | "CMD-SHELL" | "NONE")) =>
                {
                    words
                }
                (_, Some(words)) => std::iter::once("CMD".to_owned()).chain(words).collect(),
                (_, None) => vec!["CMD-SHELL".to_owned(), text],
            };
        }
        unit.pull = self.whole("Pull", Reader::expand)?;
        unit.retry = self.whole("Retry", |_, value| {
            value.parse().map_err(|_| Fault::input(format!("\"{value}\" is not a number")))
        })?;
        unit.notify = self
            .whole("Notify", |_, value| match value.to_ascii_lowercase().as_str() {
                "healthy" => Ok(Some("healthy".to_owned())),
                _ if boolean(value)? => {
                    Err(Fault::input("messages of the container to systemd are not passed on")
                        .hint("Notify=healthy; without it the unit has started when the command is executed"))
                }
                _ => Ok(None),
            })?
            .flatten();
        unit.reload_command = match self.last("ReloadCmd").filter(|setting| !setting.value.is_empty()) {
            Some(setting) => Some(self.command(&setting.value).map_err(|fault| at(setting.line, fault))?),
            None => None,
        };
        unit.reload_signal = self.whole("ReloadSignal", Reader::expand)?;
        if let Some(name) = self.whole("ServiceName", Reader::expand)? {
            unit.name = Some(name);
        }
        Ok(())
    }
}

fn is_unit(source: &str) -> bool {
    let suffix = Path::new(source).extension().and_then(|suffix| suffix.to_str());
    !source.contains('/') && matches!(suffix, Some("volume" | "image" | "build" | "artifact"))
}

/// One pair of quotes around a value is taken away.
fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value)
}

/// A list of texts in JSON.
fn list(value: &str) -> Option<Vec<String>> {
    if value.starts_with('[') { serde_json::from_str(value).ok() } else { None }
}

/// A switch is given by its name alone.
fn switch(flag: &mut Flag) {
    for word in &mut flag.words {
        if matches!(keys::FLAGS.iter().find(|known| known.0 == flag.key), Some((_, Take::Switch, _, ""))) {
            word.pop();
        }
    }
}

fn put(flags: &[Flag], config: &mut Config) -> Result<()> {
    let words: Vec<&String> = flags.iter().flat_map(|flag| &flag.words).collect();
    if let Some(flag) =
        keys::NOT_KEPT.iter().find(|flag| words.iter().any(|word| word.split('=').next() == Some(flag)))
    {
        return Err(Fault::input(format!("{flag} is for ctr-create alone: no record says it")));
    }
    let line = Line::try_parse_from(&words).map_err(|error| {
        let text = error.to_string();
        let mut lines = text.lines().filter(|line| !line.trim().is_empty());
        let what = lines.next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        Fault::input(if error.use_stderr() { what } else { "help is not for units".to_owned() })
            .hint("ctr-create --help lists its flags")
    })?;
    let mut asked = config.clone();
    // It is the file that is wrong, not the command line.
    line.flags
        .apply(&[], &mut asked)
        .map_err(|fault| if fault.kind() == Kind::Usage { fault.as_kind(Kind::Input) } else { fault })?;
    *config = asked;
    Ok(())
}
