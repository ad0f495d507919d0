//! From the hidden vector of a text to the probability of every label, by the loss that a model was trained with.

use super::{dictionary::Label, matrix::Matrix};

/// Numbers of the losses in a file.
const HIERARCHICAL: i32 = 1;
const NEGATIVE_SAMPLING: i32 = 2;
const SOFTMAX: i32 = 3;
const ONE_VS_ALL: i32 = 4;

/// Added to a probability before its logarithm is taken; fastText's answers carry it.
const LOG_OFFSET: f32 = 1e-5;
/// fastText looks sigmoids up in a table of this many steps …
const SIGMOID_STEPS: f32 = 512.0;
/// … from minus this to this.
const SIGMOID_RANGE: f32 = 8.0;

#[derive(Debug)]
pub(super) struct Output {
    matrix: Matrix,
    labels: usize,
    loss: Loss,
}

#[derive(Debug)]
enum Loss {
    Softmax,
    /// A sigmoid for each label: negative sampling, one against all.
    Sigmoid,
    /// Row `i` of the matrix decides between the two children of inner node `i`; numbers from the number of labels are inner nodes.
    Hierarchical(Vec<[usize; 2]>),
}

impl Output {
    /// # Errors
    /// An unknown loss, or a matrix without a row for each label.
    pub fn new(loss: i32, matrix: Matrix, labels: &[Label]) -> Result<Self, String> {
        let loss = match loss {
            SOFTMAX => Loss::Softmax,
            NEGATIVE_SAMPLING | ONE_VS_ALL => Loss::Sigmoid,
            HIERARCHICAL => Loss::Hierarchical(huffman_tree(labels)),
            other => return Err(format!("unknown loss {other}")),
        };
        let (rows, labels) = (matrix.rows(), labels.len());
        if rows < labels { Err(format!("{rows} rows for {labels} labels")) } else { Ok(Self { matrix, labels, loss }) }
    }

    /// The probability of every label.
    pub fn scores(&self, hidden: &[f32]) -> Vec<f32> {
        let mut scores: Vec<f32> = match &self.loss {
            Loss::Hierarchical(tree) => return self.leaves(tree, hidden),
            _ => (0..self.labels).map(|row| self.matrix.dot_row(row, hidden)).collect(),
        };
        match self.loss {
            Loss::Softmax => softmax(&mut scores),
            _ => scores.iter_mut().for_each(|score| *score = sigmoid(*score)),
        }
        scores.iter_mut().for_each(|score| *score += LOG_OFFSET);
        scores
    }

    /// Walks the tree from its root; the offset comes in at every node.
    fn leaves(&self, tree: &[[usize; 2]], hidden: &[f32]) -> Vec<f32> {
        let mut scores = vec![0.0; self.labels];
        let mut open = vec![(self.labels + tree.len() - 1, 0.0f32)];
        while let Some((node, log)) = open.pop() {
            let Some(inner) = node.checked_sub(self.labels) else {
                scores[node] = log.exp();
                continue;
            };
            let right = 1.0 / (1.0 + (-self.matrix.dot_row(inner, hidden)).exp());
            for (child, share) in tree[inner].into_iter().zip([1.0 - right, right]) {
                open.push((child, log + (share + LOG_OFFSET).ln()));
            }
        }
        scores
    }
}

/// The Huffman tree of the labels' counts, which come in falling order: children of the inner nodes, the root last.
fn huffman_tree(labels: &[Label]) -> Vec<[usize; 2]> {
    let mut counts: Vec<u64> = labels.iter().map(|label| label.count).collect();
    let (mut leaf, mut inner) = (labels.len(), labels.len());
    let mut tree = Vec::with_capacity(labels.len().saturating_sub(1));
    while tree.len() + 1 < labels.len() {
        let children = [(); 2].map(|()| {
            // An inner node that does not exist yet is no choice; on a tie inner nodes come first.
            let takes_leaf = leaf > 0 && counts.get(inner).is_none_or(|count| counts[leaf - 1] < *count);
            if takes_leaf {
                leaf -= 1;
                leaf
            } else {
                inner += 1;
                inner - 1
            }
        });
        counts.push(counts[children[0]].saturating_add(counts[children[1]]));
        tree.push(children);
    }
    tree
}

fn softmax(scores: &mut [f32]) {
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    scores.iter_mut().for_each(|score| *score = (*score - max).exp());
    let sum: f32 = scores.iter().sum();
    scores.iter_mut().for_each(|score| *score /= sum);
}

fn sigmoid(x: f32) -> f32 {
    if x < -SIGMOID_RANGE {
        return 0.0;
    }
    if x > SIGMOID_RANGE {
        return 1.0;
    }
    let step = ((x + SIGMOID_RANGE) * SIGMOID_STEPS / SIGMOID_RANGE / 2.0).floor();
    1.0 / (1.0 + (SIGMOID_RANGE - step * 2.0 * SIGMOID_RANGE / SIGMOID_STEPS).exp())
}
