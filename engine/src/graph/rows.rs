//! Adjacency in compressed rows, built without a list per step: plans have up to a million of them.

use super::StepIndex;

/// For each step the steps that it is tied to, one row after the other.
#[derive(Debug, Clone)]
pub(super) struct Rows {
    offsets: Vec<u32>,
    targets: Vec<StepIndex>,
}

fn narrow(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

impl Rows {
    /// None yet, for so many.
    pub(super) fn with_room(rows: usize) -> Self {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        Self { offsets, targets: Vec::new() }
    }

    /// Adds one to the row that is being written.
    pub(super) fn push(&mut self, target: StepIndex) {
        self.targets.push(target);
    }

    /// Ends the row that is being written.
    pub(super) fn end_row(&mut self) {
        self.offsets.push(narrow(self.targets.len()));
    }

    /// From pairs of row and target; each row in the order of the pairs.
    pub(super) fn of_pairs(rows: usize, pairs: impl Iterator<Item = (StepIndex, StepIndex)> + Clone) -> Self {
        let mut offsets = vec![0_u32; rows + 1];
        for (row, _) in pairs.clone() {
            if let Some(slot) = offsets.get_mut(row as usize + 1) {
                *slot += 1;
            }
        }
        let mut total = 0;
        for slot in &mut offsets {
            total += *slot;
            *slot = total;
        }
        let mut next = offsets.clone();
        let mut targets = vec![0; total as usize];
        for (row, target) in pairs {
            let Some(at) = next.get_mut(row as usize) else { continue };
            if let Some(slot) = targets.get_mut(*at as usize) {
                *slot = target;
            }
            *at += 1;
        }
        Self { offsets, targets }
    }

    /// The other way round: for each step the steps that are tied to it, in ascending order.
    pub(super) fn inverted(&self) -> Self {
        let pairs = (0..narrow(self.len())).flat_map(|from| self.row(from).iter().map(move |to| (*to, from)));
        Self::of_pairs(self.len(), pairs)
    }

    pub(super) fn len(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    pub(super) fn row(&self, index: StepIndex) -> &[StepIndex] {
        let at = index as usize;
        let (Some(from), Some(to)) = (self.offsets.get(at), self.offsets.get(at + 1)) else { return &[] };
        self.targets.get(*from as usize..*to as usize).unwrap_or(&[])
    }

    /// An order in which everything stands before what its row names; fewer than all if there is a circle. `inverted` is the
    /// same the other way round.
    pub(super) fn order(&self, inverted: &Self) -> Vec<StepIndex> {
        let mut left: Vec<u32> = (0..narrow(self.len())).map(|at| narrow(inverted.row(at).len())).collect();
        let mut order: Vec<StepIndex> = Vec::with_capacity(left.len());
        order.extend((0..).zip(&left).filter(|(_, count)| **count == 0).map(|(at, _)| at));
        let mut next = 0;
        while let Some(at) = order.get(next).copied() {
            next += 1;
            for to in self.row(at) {
                let Some(count) = left.get_mut(*to as usize) else { continue };
                *count -= 1;
                if *count == 0 {
                    order.push(*to);
                }
            }
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves that rows come back as they were written, that turning them round twice sorts them and changes nothing else,
    /// that the order respects every row, and that a circle leaves it short.
    #[test]
    fn rows_are_kept_turned_and_ordered() {
        let lists: [&[StepIndex]; 5] = [&[3, 1], &[3], &[], &[2], &[]];
        let mut rows = Rows::with_room(lists.len());
        for list in lists {
            list.iter().for_each(|to| rows.push(*to));
            rows.end_row();
        }
        let inverted = rows.inverted();
        assert_eq!((0..5).map(|at| rows.row(at)).collect::<Vec<_>>(), lists);
        let turned: [&[StepIndex]; 5] = [&[], &[0], &[3], &[0, 1], &[]];
        assert_eq!((0..5).map(|at| inverted.row(at)).collect::<Vec<_>>(), turned);
        let twice = inverted.inverted();
        assert_eq!((twice.row(0), twice.row(1)), (&[1, 3][..], &[3][..]));
        let order = rows.order(&inverted);
        let place = |step: StepIndex| order.iter().position(|at| *at == step).unwrap();
        assert_eq!(order.len(), 5);
        for from in 0..5 {
            assert!(rows.row(from).iter().all(|to| place(from) < place(*to)), "{order:?}");
        }
        let circle = Rows::of_pairs(3, [(0, 1), (1, 2), (2, 1)].into_iter());
        assert_eq!(circle.order(&circle.inverted()), [0]);
    }
}
