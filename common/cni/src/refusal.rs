//! How a plugin says no (specification, "Error").

use crate::{Version, shown};
use fault::{Fault, Kind};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Numbers of errors the specification gives a meaning.
pub mod code {
    pub const INCOMPATIBLE_VERSION: u64 = 1;
    pub const UNSUPPORTED_FIELD: u64 = 2;
    pub const UNKNOWN_CONTAINER: u64 = 3;
    pub const INVALID_ENVIRONMENT: u64 = 4;
    pub const IO_FAILURE: u64 = 5;
    pub const DECODING_FAILURE: u64 = 6;
    pub const INVALID_CONFIGURATION: u64 = 7;
    pub const TRY_AGAIN: u64 = 11;
    pub const NOT_AVAILABLE: u64 = 50;
    pub const LIMITED_CONNECTIVITY: u64 = 51;
    /// The first of those a plugin may give a meaning of its own.
    pub const OWN: u64 = 100;
}

/// The error object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    #[serde(default)]
    pub code: u64,
    #[serde(default)]
    pub msg: String,
    #[serde(default)]
    pub details: String,
}

impl Refusal {
    /// `None` for what is no error object.
    pub fn parse(output: &[u8]) -> Option<Refusal> {
        let answer: Value = serde_json::from_slice(output).ok()?;
        // What is derived would take a list of the members too.
        let refusal = Refusal::deserialize(answer.as_object()?).ok()?;
        (refusal.code != 0 || !refusal.msg.is_empty()).then_some(refusal)
    }

    pub fn kind(&self) -> Kind {
        match self.code {
            code::INCOMPATIBLE_VERSION
            | code::UNSUPPORTED_FIELD
            | code::DECODING_FAILURE
            | code::INVALID_CONFIGURATION => Kind::Input,
            code::UNKNOWN_CONTAINER => Kind::NotFound,
            code::TRY_AGAIN | code::NOT_AVAILABLE | code::LIMITED_CONNECTIVITY => Kind::Retryable,
            _ => Kind::Failed,
        }
    }

    pub fn fault(&self) -> Fault {
        let mut text = shown(&self.msg);
        // Many plugins say the same twice.
        if !self.details.trim().is_empty() && self.details.trim() != self.msg.trim() {
            let separator = if text.is_empty() { "" } else { ": " };
            text = format!("{text}{separator}{}", shown(&self.details));
        }
        if text.is_empty() {
            text = "no reason given".into();
        }
        let fault = Fault::new(self.kind(), format!("{text} (error {})", self.code));
        match self.code {
            code::INCOMPATIBLE_VERSION => {
                fault.hint("give the configuration a cniVersion all of its plugins know")
            }
            // Its other half, without which it gives no addresses and takes none back.
            _ if self.msg.contains("DHCP daemon") || self.details.contains("DHCP daemon") => {
                fault.hint("the plugin dhcp needs its daemon: run `dhcp daemon` from the folder of plugins")
            }
            _ => fault,
        }
    }

    /// What a plugin of ours says of its own failure.
    pub fn of(fault: &Fault) -> Refusal {
        let code = match fault.kind() {
            Kind::Usage | Kind::Input => code::INVALID_CONFIGURATION,
            Kind::Retryable => code::TRY_AGAIN,
            Kind::Failed if fault.os_error().is_some() => code::IO_FAILURE,
            // That the network is not there must not be taken for a container there is nothing to clean up for.
            Kind::Failed | Kind::NotFound | Kind::Conflict | Kind::Denied => code::OWN,
        };
        let subject = fault.subject().map(|subject| format!("{subject}: ")).unwrap_or_default();
        Refusal {
            code,
            msg: format!("{subject}{fault}"),
            details: fault.hint_text().unwrap_or_default().to_owned(),
        }
    }

    pub fn to_value(&self, version: Version) -> Value {
        json!({"cniVersion": version.name(), "code": self.code, "msg": self.msg, "details": self.details})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_becomes_a_failure_of_its_kind_and_back() {
        let refusal =
            Refusal::parse(br#"{"cniVersion":"1.0.0","code":7,"msg":"bad","details":"why"}"#).unwrap();
        let fault = refusal.fault();
        assert_eq!(fault.kind(), Kind::Input);
        assert_eq!(fault.to_string(), "bad: why (error 7)");
        assert_eq!(Refusal::of(&fault).code, 7);
        assert_eq!(Refusal { code: 11, ..Refusal::default() }.fault().kind(), Kind::Retryable);
        assert_eq!(Refusal::of(&Fault::not_found("no such network")).code, code::OWN);
        let dial = Refusal {
            code: 999,
            msg: "error dialing DHCP daemon: no such file".into(),
            ..Refusal::default()
        };
        assert!(dial.fault().hint_text().is_some_and(|hint| hint.contains("`dhcp daemon`")));
        for nothing in [&b"{}"[..], b"[]", b"oops", b"", br#"{"code":-1}"#] {
            assert_eq!(Refusal::parse(nothing), None);
        }
    }

    #[test]
    fn what_a_plugin_prints_cannot_reach_a_terminal_nor_fill_it() {
        let msg = format!("\u{1b}[2Jred\n{}", "x".repeat(100_000));
        let text = Refusal { code: 100, msg: msg.clone(), details: msg }.fault().to_string();
        assert!(!text.contains('\u{1b}') && !text.contains('\n'));
        assert!(text.len() < 4200, "{}", text.len());
    }
}
