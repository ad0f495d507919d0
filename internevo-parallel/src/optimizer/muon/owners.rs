//! Which rank orthogonalises which matrix, and in which round: by cost, the same on every rank.

use super::Matrix;
use crate::state::Assignment;

/// Elements that a rank holds whole at a time: 64 MiB, or one matrix.
const BATCH: usize = 16 << 20;

/// Rounds of assignments. The largest matrix that is left goes to the rank with the least work so far (Graham's rule: at most
/// 4/3 of the best possible); in a round, each rank takes as many of its matrices as fit.
pub(super) fn rounds(matrices: &[Matrix], ranks: usize) -> Vec<Vec<Assignment>> {
    let mut order: Vec<&Matrix> = matrices.iter().collect();
    order.sort_by_key(|m| (std::cmp::Reverse(cost(m)), m.param));
    let mut work = vec![0u128; ranks];
    // Per rank: the round it is in, and the elements it has in it.
    let mut filled = vec![(0, 0); ranks];
    let mut rounds: Vec<Vec<Assignment>> = Vec::new();
    for matrix in order {
        let owner = (0..ranks).min_by_key(|rank| (work[*rank], *rank)).expect("a group has a rank");
        work[owner] += cost(matrix);
        let (round, elements) = &mut filled[owner];
        if *elements > 0 && *elements + matrix.rows * matrix.columns > BATCH {
            (*round, *elements) = (*round + 1, 0);
        }
        *elements += matrix.rows * matrix.columns;
        rounds.resize_with(rounds.len().max(*round + 1), Vec::new);
        rounds[*round].push(Assignment { param: matrix.param, owner });
    }
    rounds
}

/// Multiplications of one Newton-Schulz step: two products of the matrix with its shorter side, one of the Gram matrix.
fn cost(matrix: &Matrix) -> u128 {
    let (rows, columns) = ((matrix.rows / matrix.blocks) as u128, matrix.columns as u128);
    let side = rows.min(columns);
    matrix.blocks as u128 * side * side * (2 * rows.max(columns) + side)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_matrix_has_one_owner_and_the_work_is_balanced(
            shapes in prop::collection::vec((1usize..9000, 1usize..9000), 0..60), ranks in 1usize..9,
        ) {
            let matrix = |(param, (rows, columns)): (usize, &(usize, usize))| Matrix {
                param, rows: *rows, columns: *columns, blocks: 1,
            };
            let matrices: Vec<Matrix> = shapes.iter().enumerate().map(matrix).collect();
            let rounds = rounds(&matrices, ranks);
            let mut seen: Vec<usize> = rounds.iter().flatten().map(|a| a.param).collect();
            seen.sort_unstable();
            prop_assert!(seen.into_iter().eq(0..matrices.len()));
            let mut work = vec![0u128; ranks];
            rounds.iter().flatten().for_each(|a| work[a.owner] += cost(&matrices[a.param]));
            // No rank is ahead of the least by more than the last matrix it took.
            let largest = matrices.iter().map(cost).max().unwrap_or(0);
            prop_assert!(work.iter().max().expect("ranks") - work.iter().min().expect("ranks") <= largest);
            for round in &rounds {
                for owner in 0..ranks {
                    let sizes = round.iter().filter(|a| a.owner == owner).map(|a| matrices[a.param].rows * matrices[a.param].columns);
                    let sizes: Vec<usize> = sizes.collect();
                    prop_assert!(sizes.len() <= 1 || sizes.iter().sum::<usize>() <= BATCH);
                }
            }
        }
    }
}
