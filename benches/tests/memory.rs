//! The memory formula against what the allocator counts: the one test of this binary, since its allocator counts for the whole
//! process.

use benches::memory::{Counting, cases, long_cases, materialised, measure};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Largest relative error of a rank without peers.
const TOLERANCE: f64 = 0.05;

/// Both questions in one test, since two at once would count each other's bytes.
#[test]
fn memory_is_what_the_formulas_say() {
    layouts_take_at_most_a_twentieth_more_or_less_than_predicted();
    fused_kernels_never_have_the_scores_and_logits_of_a_long_step();
}

fn fused_kernels_never_have_the_scores_and_logits_of_a_long_step() {
    let [fused, reference] = long_cases().map(|case| measure(&case).expect("a healthy layout"));
    let predicted = fused.predicted.total();
    let ratio = fused.alone as f64 / predicted as f64;
    println!("4096 tokens: fused {ratio:.3} of {predicted}, reference {} bytes", reference.alone);
    assert!((ratio - 1.0).abs() <= TOLERANCE, "fused kernels: {} bytes, predicted {predicted}", fused.alone);
    assert!(reference.alone >= fused.alone + materialised(), "reference: {} bytes", reference.alone);
}

fn layouts_take_at_most_a_twentieth_more_or_less_than_predicted() {
    let rows: Vec<_> = cases().iter().map(|case| measure(case).expect("a healthy layout")).collect();
    let ratio = |bytes: u64, predicted: u64| bytes as f64 / predicted as f64;
    let describe = |row: &benches::memory::Row| {
        let total = row.predicted.total();
        let (alone, together) = (ratio(row.alone, total), ratio(row.together, total));
        format!("{}: {alone:.3} alone, {together:.3} together of {:?}", row.name, row.predicted)
    };
    let text = rows.iter().map(describe).collect::<Vec<_>>().join("\n");
    println!("{text}");
    let off = |row: &&benches::memory::Row| (ratio(row.alone, row.predicted.total()) - 1.0).abs() > TOLERANCE;
    let wrong: Vec<&str> = rows.iter().filter(off).map(|row| row.name).collect();
    assert!(wrong.is_empty(), "{wrong:?} are off:\n{text}");
}
