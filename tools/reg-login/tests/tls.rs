//! Certificates of one's own, and the way through a proxy, with real TLS.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use testkit::{DockerRegistry, Place, Ran, find_program, skip};

/// The name in the registry's certificate; nothing but a proxy leads there.
const NAME: &str = "registry.invalid";

fn place() -> Option<Place> {
    if find_program("openssl").is_none() {
        skip("openssl is not installed");
        return None;
    }
    let mut place = Place::new();
    for (name, below) in [("HOME", ""), ("XDG_CONFIG_HOME", "config"), ("XDG_RUNTIME_DIR", "runtime")] {
        place.set(name, place.path().join(below).display().to_string());
    }
    place.set("CONTAINERS_REGISTRIES_CONF", "/dev/null");
    place.set("CONTAINERS_REGISTRIES_CONF_DIR", "/nonexistent");
    // An authority, the registry's certificate and a client's.
    let ran = place.sh(&format!(
        "cd $DIR && new='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'
        openssl req -x509 $new -keyout ca.key -out ca.crt -subj /CN=authority -days 2 &&
        for who in server client; do
            openssl req $new -keyout $who.key -out $who.csr -subj /CN=$who &&
            printf 'subjectAltName=IP:127.0.0.1,DNS:{NAME}\\nextendedKeyUsage=%sAuth\\n' $who >ext &&
            openssl x509 -req -in $who.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out $who.crt -days 2 -extfile ext || exit
        done"
    ));
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    Some(place)
}

/// A real registry in TLS, which wants a client's certificate if told so.
fn registry(place: &Place, wants_client: bool) -> Option<DockerRegistry> {
    let file = |name: &str| place.path().join(name).display().to_string();
    let clients = if wants_client { format!(", clientcas: [{}]", file("ca.crt")) } else { String::new() };
    let http =
        format!(", tls: {{certificate: {}, key: {}{clients}}}", file("server.crt"), file("server.key"));
    DockerRegistry::start_with(&place.path().join("storage"), false, "", &http)
}

fn login(place: &Place, variables: &[(&str, &str)], words: &[&str]) -> Ran {
    let mut command = place.command(env!("CARGO_BIN_EXE_reg-login"));
    for name in [
        "HTTPS_PROXY",
        "HTTP_PROXY",
        "ALL_PROXY",
        "NO_PROXY",
        "https_proxy",
        "http_proxy",
        "all_proxy",
        "no_proxy",
    ] {
        command.env_remove(name);
    }
    command.envs(variables.iter().copied()).args(["-u", "u", "-p", "hunter2"]);
    Ran::of(command.args(words))
}

fn certificates_of(place: &Place, host: &str) -> PathBuf {
    let folder = place.path().join("config/containers/certs.d").join(host);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn copy(place: &Place, from: &str, to: &Path) {
    std::fs::copy(place.path().join(from), to).unwrap();
}

#[test]
fn an_authority_of_ones_own_is_trusted_for_its_host() {
    let Some(place) = place() else { return };
    let Some(registry) = registry(&place, false) else { return };
    let address = registry.address();
    let refused = login(&place, &[], &[&address]).expect(6);
    assert!(
        refused.stderr.contains("is not trusted") && refused.stderr.contains("certs.d"),
        "{}",
        refused.stderr
    );
    login(&place, &[], &["--tls-verify=false", &address]).expect(0);
    // That of another host is of no use.
    copy(&place, "ca.crt", &certificates_of(&place, "127.0.0.1:1").join("ca.crt"));
    login(&place, &[], &[&address]).expect(6);
    copy(&place, "ca.crt", &certificates_of(&place, &address).join("ca.crt"));
    login(&place, &[], &[&address]).expect(0);
    let folder = place.path().join("elsewhere");
    std::fs::create_dir(&folder).unwrap();
    login(&place, &[], &["--cert-dir", folder.to_str().unwrap(), &address]).expect(6);
    copy(&place, "ca.crt", &folder.join("any.crt"));
    login(&place, &[], &["--cert-dir", folder.to_str().unwrap(), &address]).expect(0);
    // Insecure where registries.conf says so, and only there.
    std::fs::remove_dir_all(place.path().join("config")).unwrap();
    let conf = place.path().join("insecure.conf");
    std::fs::write(&conf, format!("[[registry]]\nlocation = \"{address}\"\ninsecure = true\n")).unwrap();
    login(&place, &[("CONTAINERS_REGISTRIES_CONF", conf.to_str().unwrap())], &[&address]).expect(0);
    std::fs::write(&conf, "[[registry]]\nlocation = \"127.0.0.1:1\"\ninsecure = true\n").unwrap();
    login(&place, &[("CONTAINERS_REGISTRIES_CONF", conf.to_str().unwrap())], &[&address]).expect(6);
}

#[test]
fn a_registry_that_wants_to_know_who_comes_is_shown_a_certificate() {
    let Some(place) = place() else { return };
    let Some(registry) = registry(&place, true) else { return };
    let address = registry.address();
    let folder = certificates_of(&place, &address);
    copy(&place, "ca.crt", &folder.join("ca.crt"));
    let refused = login(&place, &[], &[&address]).expect(6);
    assert!(refused.stderr.contains("a client certificate"), "{}", refused.stderr);
    copy(&place, "client.crt", &folder.join("me.cert"));
    let half = login(&place, &[], &[&address]).expect(3);
    assert!(half.stderr.contains("me.key beside it"), "{}", half.stderr);
    copy(&place, "client.key", &folder.join("me.key"));
    login(&place, &[], &[&address]).expect(0);
    // The same named in hosts.toml.
    std::fs::remove_file(folder.join("me.cert")).unwrap();
    std::fs::remove_file(folder.join("me.key")).unwrap();
    let text = format!(
        "server = \"https://{address}\"\nca = \"{0}/ca.crt\"\nclient = [[\"{0}/client.crt\", \"{0}/client.key\"]]\n",
        place.path().display()
    );
    std::fs::write(folder.join("hosts.toml"), text).unwrap();
    login(&place, &[], &[&address]).expect(0);
}

/// What a proxy was asked: its requests' first lines and headers.
type Asked = Arc<Mutex<Vec<String>>>;

/// A proxy that leads to one address whatever it is asked for, if the password is right.
fn proxy(to: String) -> (String, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = Asked::default();
    let log = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (to, log) = (to.clone(), Arc::clone(&log));
            std::thread::spawn(move || drop(carry(stream, &to, &log)));
        }
    });
    (address, asked)
}

fn carry(mut client: TcpStream, to: &str, log: &Asked) -> std::io::Result<()> {
    let mut head = String::new();
    let mut reader = BufReader::new(client.try_clone()?);
    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head)? > 0 {}
    log.lock().unwrap().push(head.clone());
    // me:p@ss
    if !head.to_ascii_lowercase().contains("proxy-authorization: basic bwu6cebzcw==") {
        return client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n");
    }
    let mut server = TcpStream::connect(to)?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    let (mut back, mut there) = (client.try_clone()?, server.try_clone()?);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut there, &mut back);
        let _ = back.shutdown(Shutdown::Both);
    });
    let buffered = reader.buffer().to_vec();
    server.write_all(&buffered)?;
    std::io::copy(&mut client, &mut server)?;
    server.shutdown(Shutdown::Write)
}

#[test]
fn a_proxy_leads_to_what_it_is_for() {
    let Some(place) = place() else { return };
    let Some(registry) = registry(&place, false) else { return };
    copy(&place, "ca.crt", &certificates_of(&place, NAME).join("ca.crt"));
    let (address, asked) = proxy(registry.address());
    let url = format!("http://me:p%40ss@{address}");
    login(&place, &[("HTTPS_PROXY", &url)], &[NAME]).expect(0);
    assert!(asked.lock().unwrap()[0].starts_with(&format!("CONNECT {NAME}:443 ")), "{asked:?}");
    login(&place, &[("all_proxy", &url)], &[NAME]).expect(0);
    let before = asked.lock().unwrap().len();
    for (variable, value) in
        [("NO_PROXY", ".invalid"), ("no_proxy", "*"), ("NO_PROXY", "registry.invalid:443")]
    {
        let ran = login(&place, &[("HTTPS_PROXY", &url), (variable, value)], &[NAME]).expect(7);
        assert!(ran.stderr.contains("lookup") || ran.stderr.contains("no address found"), "{}", ran.stderr);
    }
    // What is on this machine is never asked of a proxy.
    let near = registry.address();
    login(&place, &[("HTTPS_PROXY", &url), ("HTTP_PROXY", &url)], &["--tls-verify=false", &near]).expect(0);
    assert_eq!(asked.lock().unwrap().len(), before);
    let refused = login(&place, &[("HTTPS_PROXY", &url.replace("p%40ss", "hunter3"))], &[NAME]);
    assert!(refused.status != 0 && refused.stderr.contains("proxy"), "{}", refused.stderr);
    assert!(!refused.stderr.contains("hunter3"), "{}", refused.stderr);
    let socks = login(&place, &[("HTTPS_PROXY", "socks5://me:hunter3@127.0.0.1:1")], &[NAME]).expect(2);
    assert!(socks.stderr.contains("HTTPS_PROXY") && !socks.stderr.contains("hunter3"), "{}", socks.stderr);
}
