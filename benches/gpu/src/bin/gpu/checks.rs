//! Kernels against the crate's f64 references, at the shapes of training and on fresh random inputs. The crate's own tests do
//! the same for every option and ragged shape, on small inputs.

mod attention;
mod layers;
mod training;

use anyhow::ensure;
use gpu_benches::random::Random;
use internevo_kernels::cube::{BF16, Buffer, Client, ElemType, F16, F32};

/// Runs a check on a device with a seed; gives the largest relative error.
type Run = Box<dyn Fn(&Client, u64) -> anyhow::Result<f64>>;

/// One comparison.
pub struct Check {
    /// The function, as in the list of calls.
    pub name: String,
    /// Type of its tensors.
    pub elem: ElemType,
    /// Its sizes.
    pub shape: String,
    /// Whether a device has what it needs, apart from the type.
    pub served: Box<dyn Fn(&Client) -> bool>,
    /// Runs it on inputs from this seed: `‖out − ref‖ / ‖ref‖`, the largest of its outputs'.
    pub run: Run,
}

/// Largest error allowed where tensors are `elem`.
pub fn tolerance(elem: ElemType) -> f64 {
    match elem {
        F32 => 1e-5,
        F16 => 1e-3,
        _ => 1e-2,
    }
}

/// Every check, at real shapes, or at shapes for a software device.
pub fn complete(tiny: bool) -> Vec<Check> {
    let mut checks = Vec::new();
    for elem in [F32, F16, BF16] {
        layers::add(&mut checks, elem, tiny);
        attention::add(&mut checks, elem, tiny);
        training::add(&mut checks, elem, tiny);
    }
    checks
}

/// Inputs of one check: values that the type holds exactly, on the device and in f64.
struct Draw<'a> {
    client: &'a Client,
    random: Random,
}

impl<'a> Draw<'a> {
    fn new(client: &'a Client, seed: u64) -> Self {
        Self { client, random: Random::new(seed) }
    }

    fn floats(&mut self, len: usize, elem: ElemType) -> anyhow::Result<(Vec<f64>, Buffer)> {
        self.scaled(1.0, len, elem)
    }

    /// Values of this standard deviation.
    fn scaled(&mut self, deviation: f32, len: usize, elem: ElemType) -> anyhow::Result<(Vec<f64>, Buffer)> {
        let values: Vec<f32> = self.random.normals(len).into_iter().map(|value| value * deviation).collect();
        let buffer = Buffer::from_f32(self.client, &values, elem);
        Ok((wide(self.client, &buffer)?, buffer))
    }
}

fn wide(client: &Client, buffer: &Buffer) -> anyhow::Result<Vec<f64>> {
    Ok(buffer.read_f32(client)?.into_iter().map(f64::from).collect())
}

/// `‖out − ref‖ / ‖ref‖`. A NaN makes it NaN, which passes nowhere.
fn error(client: &Client, out: &Buffer, reference: &[f64]) -> anyhow::Result<f64> {
    let out = wide(client, out)?;
    ensure!(out.len() == reference.len(), "{} elements, {} expected", out.len(), reference.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let difference = norm(&mut out.iter().zip(reference).map(|(a, b)| a - b));
    Ok(difference / norm(&mut reference.iter().copied()).max(f64::MIN_POSITIVE))
}

/// The largest of several errors; NaN if one is.
fn worst<const N: usize>(errors: [anyhow::Result<f64>; N]) -> anyhow::Result<f64> {
    let mut worst = 0.0;
    for error in errors {
        let error = error?;
        worst = if error.is_nan() || error > worst { error } else { worst };
    }
    Ok(worst)
}

fn add<'a>(
    checks: &'a mut Vec<Check>,
    name: &str,
    elem: ElemType,
    shape: String,
    run: impl Fn(&Client, u64) -> anyhow::Result<f64> + 'static,
) -> &'a mut Check {
    checks.push(Check { name: name.to_owned(), elem, shape, served: Box::new(|_| true), run: Box::new(run) });
    checks.last_mut().expect("just added")
}
