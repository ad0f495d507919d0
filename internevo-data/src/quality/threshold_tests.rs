//! Thresholds by hand-counted examples and by properties.

use proptest::prelude::*;

use super::threshold::{
    Keeps, LabelledValue, Target, ThresholdReport, ThresholdSettings, choose_threshold, read_labelled_values,
};

fn settings(keeps: Keeps, target: Target) -> ThresholdSettings {
    ThresholdSettings { keeps, target, beta: 1.0, resamples: 200, seed: 3 }
}

/// Value, label; each document as long as its value is.
fn documents(raw: &[(f64, bool)]) -> Vec<LabelledValue> {
    raw.iter().map(|&(value, keep)| LabelledValue { value, keep, bytes: value.abs() as u64 + 1 }).collect()
}

const RAW: [(f64, bool); 6] = [(9.0, true), (8.0, true), (7.0, false), (6.0, true), (5.0, false), (4.0, false)];

fn choose(keeps: Keeps, target: Target) -> ThresholdReport {
    choose_threshold(&documents(&RAW), &settings(keeps, target)).expect("a threshold")
}

#[test]
fn the_curve_can_be_counted_by_hand() {
    let report = choose(Keeps::Above, Target::FBeta);
    assert_eq!((report.documents, report.to_keep, report.curve.len()), (6, 3, 6));
    let thresholds: Vec<f64> = report.curve.iter().map(|point| point.threshold).collect();
    assert_eq!(thresholds, [4.0, 5.0, 6.0, 7.0, 8.0, 9.0]);
    let at_6 = report.curve[2];
    assert_eq!((at_6.precision, at_6.recall, at_6.f_beta), (0.75, 1.0, 1.5 / 1.75));
    assert_eq!((at_6.kept_documents, at_6.kept_bytes), (4.0 / 6.0, 34.0 / 45.0));
    assert_eq!(report.chosen, at_6);
}

#[test]
fn targets_choose_among_the_thresholds_that_meet_them() {
    let precise = choose(Keeps::Above, Target::Precision(0.9)).chosen;
    assert_eq!((precise.threshold, precise.precision, precise.recall), (8.0, 1.0, 2.0 / 3.0));
    assert_eq!(choose(Keeps::Above, Target::KeptBytes(0.9)).chosen.threshold, 4.0);
    assert_eq!(choose(Keeps::Above, Target::KeptBytes(0.5)).chosen.threshold, 6.0);
    let recall_matters = ThresholdSettings { beta: 10.0, ..settings(Keeps::Above, Target::FBeta) };
    assert_eq!(choose_threshold(&documents(&RAW), &recall_matters).expect("a threshold").chosen.recall, 1.0);
}

#[test]
fn keeping_below_is_keeping_above_with_the_sign_turned() {
    let turned: Vec<LabelledValue> =
        documents(&RAW).into_iter().map(|document| LabelledValue { value: -document.value, ..document }).collect();
    let above = choose(Keeps::Above, Target::FBeta);
    let below = choose_threshold(&turned, &settings(Keeps::Below, Target::FBeta)).expect("a threshold");
    assert_eq!((below.chosen.threshold, below.chosen.f_beta), (-above.chosen.threshold, above.chosen.f_beta));
    assert_eq!(below.threshold_interval.low, -above.threshold_interval.high);
}

#[test]
fn what_gives_no_threshold_is_refused_with_the_reason() {
    let refused = |raw: &[(f64, bool)], target: Target| {
        choose_threshold(&documents(raw), &settings(Keeps::Above, target)).expect_err("refused").to_string()
    };
    assert!(refused(&[(1.0, true), (2.0, true)], Target::FBeta).contains("both labels are needed"));
    assert!(refused(&[(f64::NAN, true), (2.0, false)], Target::FBeta).contains("NaN"));
    assert!(refused(&RAW, Target::KeptBytes(1.5)).contains("1.5"));
    let message = refused(&[(1.0, true), (2.0, false)], Target::Precision(0.9));
    assert!(message.contains("0.5") && message.contains("at 1"), "{message}");
}

#[test]
fn the_interval_narrows_with_more_documents_and_depends_on_the_seed_alone() {
    let many = |copies: u32| -> Vec<LabelledValue> {
        let noise = |i: u32| f64::from(i.wrapping_mul(2_654_435_761) >> 16) / 65536.0;
        (0..copies)
            .map(|i| (noise(i), noise(i + 7) + 2.0 * noise(i) > 1.5))
            .map(|(value, keep)| LabelledValue { value, keep, bytes: 1 })
            .collect()
    };
    let width = |copies: u32| {
        let report = choose_threshold(&many(copies), &settings(Keeps::Above, Target::FBeta)).expect("a threshold");
        assert_eq!(report.resamples_met, 200);
        let interval = report.precision_interval;
        assert!(interval.low <= report.chosen.precision && report.chosen.precision <= interval.high);
        interval.high - interval.low
    };
    assert!(width(4000) < 0.5 * width(200), "{} and {}", width(4000), width(200));
    assert_eq!(width(200), width(200));
}

#[test]
fn labelled_lines_are_read_in_every_form_and_unlabelled_ones_passed_over() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("labelled.jsonl");
    let read = |text: &str| {
        std::fs::write(&path, text).expect("written");
        read_labelled_values(std::slice::from_ref(&path), "perplexity")
    };
    let lines = "{\"id\": \"a\", \"label\": \"keep\", \"values\": {\"perplexity\": 20.5}, \"text\": \"four\"}\n\
                 {\"id\": \"b\", \"label\": false, \"perplexity\": 900, \"bytes\": 7}\n\
                 {\"id\": \"c\", \"label\": \"\", \"perplexity\": 90}\n{\"id\": \"d\", \"perplexity\": 91}\n\
                 {\"id\": \"e\", \"label\": \"drop\", \"reason\": \"perplexity\", \"value\": 5.5, \"kept\": true}\n\
                 {\"id\": \"e\", \"label\": \"drop\", \"reason\": \"c4_short\", \"value\": 1.5, \"kept\": true}\n";
    let expected = [(20.5, true, 4), (900.0, false, 7), (5.5, false, 1)];
    let expected = expected.map(|(value, keep, bytes)| LabelledValue { value, keep, bytes });
    assert_eq!(read(lines).expect("read"), expected);
    for (line, says) in [
        ("{\"label\": \"good\", \"perplexity\": 1}", "`good`"),
        ("{\"label\": \"keep\", \"ppl\": 1}", "`perplexity`"),
        ("{", "EOF"),
    ] {
        let message =
            read(&format!("{}\n{line}\n", lines.lines().next().expect("a line"))).expect_err("broken").to_string();
        assert!(message.contains(says) && message.contains(":2:"), "{message}");
    }
}

proptest! {
    #[test]
    fn no_threshold_of_the_curve_is_better_than_the_chosen_one(
        raw in proptest::collection::vec((0u8..20, any::<bool>()), 2..60),
    ) {
        let raw: Vec<(f64, bool)> = raw.into_iter().map(|(value, keep)| (value.into(), keep)).collect();
        prop_assume!(raw.iter().any(|(_, keep)| *keep) && raw.iter().any(|(_, keep)| !keep));
        let own = ThresholdSettings { resamples: 0, ..settings(Keeps::Above, Target::FBeta) };
        let report = choose_threshold(&documents(&raw), &own).expect("a threshold");
        for point in &report.curve {
            let kept = raw.iter().filter(|(value, _)| *value >= point.threshold);
            let right = kept.clone().filter(|(_, keep)| *keep).count() as f64;
            prop_assert_eq!(point.precision, right / kept.count() as f64);
            prop_assert!(point.f_beta <= report.chosen.f_beta);
        }
    }
}
