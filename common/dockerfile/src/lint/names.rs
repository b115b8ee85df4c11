//! Letters and comments: what the words of instructions show before they are read.

use super::{Check, Rule};
use crate::parser::{Arguments, Node};
use crate::{Dockerfile, File, Stage, text};
use std::collections::BTreeSet;

impl Check {
    pub(super) fn nodes(&mut self, file: &File) {
        for node in &file.nodes {
            match node.keyword.to_ascii_lowercase().as_str() {
                "maintainer" => self.report(
                    Rule::MaintainerDeprecated,
                    node.lines,
                    &node.comments,
                    "Maintainer instruction is deprecated in favor of using label",
                ),
                "from" => self.from(node),
                "arg" => {
                    let names = words(node).iter().map(|word| word.split('=').next().unwrap_or_default());
                    self.description(node, "ARG", &names.collect::<Vec<_>>());
                }
                _ => {}
            }
        }
    }

    fn from(&mut self, node: &Node) {
        let [_, keyword, name] = words(node) else { return };
        let lower = name.to_lowercase();
        if *name != lower {
            let message = format!("Stage name '{name}' should be lowercase");
            self.report(Rule::StageNameCasing, node.lines, &node.comments, message);
        }
        // Letters mixed within FROM are a matter of ConsistentInstructionCasing.
        let differs = match casing(&node.keyword) {
            Some(Casing::Lower) => *keyword != keyword.to_lowercase(),
            Some(Casing::Upper) => *keyword != keyword.to_uppercase(),
            None => false,
        };
        if differs {
            let message = format!("'{keyword}' and '{}' keywords' casing do not match", node.keyword);
            self.report(Rule::FromAsCasing, node.lines, &node.comments, message);
        }
        self.description(node, "FROM", &[&lower]);
    }

    fn description(&mut self, node: &Node, keyword: &str, names: &[&str]) {
        let (Some(comment), Some(first)) = (node.comments.last(), names.first()) else { return };
        if names.contains(&comment.split(' ').next().unwrap_or_default()) {
            return;
        }
        let name = if names.len() > 1 { "<arg_key>" } else { first };
        let message = format!("Comment for {keyword} should follow the format: `# {name} <description>`");
        self.report(Rule::InvalidDefinitionDescription, node.lines, &node.comments, message);
    }

    pub(super) fn stage_names(&mut self, dockerfile: &Dockerfile) {
        let mut seen = BTreeSet::new();
        for stage in &dockerfile.stages {
            let Some(name) = stage.name.as_deref() else { continue };
            if matches!(name, "context" | "scratch") {
                let message = format!(
                    "Stage name should not use the same name as reserved stage {}",
                    text::quote(name)
                );
                self.report(Rule::ReservedStageName, stage.lines, &[], message);
            }
            if !seen.insert(name) {
                let message =
                    format!("Duplicate stage name {}, stage names should be unique", text::quote(name));
                self.report(Rule::DuplicateStageName, stage.lines, &[], message);
            }
        }
    }

    /// All instructions of the stages in the letters of most of them.
    pub(super) fn casing(&mut self, dockerfile: &Dockerfile) {
        let of_stage = |stage: &Stage| {
            let from = (stage.keyword.clone(), stage.lines);
            let own = stage.instructions.iter().map(|located| (located.keyword.clone(), located.lines));
            std::iter::once(from).chain(own).collect::<Vec<_>>()
        };
        let keywords: Vec<_> = dockerfile.stages.iter().flat_map(of_stage).collect();
        let count = |wanted| keywords.iter().filter(|(keyword, _)| casing(keyword) == Some(wanted)).count();
        let mostly_lower = count(Casing::Lower) > count(Casing::Upper);
        for (keyword, lines) in keywords {
            let (right, name) = if mostly_lower {
                (keyword.to_lowercase(), "lowercase")
            } else {
                (keyword.to_uppercase(), "uppercase")
            };
            if keyword != right {
                let message =
                    format!("Command '{keyword}' should match the case of the command majority ({name})");
                self.report(Rule::ConsistentInstructionCasing, lines, &[], message);
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Casing {
    Lower,
    Upper,
}

fn casing(word: &str) -> Option<Casing> {
    if word == word.to_lowercase() {
        return Some(Casing::Lower);
    }
    (word == word.to_uppercase()).then_some(Casing::Upper)
}

fn words(node: &Node) -> &[String] {
    match &node.arguments {
        Arguments::Words(words) => words,
        _ => &[],
    }
}
