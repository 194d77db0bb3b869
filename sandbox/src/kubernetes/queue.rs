//! What the controllers of a cluster have to look at, and when. A look that only waits for something else to change is kept
//! apart: while nothing changes it would find the same at each of its times, so those are passed over.
//!
//! It knows no kinds and looks at nothing itself.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::store::Key;

/// Everything that a look which waits may depend on, as far as it is inside of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Newest version of the objects.
    pub(crate) version: u64,
    /// How often add-ons or settings changed.
    pub(crate) settings: u64,
}

/// What a look depends on outside of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Beyond {
    /// Nothing.
    Nothing,
    /// Whether the Vault on a storage is ready, as it was.
    Ready(String, bool),
    /// What a Vault that serves would answer: how much all of them had heard.
    Heard(u64),
}

/// A look that is repeated until what it waits for is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Poll {
    /// From one look to the next.
    pub(crate) every_ms: i64,
    /// The cluster as the last look found it.
    pub(crate) seen: Seen,
    /// What is outside of it.
    pub(crate) beyond: Beyond,
}

/// Work for the controllers, on simulated time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Queue {
    due: BTreeSet<(Timestamp, Key)>,
    polls: BTreeSet<(Timestamp, Key)>,
    at: BTreeMap<Key, (Timestamp, Option<Poll>)>,
}

impl Queue {
    /// Asks to look at a key at a time; the earliest wish counts.
    pub(crate) fn ask(&mut self, key: Key, at: Timestamp) {
        self.put(key, at, None);
    }

    /// The same for a look that finds nothing new while nothing changes.
    pub(crate) fn poll(&mut self, key: Key, at: Timestamp, poll: Poll) {
        self.put(key, at, Some(poll));
    }

    fn put(&mut self, key: Key, at: Timestamp, poll: Option<Poll>) {
        if let Some((old, polled)) = self.at.get(&key) {
            if *old <= at {
                return;
            }
            let place = if polled.is_some() { &mut self.polls } else { &mut self.due };
            place.remove(&(*old, key.clone()));
        }
        let place = if poll.is_some() { &mut self.polls } else { &mut self.due };
        place.insert((at, key.clone()));
        self.at.insert(key, (at, poll));
    }

    /// The next time something is due.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.due.first().into_iter().chain(self.polls.first()).map(|(at, _)| *at).min()
    }

    /// Takes the earliest key that is due.
    pub(crate) fn pop(&mut self, now: Timestamp) -> Option<(Timestamp, Key, Option<Poll>)> {
        let polled = match (self.due.first(), self.polls.first()) {
            (Some(due), Some(poll)) => poll < due,
            (None, poll) => poll.is_some(),
            (Some(_), None) => false,
        };
        let place = if polled { &mut self.polls } else { &mut self.due };
        if place.first()?.0 > now {
            return None;
        }
        let (at, key) = place.pop_first()?;
        let poll = self.at.remove(&key).and_then(|(_, poll)| poll);
        Some((at, key, poll))
    }

    /// Puts a poll back whose look at `at` would find nothing: to the first of its times at which anything may be otherwise.
    pub(crate) fn pass(&mut self, key: Key, at: Timestamp, now: Timestamp, poll: Poll) {
        let until = self.due.first().map_or(now, |(due, _)| *due).min(now);
        let every_ms = poll.every_ms.max(1);
        let gap_ms = i64::try_from(until.duration_since(at).as_millis()).unwrap_or(0);
        let steps = (gap_ms + every_ms - 1).div_euclid(every_ms).max(1);
        let next = at.checked_add(SignedDuration::from_millis(steps.saturating_mul(every_ms))).unwrap_or(now);
        self.poll(key, next, poll);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(ms).unwrap()
    }

    fn poll(every_ms: i64) -> Poll {
        Poll { every_ms, seen: Seen { version: 1, settings: 0 }, beyond: Beyond::Nothing }
    }

    fn key(name: &str) -> Key {
        Key::core("pods", "n", name)
    }

    /// Proves that the earliest wish counts, whatever kind the earlier and the later one are, and that each key is taken
    /// once, in the order of time and name.
    #[test]
    fn the_earliest_wish_counts() {
        let mut queue = Queue::default();
        queue.poll(key("a"), at(50), poll(10));
        queue.ask(key("a"), at(70));
        queue.ask(key("b"), at(50));
        queue.poll(key("b"), at(40), poll(10));
        queue.ask(key("c"), at(45));
        assert_eq!(queue.next(), Some(at(40)));
        let taken: Vec<_> =
            std::iter::from_fn(|| queue.pop(at(100))).map(|(at, key, poll)| (at, key.name, poll.is_some())).collect();
        assert_eq!(
            taken,
            [(at(40), "b".to_owned(), true), (at(45), "c".to_owned(), false), (at(50), "a".to_owned(), true)]
        );
        assert!(queue.next().is_none());
    }

    /// Proves that a poll is passed on to the first of its own times at or after the next change that may come, never to
    /// another time, and beyond the present when none comes.
    #[test]
    fn a_poll_keeps_its_times() {
        for (due, now, wanted) in
            [(None, 99, 105), (Some(37), 99, 45), (Some(45), 99, 45), (Some(6), 99, 15), (Some(500), 44, 45)]
        {
            let mut queue = Queue::default();
            if let Some(due) = due {
                queue.ask(key("z"), at(due));
            }
            queue.pass(key("a"), at(5), at(now), poll(10));
            let found = queue.at.get(&key("a")).map(|(at, _)| *at);
            assert_eq!(found, Some(at(wanted)), "{due:?} {now}");
        }
    }
}
