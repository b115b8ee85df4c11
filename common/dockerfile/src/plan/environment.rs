//! Variables by name, in the order they came.

use crate::shell::Variables;
use crate::{Problem, limits};
use std::collections::HashMap;

/// Setting one again leaves it where it is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment {
    variables: Vec<(String, String)>,
    places: HashMap<String, usize>,
    bytes: usize,
}

impl Environment {
    pub fn set(&mut self, name: &str, value: String) -> Result<(), Problem> {
        self.bytes += value.len();
        if let Some(place) = self.places.get(name) {
            let old = std::mem::replace(&mut self.variables[*place].1, value);
            self.bytes -= old.len();
        } else {
            self.bytes += name.len() + 2;
            self.places.insert(name.to_owned(), self.variables.len());
            self.variables.push((name.to_owned(), value));
        }
        if self.bytes > limits::ENVIRONMENT_BYTES {
            let what = format!("the variables grow beyond {} bytes together", limits::ENVIRONMENT_BYTES);
            return Err(Problem::new(what));
        }
        Ok(())
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.variables.iter().map(|(name, _)| name.as_str())
    }

    pub fn len(&self) -> usize {
        self.variables.len()
    }

    /// `NAME=value`.
    pub fn list(&self) -> Vec<String> {
        self.variables.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }
}

impl Variables for Environment {
    fn value(&self, name: &str) -> Option<&str> {
        self.places.get(name).map(|place| self.variables[*place].1.as_str())
    }
}
