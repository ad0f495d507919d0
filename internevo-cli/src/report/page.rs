//! The page itself: cards, charts and tables from a summary and its step records.

use std::fmt::Write as _;

use internevo_core::metrics::StepRecord;

use super::{
    summary::RunSummary,
    svg::{Bar, Series, escape, funnel, line_chart, short},
};

const STYLE: &str = include_str!("style.css");

/// An HTML document that needs nothing from outside; `main` is HTML.
pub fn document(title: &str, subtitle: &str, main: &str) -> String {
    format!(
        r#"<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title} · internevo</title><style>{STYLE}</style></head><body><header><h1>{title}</h1><p>{subtitle}</p></header><main>{main}</main></body></html>
"#,
        title = escape(title),
        subtitle = escape(subtitle),
    )
}

/// The page of a run.
pub fn render(summary: &RunSummary, records: &[StepRecord], config: &str) -> String {
    let mut out = cards(summary, records);
    out.push_str(&charts(summary, records));
    out.push_str(&corpus(summary));
    out.push_str(&samples(summary));
    out.push_str(&phases(summary));
    if !config.is_empty() {
        let _ = write!(
            out,
            "<section><h2>Configuration</h2><details><summary>config.toml</summary><pre>{}</pre></details></section>",
            escape(config)
        );
    }
    document(&summary.job_name, &state(summary), &out)
}

fn state(s: &RunSummary) -> String {
    let progress =
        if s.finished { "finished".to_owned() } else { format!("stopped at step {} of {}", s.steps, s.total_steps) };
    format!(
        "{progress} · {} parameters · vocabulary {} · {} ranks ({})",
        short(s.parameters as f64),
        s.vocab_size,
        s.ranks,
        s.layout
    )
}

fn cards(s: &RunSummary, records: &[StepRecord]) -> String {
    let number = |v: Option<f64>| v.map_or_else(|| "–".to_owned(), |v| format!("{v:.3}"));
    let speed = median(records.iter().map(|r| r.tgs).collect()) * s.ranks.max(1) as f64;
    let cards = [
        ("Training loss", number(s.loss), "nats per token, last step"),
        ("Validation loss", number(s.valid_loss), "held-out packages"),
        ("Unigram entropy", number(s.unigram_entropy), "same tokens, no context"),
        ("Perplexity", number(s.valid_loss.map(f64::exp)), "validation"),
        ("Tokens", short(s.tokens as f64), "consumed by all ranks"),
        ("Throughput", short(speed), "tokens per second, median"),
    ];
    let mut out = String::from(r#"<section class="cards">"#);
    for (name, value, note) in cards {
        let _ = write!(out, r#"<div><span>{name}</span><b>{value}</b><small>{note}</small></div>"#);
    }
    out.push_str("</section>");
    out
}

fn charts(s: &RunSummary, records: &[StepRecord]) -> String {
    let line = |f: fn(&StepRecord) -> f64| records.iter().map(|r| (r.step as f64, f(r))).collect::<Vec<_>>();
    let mut loss = vec![Series { name: "training", class: "a", points: line(|r| r.loss) }];
    let valid: Vec<_> = records.iter().filter_map(|r| r.valid_loss.map(|v| (r.step as f64, v))).collect();
    if !valid.is_empty() {
        loss.push(Series { name: "validation", class: "b", points: valid });
    }
    if let (Some(entropy), Some(first), Some(last)) = (s.unigram_entropy, records.first(), records.last()) {
        let points = vec![(first.step as f64, entropy), (last.step as f64, entropy)];
        loss.push(Series { name: "unigram entropy", class: "rule", points });
    }
    let single = |title: &str, label: &str, f: fn(&StepRecord) -> f64| {
        figure(title, &line_chart("step", label, &[Series { name: label, class: "a", points: line(f) }]))
    };
    let mut out = String::from(r#"<section><h2>Training</h2><div class="grid2">"#);
    out.push_str(&figure("Loss (nats per token)", &line_chart("step", "loss", &loss)));
    out.push_str(&single("Next-token accuracy", "acc", |r| r.acc));
    out.push_str(&single("Learning rate", "lr", |r| r.lr));
    out.push_str(&single("Gradient norm before clipping", "grad_norm", |r| r.grad_norm));
    out.push_str(&single("Throughput (tokens per rank and second)", "tgs", |r| r.tgs));
    out.push_str(&single("Resident memory (GiB)", "mem_gib", |r| r.mem_gib));
    out.push_str("</div></section>");
    out
}

/// A chart with its title.
pub fn figure(title: &str, svg: &str) -> String {
    format!("<figure><figcaption>{}</figcaption>{svg}</figure>", escape(title))
}

fn corpus(s: &RunSummary) -> String {
    if s.funnel.is_empty() {
        return String::new();
    }
    let bars: Vec<Bar> = s
        .funnel
        .iter()
        .map(|f| Bar {
            label: f.stage.clone(),
            total: f.bytes_in as f64,
            kept: f.bytes_kept as f64,
            note: format!("{}B kept of {}B", short(f.bytes_kept as f64), short(f.bytes_in as f64)),
        })
        .collect();
    let mut out =
        format!("<section><h2>Corpus</h2><div class=\"grid2\">{}", figure("Text through the pipeline", &funnel(&bars)));
    out.push_str("<figure><figcaption>Why documents were rejected</figcaption><table><tr><th>stage</th><th>reason</th><th>documents</th></tr>");
    for f in &s.funnel {
        let mut reasons: Vec<_> = f.reasons.iter().collect();
        reasons.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
        for (reason, count) in reasons {
            let _ = write!(out, "<tr><td>{}</td><td>{}</td><td>{count}</td></tr>", escape(&f.stage), escape(reason));
        }
    }
    out.push_str("</table></figure></div>");
    out.push_str("<table><tr><th>stage</th><th>documents in</th><th>documents kept</th><th>bytes in</th><th>bytes kept</th></tr>");
    for f in &s.funnel {
        let _ = write!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(&f.stage),
            f.documents_in,
            f.documents_kept,
            f.bytes_in,
            f.bytes_kept
        );
    }
    out.push_str("</table>");
    if !s.sources.is_empty() {
        out.push_str("<h3>Sources</h3><table><tr><th>source</th><th>documents</th><th>bytes</th></tr>");
        for (name, count) in &s.sources {
            let _ =
                write!(out, "<tr><td>{}</td><td>{}</td><td>{}</td></tr>", escape(name), count.documents, count.bytes);
        }
        out.push_str("</table>");
    }
    if !s.missing.is_empty() {
        let _ = write!(out, "<details><summary>{} sources were not found</summary><ul>", s.missing.len());
        for name in &s.missing {
            let _ = write!(out, "<li>{}</li>", escape(name));
        }
        out.push_str("</ul></details>");
    }
    out.push_str("</section>");
    out
}

fn samples(s: &RunSummary) -> String {
    if s.samples.is_empty() {
        return String::new();
    }
    let mut out = String::from("<section><h2>Samples</h2>");
    for sample in &s.samples {
        let _ = write!(out, "<pre class=\"sample\"><b>{}</b>{}</pre>", escape(&sample.prompt), escape(&sample.text));
    }
    out.push_str("</section>");
    out
}

fn phases(s: &RunSummary) -> String {
    let mut out = String::from("<section><h2>Time</h2><table><tr><th>phase</th><th>seconds</th><th></th></tr>");
    for p in &s.phases {
        let _ = write!(
            out,
            "<tr><td>{}</td><td>{:.1}</td><td>{}</td></tr>",
            escape(&p.name),
            p.seconds,
            if p.reused { "reused" } else { "" }
        );
    }
    out.push_str("</table></section>");
    out
}

fn median(mut values: Vec<f64>) -> f64 {
    values.retain(|v| v.is_finite());
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
