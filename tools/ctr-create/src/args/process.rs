//! What is around the command: variables, users' files, time zone, mask.

use super::{Caller, pairs, read_text};
use clap::Args;
use cli::Result;
use oci::wishes;
use record::Config;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What programs take proxies from, in both spellings.
const PROXIES: [&str; 5] = ["http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"];

#[derive(Clone, Debug, Default, Args)]
pub struct ProcessFlags {
    /// Give all of this environment's variables; the image's and -e win
    #[arg(long, help_heading = "Container")]
    pub env_host: bool,

    /// Set a variable made of the image's: PATH='${PATH}:/opt'
    #[arg(long, value_name = "NAME=VALUE", help_heading = "Container")]
    pub env_merge: Vec<String>,

    /// Leave a variable of the image out
    #[arg(long, value_name = "NAME", help_heading = "Container")]
    pub unsetenv: Vec<String>,

    /// Leave all variables out but those given here
    #[arg(long, help_heading = "Container")]
    pub unsetenv_all: bool,

    /// Give this environment's proxy variables
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = false, action = clap::ArgAction::Set, help_heading = "Container")]
    pub http_proxy: bool,

    /// Read labels from a file
    #[arg(long, value_name = "FILE", help_heading = "Container")]
    pub label_file: Vec<PathBuf>,

    /// File creation mask, octal
    #[arg(long, value_name = "MASK", help_heading = "Container")]
    pub umask: Option<String>,

    /// Time zone, as Europe/Paris; local: this machine's
    #[arg(long, value_name = "ZONE", help_heading = "Container")]
    pub tz: Option<String>,

    /// Add a line to /etc/passwd; knows $USERNAME $UID $GID $NAME $HOME
    #[arg(long, value_name = "LINE", help_heading = "Container")]
    pub passwd_entry: Option<String>,

    /// Add a line to /etc/group; knows $GROUPNAME $GID
    #[arg(long, value_name = "LINE", help_heading = "Container")]
    pub group_entry: Option<String>,

    /// Which machine system calls tell of: LINUX, LINUX32
    #[arg(long, value_name = "PERSONALITY", help_heading = "Container")]
    pub personality: Option<String>,
}

impl ProcessFlags {
    pub(super) fn put(&self, caller: &Caller<'_>, config: &mut Config) -> Result<()> {
        if self.env_host {
            let usable = |text: &String| wishes::env::env(text).is_ok();
            config.env_host = (caller.environment)().into_iter().filter(usable).collect();
            config.env_host.sort();
        }
        // A name alone would change nothing.
        pairs("variable", &self.env_merge, false)?;
        config.env_merge.clone_from(&self.env_merge);
        config.unsetenv.clone_from(&self.unsetenv);
        config.unsetenv_all = self.unsetenv_all;
        config.umask.clone_from(&self.umask);
        config.tz.clone_from(&self.tz);
        config.passwd_entry.clone_from(&self.passwd_entry);
        config.group_entry.clone_from(&self.group_entry);
        config.personality.clone_from(&self.personality);
        Ok(())
    }

    /// Those that are set, as `NAME=value`.
    pub(super) fn proxies(&self, caller: &Caller<'_>) -> Vec<String> {
        if !self.http_proxy {
            return Vec::new();
        }
        let both = PROXIES.iter().flat_map(|name| [(*name).to_owned(), name.to_ascii_uppercase()]);
        both.filter_map(|name| (caller.variable)(&name).map(|value| format!("{name}={value}"))).collect()
    }

    /// Files first, then `labels`, so that the latter win.
    pub(super) fn labels(&self, labels: &[String]) -> Result<BTreeMap<String, String>> {
        let mut all = Vec::new();
        for file in &self.label_file {
            all.extend(wishes::env::env_file(&read_text(file)?, &file.display().to_string())?);
        }
        all.extend(labels.iter().cloned());
        pairs("label", &all, true)
    }
}
