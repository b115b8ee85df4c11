//! Who one is to a server of files or repositories, as build secrets say (`GIT_AUTH_TOKEN`, `HTTP_AUTH_HEADER_HOST` and the like).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fault::{Fault, Result};

/// Something that is told to one server and nobody else.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// What Authorization says to web servers.
    web: String,
    /// And to those of repositories: a token is a password there.
    git: String,
}

// Never derived: it is a secret.
impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Login(…)")
    }
}

impl Login {
    /// By a token: `Bearer` for files, the password of `x-access-token` for repositories, as BuildKit sends it.
    ///
    /// # Errors
    /// [`fault::Kind::Input`] if it cannot be in a header.
    pub fn token(token: &str) -> Result<Login> {
        let token = checked(token)?;
        let user = STANDARD.encode(format!("x-access-token:{token}"));
        Ok(Login { web: format!("Bearer {token}"), git: format!("basic {user}") })
    }

    /// By what the header Authorization has to say.
    ///
    /// # Errors
    /// As [`Login::token`].
    pub fn header(value: &str) -> Result<Login> {
        let value = checked(value)?.to_owned();
        Ok(Login { web: value.clone(), git: value })
    }

    pub(crate) fn bearer(&self) -> &str {
        &self.web
    }

    pub(crate) fn git(&self) -> &str {
        &self.git
    }
}

/// Secrets out of files end in a line break.
fn checked(text: &str) -> Result<&str> {
    let text = text.trim();
    if text.is_empty() || text.bytes().any(|byte| byte.is_ascii_control() || !byte.is_ascii()) {
        return Err(Fault::input("the secret to log in with is empty or cannot be sent"));
    }
    Ok(text)
}
