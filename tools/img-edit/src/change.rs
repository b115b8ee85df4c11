//! Instructions of a Dockerfile that change an image's configuration (Dockerfile reference), as `--change` of docker's commit and
//! import take them.

use crate::{Args, config};
use cli::{Fault, Result};
use serde_json::{Value, json};

/// Applies instructions in their order.
///
/// # Errors
/// [`cli::Kind::Usage`] for what is no such instruction, naming it.
pub fn apply(instructions: &[String], config: &mut Value) -> Result<()> {
    let sets_command = instructions.iter().any(|text| keyword(text).0 == "CMD");
    for text in instructions {
        one(text, config, sets_command).map_err(|fault| fault.as_kind(cli::Kind::Usage).on(text.trim()))?;
    }
    Ok(())
}

fn keyword(text: &str) -> (String, &str) {
    let text = text.trim();
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    (word.to_ascii_uppercase(), rest.trim())
}

fn one(text: &str, document: &mut Value, sets_command: bool) -> Result<()> {
    let (word, rest) = keyword(text);
    if rest.is_empty() {
        return Err(Fault::usage("the instruction says nothing"));
    }
    let mut args = Args::default();
    let variables = Variables::of(document);
    match word.as_str() {
        "CMD" => return command(document, "Cmd", rest),
        "ENTRYPOINT" => {
            command(document, "Entrypoint", rest)?;
            // The command of before was meant for another entrypoint.
            if !sets_command && let Some(process) = document.get_mut("config").and_then(Value::as_object_mut)
            {
                process.shift_remove("Cmd");
            }
            return Ok(());
        }
        "SHELL" => args.shell = Some(rest.to_owned()),
        "ENV" => args.env = pairs(rest, &variables, true)?,
        "LABEL" => args.label = pairs(rest, &variables, true)?,
        "EXPOSE" => args.expose = words(rest, &variables)?,
        "VOLUME" => args.volume = json_words(rest).map_or_else(|| words(rest, &variables), Ok)?,
        "USER" => args.user = Some(single(rest, &variables)?),
        "STOPSIGNAL" => args.stop_signal = Some(single(rest, &variables)?),
        "WORKDIR" => args.workdir = Some(below(document, &single(rest, &variables)?)),
        "ONBUILD" => args.onbuild = vec![rest.to_owned()],
        "MAINTAINER" => args.author = Some(rest.to_owned()),
        "HEALTHCHECK" => healthcheck(rest, &mut args)?,
        _ => {
            return Err(Fault::usage(format!("{word} is no instruction that changes a configuration")).hint(
                "CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, SHELL, STOPSIGNAL, USER, VOLUME and WORKDIR are",
            ));
        }
    }
    config::apply(&args, document)
}

/// The form with brackets is taken as it is, the other is run by the image's shell.
fn command(document: &mut Value, member: &str, rest: &str) -> Result<()> {
    let words = if let Some(words) = json_words(rest) {
        words
    } else {
        let shell = document["config"]["Shell"].as_array().cloned().unwrap_or_default();
        let mut words: Vec<String> = shell.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        if words.is_empty() {
            words = vec!["/bin/sh".to_owned(), "-c".to_owned()];
        }
        words.push(rest.to_owned());
        words
    };
    config::process(document)?.insert(member.to_owned(), json!(words));
    Ok(())
}

fn json_words(text: &str) -> Option<Vec<String>> {
    if text.starts_with('[') { serde_json::from_str(text).ok() } else { None }
}

fn below(document: &Value, dir: &str) -> String {
    if dir.starts_with('/') {
        return dir.to_owned();
    }
    let before = document["config"]["WorkingDir"].as_str().unwrap_or("/");
    format!("{}/{dir}", before.trim_end_matches('/'))
}

fn healthcheck(rest: &str, args: &mut Args) -> Result<()> {
    if rest.eq_ignore_ascii_case("NONE") {
        args.no_healthcheck = true;
        return Ok(());
    }
    let mut rest = rest;
    while let Some(option) = rest.strip_prefix("--") {
        let end = option.find(char::is_whitespace).unwrap_or(option.len());
        let (option, after) = option.split_at(end);
        let (name, value) =
            option.split_once('=').ok_or_else(|| Fault::usage(format!("--{option} has no value")))?;
        let place = match name {
            "interval" => &mut args.health_interval,
            "timeout" => &mut args.health_timeout,
            "start-period" => &mut args.health_start_period,
            "start-interval" => &mut args.health_start_interval,
            "retries" => {
                let retries =
                    value.parse().map_err(|_| Fault::usage(format!("{value} is no number of retries")))?;
                args.health_retries = Some(retries);
                rest = after.trim_start();
                continue;
            }
            _ => return Err(Fault::usage(format!("HEALTHCHECK has no option --{name}"))),
        };
        *place = Some(value.to_owned());
        rest = after.trim_start();
    }
    let (word, command) = keyword(rest);
    if word != "CMD" || command.is_empty() {
        return Err(Fault::usage("HEALTHCHECK takes NONE or CMD with a command"));
    }
    if json_words(command).is_some() {
        return Err(Fault::usage("a health check without a shell is not supported here")
            .hint("HEALTHCHECK CMD command arguments…"));
    }
    args.health_cmd = Some(command.to_owned());
    Ok(())
}

/// The variables of the image, which instructions may refer to.
struct Variables(Vec<(String, String)>);

impl Variables {
    fn of(document: &Value) -> Variables {
        let env = document["config"]["Env"].as_array().into_iter().flatten().filter_map(Value::as_str);
        Variables(
            env.filter_map(|text| text.split_once('='))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        )
    }

    fn get(&self, name: &str) -> &str {
        self.0.iter().rev().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }
}

/// Splits at white space outside of quotes, takes quotes and backslashes away, and puts variables in (`$NAME`, `${NAME}`, with
/// `:-` and `:+`), except in single quotes.
fn words(text: &str, variables: &Variables) -> Result<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\'' | '"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, Some(open)) if c == open => quote = None,
            ('\\', None | Some('"')) => {
                let next = chars.next().ok_or_else(|| Fault::usage("it ends in a backslash"))?;
                let word = word.get_or_insert_default();
                // Within quotes a backslash quotes these only.
                if quote.is_some() && !matches!(next, '"' | '\\' | '$') {
                    word.push('\\');
                }
                word.push(next);
            }
            ('$', None | Some('"')) => {
                let value = variable(&mut chars, variables)?;
                word.get_or_insert_default().push_str(&value);
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(Fault::usage("a quote is not closed"));
    }
    words.extend(word);
    Ok(words)
}

fn variable(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, variables: &Variables) -> Result<String> {
    let is_name = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
    if chars.next_if_eq(&'{').is_none() {
        let name: String = std::iter::from_fn(|| chars.next_if(is_name)).collect();
        return Ok(if name.is_empty() { "$".to_owned() } else { variables.get(&name).to_owned() });
    }
    let name: String = std::iter::from_fn(|| chars.next_if(is_name)).collect();
    let rest: String = std::iter::from_fn(|| chars.next_if(|c| *c != '}')).collect();
    if chars.next().is_none() || name.is_empty() {
        return Err(Fault::usage("a variable's bracket is not closed"));
    }
    let value = variables.get(&name);
    match rest.as_str() {
        "" => Ok(value.to_owned()),
        rest => match (rest.strip_prefix(":-"), rest.strip_prefix(":+")) {
            (Some(other), _) => Ok(if value.is_empty() { other } else { value }.to_owned()),
            (_, Some(other)) => Ok(if value.is_empty() { "" } else { other }.to_owned()),
            _ => Err(Fault::usage(format!("${{{name}{rest}}} is not supported"))),
        },
    }
}

fn single(text: &str, variables: &Variables) -> Result<String> {
    let mut words = words(text, variables)?.into_iter();
    match (words.next(), words.next()) {
        (Some(word), None) => Ok(word),
        _ => Err(Fault::usage("it takes one word")),
    }
}

/// `NAME=value NAME="other value"`, or the old form `NAME value to the end of the line`.
fn pairs(text: &str, variables: &Variables, old_form: bool) -> Result<Vec<String>> {
    let first = text.split(char::is_whitespace).next().unwrap_or_default();
    if old_form && !first.contains('=') {
        let (name, value) = text
            .split_once(char::is_whitespace)
            .ok_or_else(|| Fault::usage(format!("{text} has no value")))?;
        return Ok(vec![format!("{name}={}", words(value.trim(), variables)?.join(" "))]);
    }
    let words = words(text, variables)?;
    match words.iter().find(|word| !word.contains('=')) {
        Some(word) => Err(Fault::usage(format!("{word} has no value"))),
        None => Ok(words),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(instructions: &[&str]) -> Value {
        let mut document =
            json!({"config": {"Env": ["PATH=/bin", "HOME=/root"], "Cmd": ["old"], "WorkingDir": "/srv"}});
        let instructions: Vec<String> = instructions.iter().map(|&text| text.to_owned()).collect();
        apply(&instructions, &mut document).unwrap();
        document["config"].take()
    }

    #[test]
    fn instructions_change_the_configuration() {
        let config = changed(&[
            "CMD [\"a\", \"b c\"]",
            "env A=b C=\"d $HOME\" PATH=${PATH}:/x E='$HOME'",
            "ENV OLD some  thing",
        ]);
        assert_eq!(config["Cmd"], json!(["a", "b c"]));
        assert_eq!(
            config["Env"],
            json!(["PATH=/bin:/x", "HOME=/root", "A=b", "C=d /root", "E=$HOME", "OLD=some thing"])
        );
        assert_eq!(changed(&["CMD run it"])["Cmd"], json!(["/bin/sh", "-c", "run it"]));
        assert_eq!(
            changed(&["SHELL [\"/bin/bash\",\"-c\"]", "CMD x"])["Cmd"],
            json!(["/bin/bash", "-c", "x"])
        );
        let config = changed(&["ENTRYPOINT [\"/e\"]"]);
        assert_eq!((&config["Entrypoint"], &config["Cmd"]), (&json!(["/e"]), &Value::Null));
        assert_eq!(changed(&["ENTRYPOINT [\"/e\"]", "CMD [\"x\"]"])["Cmd"], json!(["x"]));
        let config = changed(&[
            "EXPOSE 80 53/udp",
            "VOLUME [\"/a\", \"/b\"]",
            "VOLUME /c /d",
            "WORKDIR sub",
            "USER 1:2",
            "STOPSIGNAL SIGINT",
            "LABEL a=1 \"b c\"=\"d e\"",
            "ONBUILD RUN x",
        ]);
        assert_eq!(config["ExposedPorts"], json!({"80/tcp": {}, "53/udp": {}}));
        assert_eq!(config["Volumes"], json!({"/a": {}, "/b": {}, "/c": {}, "/d": {}}));
        assert_eq!((&config["WorkingDir"], &config["User"]), (&json!("/srv/sub"), &json!("1:2")));
        assert_eq!(config["Labels"], json!({"a": "1", "b c": "d e"}));
        assert_eq!(config["OnBuild"], json!(["RUN x"]));
        let config = changed(&["HEALTHCHECK --interval=5s --retries=2 CMD curl -f localhost"]);
        assert_eq!(config["Healthcheck"]["Test"], json!(["CMD-SHELL", "curl -f localhost"]));
        assert_eq!(config["Healthcheck"]["Interval"], json!(5_000_000_000_u64));
        assert_eq!(changed(&["HEALTHCHECK NONE"])["Healthcheck"]["Test"], json!(["NONE"]));
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in [
            "RUN x",
            "",
            "ENV",
            "ENV A",
            "ENV A=b C",
            "LABEL a=\"b",
            "ENV A=${B",
            "WORKDIR a b",
            "HEALTHCHECK --x=1 CMD y",
            "HEALTHCHECK CMD",
            "EXPOSE x",
            "FROM a",
            "ENV A=b\\",
        ] {
            let fault = apply(&[text.to_owned()], &mut json!({})).unwrap_err();
            assert_eq!(fault.kind(), cli::Kind::Usage, "{text}");
        }
    }
}
