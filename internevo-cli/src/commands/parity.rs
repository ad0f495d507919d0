//! `internevo parity`

use std::{collections::BTreeMap, path::PathBuf};

use clap::Args;
use internevo_core::storage;
use serde_json::json;

use crate::{
    context::Context,
    error::OrUser as _,
    parity::{Case, CaseError, Deviation, Reference, Rule, cases, markdown, measure, refusals},
    terminal, user_bail,
};

/// Train a small model on one rank and on many layouts, and compare.
#[derive(Args, Debug)]
#[command(
    after_help = "A layout is named by its parts, joined by `+`:\n  dp4, mtp2, msp2, fsp2, isp2, isp2x4 (head x context), wp4, zero1 | zero2 | zero3 (zero2:4 = in subgroups of 4),\n  recompute, recompute:0.5, selective, hidden, gathered, noahead, module, kv2, pp2\n\nExamples:\n  internevo parity                                  the whole matrix\n  internevo parity --layouts isp                    those of the matrix whose name contains `isp`\n  internevo parity --layouts msp2+dp2+zero3         one of your own\n  internevo parity --json > parity.json"
)]
pub struct Parity {
    /// Layouts: names of the matrix, pieces of such names (all that contain them), or names of your own
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub layouts: Vec<String>,
    /// Steps to train; compared after the first and the last
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub steps: u64,
    /// List the layouts instead of training them
    #[arg(long)]
    pub list: bool,
    /// Write the composability matrix that follows from the results to a file
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
}

impl Parity {
    /// Runs the command.
    ///
    /// # Errors
    /// A layout that cannot work, or one that deviates from one rank.
    pub fn run(self, cx: &Context) -> anyhow::Result<()> {
        let cases = self.chosen()?;
        if self.list {
            return list(cx, &cases);
        }
        let results = self.measure_all(cx, &cases)?;
        let refused: Vec<CaseError> = refusals().iter().filter_map(|name| Case::parse(name).err()).collect();
        if let Some(file) = &self.markdown {
            storage::write_atomic(file, markdown(&results, &refused))?;
        }
        let failed: Vec<&Deviation> = results.iter().filter(|r| !r.passed).collect();
        let rules = refused.iter().map(|error| match error {
            CaseError::Refused { name, rules } => json!({ "name": name, "rules": rules }),
            CaseError::Unknown { name, part } => json!({ "name": name, "rules": [format!("unknown part `{part}`")] }),
        });
        let document = json!({
            "layouts": results,
            "passed": results.len() - failed.len(),
            "failed": failed.len(),
            "steps": self.steps,
            "refused": rules.collect::<Vec<_>>(),
        });
        cx.emit(&document, || table(&results, &refused))?;
        if let Some(worst) = failed.first() {
            anyhow::bail!("{} of {} layouts deviate from one rank, {} first", failed.len(), results.len(), worst.name);
        }
        Ok(())
    }

    fn chosen(&self) -> anyhow::Result<Vec<Case>> {
        let all = cases();
        if self.layouts.is_empty() {
            return Ok(all);
        }
        let mut chosen: Vec<Case> = Vec::new();
        for wanted in &self.layouts {
            let matching = |rule: &dyn Fn(&str) -> bool| -> Vec<Case> {
                all.iter().filter(|case| rule(&case.name)).cloned().collect()
            };
            let mut found = matching(&|name| name == wanted);
            if found.is_empty() {
                found = matching(&|name| name.contains(wanted.as_str()));
            }
            if found.is_empty() {
                found.push(Case::parse(wanted).or_user()?);
            }
            chosen
                .extend(found.into_iter().filter(|c| !chosen.iter().any(|old| old.name == c.name)).collect::<Vec<_>>());
        }
        if chosen.is_empty() {
            user_bail!("no layout was chosen");
        }
        Ok(chosen)
    }

    fn measure_all(&self, cx: &Context, cases: &[Case]) -> anyhow::Result<Vec<Deviation>> {
        let progress = cx.console.progress("parity", Some(cases.len() as u64), "layouts");
        // Layouts that change the model have a reference of their own.
        let mut references: BTreeMap<usize, Reference> = BTreeMap::new();
        let mut results = Vec::new();
        for case in cases {
            let kv_heads = case.config.model.num_kv_attention_heads;
            if !references.contains_key(&kv_heads) {
                let base = Case::parse(&format!("dp1+kv{kv_heads}"))?;
                references.insert(kv_heads, Reference::train(&base, self.steps)?);
            }
            results.push(measure(case, &references[&kv_heads])?);
            progress.message(case.name.clone());
            progress.set(results.len() as u64);
        }
        Ok(results)
    }
}

fn list(cx: &Context, cases: &[Case]) -> anyhow::Result<()> {
    let names: Vec<_> = cases.iter().map(|c| json!({ "name": c.name, "world": c.world() })).collect();
    cx.emit(&names, || cases.iter().map(|c| format!("{} ({} ranks)\n", c.name, c.world())).collect())
}

fn table(results: &[Deviation], refused: &[CaseError]) -> String {
    let head = ["layout", "ranks", "loss 1 step", "last", "gradient 1 step", "last", "rule", ""].map(str::to_owned);
    let row = |r: &Deviation| {
        let number = |x: f64| if x == 0.0 { "0".to_owned() } else { format!("{x:.1e}") };
        let rule = match r.rule {
            Rule::Bitwise => "same bits".to_owned(),
            Rule::Within(bound) => format!("{bound:.0e}"),
        };
        let verdict = match (r.passed, r.bitwise) {
            (true, true) => "PASS, same bits".to_owned(),
            (true, false) => "PASS".to_owned(),
            (false, _) => format!("FAIL ({})", r.worst_parameter),
        };
        let [loss, grad] = [r.loss_deviations, r.grad_deviations];
        let numbers = [number(loss[0]), number(loss[1]), number(grad[0]), number(grad[1])];
        let [a, b, c, d] = numbers;
        [r.name.clone(), r.world.to_string(), a, b, c, d, rule, verdict]
    };
    let rows: Vec<_> = [head].into_iter().chain(results.iter().map(row)).collect();
    let passed = results.iter().filter(|r| r.passed).count();
    let mut text = terminal::table(&rows);
    text.push_str(&format!("\n{passed} of {} layouts keep their rule\n\nrefused:\n", results.len()));
    refused.iter().for_each(|error| text.push_str(&format!("  {}\n", error.to_string().replace('\n', "\n  "))));
    text
}
