//! Health checks: what the user asks for, and what comes of it with the image's (docker's `HEALTHCHECK`).

use fault::{Fault, Result};
use record::{Healthcheck, Quantity};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Duration;

/// What is done when a container becomes unhealthy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    #[default]
    None,
    /// SIGKILL; the restart policy decides what follows.
    Kill,
    /// Stopped as `ctr-stop` does, then started again whatever the restart policy says.
    Restart,
    /// Stopped as `ctr-stop` does.
    Stop,
}

/// What was set, checked. Each member that was not is the image's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthWish {
    pub test: Option<Test>,
    pub interval: Option<Duration>,
    pub timeout: Option<Duration>,
    pub retries: Option<u32>,
    pub start_period: Option<Duration>,
    pub start_interval: Option<Duration>,
    pub on_failure: Option<OnFailure>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    None,
    Command(Vec<String>),
    /// By the image's shell.
    Shell(String),
}

/// A check that is to be run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthPlan {
    /// Program and arguments.
    pub command: Vec<String>,
    #[serde(with = "seconds")]
    pub interval: Duration,
    #[serde(with = "seconds")]
    pub timeout: Duration,
    pub retries: u32,
    #[serde(with = "seconds")]
    pub start_period: Duration,
    #[serde(with = "seconds")]
    pub start_interval: Duration,
    #[serde(default)]
    pub on_failure: OnFailure,
}

// docker's defaults.
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: u32 = 3;
/// docker's, too.
const SHORTEST: Duration = Duration::from_millis(1);
/// A century: what is added to it is still a time.
const LONGEST: Duration = Duration::from_hours(100 * 365 * 24);

impl HealthWish {
    pub fn parse(wish: Option<&Healthcheck>) -> Result<HealthWish> {
        let Some(wish) = wish else { return Ok(HealthWish::default()) };
        let time = |what: &str, quantity: &Option<Quantity>| match quantity {
            Some(quantity) => duration_of(quantity)
                .and_then(check_length)
                .map_err(|fault| fault.within(format!("health check: {what}"))),
            None => Ok(None),
        };
        Ok(HealthWish {
            test: test(&wish.test)?,
            interval: time("interval", &wish.interval)?,
            timeout: time("timeout", &wish.timeout)?,
            retries: wish.retries.filter(|retries| *retries > 0),
            start_period: time("start period", &wish.start_period)?,
            start_interval: time("start interval", &wish.start_interval)?,
            on_failure: wish.on_failure.as_deref().map(on_failure).transpose()?,
        })
    }

    /// The check that results with the image's configuration; `None` for a container without one.
    ///
    /// Fails with input if the image's is malformed, or if there is nothing to run though something about it was asked for.
    pub fn plan(&self, image: Option<&Value>) -> Result<Option<HealthPlan>> {
        let of_image =
            image.and_then(|image| image.pointer("/config/Healthcheck")).filter(|of| !of.is_null());
        let of_image = match (of_image, &self.test) {
            // Whatever it says: it is not wanted.
            (_, Some(Test::None)) => return Ok(None),
            (Some(of_image), _) => parse_image(of_image).map_err(|fault| {
                fault.within("the image's health check").hint("--no-healthcheck does without")
            })?,
            (None, _) => HealthWish::default(),
        };
        let command = match self.test.clone().or(of_image.test) {
            Some(Test::Command(command)) => command,
            Some(Test::Shell(text)) => {
                let mut command = shell(image);
                command.push(text);
                command
            }
            Some(Test::None) | None if *self == HealthWish::default() => return Ok(None),
            Some(Test::None) | None => {
                return Err(Fault::input(
                    "health check: there is no command, neither asked for nor the image's",
                )
                .hint("--health-cmd gives one"));
            }
        };
        Ok(Some(HealthPlan {
            command,
            interval: self.interval.or(of_image.interval).unwrap_or(INTERVAL),
            timeout: self.timeout.or(of_image.timeout).unwrap_or(TIMEOUT),
            retries: self.retries.or(of_image.retries).unwrap_or(RETRIES),
            start_period: self.start_period.or(of_image.start_period).unwrap_or_default(),
            start_interval: self.start_interval.or(of_image.start_interval).unwrap_or(START_INTERVAL),
            on_failure: self.on_failure.unwrap_or_default(),
        }))
    }
}

fn test(words: &[String]) -> Result<Option<Test>> {
    let wrong = |what: &str| Fault::input(format!("health check: {what}"));
    let Some((kind, rest)) = words.split_first() else { return Ok(None) };
    match (kind.as_str(), rest) {
        ("NONE", []) => Ok(Some(Test::None)),
        ("CMD", []) => Err(wrong("CMD without a program")),
        ("CMD", command) => Ok(Some(Test::Command(command.to_vec()))),
        ("CMD-SHELL", [text]) => Ok(Some(Test::Shell(text.clone()))),
        ("CMD-SHELL", _) => Err(wrong("CMD-SHELL takes one text")),
        _ => Err(wrong(&format!("{kind:?} is no kind of test"))
            .hint("[\"CMD\", …], [\"CMD-SHELL\", TEXT] or [\"NONE\"]")),
    }
}

fn on_failure(text: &str) -> Result<OnFailure> {
    match text {
        "" | "none" => Ok(OnFailure::None),
        "kill" => Ok(OnFailure::Kill),
        "restart" => Ok(OnFailure::Restart),
        "stop" => Ok(OnFailure::Stop),
        _ => Err(Fault::input(format!("health check: on failure {text:?}: no such action"))
            .hint("one of none, kill, restart, stop")),
    }
}

/// docker's `Healthcheck` in an image's configuration: times are nanoseconds.
fn parse_image(value: &Value) -> Result<HealthWish> {
    let words = match value.get("Test") {
        None | Some(Value::Null) => Vec::new(),
        Some(words) => words
            .as_array()
            .and_then(|words| words.iter().map(|word| word.as_str().map(str::to_owned)).collect())
            .ok_or_else(|| Fault::input("Test is not a list of words"))?,
    };
    let time = |name: &str| match value.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(number) => match number.as_i64().and_then(|number| u64::try_from(number).ok()) {
            Some(nanoseconds) => {
                check_length(Duration::from_nanos(nanoseconds)).map_err(|fault| fault.within(name.to_owned()))
            }
            None => Err(Fault::input(format!("{name} is not a number of nanoseconds"))),
        },
    };
    let retries = match value.get("Retries") {
        None | Some(Value::Null) => 0,
        Some(number) => number
            .as_u64()
            .and_then(|number| u32::try_from(number).ok())
            .ok_or_else(|| Fault::input("Retries is not a number"))?,
    };
    Ok(HealthWish {
        test: test(&words)?,
        interval: time("Interval")?,
        timeout: time("Timeout")?,
        retries: Some(retries).filter(|retries| *retries > 0),
        start_period: time("StartPeriod")?,
        start_interval: time("StartInterval")?,
        on_failure: None,
    })
}

/// The image's `SHELL`, which docker takes for CMD-SHELL.
fn shell(image: Option<&Value>) -> Vec<String> {
    let words = image.and_then(|image| image.pointer("/config/Shell")).and_then(Value::as_array);
    let words: Vec<String> =
        words.into_iter().flatten().filter_map(|word| word.as_str().map(str::to_owned)).collect();
    if words.is_empty() { vec!["/bin/sh".to_owned(), "-c".to_owned()] } else { words }
}

/// 0 is not set, as in docker.
fn check_length(time: Duration) -> Result<Option<Duration>> {
    if time.is_zero() {
        return Ok(None);
    }
    if time < SHORTEST {
        return Err(Fault::input("shorter than a millisecond"));
    }
    Ok(Some(time.min(LONGEST)))
}

/// A time from a record: seconds, or text with units.
pub fn duration_of(quantity: &Quantity) -> Result<Duration> {
    match quantity {
        Quantity::Integer(number) => u64::try_from(*number)
            .map(Duration::from_secs)
            .map_err(|_| Fault::input(format!("{number} is not a time: it is negative"))),
        Quantity::Float(number) => Duration::try_from_secs_f64(*number)
            .map_err(|_| Fault::input(format!("{number} is not a number of seconds"))),
        Quantity::Text(text) => duration(text),
    }
}

/// `1m30s`, `500ms`, `1.5h`, as Go writes durations; a number alone is seconds.
pub fn duration(text: &str) -> Result<Duration> {
    let malformed = || {
        Fault::input(format!("{text:?} is not a length of time"))
            .hint("numbers with a unit each, of ns, us, ms, s, m and h: 1m30s, 500ms")
    };
    let mut rest = text.trim();
    let mut total = 0u128;
    if rest.is_empty() {
        return Err(malformed());
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(end);
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let nanoseconds: u128 = match unit {
            "" if number.len() == text.trim().len() => 1_000_000_000,
            "ns" => 1,
            "us" | "µs" | "μs" => 1000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(malformed()),
        };
        total =
            total.checked_add(scaled(number, nanoseconds).ok_or_else(malformed)?).ok_or_else(malformed)?;
        rest = after;
    }
    let total = u64::try_from(total).map_err(|_| Fault::input(format!("{text:?} is too long a time")))?;
    Ok(Duration::from_nanos(total))
}

/// A decimal number of units; what is below a nanosecond is dropped.
fn scaled(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.len() <= 18 && text.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !digits(whole) || !digits(fraction) {
        return None;
    }
    let read = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u128>().ok() };
    let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    read(whole)?.checked_mul(unit)?.checked_add(read(fraction)?.checked_mul(unit)? / scale)
}

/// Seconds, whole ones as whole numbers.
mod seconds {
    use serde::{Deserialize, Deserializer, Serializer};
    use std::time::Duration;

    pub fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        if time.subsec_nanos() == 0 {
            serializer.serialize_u64(time.as_secs())
        } else {
            serializer.serialize_f64(time.as_secs_f64())
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        Duration::try_from_secs_f64(seconds).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn plan(wish: Value, image: &Value) -> Result<Option<HealthPlan>> {
        let wish: Option<Healthcheck> = serde_json::from_value(wish).unwrap();
        HealthWish::parse(wish.as_ref())?.plan(Some(&json!({"config": {"Healthcheck": image}})))
    }

    #[test]
    fn lengths_of_time() {
        for (text, wanted) in [
            ("1m30s", 90_000),
            ("500ms", 500),
            ("1.5h", 5_400_000),
            ("0", 0),
            ("2", 2000),
            (".5s", 500),
            ("1h1ms", 3_600_001),
        ] {
            assert_eq!(duration(text).unwrap(), Duration::from_millis(wanted), "{text}");
        }
        for bad in [
            "",
            "s",
            "1x",
            "1 s",
            "-1s",
            "1.2.3s",
            "1m30",
            "1e3s",
            ".s",
            "99999999999999999999h",
            "9999999999999h",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert!(duration_of(&Quantity::Float(-1.0)).is_err());
        assert!(duration_of(&Quantity::Float(f64::NAN)).is_err());
        assert_eq!(duration_of(&Quantity::Float(0.25)).unwrap(), Duration::from_millis(250));
    }

    #[test]
    fn what_is_not_set_is_the_images() {
        let image = json!({"Test": ["CMD", "a", "b"], "Interval": 2_000_000_000u64, "Retries": 7, "StartPeriod": 1_000_000u64});
        let both =
            plan(json!({"timeout": "4s", "retries": 1, "on_failure": "kill"}), &image).unwrap().unwrap();
        assert_eq!(both.command, ["a", "b"]);
        assert_eq!((both.interval.as_secs(), both.timeout.as_secs(), both.retries), (2, 4, 1));
        assert_eq!((both.start_period.as_millis(), both.start_interval.as_secs()), (1, 5));
        assert_eq!(both.on_failure, OnFailure::Kill);
        let own = plan(json!({"test": ["CMD-SHELL", "x y"]}), &image).unwrap().unwrap();
        assert_eq!((own.command, own.retries), (vec!["/bin/sh".into(), "-c".into(), "x y".into()], 7));
        assert_eq!(plan(json!({"test": ["NONE"]}), &image).unwrap(), None);
        assert_eq!(plan(json!(null), &json!({"Test": ["NONE"]})).unwrap(), None);
        assert_eq!(plan(json!(null), &json!(null)).unwrap(), None);
        let written = serde_json::to_value(&both).unwrap();
        assert_eq!((&written["interval"], &written["on_failure"]), (&json!(2), &json!("kill")));
        assert_eq!(serde_json::from_value::<HealthPlan>(written).unwrap(), both);
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (wish, image) in [
            (json!({"interval": "1s"}), json!(null)),
            (json!({"interval": "1us", "test": ["CMD", "a"]}), json!(null)),
            (json!({"test": ["CMD"]}), json!(null)),
            (json!({"test": ["CMD-SHELL", "a", "b"]}), json!(null)),
            (json!({"test": ["x"]}), json!(null)),
            (json!({"test": ["CMD", "a"], "on_failure": "x"}), json!(null)),
            (json!(null), json!({"Test": "a"})),
            (json!(null), json!({"Test": ["CMD", "a"], "Interval": -1})),
            (json!(null), json!({"Test": ["CMD", "a"], "Retries": "x"})),
        ] {
            assert_eq!(plan(wish.clone(), &image).unwrap_err().kind(), fault::Kind::Input, "{wish} {image}");
        }
    }
}
