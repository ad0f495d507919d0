//! The whole model once more, scalar and in f64, written from the paper with plain loops and nothing shared with the
//! crate but parameter names and the specification's numbers.

use std::collections::HashMap;

use internevo_core::batch::PackedBatch;
use internevo_model::{ModelSpec, param_table};

pub struct ReferenceModel {
    spec: ModelSpec,
    weights: HashMap<String, Vec<f64>>,
}

impl ReferenceModel {
    pub fn new(spec: &ModelSpec, flat: &[f32]) -> Self {
        let weights = param_table(spec)
            .into_iter()
            .map(|p| (p.name.clone(), flat[p.range()].iter().map(|x| f64::from(*x)).collect()))
            .collect();
        Self { spec: spec.clone(), weights }
    }

    pub fn weight_mut(&mut self, name: &str, index: usize) -> &mut f64 {
        &mut self.weights.get_mut(name).expect("a parameter of the model")[index]
    }

    /// `y[o] = sum_i w[o][i] x[i]`
    fn matrix(&self, name: &str, x: &[f64]) -> Vec<f64> {
        self.weights[name].chunks(x.len()).map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum()).collect()
    }

    fn norm(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        x.iter().zip(&self.weights[name]).map(|(x, w)| x / (mean + self.spec.eps).sqrt() * w).collect()
    }

    /// Rotates the pairs (i, i + D/2) of one head.
    fn rotate(&self, head: &[f64], position: usize) -> Vec<f64> {
        let half = head.len() / 2;
        let mut out = head.to_vec();
        for i in 0..half {
            let angle = position as f64 * self.spec.rope_base.powf(-(2.0 * i as f64) / head.len() as f64);
            out[i] = head[i] * angle.cos() - head[i + half] * angle.sin();
            out[i + half] = head[i + half] * angle.cos() + head[i] * angle.sin();
        }
        out
    }

    fn attention(&self, layer: usize, xs: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let (d, g) = (self.spec.head_dim, self.spec.heads / self.spec.kv_heads);
        let name = format!("layers.{layer}.attention.wqkv.weight");
        let qkv: Vec<Vec<f64>> = xs.iter().map(|x| self.matrix(&name, x)).collect();
        let at = |t: usize, kv: usize, slot: usize| {
            let start = (kv * (g + 2) + slot) * d;
            &qkv[t][start..start + d]
        };
        let mut out = vec![vec![0.0; self.spec.heads * d]; xs.len()];
        for (t, out) in out.iter_mut().enumerate() {
            for head in 0..self.spec.heads {
                let kv = head / g;
                let q = self.rotate(at(t, kv, head % g), t);
                let scores: Vec<f64> = (0..=t)
                    .map(|s| {
                        let k = self.rotate(at(s, kv, g), s);
                        q.iter().zip(&k).map(|(q, k)| q * k).sum::<f64>() / (d as f64).sqrt()
                    })
                    .collect();
                let total: f64 = scores.iter().map(|s| s.exp()).sum();
                for (s, score) in scores.iter().enumerate() {
                    for (i, v) in at(s, kv, g + 1).iter().enumerate() {
                        out[head * d + i] += score.exp() / total * v;
                    }
                }
            }
        }
        out.iter().map(|x| self.matrix(&format!("layers.{layer}.attention.wo.weight"), x)).collect()
    }

    fn feed_forward(&self, layer: usize, x: &[f64]) -> Vec<f64> {
        let name = |w: &str| format!("layers.{layer}.feed_forward.{w}.weight");
        let gate = self.matrix(&name("w1"), x);
        let up = self.matrix(&name("w3"), x);
        let inner: Vec<f64> = gate.iter().zip(&up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
        self.matrix(&name("w2"), &inner)
    }

    fn document(&self, tokens: &[u32]) -> Vec<Vec<f64>> {
        let add = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a + b).collect::<Vec<_>>();
        let h = self.spec.hidden;
        let table = &self.weights["tok_embeddings.weight"];
        let mut xs: Vec<Vec<f64>> = tokens.iter().map(|t| table[*t as usize * h..][..h].to_vec()).collect();
        for layer in 0..self.spec.layers {
            let normed: Vec<_> =
                xs.iter().map(|x| self.norm(&format!("layers.{layer}.attention_norm.weight"), x)).collect();
            let attended = self.attention(layer, &normed);
            for (x, a) in xs.iter_mut().zip(&attended) {
                *x = add(x, a);
                *x = add(x, &self.feed_forward(layer, &self.norm(&format!("layers.{layer}.ffn_norm.weight"), x)));
            }
        }
        xs.iter().map(|x| self.matrix("output.weight", &self.norm("norm.weight", x))).collect()
    }

    /// Logits of every position, concatenated.
    pub fn logits(&self, batch: &PackedBatch) -> Vec<Vec<f64>> {
        let bounds = batch.cu_seqlens.windows(2);
        bounds.flat_map(|w| self.document(&batch.tokens[w[0] as usize..w[1] as usize])).collect()
    }

    /// Sums over the labelled tokens: smoothed loss (PyTorch's definition), and plain negative log-likelihood.
    pub fn loss(&self, batch: &PackedBatch, smoothing: f64) -> (f64, f64) {
        let mut sums = (0.0, 0.0);
        for (logits, label) in self.logits(batch).iter().zip(&batch.labels) {
            if *label < 0 {
                continue;
            }
            let log_total = logits.iter().map(|x| x.exp()).sum::<f64>().ln();
            let nll = log_total - logits[*label as usize];
            let mean = logits.iter().map(|x| log_total - x).sum::<f64>() / logits.len() as f64;
            sums.0 += (1.0 - smoothing) * nll + smoothing * mean;
            sums.1 += nll;
        }
        sums
    }
}
