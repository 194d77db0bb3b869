//! Cycles among names, found as a path. Knows only names.

use std::collections::BTreeMap;

/// A cycle in `edges` (from → to), as the names in order, the first one again at the end.
#[must_use]
pub(crate) fn cycle<'a>(edges: &BTreeMap<&'a str, Vec<&'a str>>) -> Option<Vec<&'a str>> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        Open,
        Done,
    }
    let mut marks: BTreeMap<&str, Mark> = BTreeMap::new();
    for start in edges.keys() {
        let mut stack: Vec<(&str, usize)> = vec![(start, 0)];
        if marks.contains_key(start) {
            continue;
        }
        marks.insert(start, Mark::Open);
        while let Some((node, at)) = stack.last_mut() {
            let next = edges.get(*node).and_then(|all| all.get(*at)).copied();
            *at += 1;
            let node = *node;
            match next {
                None => {
                    marks.insert(node, Mark::Done);
                    stack.pop();
                }
                Some(next) => match marks.get(next) {
                    Some(Mark::Done) => {}
                    Some(Mark::Open) => {
                        let from = stack.iter().position(|(name, _)| *name == next).unwrap_or(0);
                        let mut path: Vec<&str> = stack.iter().skip(from).map(|(name, _)| *name).collect();
                        path.push(next);
                        return Some(path);
                    }
                    None => {
                        marks.insert(next, Mark::Open);
                        stack.push((next, 0));
                    }
                },
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves that a cycle is given as its path and that a diamond is none.
    #[test]
    fn cycles_are_paths() {
        let diamond = BTreeMap::from([("a", vec!["b", "c"]), ("b", vec!["d"]), ("c", vec!["d"]), ("d", vec![])]);
        assert_eq!(cycle(&diamond), None);
        let looped = BTreeMap::from([("a", vec!["b"]), ("b", vec!["c"]), ("c", vec!["b"])]);
        assert_eq!(cycle(&looped), Some(vec!["b", "c", "b"]));
    }
}
