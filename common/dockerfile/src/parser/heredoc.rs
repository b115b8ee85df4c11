//! `<<NAME`: files within a Dockerfile.

use super::{Arguments, Node};
use crate::Problem;
use crate::instruction::Heredoc;
use crate::shell::{Lex, Nothing};

/// Whether an instruction may have heredocs: `RUN`, `COPY` and `ADD` that are not JSON, behind `ONBUILD`, too.
pub fn belongs_to(node: &Node) -> bool {
    let node = match &node.arguments {
        Arguments::Nested(inner) if is(node, "onbuild") => inner,
        _ => node,
    };
    ["add", "copy", "run"].iter().any(|keyword| is(node, keyword))
        && !matches!(node.arguments, Arguments::Json(_))
}

fn is(node: &Node, keyword: &str) -> bool {
    node.keyword.eq_ignore_ascii_case(keyword)
}

/// The heredocs an instruction names, still empty.
pub fn named(text: &str) -> Result<Vec<Heredoc>, Problem> {
    if !text.contains("<<") {
        return Ok(Vec::new());
    }
    // Quotes that do not end are a matter of the shell's, not of ours.
    let words = lex(true, true).words(text, &Nothing).map_or_else(|_| Vec::new(), |(words, _)| words);
    words.iter().filter_map(|word| heredoc(word).transpose()).collect()
}

/// One word as a heredoc: `3<<-"NAME"`.
pub fn heredoc(word: &str) -> Result<Option<Heredoc>, Problem> {
    let digits = word.len() - word.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (descriptor, rest) = word.split_at(digits);
    let Some(rest) = rest.strip_prefix("<<") else { return Ok(None) };
    let (chomp, rest) = rest.strip_prefix('-').map_or((false, rest), |rest| (true, rest));
    let rest = rest.trim_start_matches(['\t', '\n', '\u{c}', '\r', ' ']);
    if rest.is_empty() || rest.contains('<') {
        return Ok(None);
    }
    let (words, _) = lex(false, false).words(rest, &Nothing)?;
    let [name] = words.as_slice() else { return Ok(None) };
    let (raw, _) = lex(true, false).words(rest, &Nothing)?;
    let quotes = |word: &str| word.matches(['\'', '"']).count();
    Ok(Some(Heredoc {
        name: name.clone(),
        descriptor: descriptor.parse().ok(),
        // A quote that reading took away quoted something.
        expand: raw.first().is_some_and(|raw| quotes(raw) == quotes(name)),
        chomp,
        content: String::new(),
    }))
}

/// Heredocs are a shell's, whatever the Dockerfile's escape character is.
fn lex(raw_quotes: bool, raw_escapes: bool) -> Lex {
    Lex { raw_quotes, raw_escapes, skip_unset: true, ..Lex::new('\\') }
}

impl Heredoc {
    /// The content, tabs at the beginning of lines dropped where the heredoc asks for it.
    pub fn chomped(&self) -> String {
        if !self.chomp {
            return self.content.clone();
        }
        self.content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }
}
