//! The tool as a program, on real images and containers.

#[path = "../../../ctr-diff/tests/machine/mod.rs"]
#[allow(dead_code)]
mod machine;

mod host;
mod image;

use testkit::{Place, Ran};

/// A shell script with `$STEP`, `step` of this build, `S` being the tool without a network and `H` the tool on this machine.
pub fn sh(place: &Place, script: &str) -> Ran {
    let step = env!("CARGO_BIN_EXE_step");
    place.sh(&format!(
        "cd $DIR; STEP={step}; P() {{ img-inspect bb:1; }}; S() {{ {step} --network none \"$@\"; }}; H() {{ {step} --host \"$@\"; }}; {script}"
    ))
}

/// How often a counted command ran: each run has written a line to `$DIR/NAME`.
pub fn lines(place: &Place, name: &str) -> usize {
    std::fs::read_to_string(place.path().join(name)).map_or(0, |text| text.lines().count())
}

/// No file of the state has these bytes in it, packed or not.
pub fn assert_nowhere(place: &Place, text: &str) {
    let script = format!(
        "for f in $(find $STAVES_ROOT $STAVES_RUN -type f); do (cat $f; zcat -f $f 2>/dev/null) | grep -q -F -e '{text}' && echo $f; done; true"
    );
    assert_eq!(place.sh(&script).expect(0).stdout, "");
}
