//! The tool as a program, on real containers.

mod machine;

use machine::{assert_unmounted, place, start};
use serde_json::{Value, json};
use testkit::Place;

const CHANGES: &str = "mkdir /a; echo x >/a/f; ln /a/f /a/g; ln -s /etc /a/l; echo y >>/etc/group; rm /etc/passwd; rm -r /home; mkdir -p /home/q; \
     chmod 700 /tmp; echo v >/data/v; echo t >/tt/t; rm -r /var/www; echo now-a-file >/var/www";

const WANTED: &str = "A /a\nA /a/f\nA /a/g\nA /a/l\nC /etc\nC /etc/group\nD /etc/passwd\nC /home\nD /home/app\nA /home/q\nC /tmp\nC /var\nC /var/www\n";

#[test]
fn what_was_changed_is_listed_and_nothing_else() {
    let Some(place) = place() else { return };
    start(&place, "-v $DIR/here:/data -v /deep/er/anonymous --tmpfs /tt", CHANGES);
    let running = place.sh("ctr-diff --output table c").expect(0).stdout;
    assert_eq!(running, WANTED);
    // The same of a container that has ended, through a record, and as data.
    place.sh("ctr-kill -q c").expect(0);
    let lines: Vec<Value> = place
        .sh("ctr-inspect c | ctr-diff")
        .expect(0)
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let word = |line: &Value| match line["change"].as_str().unwrap() {
        "added" => "A",
        "deleted" => "D",
        _ => "C",
    };
    let told: Vec<String> =
        lines.iter().map(|line| format!("{} {}\n", word(line), line["path"].as_str().unwrap())).collect();
    assert_eq!(told.concat(), WANTED);
    assert_eq!((&lines[1]["type"], &lines[1]["size"]), (&json!("file"), &json!(2)));
    assert_eq!((&lines[6]["change"], lines[6].get("type")), (&json!("deleted"), None));
    assert!(place.sh("ctr-diff -q c").expect(0).stdout.starts_with("/a\n/a/f\n"));
    assert_unmounted(&place);
}

#[test]
fn an_untouched_container_has_no_changes() {
    let Some(place) = place() else { return };
    place.sh("ctr-run -q --network none --name c -v vol:/v bb:1 sh -c ': >>/etc/group'").expect(0);
    place.sh("ls $STAVES_ROOT/containers/*/upper/etc/group").expect(0);
    assert_eq!(place.sh("ctr-diff c").expect(0).stdout, "");
    // Content alone tells, whatever the times say.
    place.sh("ctr-rm -q c; ctr-run -q --network none --name c bb:1 sh -c 'touch -r /etc/group /t; sed -i s/root/toor/ /etc/group; touch -r /t /etc/group; rm /t'").expect(0);
    assert_eq!(place.sh("ctr-diff --output table c").expect(0).stdout, "C /etc\nC /etc/group\n");
}

#[test]
fn names_that_are_no_text_and_deep_directories() {
    let Some(place) = place() else { return };
    let script = "printf x >/$(printf \"\\\\377\\\\n\"); cd /tmp; i=0; while [ $i -lt 300 ]; do mkdir d; cd d; i=$((i+1)); done";
    start(&place, "", script);
    let ran = place.sh("ctr-diff c").expect(0);
    let lines: Vec<Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let odd: Vec<&Value> = lines.iter().filter(|line| line.get("path_base64").is_some()).collect();
    assert_eq!(odd.len(), 1, "{}", ran.stdout);
    assert_eq!(lines.iter().filter(|line| line["path"].as_str().unwrap().ends_with("/d")).count(), 300);
    place.sh("ctr-kill -q c").expect(0);
}

#[test]
fn what_cannot_be_is_told() {
    let place = Place::new();
    assert!(place.sh("ctr-diff nobody").expect(4).stderr.contains("no such container"));
    place.sh(": | ctr-diff").expect(0);
    let dir = place.container(
        &"a".repeat(64),
        "plain",
        &json!({"rootfs": {"driver": "directory", "path": "/tmp", "layers": []}}),
    );
    drop(dir);
    place.sh("ctr-diff plain").expect(5);
    let gone = json!({"rootfs": {"driver": "overlay", "layers": ["/nonexistent/layers/sha256-0/fs"]}});
    place.container(&"b".repeat(64), "gone", &gone);
    assert!(place.sh("ctr-diff gone").expect(4).stderr.contains("img-unpack"));
}
