//! Why a step did not do what it should.

use crate::lab::LabError;
use crate::lab::report::Outcome;

/// Why a step did not do what it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// What was expected and what was seen.
    pub(super) reason: String,
    /// This machine or this program cannot do it.
    pub(super) is_unsupported: bool,
    /// The path of the step stands in front of the reason.
    pub(super) is_placed: bool,
}

impl Trouble {
    pub(super) fn wrong(reason: impl Into<String>) -> Trouble {
        Trouble {
            reason: reason.into(),
            is_unsupported: false,
            is_placed: false,
        }
    }

    pub(super) fn unsupported(reason: impl Into<String>) -> Trouble {
        Trouble {
            is_unsupported: true,
            ..Trouble::wrong(reason)
        }
    }

    /// The same with what else went wrong; what is only unsupported says nothing of the product.
    pub(super) fn and(self, other: &str) -> Trouble {
        if self.reason.contains(other) {
            return self;
        }
        Trouble {
            reason: format!("{}\nbeside that: {other}", self.reason),
            is_unsupported: false,
            ..self
        }
    }

    pub(super) fn outcome(&self) -> Outcome {
        let reason = self.reason.clone();
        match self.is_unsupported {
            true => Outcome::Skipped(reason),
            false => Outcome::Failed(reason),
        }
    }
}

impl From<LabError> for Trouble {
    fn from(error: LabError) -> Trouble {
        match error.unsupported() {
            Some(reason) => Trouble::unsupported(reason),
            None => Trouble::wrong(error.to_string()),
        }
    }
}

impl From<String> for Trouble {
    fn from(text: String) -> Trouble {
        Trouble::wrong(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_fails_tells_what_else_went_wrong_once() {
        let both = Trouble::unsupported("no disk").and("`left` ended by itself");
        let expected = "no disk\nbeside that: `left` ended by itself";
        assert_eq!(both.outcome(), Outcome::Failed(expected.into()));
        assert_eq!(both.clone().and("`left` ended by itself"), both);
    }
}
