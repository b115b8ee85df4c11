//! Names the container has and knows, and ports it exposes.

use clap::{ArgAction, Args};
use record::Config;

#[derive(Clone, Debug, Default, Args)]
pub struct NameFlags {
    /// NIS domain name inside
    #[arg(long, value_name = "NAME", help_heading = "Container")]
    pub domainname: Option<String>,

    /// Add a line to /etc/hosts; the address host-gateway is the host's
    #[arg(long, value_name = "NAME:ADDRESS", help_heading = "Namespaces")]
    pub add_host: Vec<String>,

    /// Name server instead of the host's
    #[arg(long, value_name = "ADDRESS", help_heading = "Namespaces")]
    pub dns: Vec<String>,

    /// Domain to search instead of the host's; .: none
    #[arg(long, value_name = "DOMAIN", help_heading = "Namespaces")]
    pub dns_search: Vec<String>,

    /// Option of resolv.conf instead of the host's
    #[arg(long, alias = "dns-opt", value_name = "OPTION", help_heading = "Namespaces")]
    pub dns_option: Vec<String>,

    /// Expose a port beside the image's
    #[arg(long, value_name = "PORT[-PORT][/udp]", help_heading = "Namespaces")]
    pub expose: Vec<String>,

    /// Publish every exposed port at a free one
    #[arg(short = 'P', long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false,
        hide_default_value = true, hide_possible_values = true, action = ArgAction::Set, help_heading = "Namespaces")]
    pub publish_all: bool,
}

impl NameFlags {
    pub(super) fn put(&self, config: &mut Config) {
        config.domainname.clone_from(&self.domainname);
        config.add_host.clone_from(&self.add_host);
        config.dns.clone_from(&self.dns);
        config.dns_search.clone_from(&self.dns_search);
        config.dns_option.clone_from(&self.dns_option);
        config.expose.clone_from(&self.expose);
        config.publish_all = self.publish_all;
    }
}
