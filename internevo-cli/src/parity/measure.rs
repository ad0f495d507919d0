//! Training one layout, and how far it is from one rank.

use std::sync::Arc;

use internevo_core::layout::{GroupKind, ParallelLayout};
use internevo_model::{Engine, ModelSpec};
use internevo_parallel::comm::{Communicator, run_ranks};
use serde::Serialize;

use super::{
    Case,
    problem::{BETA2, LR, TOKENS, VOCAB, micro_batch},
};

/// What training gave after some steps.
#[derive(Clone, Debug)]
struct Snapshot {
    loss: f64,
    /// Of each parameter, whole.
    gradients: Vec<Vec<f32>>,
}

/// One rank's course: what every layout is compared with.
#[derive(Debug)]
pub struct Reference {
    names: Vec<String>,
    first: Snapshot,
    last: Snapshot,
    losses: Vec<f64>,
    params: Vec<Vec<f32>>,
    steps: u64,
}

/// How close a layout must come.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Every loss and parameter has the same bits.
    Bitwise,
    /// Losses and gradients to this relative deviation.
    Within(f64),
}

/// A layout's distance from one rank.
#[derive(Clone, Debug, Serialize)]
pub struct Deviation {
    /// The layout.
    pub name: String,
    /// Its ranks.
    pub world: usize,
    /// Whether it keeps its rule.
    pub passed: bool,
    /// Largest relative deviation of the loss, after 1 and after all steps.
    pub loss_deviation: f64,
    /// Largest relative deviation of a parameter's gradient (`‖g − ref‖ / ‖ref‖`), after 1 and after all steps.
    pub grad_deviation: f64,
    /// Whether all losses and the final parameters have the same bits.
    pub bitwise: bool,
    /// What was demanded.
    pub rule: Rule,
    /// Deviation of the loss after the first and the last step.
    pub loss_deviations: [f64; 2],
    /// Worst deviation of a gradient after the first and the last step.
    pub grad_deviations: [f64; 2],
    /// The parameter of the worst gradient.
    pub worst_parameter: String,
}

impl Reference {
    /// Trains one rank for `steps` steps.
    ///
    /// # Errors
    /// What stopped it.
    pub fn train(base: &Case, steps: u64) -> anyhow::Result<Self> {
        let course = train(base, steps)?;
        let [first, last] = course.snapshots;
        Ok(Self { names: course.names, first, last, losses: course.losses, params: course.params, steps })
    }
}

/// Trains `case` and compares it with one rank that has the same model.
///
/// # Errors
/// What stopped a rank.
pub fn measure(case: &Case, reference: &Reference) -> anyhow::Result<Deviation> {
    let course = train(case, reference.steps)?;
    let [first, last] = &course.snapshots;
    let relative = |a: f64, b: f64| ((a - b) / b).abs();
    let loss_deviations = [relative(first.loss, reference.first.loss), relative(last.loss, reference.last.loss)];
    let (first_worst, _) = worst(&first.gradients, &reference.first.gradients);
    let (last_worst, index) = worst(&last.gradients, &reference.last.gradients);
    let bits = |losses: &[f64]| losses.iter().map(|l| l.to_bits()).collect::<Vec<_>>();
    let same = |a: &[Vec<f32>], b: &[Vec<f32>]| {
        a.iter().flatten().map(|x| x.to_bits()).eq(b.iter().flatten().map(|x| x.to_bits()))
    };
    let bitwise = bits(&course.losses) == bits(&reference.losses) && same(&course.params, &reference.params);
    let rule = rule(case);
    let (loss_deviation, grad_deviation) = (largest(loss_deviations), largest([first_worst, last_worst]));
    let passed = match rule {
        Rule::Bitwise => bitwise,
        // Not `> bound`: a NaN must fail.
        Rule::Within(bound) => loss_deviation <= bound && grad_deviation <= bound,
    };
    Ok(Deviation {
        name: case.name.clone(),
        world: case.world(),
        passed,
        loss_deviation,
        grad_deviation,
        bitwise,
        rule,
        loss_deviations,
        grad_deviations: [first_worst, last_worst],
        worst_parameter: reference.names[index].clone(),
    })
}

/// The design's rules: data parallelism, ZeRO, sharded weights and recomputation keep every bit when all sizes are powers of two,
/// and those that divide the problem's micro-batches are; whatever divides a sum inside a layer or a sequence rounds differently.
fn rule(case: &Case) -> Rule {
    if case.config.parallel.tensor.size == 1 { Rule::Bitwise } else { Rule::Within(1e-5) }
}

fn largest(values: [f64; 2]) -> f64 {
    if values.iter().any(|v| v.is_nan()) { f64::NAN } else { values[0].max(values[1]) }
}

/// The largest relative deviation of a parameter's gradient, and which one it is. NaN counts as the largest.
fn worst(found: &[Vec<f32>], expected: &[Vec<f32>]) -> (f64, usize) {
    if found.len() != expected.len() {
        return (f64::NAN, 0);
    }
    let deviation = |(a, b): (&Vec<f32>, &Vec<f32>)| {
        let square = |x: f64| x * x;
        let error: f64 = a.iter().zip(b).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
        let norm: f64 = b.iter().map(|b| square(f64::from(*b))).sum();
        if a.len() == b.len() { (error / norm).sqrt() } else { f64::NAN }
    };
    let all = found.iter().zip(expected).map(deviation).enumerate();
    let worse = |a: (f64, usize), (i, d): (usize, f64)| if d > a.0 || d.is_nan() { (d, i) } else { a };
    all.fold((0.0, 0), worse)
}

struct Course {
    names: Vec<String>,
    snapshots: [Snapshot; 2],
    losses: Vec<f64>,
    params: Vec<Vec<f32>>,
}

fn train(case: &Case, steps: u64) -> anyhow::Result<Course> {
    let layout = ParallelLayout::new(&case.config.parallel, case.world())?;
    let spec = ModelSpec::from_config(&case.config.model, VOCAB, TOKENS)?;
    let body = |world: Arc<dyn Communicator>| rank(case, &layout, &spec, steps, world);
    let mut ranks =
        run_ranks(case.world(), body).map_err(|failure| anyhow::anyhow!("layout {}: {failure}", case.name))?;
    Ok(ranks.swap_remove(0))
}

fn rank(
    case: &Case,
    layout: &ParallelLayout,
    spec: &ModelSpec,
    steps: u64,
    world: Arc<dyn Communicator>,
) -> anyhow::Result<Course> {
    let data_rank = layout.coordinates(world.rank()).data;
    let mut engine = Engine::new(spec, &case.config, layout, world)?;
    debug_assert_eq!(layout.size(GroupKind::Data), engine.groups().data.size());
    let (mut losses, mut snapshots) = (Vec::new(), Vec::new());
    for step in 0..steps {
        let locals = 0..case.config.data.micro_num;
        let batches: Vec<_> = locals.map(|local| micro_batch(step, engine.order().index(data_rank, local))).collect();
        let labels = engine.global_labels(&batches)?;
        let sums = engine.forward_backward(&batches, labels)?;
        let gradient = engine.optimizer_mut().reduce()?;
        if step == 0 || step + 1 == steps {
            let gradients = engine.optimizer().whole_gradient(&gradient)?;
            snapshots.push(Snapshot { loss: sums.loss(), gradients });
        }
        losses.push(sums.loss());
        engine.update_with(gradient, LR, BETA2)?;
    }
    let last = snapshots.pop().expect("there is a step");
    let first = snapshots.pop().unwrap_or_else(|| last.clone());
    let names = engine.optimizer().plan().specs().iter().map(|s| s.name.clone()).collect();
    Ok(Course { names, snapshots: [first, last], losses, params: engine.optimizer().whole_params()? })
}
