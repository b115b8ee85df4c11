//! Flags of the stage that gets the image, as podman has them.

use clap::Args;
use cli::{Fault, Result};
use std::path::PathBuf;

#[derive(Clone, Debug, Default, Args)]
pub struct PullFlags {
    /// Architecture of the image
    #[arg(long, value_name = "ARCH", conflicts_with = "platform", help_heading = "Image")]
    pub arch: Option<String>,

    /// Operating system of the image
    #[arg(long, value_name = "OS", conflicts_with = "platform", help_heading = "Image")]
    pub os: Option<String>,

    /// Variant of the architecture
    #[arg(long, value_name = "VARIANT", conflicts_with = "platform", help_heading = "Image")]
    pub variant: Option<String>,

    /// File of logins to registries
    #[arg(long, value_name = "FILE", help_heading = "Image")]
    pub authfile: Option<PathBuf>,

    /// Check certificates of registries
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          action = clap::ArgAction::Set, help_heading = "Image")]
    pub tls_verify: Option<bool>,

    /// Certificates for registries
    #[arg(long, value_name = "DIR", help_heading = "Image")]
    pub cert_dir: Option<PathBuf>,

    /// Try this often again when a registry fails
    #[arg(long, value_name = "COUNT", help_heading = "Image")]
    pub retry: Option<u32>,

    /// Not taken: every user of the machine could read it in the list of processes
    #[arg(long, value_name = "USER:PASSWORD", hide = true)]
    pub creds: Option<String>,

    /// Not taken: the pauses are the registry's or grow by themselves
    #[arg(long, value_name = "DURATION", hide = true)]
    pub retry_delay: Option<String>,
}

impl PullFlags {
    pub fn check(&self) -> Result<()> {
        if self.creds.is_some() {
            return Err(Fault::usage(
                "--creds: a password among the arguments is seen by every user of the machine",
            )
            .hint("instead: reg-login --password-stdin REGISTRY, or --authfile FILE"));
        }
        if self.retry_delay.is_some() {
            return Err(Fault::usage("--retry-delay: the pauses are the registry's, or grow by themselves")
                .hint("instead: --retry COUNT"));
        }
        Ok(())
    }

    /// `os/arch/variant` of what is given; this machine's for the rest.
    pub fn platform(&self) -> Option<String> {
        if self.arch.is_none() && self.os.is_none() && self.variant.is_none() {
            return None;
        }
        let host = oci::Platform::host();
        let os = self.os.clone().unwrap_or(host.os);
        let arch = self.arch.clone().unwrap_or(host.architecture);
        let variant = self.variant.as_ref().map(|variant| format!("/{variant}")).unwrap_or_default();
        Some(format!("{os}/{arch}{variant}"))
    }

    /// As flags of img-pull.
    pub fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        if let Some(verify) = self.tls_verify {
            words.push(format!("--tls-verify={verify}"));
        }
        if let Some(dir) = &self.cert_dir {
            words.extend(["--cert-dir".to_owned(), dir.display().to_string()]);
        }
        if let Some(retry) = self.retry {
            words.extend(["--retry".to_owned(), retry.to_string()]);
        }
        words
    }
}
