//! What a token has to allow (distribution, "Token Scope Documentation").

/// As many as a token is asked for at once.
const MAX_RESOURCES: usize = 16;
/// Far above what names of repositories take.
const MAX_LENGTH: usize = 600;

/// Resources with what is to be done to them: `repository:team/app:pull,push`. Each resource once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scopes(Vec<(String, Vec<String>)>);

impl Scopes {
    /// Adds scopes, several separated by blanks. What is no scope, or too much, is left out: a registry that asks for
    /// nonsense gets a token that does not help it.
    pub(crate) fn add(&mut self, text: &str) {
        for scope in text.split_whitespace().filter(|scope| scope.len() <= MAX_LENGTH) {
            let Some((resource, actions)) = scope.rsplit_once(':') else { continue };
            let at = match self.0.iter().position(|(known, _)| known == resource) {
                Some(at) => at,
                None if self.0.len() < MAX_RESOURCES => {
                    self.0.push((resource.to_owned(), Vec::new()));
                    self.0.len() - 1
                }
                None => continue,
            };
            let Some((_, known)) = self.0.get_mut(at) else { continue };
            for action in actions.split(',') {
                if !known.iter().any(|other| other == action) {
                    known.push(action.to_owned());
                }
            }
        }
    }

    pub(crate) fn remove(&mut self, resource: &str) {
        self.0.retain(|(known, _)| known != resource);
    }

    /// The same for the same scopes, in whatever order they were added: none means anything.
    pub(crate) fn texts(&self) -> Vec<String> {
        let text = |(resource, actions): &(String, Vec<String>)| {
            let mut actions = actions.clone();
            actions.sort();
            format!("{resource}:{}", actions.join(","))
        };
        let mut texts: Vec<String> = self.0.iter().map(text).collect();
        texts.sort();
        texts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_named_once() {
        let mut scopes = Scopes::default();
        scopes.add("repository:a/b:pull");
        scopes.add("repository:a/b:pull,push repository:localhost:5000/c:pull nonsense ");
        let before = scopes.clone();
        scopes.add("repository:a/b:push");
        assert_eq!(scopes, before);
        assert_eq!(scopes.texts(), ["repository:a/b:pull,push", "repository:localhost:5000/c:pull"]);
        let mut others = Scopes::default();
        others.add("repository:localhost:5000/c:pull\trepository:a/b:push,pull");
        assert_eq!(others.texts(), scopes.texts());
        scopes.remove("repository:a/b");
        assert_eq!(scopes.texts(), ["repository:localhost:5000/c:pull"]);
        for number in 0..100 {
            scopes.add(&format!("repository:{number}:pull"));
        }
        scopes.add(&format!("repository:{}:pull", "x".repeat(1000)));
        assert_eq!(scopes.texts().len(), MAX_RESOURCES);
    }
}
