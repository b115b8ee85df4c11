//! From an instruction's words to its type.

use super::flags::{Flags, Kind};
use super::{Add, Arg, Command, Copy, Instruction, Pair, Placement, health, run};
use crate::parser::{Arguments, Node, heredoc};
use crate::{Dockerfile, File, Located, Problem, Stage, limits, parse, suggest};

const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// The stages of a file, and the arguments before them.
pub(crate) fn stages(file: &File) -> Result<Dockerfile, Problem> {
    let mut dockerfile = Dockerfile {
        escape: file.escape,
        syntax: file.syntax.clone(),
        global_args: Vec::new(),
        stages: Vec::new(),
    };
    for node in &file.nodes {
        let locate = |problem: Problem| problem.at(node.lines).of(&node.text);
        if node.keyword.eq_ignore_ascii_case("from") {
            dockerfile.stages.push(stage(node).map_err(locate)?);
            continue;
        }
        let instruction = instruction(node).map_err(locate)?;
        match (dockerfile.stages.last_mut(), instruction) {
            (Some(stage), instruction) => stage.instructions.push(located(node, instruction)),
            (None, Instruction::Arg(args)) => dockerfile.global_args.push(located(node, args)),
            (None, _) => {
                let problem = Problem::new(format!("{} stands before the first FROM", node.keyword));
                return Err(locate(problem.hint("only ARG may stand there")));
            }
        }
    }
    if dockerfile.stages.is_empty() {
        return Err(Problem::new("the Dockerfile has no FROM"));
    }
    Ok(dockerfile)
}

/// The instructions that `ONBUILD` of a base image asks for. Their lines are those of the trigger; where they come from is for
/// the caller to say.
///
/// # Errors
/// More than one instruction in one of them, `ONBUILD`, `FROM` and `MAINTAINER`, and whatever is wrong with an instruction.
pub fn triggers(expressions: &[String]) -> Result<Vec<Located<Instruction>>, Problem> {
    if expressions.len() > limits::TRIGGERS {
        return Err(Problem::new(format!("the base has more than {} ONBUILD triggers", limits::TRIGGERS)));
    }
    let trigger = |expression: &String| {
        let file = parse(expression.as_bytes())?;
        let [node] = file.nodes.as_slice() else {
            return Err(Problem::new("it has to be a single instruction"));
        };
        if let Some(problem) = forbidden_trigger(&node.keyword) {
            return Err(problem);
        }
        Ok(located(node, instruction(node)?))
    };
    let named = |expression: &String| {
        trigger(expression).map_err(|problem| Problem {
            // Its lines are in no file anybody has.
            lines: None,
            what: format!("ONBUILD trigger of the base: {}", problem.what),
            ..problem.of(expression)
        })
    };
    expressions.iter().map(named).collect()
}

fn located<T>(node: &Node, value: T) -> Located<T> {
    Located {
        lines: node.lines,
        text: node.text.trim().to_owned(),
        keyword: node.keyword.clone(),
        comments: node.comments.clone(),
        value,
    }
}

fn stage(node: &Node) -> Result<Stage, Problem> {
    let mut flags = Flags::read(&node.flags, &[("platform", Kind::One)])?;
    let (base, named) = match words(node) {
        [base] => (base, None),
        [base, keyword, name] if keyword.eq_ignore_ascii_case("as") => {
            (base, Some((keyword.clone(), name.clone())))
        }
        _ => {
            return Err(
                Problem::new("FROM requires either one or three arguments").hint("FROM image [AS name]")
            );
        }
    };
    let name = named.as_ref().map(|(_, name)| name.to_lowercase());
    if let Some(name) = name.as_deref().filter(|name| !is_stage_name(name)) {
        return Err(Problem::new(format!("invalid name of a stage: {:?}", crate::problem::shorten(name)))
            .hint("a letter, then letters, digits and -_."));
    }
    Ok(Stage {
        base: base.clone(),
        platform: flags.one("platform"),
        description: name.as_deref().and_then(|name| description(node, name)),
        name,
        lines: node.lines,
        text: node.text.trim().to_owned(),
        keyword: node.keyword.clone(),
        named,
        comments: node.comments.clone(),
        instructions: Vec::new(),
    })
}

fn is_stage_name(name: &str) -> bool {
    let belongs = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
    name.bytes().next().is_some_and(|b| b.is_ascii_lowercase()) && name.bytes().all(belongs)
}

/// `# NAME what it is for`.
fn description(node: &Node, name: &str) -> Option<String> {
    let of_name = |line: &String| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned);
    node.comments.iter().find_map(of_name)
}

fn instruction(node: &Node) -> Result<Instruction, Problem> {
    let keyword = node.keyword.to_ascii_uppercase();
    let keyword = keyword.as_str();
    Ok(match keyword {
        "ADD" => Instruction::Add(add(node)?),
        "ARG" => Instruction::Arg(args(node)?),
        "CMD" => Instruction::Cmd(command(no_flags(node)?)),
        "COPY" => Instruction::Copy(copy(node)?),
        "ENTRYPOINT" => Instruction::Entrypoint(command(no_flags(node)?)),
        "ENV" => Instruction::Env(pairs(no_flags(node)?, keyword)?),
        "EXPOSE" => {
            let mut ports = some(no_flags(node)?, keyword)?.to_vec();
            ports.sort_unstable();
            Instruction::Expose(ports)
        }
        "HEALTHCHECK" => Instruction::Healthcheck(health::healthcheck(node)?),
        "LABEL" => Instruction::Label(pairs(no_flags(node)?, keyword)?),
        "MAINTAINER" => Instruction::Maintainer(one(no_flags(node)?, keyword)?),
        "ONBUILD" => Instruction::Onbuild(onbuild(no_flags(node)?)?),
        "RUN" => Instruction::Run(run::run(node, command(node))?),
        "SHELL" => Instruction::Shell(shell(no_flags(node)?)?),
        "STOPSIGNAL" => Instruction::StopSignal(one(no_flags(node)?, keyword)?),
        "USER" => Instruction::User(one(no_flags(node)?, keyword)?),
        "VOLUME" => Instruction::Volume(volumes(no_flags(node)?)?),
        "WORKDIR" => Instruction::Workdir(one(no_flags(node)?, keyword)?),
        _ => {
            let shown = crate::problem::shorten(&node.keyword);
            let problem = Problem::new(format!("unknown instruction {shown}"));
            return Err(match suggest::hint(keyword, KEYWORDS) {
                Some(hint) => problem.hint(hint),
                None => problem,
            });
        }
    })
}

fn no_flags(node: &Node) -> Result<&Node, Problem> {
    Flags::read(&node.flags, &[]).map(|_| node)
}

fn words(node: &Node) -> &[String] {
    match &node.arguments {
        Arguments::Words(words) | Arguments::Json(words) => words,
        Arguments::Pairs(_) | Arguments::Nested(_) => &[],
    }
}

fn some<'a>(node: &'a Node, keyword: &str) -> Result<&'a [String], Problem> {
    match words(node) {
        [] => Err(Problem::new(format!("{keyword} requires at least one argument"))),
        words => Ok(words),
    }
}

fn one(node: &Node, keyword: &str) -> Result<String, Problem> {
    match words(node) {
        [one] => Ok(one.clone()),
        _ => Err(Problem::new(format!("{keyword} requires exactly one argument"))),
    }
}

fn command(node: &Node) -> Command {
    match &node.arguments {
        Arguments::Json(words) => Command::Exec(words.clone()),
        _ => Command::Shell(words(node).join(" ")),
    }
}

fn pairs(node: &Node, keyword: &str) -> Result<Vec<Pair>, Problem> {
    let Arguments::Pairs(pairs) = &node.arguments else { return Ok(Vec::new()) };
    if pairs.is_empty() {
        return Err(Problem::new(format!("{keyword} requires at least one argument"))
            .hint(format!("{keyword} name=value")));
    }
    let pair = |(name, value, equals): &(String, String, bool)| {
        if name.is_empty() {
            return Err(Problem::new(format!("{keyword} names can not be blank")));
        }
        Ok(Pair { name: name.clone(), value: value.clone(), legacy: !equals })
    };
    pairs.iter().map(pair).collect()
}

fn args(node: &Node) -> Result<Vec<Arg>, Problem> {
    let arg = |word: &String| {
        let (name, default) = match word.split_once('=') {
            Some(("", _)) => return Err(Problem::new("ARG names can not be blank")),
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word.as_str(), None),
        };
        Ok(Arg { name: name.to_owned(), default, description: description(node, name) })
    };
    some(no_flags(node)?, "ARG")?.iter().map(arg).collect()
}

fn volumes(node: &Node) -> Result<Vec<String>, Problem> {
    let volume = |word: &String| match word.trim() {
        "" => Err(Problem::new("a VOLUME can not be an empty string")),
        word => Ok(word.to_owned()),
    };
    some(node, "VOLUME")?.iter().map(volume).collect()
}

fn shell(node: &Node) -> Result<Vec<String>, Problem> {
    match &node.arguments {
        Arguments::Json(words) if !words.is_empty() => Ok(words.clone()),
        Arguments::Words(words) if !words.is_empty() => {
            Err(Problem::new("SHELL requires the arguments to be in JSON form")
                .hint("SHELL [\"/bin/bash\", \"-c\"]"))
        }
        _ => Err(Problem::new("SHELL requires at least one argument")),
    }
}

fn forbidden_trigger(keyword: &str) -> Option<Problem> {
    match keyword.to_ascii_uppercase().as_str() {
        "ONBUILD" => Some(Problem::new("ONBUILD ONBUILD isn't allowed")),
        keyword @ ("MAINTAINER" | "FROM") => {
            Some(Problem::new(format!("{keyword} isn't allowed as an ONBUILD trigger")))
        }
        _ => None,
    }
}

/// The instruction as text again, with what its heredocs hold.
fn onbuild(node: &Node) -> Result<String, Problem> {
    let Arguments::Nested(inner) = &node.arguments else {
        return Err(Problem::new("ONBUILD requires at least one argument"));
    };
    if let Some(problem) = forbidden_trigger(&inner.keyword) {
        return Err(problem);
    }
    let text = node.text.trim_start();
    let mut text = text.get("ONBUILD".len()..).unwrap_or_default().trim_start().to_owned();
    for heredoc in &node.heredocs {
        text.push('\n');
        text.push_str(&heredoc.content);
        text.push_str(&heredoc.name);
    }
    Ok(text)
}

fn copy(node: &Node) -> Result<Copy, Problem> {
    let known = [
        ("from", Kind::One),
        ("chown", Kind::One),
        ("chmod", Kind::One),
        ("link", Kind::Switch),
        ("parents", Kind::Switch),
        ("exclude", Kind::Many),
    ];
    let mut flags = Flags::read(&node.flags, &known)?;
    Ok(Copy {
        from: flags.one("from"),
        parents: flags.switch("parents").unwrap_or(false),
        placement: placement(node, flags, "COPY")?,
    })
}

fn add(node: &Node) -> Result<Add, Problem> {
    let known = [
        ("chown", Kind::One),
        ("chmod", Kind::One),
        ("link", Kind::Switch),
        ("keep-git-dir", Kind::Switch),
        ("checksum", Kind::One),
        ("unpack", Kind::Switch),
        ("exclude", Kind::Many),
    ];
    let mut flags = Flags::read(&node.flags, &known)?;
    Ok(Add {
        checksum: flags.one("checksum"),
        keep_git_dir: flags.switch("keep-git-dir"),
        unpack: flags.switch("unpack"),
        placement: placement(node, flags, "ADD")?,
    })
}

fn placement(node: &Node, mut flags: Flags, keyword: &str) -> Result<Placement, Problem> {
    let (destination, from) = match words(node) {
        [from @ .., destination] if !from.is_empty() => (destination, from),
        _ => {
            return Err(Problem::new(format!("{keyword} requires at least two arguments"))
                .hint("one or more sources, then the destination"));
        }
    };
    if matches!(heredoc(destination), Ok(Some(_))) {
        return Err(Problem::new(format!("{keyword} cannot accept a heredoc as a destination")));
    }
    let mut sources = Vec::new();
    let mut heredocs = Vec::new();
    for word in from {
        let Ok(Some(mut heredoc)) = heredoc(word) else {
            sources.push(word.clone());
            continue;
        };
        // The last of a name, and nothing where JSON keeps it from having any content.
        if let Some(written) = node.heredocs.iter().rfind(|written| written.name == heredoc.name) {
            heredoc.content.clone_from(&written.content);
        }
        heredoc.content = heredoc.chomped();
        heredocs.push(heredoc);
    }
    Ok(Placement {
        sources,
        heredocs,
        destination: destination.clone(),
        chown: flags.one("chown"),
        chmod: flags.one("chmod"),
        link: flags.switch("link").unwrap_or(false),
        exclude: flags.many("exclude"),
    })
}
