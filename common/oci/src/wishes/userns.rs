//! `--userns`, `--uidmap`, `--gidmap`, `--subuidname`, `--subgidname`: podman's grammar.

use fault::{Fault, Result};
use record::Config;

/// More lines the kernel does not take (user_namespaces(7)).
const MAX_MAPPINGS: usize = 340;

/// Ids of a container and what they are outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdMap {
    pub container: u32,
    pub host: u32,
    pub size: u32,
}

/// In which user namespace the container is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum UserMode {
    /// The machine's.
    #[default]
    Host,
    /// One with these ids. Each side may be what a name has in `/etc/subuid` and `/etc/subgid` instead.
    Mapped { uids: Ids, gids: Ids },
    /// One with ids that no other container has.
    Auto(AutoWish),
    /// One in which the caller's ids are these.
    KeepId { uid: Option<u32>, gid: Option<u32>, size: Option<u32> },
    /// One in which the caller's ids are not there.
    NoMap,
    /// One that exists.
    Path(String),
    /// That of another container, by name or id.
    Container(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ids {
    Given(Vec<IdMap>),
    /// All that this user was given.
    OfName(String),
}

/// `auto` and its options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AutoWish {
    /// How many ids; `None`: 65536.
    pub size: Option<u32>,
    /// What is not to be taken from the range.
    pub uids: Vec<IdMap>,
    pub gids: Vec<IdMap>,
}

impl UserMode {
    /// Fails with input on what is wrong by itself, and on members that exclude each other.
    pub fn parse(config: &Config) -> Result<UserMode> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let (subuid, subgid) = (given(&config.subuidname), given(&config.subgidname));
        let uids = maps("uidmap", &config.uidmap)?;
        let gids = maps("gidmap", &config.gidmap)?;
        let has_maps = !uids.is_empty() || !gids.is_empty() || subuid.is_some() || subgid.is_some();
        let mode = config.userns.as_deref().unwrap_or_default();
        if has_maps && !matches!(mode, "" | "private") {
            return Err(Fault::input(format!(
                "userns {mode} and uidmap, gidmap, subuidname or subgidname exclude each other"
            ))
            .hint("the maps alone ask for a user namespace of the container's own"));
        }
        let (word, options) = mode.split_once(':').map_or((mode, None), |(word, rest)| (word, Some(rest)));
        let none = |alone| if options.is_none() { Ok(alone) } else { Err(unknown(mode)) };
        match word {
            "private" | "" if has_maps => mapped(side("uid", uids, subuid)?, side("gid", gids, subgid)?),
            "private" => Err(Fault::input("userns private: which ids it has is not said")
                .hint("give --uidmap or --subuidname, or --userns auto")),
            "" | "host" => none(UserMode::Host),
            "nomap" => none(UserMode::NoMap),
            "auto" => auto(options),
            "keep-id" => keep_id(options),
            "path" | "ns" => match options {
                Some(path) if path.starts_with('/') => Ok(UserMode::Path(path.to_owned())),
                _ => Err(Fault::input(format!("userns {mode}: the path is not absolute"))),
            },
            "container" => match options {
                Some(name) if !name.is_empty() => Ok(UserMode::Container(name.to_owned())),
                _ => Err(unknown(mode)),
            },
            _ => Err(unknown(mode)),
        }
    }
}

fn unknown(text: &str) -> Fault {
    Fault::input(format!("there is no user namespace \"{text}\"")).hint(
        "one of: host, auto[:OPTIONS], keep-id[:OPTIONS], nomap, path:PATH, container:NAME; or --uidmap",
    )
}

fn side(what: &str, maps: Vec<IdMap>, name: Option<String>) -> Result<Option<Ids>> {
    match (maps.is_empty(), name) {
        (false, Some(_)) => Err(Fault::input(format!("{what}map and sub{what}name exclude each other"))),
        (false, None) => Ok(Some(Ids::Given(maps))),
        (true, name) => Ok(name.map(Ids::OfName)),
    }
}

/// Of one that is missing the other one is taken, as podman does.
fn mapped(uids: Option<Ids>, gids: Option<Ids>) -> Result<UserMode> {
    match (uids, gids) {
        (Some(uids), Some(gids)) => Ok(UserMode::Mapped { uids, gids }),
        (Some(ids), None) | (None, Some(ids)) => Ok(UserMode::Mapped { uids: ids.clone(), gids: ids }),
        (None, None) => Err(Fault::input("no ids are mapped")),
    }
}

fn auto(options: Option<&str>) -> Result<UserMode> {
    let mut wish = AutoWish::default();
    for (name, value) in fields("auto", options)? {
        match name {
            "size" => wish.size = Some(number("auto: size", value)?).filter(|size| *size > 0),
            "uidmapping" => wish.uids.push(map("auto: uidmapping", value)?),
            "gidmapping" => wish.gids.push(map("auto: gidmapping", value)?),
            _ => {
                return Err(Fault::input(format!("userns auto has no option \"{name}\""))
                    .hint("there are size, uidmapping, gidmapping"));
            }
        }
    }
    check("auto: uidmapping", &wish.uids)?;
    check("auto: gidmapping", &wish.gids)?;
    Ok(UserMode::Auto(wish))
}

fn keep_id(options: Option<&str>) -> Result<UserMode> {
    let (mut uid, mut gid, mut size) = (None, None, None);
    for (name, value) in fields("keep-id", options)? {
        let place = match name {
            "uid" => &mut uid,
            "gid" => &mut gid,
            "size" => &mut size,
            _ => {
                return Err(Fault::input(format!("userns keep-id has no option \"{name}\""))
                    .hint("there are uid, gid, size"));
            }
        };
        *place = Some(number(&format!("keep-id: {name}"), value)?);
    }
    Ok(UserMode::KeepId { uid, gid, size })
}

fn fields<'a>(mode: &str, options: Option<&'a str>) -> Result<Vec<(&'a str, &'a str)>> {
    let pair = |field: &'a str| {
        field
            .split_once('=')
            .ok_or_else(|| Fault::input(format!("userns {mode}: \"{field}\" is not of the form name=value")))
    };
    options.into_iter().flat_map(|options| options.split(',')).map(pair).collect()
}

fn maps(what: &str, texts: &[String]) -> Result<Vec<IdMap>> {
    let list = texts.iter().map(|text| map(what, text)).collect::<Result<Vec<IdMap>>>()?;
    check(what, &list)?;
    Ok(list)
}

/// `CONTAINER:HOST[:SIZE]`.
fn map(what: &str, text: &str) -> Result<IdMap> {
    let wrong = || {
        let fault = Fault::input(format!("{what} \"{text}\" is not of the form CONTAINER:HOST[:SIZE]"));
        if text.contains(['+', '@']) {
            fault.hint("podman's + and @ are not supported: give the numbers")
        } else {
            fault
        }
    };
    let mut numbers = text.split(':').map(|text| number(what, text).map_err(|_| wrong()));
    let container = numbers.next().ok_or_else(wrong)??;
    let host = numbers.next().ok_or_else(wrong)??;
    let size = numbers.next().unwrap_or(Ok(1))?;
    let fits = |first: u32| first.checked_add(size).is_some();
    if numbers.next().is_some() || size == 0 || !fits(container) || !fits(host) {
        return Err(wrong());
    }
    Ok(IdMap { container, host, size })
}

fn number(what: &str, text: &str) -> Result<u32> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let parsed = text.parse().ok().filter(|_| is_plain);
    parsed.ok_or_else(|| Fault::input(format!("{what}: \"{text}\" is not a number below 4294967296")))
}

/// What the kernel would refuse with no more than `EINVAL`.
fn check(what: &str, maps: &[IdMap]) -> Result<()> {
    if maps.len() > MAX_MAPPINGS {
        return Err(Fault::input(format!("{what}: {} entries, and {MAX_MAPPINGS} are possible", maps.len())));
    }
    for (index, map) in maps.iter().enumerate() {
        let overlap = |a: u32, b: u32, size: u32| a < b + size && b < a + map.size;
        for other in &maps[..index] {
            if overlap(map.container, other.container, other.size)
                || overlap(map.host, other.host, other.size)
            {
                return Err(Fault::input(format!(
                    "{what}: {}:{}:{} and {}:{}:{} overlap",
                    other.container, other.host, other.size, map.container, map.host, map.size
                )));
            }
        }
    }
    Ok(())
}

/// The range `first` to `first + size - 1` for ids from 0 on, but for those that are `given`, which take places of it.
///
/// Fails with input if there would be more entries than the kernel takes.
pub fn around(first: u32, size: u32, given: &[IdMap]) -> Result<Vec<IdMap>> {
    let mut holes: Vec<IdMap> = given.to_vec();
    holes.sort_unstable_by_key(|map| map.container);
    let (mut list, mut next) = (Vec::new(), 0);
    for hole in &holes {
        if hole.container > next && next < size {
            let end = hole.container.min(size);
            list.push(IdMap { container: next, host: first + next, size: end - next });
        }
        next = next.max(hole.container + hole.size);
        list.push(*hole);
    }
    if next < size {
        list.push(IdMap { container: next, host: first + next, size: size - next });
    }
    check("userns auto", &list)?;
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<UserMode> {
        UserMode::parse(&serde_json::from_str(json).unwrap())
    }

    fn one(container: u32, host: u32, size: u32) -> IdMap {
        IdMap { container, host, size }
    }

    #[test]
    fn modes() {
        for (text, mode) in [
            ("", UserMode::Host),
            ("host", UserMode::Host),
            ("nomap", UserMode::NoMap),
            ("auto", UserMode::Auto(AutoWish::default())),
            ("path:/proc/1/ns/user", UserMode::Path("/proc/1/ns/user".into())),
            ("ns:/x", UserMode::Path("/x".into())),
            ("container:web", UserMode::Container("web".into())),
            ("keep-id", UserMode::KeepId { uid: None, gid: None, size: None }),
            ("keep-id:uid=5,gid=6", UserMode::KeepId { uid: Some(5), gid: Some(6), size: None }),
            (
                "auto:size=4096,uidmapping=5:1000:1,gidmapping=6:1001",
                UserMode::Auto(AutoWish {
                    size: Some(4096),
                    uids: vec![one(5, 1000, 1)],
                    gids: vec![one(6, 1001, 1)],
                }),
            ),
        ] {
            assert_eq!(parse(&format!(r#"{{"userns":"{text}"}}"#)).unwrap(), mode, "{text}");
        }
        for text in [
            "Host",
            "host:x",
            "auto:",
            "auto:size",
            "auto:size=x",
            "auto:colour=1",
            "keep-id:uid=-1",
            "path:x",
            "container:",
            "nomap:1",
            "private",
            "auto:uidmapping=1",
            "auto:size=+5",
        ] {
            assert!(parse(&format!(r#"{{"userns":"{text}"}}"#)).is_err(), "{text}");
        }
    }

    #[test]
    fn maps_given() {
        let both = vec![one(0, 100_000, 65_536)];
        assert_eq!(
            parse(r#"{"uidmap":["0:100000:65536"]}"#).unwrap(),
            UserMode::Mapped { uids: Ids::Given(both.clone()), gids: Ids::Given(both.clone()) }
        );
        assert_eq!(
            parse(r#"{"subuidname":"me","gidmap":["0:100000:65536"],"userns":"private"}"#).unwrap(),
            UserMode::Mapped { uids: Ids::OfName("me".into()), gids: Ids::Given(both) }
        );
        for json in [
            r#"{"uidmap":["0:1:1"],"userns":"auto"}"#,
            r#"{"uidmap":["0:1:1"],"subuidname":"me"}"#,
            r#"{"uidmap":["0:1:0"]}"#,
            r#"{"uidmap":["0"]}"#,
            r#"{"uidmap":["+0:1:1"]}"#,
            r#"{"uidmap":["0:@1:1"]}"#,
            r#"{"uidmap":["0:1:1:1"]}"#,
            r#"{"uidmap":["0:1:4294967295"]}"#,
            r#"{"uidmap":["0:1:10","9:100:1"]}"#,
            r#"{"gidmap":["0:1:10","10:10:1"]}"#,
        ] {
            assert!(parse(json).is_err(), "{json}");
        }
    }

    #[test]
    fn given_ids_take_places_of_a_range() {
        assert_eq!(around(1000, 10, &[]).unwrap(), [one(0, 1000, 10)]);
        assert_eq!(
            around(1000, 10, &[one(8, 5, 4), one(2, 50, 1)]).unwrap(),
            [one(0, 1000, 2), one(2, 50, 1), one(3, 1003, 5), one(8, 5, 4)]
        );
        assert_eq!(around(1000, 4, &[one(100, 5, 1)]).unwrap(), [one(0, 1000, 4), one(100, 5, 1)]);
        assert!(around(1000, 10, &[one(20, 1005, 1)]).is_err());
    }
}
