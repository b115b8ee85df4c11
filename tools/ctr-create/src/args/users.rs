//! The user namespace.

use clap::Args;
use record::Config;

#[derive(Clone, Debug, Default, Args)]
pub struct UserFlags {
    /// host, auto[:size=N], keep-id[:uid=N,gid=N], nomap, path:PATH, container:NAME
    #[arg(long, value_name = "MODE", help_heading = "Namespaces")]
    pub userns: Option<String>,

    /// A user namespace with these users
    #[arg(long, value_name = "CONTAINER:HOST[:SIZE]", help_heading = "Namespaces")]
    pub uidmap: Vec<String>,

    /// A user namespace with these groups
    #[arg(long, value_name = "CONTAINER:HOST[:SIZE]", help_heading = "Namespaces")]
    pub gidmap: Vec<String>,

    /// A user namespace with the users of this name in /etc/subuid
    #[arg(long, value_name = "NAME", help_heading = "Namespaces")]
    pub subuidname: Option<String>,

    /// A user namespace with the groups of this name in /etc/subgid
    #[arg(long, value_name = "NAME", help_heading = "Namespaces")]
    pub subgidname: Option<String>,
}

impl UserFlags {
    pub(super) fn put(&self, config: &mut Config) {
        config.userns.clone_from(&self.userns);
        config.uidmap.clone_from(&self.uidmap);
        config.gidmap.clone_from(&self.gidmap);
        config.subuidname.clone_from(&self.subuidname);
        config.subgidname.clone_from(&self.subgidname);
    }
}
