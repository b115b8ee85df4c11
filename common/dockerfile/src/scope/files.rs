//! `COPY` and `ADD`.

use super::run::base_name;
use super::{Action, Add, AddSource, Chmod, Copy, InlineFile, Placement, Scope, Words};
use crate::instruction::{self, Heredoc};
use crate::shell::Lex;
use crate::{Problem, Source, text};
use oci::Digest;

impl Scope {
    pub(super) fn copy(
        &self,
        copy: &instruction::Copy,
        source: Option<&Source>,
        words: &mut Words,
    ) -> Result<(Action, Option<String>), Problem> {
        let sources = self.all(&copy.placement.sources, words)?;
        for source in &sources {
            match AddSource::of(source) {
                AddSource::Local(_) => {}
                AddSource::Http(_) => return Err(no_remote("a URL", source)),
                AddSource::Git(_) => return Err(no_remote("a git repository", source)),
            }
        }
        let parents = if copy.parents { " --parents" } else { "" };
        let (placement, rest) = self.placement(&copy.placement, &sources, words)?;
        let copy =
            Copy { from: source.cloned().unwrap_or(Source::Main), sources, parents: copy.parents, placement };
        Ok((Action::Copy(copy), Some(format!("COPY{parents}{rest}"))))
    }

    pub(super) fn add(
        &self,
        add: &instruction::Add,
        words: &mut Words,
    ) -> Result<(Action, Option<String>), Problem> {
        let words_of_sources = self.all(&add.placement.sources, words)?;
        let checksum = self.optional(add.checksum.as_ref(), words)?;
        let (placement, rest) = self.placement(&add.placement, &words_of_sources, words)?;
        let sources: Vec<AddSource> = words_of_sources.iter().map(|source| AddSource::of(source)).collect();
        if let Some(checksum) = &checksum {
            check_checksum(checksum, &sources)?;
        }
        let add = Add { sources, checksum, keep_git_dir: add.keep_git_dir, unpack: add.unpack, placement };
        Ok((Action::Add(add), Some(format!("ADD{rest}"))))
    }

    /// What both share, and the history's text after the instruction's name and first flag.
    fn placement(
        &self,
        placement: &instruction::Placement,
        sources: &[String],
        words: &mut Words,
    ) -> Result<(Placement, String), Problem> {
        let chown = self.optional(placement.chown.as_ref(), words)?;
        let chmod = self.optional(placement.chmod.as_ref(), words)?;
        let destination = self.word(&placement.destination, words)?;
        let inline: Vec<InlineFile> =
            placement.heredocs.iter().map(|heredoc| self.inline(heredoc, words)).collect::<Result<_, _>>()?;
        let mut history = String::new();
        for (flag, value) in [("chown", &chown), ("chmod", &chmod)] {
            if let Some(value) = value {
                history.extend([" --", flag, "=", value]);
            }
        }
        let heredocs = placement.heredocs.iter().map(|heredoc| format!("<<{}", heredoc.name));
        for word in sources.iter().cloned().chain(heredocs).chain([destination.clone()]) {
            history.push(' ');
            history.push_str(&word);
        }
        history.push_str(" # buildkit");
        let placement = Placement {
            inline,
            destination: self.destination(&destination),
            chown,
            chmod: chmod.as_deref().map(Chmod::parse).transpose()?,
            link: placement.link,
            exclude: placement.exclude.clone(),
        };
        Ok((placement, history))
    }

    /// Absolute, with what says at its end that it is a directory.
    fn destination(&self, path: &str) -> String {
        let path = if matches!(path, "" | ".") { "./" } else { path };
        let mut absolute = text::resolve(self.directory(), path);
        if path.starts_with('/') {
            return absolute;
        }
        let end = match path {
            path if path.ends_with('/') => "/",
            path if path.ends_with("/.") => "/.",
            _ => "",
        };
        if absolute == "/" {
            absolute.clear();
            return format!("/{}", end.trim_start_matches('/'));
        }
        absolute + end
    }

    /// Variables mean something in the content, quotes do not; the escape character is a shell's.
    fn inline(&self, heredoc: &Heredoc, words: &mut Words) -> Result<InlineFile, Problem> {
        let name = base_name(&heredoc.name);
        if matches!(name, "" | "." | "..") || name.contains('\0') {
            return Err(Problem::new(format!("a heredoc cannot be a file named {:?}", heredoc.name)));
        }
        let mut content = heredoc.content.clone();
        if heredoc.expand {
            let lex = Lex { skip_quotes: true, ..Lex::new('\\') };
            content = self.expand(lex, &content, words)?;
        }
        Ok(InlineFile { path: name.to_owned(), mode: 0o644, content })
    }
}

fn no_remote(what: &str, source: &str) -> Problem {
    Problem::new(format!("COPY can't have {what} for a source: {}", crate::problem::shorten(source)))
        .hint("ADD can")
}

/// A digest of what HTTP brings, a commit of a repository.
fn check_checksum(checksum: &str, sources: &[AddSource]) -> Result<(), Problem> {
    match sources {
        [AddSource::Http(_)] => match Digest::parse(checksum) {
            Ok(_) => Ok(()),
            Err(fault) => Err(Problem::new(format!("--checksum: {fault}"))),
        },
        [AddSource::Git(_)] => {
            let is_commit =
                (1..=64).contains(&checksum.len()) && checksum.bytes().all(|b| b.is_ascii_hexdigit());
            if is_commit {
                Ok(())
            } else {
                Err(Problem::new(format!("--checksum={checksum:?} is no commit")))
            }
        }
        [AddSource::Local(_)] => Err(Problem::new("--checksum needs an HTTP or git source")),
        _ => Err(Problem::new("--checksum is of one source alone")),
    }
}

impl AddSource {
    /// What docker takes a source for: an HTTP address that ends in `.git` is a repository; a name that could be a file is one.
    pub fn of(source: &str) -> AddSource {
        let is_repository = url_path(source).as_bytes().ends_with(b".git");
        let scheme = source.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
        match scheme.as_deref() {
            Some("http" | "https") if is_repository => AddSource::Git(source.to_owned()),
            Some("http" | "https") => AddSource::Http(source.to_owned()),
            Some("git" | "ssh") => AddSource::Git(source.to_owned()),
            None if is_ssh_location(source) => AddSource::Git(source.to_owned()),
            _ => AddSource::Local(source.to_owned()),
        }
    }
}

fn url_path(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or_default()
}

/// `user@host:path`.
fn is_ssh_location(source: &str) -> bool {
    let Some((user, rest)) = source.split_once('@') else { return false };
    let Some((host, _)) = rest.split_once(':') else { return false };
    let are = |text: &str, others: &[u8]| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || others.contains(&b))
    };
    are(user, b"-_") && are(host, b"-.")
}

impl Chmod {
    fn parse(text: &str) -> Result<Chmod, Problem> {
        if text.bytes().all(|b| b.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
            return mode.map(Chmod::Octal).ok_or_else(|| bad_mode(text));
        }
        if text.split(',').all(is_symbolic) {
            Ok(Chmod::Symbolic(text.to_owned()))
        } else {
            Err(bad_mode(text))
        }
    }
}

fn bad_mode(text: &str) -> Problem {
    Problem::new(format!("--chmod={:?} is no mode", crate::problem::shorten(text)))
        .hint("an octal number up to 07777, or as chmod(1) has it: u=rwX,go=rX")
}

/// `[ugoa…][+-=][rwxXst… or one of ugo]…`, as chmod(1).
fn is_symbolic(clause: &str) -> bool {
    let actions = clause.trim_start_matches(['u', 'g', 'o', 'a']);
    if !actions.starts_with(['+', '-', '=']) {
        return false;
    }
    actions.split(['+', '-', '=']).skip(1).all(|permissions| {
        matches!(permissions, "u" | "g" | "o")
            || permissions.bytes().all(|b| matches!(b, b'r' | b'w' | b'x' | b'X' | b's' | b't'))
    })
}
