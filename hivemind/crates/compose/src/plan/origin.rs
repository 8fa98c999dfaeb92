//! From fields of the model to where in the files what they hold was said.

use crate::spot::Spot;

/// Fields of an object, and the values that they come from.
#[derive(Default)]
pub(super) struct Origins {
    known: Vec<(String, Spot)>,
}

impl Origins {
    /// Notes that `field`, such as `spec.template.containers[0].env[3]`, comes from what stands at `spot`.
    pub(super) fn note(&mut self, field: impl Into<String>, spot: &Spot) {
        self.known.push((field.into(), spot.clone()));
    }

    /// Where `field`, or the smallest part of the object that it is in and that is known, comes from.
    pub(super) fn of(&self, field: &str) -> Option<&Spot> {
        let is_within = |outer: &str| {
            field.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        let known = self.known.iter().filter(|(outer, _)| is_within(outer));
        known.max_by_key(|(outer, _)| outer.len()).map(|(_, spot)| spot)
    }
}
