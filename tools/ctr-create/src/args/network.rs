//! Names the container has and knows, and ports it exposes.

use clap::{ArgAction, Args};
use cli::{Fault, Result};
use oci::wishes::{NetworkMode, network};
use record::{Config, NetworkWish};

#[derive(Clone, Debug, Default, Args)]
pub struct NameFlags {
    /// NAME[:alias=A,ip=…,ip6=…,mac=…,ifname=…,gw-priority=N,link-local-ip=…], bridge, none, host, private,
    /// container:NAME, ns:PATH
    ///
    /// A network of that name, with what is asked for there; may be given several times. docker's form
    /// name=NAME,alias=A,… is understood, too.
    #[arg(long, alias = "net", value_name = "NETWORK", help_heading = "Namespaces")]
    pub network: Vec<String>,

    /// Further name of the container on its networks
    #[arg(long, alias = "net-alias", value_name = "NAME", help_heading = "Namespaces")]
    pub network_alias: Vec<String>,

    /// IPv4 address on its network
    #[arg(long, value_name = "ADDRESS", help_heading = "Namespaces")]
    pub ip: Option<String>,

    /// IPv6 address on its network
    #[arg(long, value_name = "ADDRESS", help_heading = "Namespaces")]
    pub ip6: Option<String>,

    /// Hardware address on its network
    #[arg(long, value_name = "ADDRESS", help_heading = "Namespaces")]
    pub mac_address: Option<String>,

    /// Link-local address on its network, beside the other
    #[arg(long, value_name = "ADDRESS", help_heading = "Namespaces")]
    pub link_local_ip: Vec<String>,

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
    pub(super) fn put(&self, config: &mut Config) -> Result<()> {
        (config.network, config.networks) = self.networks()?;
        config.domainname.clone_from(&self.domainname);
        config.add_host.clone_from(&self.add_host);
        config.dns.clone_from(&self.dns);
        config.dns_search.clone_from(&self.dns_search);
        config.dns_option.clone_from(&self.dns_option);
        config.expose.clone_from(&self.expose);
        config.publish_all = self.publish_all;
        Ok(())
    }

    /// A mode's word or a name alone goes to `network`; what asks for more, to `networks`.
    fn networks(&self) -> Result<(Option<String>, Vec<NetworkWish>)> {
        let mut wishes = self.network.iter().map(|text| network(text)).collect::<Result<Vec<_>>>()?;
        let asks = !self.network_alias.is_empty()
            || !self.link_local_ip.is_empty()
            || [&self.ip, &self.ip6, &self.mac_address].iter().any(|flag| flag.is_some());
        if asks && wishes.is_empty() {
            wishes.push(NetworkWish { name: "bridge".to_owned(), ..NetworkWish::default() });
        }
        for wish in &mut wishes {
            wish.aliases.extend(self.network_alias.iter().cloned());
        }
        match wishes.as_mut_slice() {
            [only] => {
                for (flag, member, value) in [
                    ("--ip", &mut only.ip, &self.ip),
                    ("--ip6", &mut only.ip6, &self.ip6),
                    ("--mac-address", &mut only.mac, &self.mac_address),
                ] {
                    if member.is_some() && value.is_some() {
                        return Err(Fault::usage(format!("{flag} and --network both say it")));
                    }
                    *member = member.take().or_else(|| value.clone());
                }
                only.link_local_ips.extend(self.link_local_ip.iter().cloned());
            }
            _ if self.ip.is_some()
                || self.ip6.is_some()
                || self.mac_address.is_some()
                || !self.link_local_ip.is_empty() =>
            {
                return Err(Fault::usage("an address belongs to one network, and there are several")
                    .hint("say it with the network: --network NAME:ip=ADDRESS"));
            }
            _ => {}
        }
        match wishes.as_slice() {
            [only] if *only == (NetworkWish { name: only.name.clone(), ..NetworkWish::default() }) => {
                Ok((Some(only.name.clone()), Vec::new()))
            }
            [only] if is_mode(&only.name) => {
                Err(Fault::usage(format!("with network {} there is nothing to name or address", only.name)))
            }
            _ => match wishes.iter().find(|wish| wishes.len() > 1 && is_mode(&wish.name)) {
                Some(mode) => Err(Fault::usage(format!("network {} excludes others", mode.name))),
                None => Ok((None, wishes)),
            },
        }
    }
}

fn is_mode(name: &str) -> bool {
    NetworkMode::parse(name).is_ok_and(|mode| mode != NetworkMode::Bridge)
}
