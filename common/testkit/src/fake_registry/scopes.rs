//! Tokens that allow what was asked for, and no more.

use super::{Answer, FakeRegistry, Request, State};

impl FakeRegistry {
    /// From now on a request takes a token whose scopes allow it. Nobody is given one for what is `denied`
    /// (`repository:secret:pull`).
    pub fn require_scopes(&self, denied: &[&str]) {
        let mut state = self.lock();
        state.scoped = true;
        state.denied = denied.iter().map(|&scope| scope.to_owned()).collect();
        state.challenge = format!("Bearer realm=\"http://127.0.0.1:{}/token\",service=\"fake\"", self.port);
    }
}

impl State {
    /// A token is the list of what it allows.
    pub(super) fn scoped_token(&self, path: &str) -> String {
        let query = path.split_once('?').map_or("", |(_, query)| query);
        let asked = query.split('&').filter_map(|pair| pair.strip_prefix("scope="));
        let mut allowed = Vec::new();
        for scope in asked.map(|scope| scope.replace("%2C", ",")) {
            let Some((resource, actions)) = scope.rsplit_once(':') else { continue };
            let actions = actions.split(',').map(|action| format!("{resource}:{action}"));
            allowed.extend(actions.filter(|one| !self.denied.contains(one)));
        }
        format!("allows|{}|", allowed.join("|"))
    }

    pub(super) fn lacks_scope(&self, request: &Request) -> Option<Answer> {
        if !self.scoped {
            return None;
        }
        let path = request.path.split('?').next().unwrap_or_default();
        let repository = ["/manifests/", "/blobs/", "/tags/", "/referrers/"]
            .iter()
            .find_map(|word| path.strip_prefix("/v2/")?.split_once(word))
            .map(|(repository, _)| repository)?;
        let action = match request.method.as_str() {
            "GET" | "HEAD" if !path.contains("/uploads/") => "pull",
            "DELETE" => "delete",
            _ => "push",
        };
        let mut needed = vec![format!("repository:{repository}:{action}")];
        if let Some((_, from)) = request.path.split_once("&from=") {
            needed.push(format!("repository:{from}:pull"));
        }
        let token = request.headers.get("authorization").cloned().unwrap_or_default();
        if needed.iter().all(|scope| token.contains(&format!("|{scope}|"))) {
            return None;
        }
        let challenge = format!("{},scope=\"{}\"", self.challenge, needed.join(" "));
        Some(Answer::error(401, "UNAUTHORIZED").with("WWW-Authenticate", challenge))
    }
}
