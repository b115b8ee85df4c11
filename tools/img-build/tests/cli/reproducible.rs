//! The same is built, wherever and whenever.

use crate::{build, inside, machine, project};

const DOCKERFILE: &str = "FROM bb:1\nCOPY src /src\nRUN mkdir /made; cp /src/a /made/b; touch -d '2000-01-01 00:00:00' /made/old; ln /made/b /made/c\nCOPY src/a /last\n";

#[test]
fn two_builds_in_two_places_are_the_same() {
    let digests: Vec<String> = [("1", 1_000_000_000), ("2", 1_700_000_000)]
        .into_iter()
        .filter_map(|(_, time)| {
            let place = machine::place()?;
            project(&place, "app", &[("Dockerfile", DOCKERFILE), ("src/a", "A"), ("src/z/b", "B")]);
            place.sh(&format!("find $DIR/app -exec touch -d @{time} {{}} +")).expect(0);
            let record = build(&place, "$DIR/app").expect(0).json();
            // Later steps are later, for those who compare times.
            let times = {
                let id = record["image"]["id"].as_str().unwrap();
                inside(&place, id, "stat -c %Y /src/a /src/z /made/b /made /last /made/old")
            };
            let times: Vec<i64> = times.lines().map(|line| line.parse().unwrap()).collect();
            assert!(times[0] == times[1] && times[2] == times[3], "{times:?}");
            assert!(times[0] < times[2] && times[2] < times[4], "{times:?}");
            assert_eq!(times[5], 946_684_800);
            Some(record["image"]["digest"].as_str().unwrap().to_owned())
        })
        .collect();
    if let [one, other] = digests.as_slice() {
        assert_eq!(one, other);
    }
}

#[test]
fn the_time_can_be_said() {
    let Some(place) = machine::place() else { return };
    project(&place, "app", &[("Dockerfile", DOCKERFILE), ("src/a", "A")]);
    let tool = env!("CARGO_BIN_EXE_img-build");
    let at =
        |words: &str| place.sh(&format!("{words} --network none $DIR/app")).expect(0).json()["image"].clone();
    let by_option = at(&format!("{tool} --timestamp 1000000000"));
    let by_variable = at(&format!("SOURCE_DATE_EPOCH=1000000000 {tool}"));
    let by_argument = at(&format!("{tool} --build-arg SOURCE_DATE_EPOCH=1000000000"));
    assert_eq!(by_option["digest"], by_variable["digest"]);
    assert_eq!(by_option["digest"], by_argument["digest"]);
    assert_eq!(by_option["config"]["created"], "2001-09-09T01:46:40Z");
    let id = by_option["id"].as_str().unwrap();
    assert_eq!(inside(&place, id, "stat -c %Y /src/a /made/b /last | sort -u"), "1000000000\n");
    // Commands are told of it, however it was said, and of the time that was worked out.
    project(&place, "told", &[("Dockerfile", "FROM bb:1\nRUN echo $SOURCE_DATE_EPOCH >/told\n")]);
    for words in [
        format!("{tool} --timestamp 1000000000"),
        format!("SOURCE_DATE_EPOCH=1000000000 {tool}"),
        format!("{tool} --build-arg SOURCE_DATE_EPOCH=1000000000"),
    ] {
        place.sh(&format!("{words} --network none --no-cache -t told:1 $DIR/told")).expect(0);
        assert_eq!(inside(&place, "told:1", "cat /told"), "1000000000\n", "{words}");
    }
    // As docker has it: files keep the times they have.
    place.sh("touch -d @1234567890 $DIR/app/src/a").expect(0);
    let now = at(&format!("{tool} --timestamp now"));
    let id = now["id"].as_str().unwrap();
    assert_eq!(inside(&place, id, "stat -c %Y /src/a"), "1234567890\n");
    place.sh(&format!("{tool} --timestamp yesterday $DIR/app")).expect(2);
}
