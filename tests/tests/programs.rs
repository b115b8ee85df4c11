//! Servers as people run them, from Debian's packages: started, waited for, asked over the bridge and through published ports, stopped
//! as they wish to be, started again with what they kept in a volume; images and archives of them.

use pipelines::programs::{Program, fetched, place};
use pipelines::{Place, criu_works, wait_until};
use std::io::{Read, Write};

/// Nothing is left of any container: no record, no link, no address.
#[track_caller]
fn nothing_is_left(place: &Place) {
    assert_eq!(place.sh("ctr-ls --all -q").expect(0).stdout, "");
    assert_eq!(place.sh("ip -o link | grep -c stv").stdout, "0\n");
    assert_eq!(place.sh("ls $STAVES_ROOT/networks/bridge/leases").expect(0).stdout, "");
}

#[test]
fn postgresql() {
    let Some(place) = place() else { return };
    let server = Program {
        place: &place,
        name: "db",
        image: "postgres:15",
        flags: "-p=5432:5432 -e POSTGRES_PASSWORD=secret --shm-size=128m -v db-data:/var/lib/postgresql/data",
        port: 5432,
        ready: "database system is ready to accept connections",
        ended: "database system is shut down",
    };
    let ask = |sql: &str| server.exec(&format!("psql -v ON_ERROR_STOP=1 -Atc \"{sql}\""));
    server.run();
    // The volume began as the directory of the image that it covers, with owner and mode, else initdb had refused it.
    assert_eq!(server.exec("stat -c '%U %a' /var/lib/postgresql/data"), "postgres 700\n");
    assert!(server.log().contains("cluster made"));
    ask("create table kept (number int); insert into kept select generate_series(1, 10000)");

    // Another container, over the bridge, with a password; this host, through the published port.
    let client = format!(
        "ctr-run -q --rm -e PGPASSWORD=secret postgres:15 psql -h {} -U postgres -Atc 'select sum(number) from kept'",
        server.address()
    );
    assert_eq!(place.sh(&client).expect(0).stdout, "50005000\n");
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", 5432)).expect("the port is published");
    // Whether it talks TLS: it answers S or N.
    stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).expect("send a request");
    let mut answer = [0];
    stream.read_exact(&mut answer).expect("it answers");
    assert!(b"SN".contains(&answer[0]), "{answer:?}");
    // A large answer, through a pipe, whole.
    let sum = |program: &str| place.sh(&format!("{program} | sha256sum")).expect(0).stdout;
    assert_eq!(sum("ctr-exec db psql -Atc 'select number from kept order by 1'"), sum("seq 10000"));

    server.stop();
    server.start();
    assert_eq!(ask("select count(*) from kept"), "10000\n");
    // As after a power cut: it finds out and repairs.
    place.sh("ctr-kill -q -s KILL db; ctr-wait db >/dev/null").expect(137);
    server.start();
    assert!(server.log().contains("automatic recovery in progress"), "{}", server.log());
    assert_eq!(ask("select count(*) from kept"), "10000\n");
    server.is_copied("usr/lib/postgresql/15/bin/postgres", "var/lib/postgresql/data/PG_VERSION");

    // A backup out, another server of it, in a volume of its own.
    place.sh("ctr-exec db pg_dump | gzip >$DIR/dump.gz").expect(0);
    server.remove();
    let restored = Program { name: "db2", flags: "-e POSTGRES_PASSWORD=secret", ..server };
    restored.run();
    place.sh("zcat $DIR/dump.gz | ctr-exec -i db2 psql -q -v ON_ERROR_STOP=1 >/dev/null").expect(0);
    assert_eq!(restored.exec("psql -Atc 'select count(*) from kept'"), "10000\n");
    restored.remove();
    // The first volume has a name and is still there, for another container.
    server.run();
    assert!(!server.log().contains("cluster made"));
    assert_eq!(ask("select max(number) from kept"), "10000\n");
    server.stop();
    server.remove();
    assert_eq!(place.sh("vol-ls -q").expect(0).stdout, "db-data\n");
    nothing_is_left(&place);
}

#[test]
fn nginx() {
    let Some(place) = place() else { return };
    let server = Program {
        place: &place,
        name: "web",
        image: "nginx:1",
        flags: "-p=8080:80 -v web-data:/var/www/html",
        port: 80,
        ready: "",
        ended: "(SIGQUIT) received, shutting down",
    };
    // nginx says nothing when it is ready; `notice` also tells of its end.
    std::fs::write(place.path().join("nginx.conf"), NGINX).expect("write a file");
    let flags = format!("{} -v {}/nginx.conf:/etc/nginx/nginx.conf:ro", server.flags, place.path().display());
    let server = Program { flags: &flags, ready: "start worker processes", ..server };
    server.run();
    assert!(fetched("http://127.0.0.1:8080/").contains("Welcome to nginx"));
    place.sh("echo mine >$DIR/page && ctr-cp -q $DIR/page web:/var/www/html/page").expect(0);
    assert_eq!(fetched("http://127.0.0.1:8080/page"), "mine\n");
    // Its files /dev/stdout and /dev/stderr are the log's two streams.
    wait_until("the access log", || {
        place.sh("ctr-logs web 2>/dev/null").stdout.contains("\"GET /page HTTP/1.1\" 200")
    });
    assert_eq!(fetched("http://127.0.0.1:8080/none").lines().count(), 7);
    wait_until("the error log", || {
        place.sh("ctr-logs web 2>&1 >/dev/null").stdout.contains("/var/www/html/none")
    });
    // Master and two workers; another set after HUP, which nobody notices.
    let workers = || {
        let list = "ctr-top web | jq -r '.processes[] | select(.args[0] == \"nginx: worker process\").pid'";
        place.sh(list).expect(0).stdout.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let before = workers();
    assert_eq!(before.len(), 2, "{}", place.sh("ctr-top web").stdout);
    place.sh("ctr-kill -q -s HUP web").expect(0);
    wait_until("other workers", || {
        let now = workers();
        now.len() == 2 && now.iter().all(|worker| !before.contains(worker))
    });
    assert_eq!(fetched("http://127.0.0.1:8080/page"), "mine\n");

    server.stop();
    server.start();
    assert_eq!(fetched("http://127.0.0.1:8080/page"), "mine\n");
    server.is_copied("usr/sbin/nginx", "var/www/html/page");
    server.remove();

    // Nothing to be written but where it must, no privileges but those it needs.
    let flags = format!(
        "{flags} --read-only --tmpfs /run --tmpfs /var/lib/nginx --cap-drop ALL --cap-add NET_BIND_SERVICE \
         --cap-add SETUID --cap-add SETGID --cap-add CHOWN --cap-add DAC_OVERRIDE --security-opt no-new-privileges"
    );
    let narrow = Program { flags: &flags, ..server };
    narrow.run();
    assert_eq!(fetched("http://127.0.0.1:8080/page"), "mine\n");
    place.sh("ctr-exec web touch /srv/x").expect(1);
    narrow.stop();
    narrow.remove();
    nothing_is_left(&place);
}

const NGINX: &str = "user www-data; worker_processes 2; pid /run/nginx.pid; error_log /var/log/nginx/error.log notice;
events {} http { access_log /var/log/nginx/access.log; server { listen 80; root /var/www/html; index index.nginx-debian.html; } }
";

#[test]
fn redis() {
    let Some(place) = place() else { return };
    let server = Program {
        place: &place,
        name: "cache",
        image: "redis:7",
        flags: "-p=6379:6379 -v cache-data:/data --sysctl net.core.somaxconn=1024 --memory 256m",
        port: 6379,
        ready: "Ready to accept connections",
        ended: "Redis is now ready to exit, bye bye...",
    };
    server.run();
    // The kernel's default would be too small for it, and it would say so.
    assert!(!server.log().contains("somaxconn"), "{}", server.log());
    assert_eq!(server.exec("redis-cli set colour blue"), "OK\n");
    assert_eq!(server.exec("redis-cli save"), "OK\n");
    // Not saved yet when it is stopped: it saves then.
    assert_eq!(server.exec("redis-cli set shape round"), "OK\n");
    server.stop();
    assert!(server.log().contains("DB saved on disk"), "{}", server.log());
    server.start();
    assert_eq!(server.exec("redis-cli mget colour shape"), "blue\nround\n");
    assert!(server.log().contains("DB loaded from disk"), "{}", server.log());
    let client = format!("ctr-run -q --rm redis:7 redis-cli -h {} get colour", server.address());
    assert_eq!(place.sh(&client).expect(0).stdout, "blue\n");
    // Many keys through stdin; all of them there.
    place.sh("for n in $(seq 20000); do echo \"SET key$n $n\"; done | ctr-exec -i cache redis-cli --pipe >/dev/null").expect(0);
    assert_eq!(server.exec("redis-cli dbsize"), "20002\n");
    // While it is stopped nobody gets an answer; afterwards nothing is lost.
    place.sh("ctr-pause -q cache").expect(0);
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", 6379)).expect("the kernel accepts for it");
    stream.write_all(b"GET colour\r\n").expect("send a request");
    stream.set_read_timeout(Some(std::time::Duration::from_millis(300))).expect("set a time");
    let mut answer = [0; 10];
    assert!(stream.read_exact(&mut answer).is_err(), "it answers though it is paused");
    place.sh("ctr-unpause -q cache").expect(0);
    stream.set_read_timeout(Some(std::time::Duration::from_mins(1))).expect("set a time");
    stream.read_exact(&mut answer).expect("it answers");
    assert_eq!(&answer, b"$4\r\nblue\r\n");
    // The copy of a volume is what was saved, for a server in a user namespace.
    assert_eq!(server.exec("redis-cli save"), "OK\n");
    place.sh("vol-clone -q cache-data copy-data").expect(0);
    let flags = "-v copy-data:/data --userns auto";
    let copy = Program { name: "copy", flags, ..server };
    copy.run();
    assert_eq!(copy.exec("redis-cli dbsize"), "20002\n");
    copy.stop();
    copy.remove();
    server.is_copied("usr/bin/redis-server", "data/dump.rdb");
    place.sh("ctr-restart -q cache").expect(0);
    server.wait();
    assert_eq!(server.exec("redis-cli get key777"), "777\n");
    server.stop();
    server.remove();
    nothing_is_left(&place);
}

#[test]
fn python() {
    let Some(place) = place() else { return };
    let server = Program {
        place: &place,
        name: "files",
        image: "python:3",
        flags: "-p=8000:8000 --init -v files-data:/srv/data",
        port: 8000,
        ready: "Serving HTTP on 0.0.0.0 port 8000",
        ended: "Keyboard interrupt received, exiting.",
    };
    server.run();
    assert_eq!(fetched("http://127.0.0.1:8000/"), "served by python\n");
    // A database in the volume, written by a program from stdin.
    let write = "import sqlite3; db = sqlite3.connect('/srv/data/kept.db'); db.execute('create table kept (number)'); \
                 db.executemany('insert into kept values (?)', ((n,) for n in range(1000))); db.commit()";
    place.sh(&format!("echo \"{write}\" | ctr-exec -i files python3 -")).expect(0);
    let read = "python3 -c \"import sqlite3; print(*sqlite3.connect('/srv/data/kept.db').execute('select sum(number) from kept'))\"";
    server.stop();
    server.start();
    assert_eq!(server.exec(read), "(499500,)\n");
    // What it serves is what is in the volume, byte for byte.
    place
        .sh("head -c 3000000 /dev/urandom >$DIR/noise && ctr-cp -q $DIR/noise files:/srv/data/noise")
        .expect(0);
    place.sh("curl -sS --noproxy '*' http://127.0.0.1:8000/data/noise | cmp - $DIR/noise").expect(0);
    server.is_copied("usr/bin/python3", "srv/data/kept.db");
    // Without an init it has no handler for TERM and does not hear it, as process 1; it is killed in the end.
    server.remove();
    let deaf = Program { flags: "--stop-signal TERM", ..server };
    deaf.run();
    place.sh("ctr-stop -q -t 1 files").expect(0);
    assert_eq!(deaf.tells(".container.exit_code"), "137");
    deaf.remove();
    nothing_is_left(&place);
}

#[test]
fn node() {
    let Some(place) = place() else { return };
    let server = Program {
        place: &place,
        name: "counter",
        image: "node:18",
        flags: "-p=3000:3000 -v counter-data:/data --memory 512m --restart unless-stopped",
        port: 3000,
        ready: "listening, \\d+ so far",
        ended: "closed after",
    };
    server.run();
    for count in 1..=3 {
        assert_eq!(fetched("http://127.0.0.1:3000/"), format!("request {count}\n"));
    }
    server.stop();
    // Stopped by hand, so its policy leaves it alone.
    assert_eq!(server.tells(".container.status"), "exited");
    assert!(server.log().contains("closed after 3"), "{}", server.log());
    server.start();
    assert_eq!(fetched("http://127.0.0.1:3000/"), "request 4\n");
    assert!(server.log().contains("listening, 3 so far"), "{}", server.log());
    // It crashes, and its policy starts it again, with the same address and port.
    let address = server.address();
    assert_eq!(fetched("http://127.0.0.1:3000/crash"), "request 5\n");
    wait_until("the policy to start it", || server.log().contains("listening, 5 so far"));
    assert!(server.log().contains("Error: as wished"), "{}", server.log());
    assert_eq!(fetched("http://127.0.0.1:3000/"), "request 6\n");
    assert_eq!(server.address(), address);
    assert_eq!(server.tells(".container.restart_count"), "1");
    server.wait();
    server.is_copied("usr/bin/node", "data/count");
    // An exception that nobody catches is told on stderr, with a status of its own.
    let ran = place.sh("ctr-run -q --rm --memory 512m node:18 node -e 'throw new Error(\"broken\")'");
    assert_eq!(ran.status, 1);
    assert!(ran.stderr.contains("Error: broken"), "{}", ran.stderr);
    server.stop();
    server.remove();
    nothing_is_left(&place);
}

/// Saved by criu and going on as if nothing had been: in place, then removed and out of an archive.
#[test]
fn saved_they_go_on() {
    if !criu_works() {
        return;
    }
    let Some(place) = place() else { return };
    let server = |image, flags, port, ready| Program {
        place: &place,
        name: "it",
        image,
        flags,
        port,
        ready,
        ended: "",
    };
    let database = server(
        "postgres:15",
        "-p=5432:5432 -e POSTGRES_PASSWORD=secret -v data:/var/lib/postgresql/data",
        5432,
        "database system is ready to accept connections",
    );
    goes_on(
        &database,
        &mut |it| _ = it.exec("psql -qc 'create table kept as select generate_series(1, 1000)'"),
        &mut |it| assert_eq!(it.exec("psql -Atc 'select count(*) from kept'"), "1000\n"),
    );
    let cache = server("redis:7", "-p=6379:6379 --memory 256m", 6379, "Ready to accept connections");
    goes_on(
        &cache,
        &mut |it| _ = it.exec("redis-cli set colour blue"),
        // Never saved to a file: it is in its memory.
        &mut |it| assert_eq!(it.exec("redis-cli get colour"), "blue\n"),
    );
    let mut count = 0;
    let counter = server("node:18", "-p=3000:3000 --memory 512m", 3000, "listening, 0 so far");
    goes_on(&counter, &mut |_| {}, &mut |_| {
        count += 1;
        assert_eq!(fetched("http://127.0.0.1:3000/"), format!("request {count}\n"));
    });
    let files = server("python:3", "-p=8000:8000", 8000, "Serving HTTP");
    goes_on(&files, &mut |_| {}, &mut |_| {
        assert_eq!(fetched("http://127.0.0.1:8000/"), "served by python\n");
    });
    let web = server("nginx:1", "-p=8080:80", 80, "");
    goes_on(&web, &mut |_| {}, &mut |_| {
        assert!(fetched("http://127.0.0.1:8080/").contains("Welcome to nginx"));
    });
    nothing_is_left(&place);
}

#[track_caller]
fn goes_on(server: &Program<'_>, prepare: &mut dyn FnMut(&Program<'_>), look: &mut dyn FnMut(&Program<'_>)) {
    let place = server.place;
    server.run();
    // nginx says nothing.
    let begun = || if server.ready.is_empty() { 1 } else { server.log().matches(server.ready).count() };
    prepare(server);
    look(server);
    // criu saves no connection that waits to be accepted, which one of a health check may be: then it runs on, and is asked again.
    let saved = |flags: &str| {
        let again = "for try in 1 2 3 4 5; do ctr-checkpoint -q FLAGS it && exit; sleep 0.3; done; exit 1";
        place.sh(&again.replace("FLAGS", flags)).expect(0);
    };
    saved("");
    assert_eq!(server.tells(".container.status"), "exited");
    place.sh("ctr-restore -q it").expect(0);
    look(server);
    saved("--export $DIR/it.tar");
    place.sh("ctr-rm -q it").expect(0);
    place.sh("ctr-restore -q --import $DIR/it.tar").expect(0);
    look(server);
    assert_eq!(begun(), 1, "it began again: {}", server.log());
    place.sh("ctr-stop -q -t 5 it").expect(0);
    server.remove();
}
