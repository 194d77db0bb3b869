//! Holds the journal of a real run against the model: it may show what the model can, and nothing else.
//!
//! What a journal does not show (calls, looks, crashes, the end of settle windows) may have happened anywhere in between.

use super::{Action, Rules, State};
use std::collections::BTreeSet;

/// What the journal of a real run shows, in the words of the model: who did it is not said there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact {
    Intend(usize),
    Verify(usize),
    UndoIntend(usize),
    Undone(usize),
    TakeOver,
    TurnBack,
    Finish,
}

impl Fact {
    fn fits(self, action: Action) -> bool {
        match (self, action) {
            (Self::Intend(step), Action::Intend(_, at))
            | (Self::Verify(step), Action::Verify(_, at))
            | (Self::UndoIntend(step), Action::UndoIntend(_, at))
            | (Self::Undone(step), Action::Undone(_, at)) => step == at,
            (Self::TakeOver, Action::TakeOver(_))
            | (Self::TurnBack, Action::TurnBack(_))
            | (Self::Finish, Action::Finish(_)) => true,
            _ => false,
        }
    }
}

/// Whether the model can show exactly these facts in this order; else how many it could.
///
/// # Errors
/// The number of facts before the one that cannot be.
pub fn accepts(facts: &[Fact]) -> Result<(), usize> {
    let mut possible = BTreeSet::from([State::first(2, 2)]);
    for (before, fact) in facts.iter().enumerate() {
        // Whatever the journal does not show may have happened in between.
        let mut open: Vec<State> = possible.iter().copied().collect();
        let mut next = BTreeSet::new();
        while let Some(state) = open.pop() {
            for action in state.actions(Rules::ALL) {
                let Some(after) = state.after(action, Rules::ALL) else { continue };
                if fact.fits(action) {
                    next.insert(after);
                } else if !action.is_fact() && possible.insert(after) {
                    open.push(after);
                }
            }
        }
        if next.is_empty() {
            return Err(before);
        }
        possible = next;
    }
    Ok(())
}
