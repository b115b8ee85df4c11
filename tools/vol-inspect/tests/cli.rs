//! The tool as a program.

use serde_json::json;
use testkit::Place;

#[test]
fn by_name_and_by_a_containers_record() {
    let place = Place::new();
    let inspect = env!("CARGO_BIN_EXE_vol-inspect");
    let dir = place.root().join("volumes/data");
    std::fs::create_dir_all(dir.join("_data")).unwrap();
    std::fs::write(
        dir.join("volume.json"),
        br#"{"name":"data","driver":"local","labels":{"a":"b"},"later":[1]}"#,
    )
    .unwrap();
    place.container(&"1".repeat(64), "web", &json!({"volumes": [{"name": "data", "target": "/d"}]}));
    let shown = place.sh(&format!("{inspect} data")).expect(0).json();
    let volume = &shown["volumes"][0];
    assert_eq!(
        (&volume["labels"]["a"], &volume["later"], &volume["scope"]),
        (&json!("b"), &json!([1]), &json!("local"))
    );
    assert_eq!(volume["mountpoint"], dir.join("_data").display().to_string());
    assert_eq!(volume["containers"][0]["name"], "web");
    let of_record = place
        .sh(&format!(r#"echo '{{"x":1,"volumes":[{{"name":"data","target":"/d"}}]}}' | {inspect}"#))
        .expect(0)
        .json();
    assert_eq!((&of_record["x"], &of_record["volumes"][0]["target"]), (&json!(1), &json!("/d")));
    let some = place.sh(&format!("{inspect} nothing data ../../etc")).expect(4);
    assert_eq!(some.stdout.lines().count(), 1);
    assert_eq!(place.sh(&format!("{inspect} < /dev/null")).expect(0).stdout, "");
}
