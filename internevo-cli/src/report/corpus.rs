//! The page about the stages of a corpus: funnel, sources, thresholds with the documents on both sides, duplicates.

use std::{collections::BTreeSet, fmt::Write as _, path::Path};

use internevo_data::{
    dedup::DuplicateReport,
    inspect::{RuleView, Sample, StageView},
};

use super::{
    page::{document, figure},
    svg::{Bar, Bins, escape, funnel, histogram, short},
};
use crate::{commands::data_report::StageSection, terminal};

/// Rows of a table of sources.
const SOURCES: usize = 30;
/// Reasons of a stage that are listed.
const REASONS: usize = 15;

/// The whole HTML document about the stages in `folder`.
pub fn render(folder: &Path, sections: &[StageSection]) -> String {
    let mut main = funnel_section(sections);
    main.push_str(&sources(sections));
    for section in sections {
        main.push_str(&stage(section));
    }
    let name = folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy();
    document(&format!("Corpus {name}"), &subtitle(sections), &main)
}

fn subtitle(sections: &[StageSection]) -> String {
    let (Some(first), Some(last)) = (sections.first(), sections.last()) else { return String::new() };
    let (read, kept) = (&first.view.report, &last.view.report);
    format!(
        "{} of {} documents kept · {} of {}",
        terminal::count(kept.documents_kept),
        terminal::count(read.documents_in),
        terminal::bytes(kept.bytes_kept),
        terminal::bytes(read.bytes_in)
    )
}

fn funnel_section(sections: &[StageSection]) -> String {
    let bar = |section: &StageSection| {
        let report = &section.view.report;
        let (kept, read) = (report.bytes_kept, report.bytes_in);
        Bar {
            label: report.stage.clone(),
            total: read as f64,
            kept: kept as f64,
            note: format!("{} kept of {}", terminal::bytes(kept), terminal::bytes(read)),
        }
    };
    let bars: Vec<Bar> = sections.iter().map(bar).collect();
    let mut out = format!("<section><h2>Funnel</h2>{}", figure("Text through the stages", &funnel(&bars)));
    out.push_str(&head(&["stage", "documents in", "kept", "rejected", "bytes kept", "seconds", "peak memory"]));
    for section in sections {
        let report = &section.view.report;
        out.push_str(&row(&[
            report.stage.clone(),
            report.documents_in.to_string(),
            report.documents_kept.to_string(),
            (report.documents_in - report.documents_kept).to_string(),
            terminal::bytes(report.bytes_kept),
            format!("{:.1}", report.wall_seconds),
            terminal::bytes(report.peak_rss_bytes),
        ]));
    }
    out + "</table></section>"
}

/// Documents of each source that each stage kept.
fn sources(sections: &[StageSection]) -> String {
    let names: BTreeSet<&String> = sections.iter().flat_map(|section| section.view.sources.keys()).collect();
    if names.len() < 2 {
        return String::new();
    }
    let flow = |view: &StageView, name: &str| view.sources.get(name).copied().unwrap_or_default();
    let read = |name: &str| {
        sections.first().map_or(0, |first| {
            let flow = flow(&first.view, name);
            flow.kept.documents + flow.rejected.documents
        })
    };
    let mut names: Vec<&String> = names.into_iter().collect();
    names.sort_by_key(|name| std::cmp::Reverse(read(name)));
    let mut titles = vec!["source".to_owned(), "documents in".to_owned()];
    titles.extend(sections.iter().map(|section| format!("after {}", section.view.report.stage)));
    let mut out = String::from("<section><h2>Sources</h2>");
    out.push_str(&head(&titles.iter().map(String::as_str).collect::<Vec<_>>()));
    for name in names.iter().take(SOURCES) {
        let mut cells = vec![(*name).clone(), read(name).to_string()];
        cells.extend(sections.iter().map(|section| flow(&section.view, name).kept.documents.to_string()));
        out.push_str(&row(&cells));
    }
    out.push_str("</table>");
    if names.len() > SOURCES {
        out.push_str(&note(&format!("and {} smaller sources", names.len() - SOURCES)));
    }
    out + "</section>"
}

fn stage(section: &StageSection) -> String {
    let report = &section.view.report;
    let mut out = format!("<section><h2>{}</h2>", escape(&report.stage));
    let mut reasons: Vec<_> = report.reasons.iter().collect();
    reasons.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    if !reasons.is_empty() {
        out.push_str(&head(&["rejected because", "documents", "share of all"]));
        for (reason, documents) in reasons.iter().take(REASONS) {
            let share = 100.0 * **documents as f64 / report.documents_in.max(1) as f64;
            out.push_str(&row(&[(*reason).clone(), documents.to_string(), format!("{share:.2} %")]));
        }
        out.push_str("</table>");
        if let Some(rest) = reasons.get(REASONS..).filter(|rest| !rest.is_empty()) {
            let documents: u64 = rest.iter().map(|(_, documents)| **documents).sum();
            out.push_str(&note(&format!("and {} rarer reasons with {documents} documents", rest.len())));
        }
    }
    let rules = &section.borderline.rules;
    if rules.iter().any(measures) {
        out.push_str(concat!(
            r#"<div class="legend"><span><i class="kept"></i>kept</span><span><i class="lost"></i>rejected</span>"#,
            r#"<span><i class="threshold"></i>threshold</span></div>"#
        ));
    }
    if !rules.is_empty() {
        out.push_str(r#"<div class="grid2">"#);
        rules.iter().for_each(|view| out.push_str(&rule(view)));
        out.push_str("</div>");
    }
    if let Some(found) = &section.view.duplicates {
        out.push_str(&duplicates(found));
    }
    out + "</section>"
}

/// Is it a rule with a threshold? Broken lines and equal copies have nothing to measure.
fn measures(view: &RuleView) -> bool {
    view.threshold.is_some() || view.is_minimum.is_some()
}

fn rule(view: &RuleView) -> String {
    let bins = Bins {
        low: view.rejected_values.low,
        high: view.rejected_values.high,
        kept: &view.kept_values.counts,
        lost: &view.rejected_values.counts,
        threshold: view.threshold,
    };
    let limit = match (view.threshold, view.is_minimum) {
        (Some(threshold), Some(true)) => format!(", at least {}", short(threshold)),
        (Some(threshold), _) => format!(", at most {}", short(threshold)),
        (None, Some(_)) => ", by language".to_owned(),
        (None, None) => String::new(),
    };
    let title = format!("{} ({} rejected{limit})", view.reason, view.rejected);
    let mut body = if measures(view) { histogram(&view.reason, &bins) } else { String::new() };
    for (name, samples) in [("just rejected", &view.just_rejected), ("just kept", &view.just_kept)] {
        if !samples.is_empty() {
            let _ = write!(body, "<details><summary>{name}</summary>");
            samples.iter().for_each(|sample| body.push_str(&document_box(sample)));
            body.push_str("</details>");
        }
    }
    figure(&title, &body)
}

fn document_box(sample: &Sample) -> String {
    let about = [short(sample.value), sample.id.clone(), sample.lang.clone(), sample.source.clone()];
    let about: Vec<&str> = about.iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
    let text = if sample.excerpt.trim().is_empty() { "(no text)" } else { &sample.excerpt };
    format!("<h4>{}</h4><pre>{}</pre>", escape(&about.join(" · ")), escape(text))
}

fn duplicates(found: &DuplicateReport) -> String {
    let mut out = String::from("<h3>Duplicates</h3>");
    out.push_str(&head(&[
        "exact sets",
        "near clusters",
        "pairs compared",
        "pairs above the threshold",
        "repeated parts",
    ]));
    let counts =
        [found.exact_groups, found.near_clusters, found.candidate_pairs, found.verified_pairs, found.repeated_parts];
    out.push_str(&row(&counts.map(|count| count.to_string())));
    out.push_str("</table>");
    // Of pairs there are many, and their number is above.
    let mut clusters = found.largest.iter().filter(|cluster| cluster.removed > 1).peekable();
    if clusters.peek().is_some() {
        out.push_str("<h3>Largest clusters</h3>");
        out.push_str(&table("", &["kept", "copies removed", "among them"]));
        for cluster in clusters {
            out.push_str(&row(&[cluster.kept.clone(), cluster.removed.to_string(), cluster.examples.join(", ")]));
        }
        out.push_str("</table>");
    }
    out
}

/// The beginning of a table of numbers, whose first column names them.
fn head(titles: &[&str]) -> String {
    table(r#" class="numbers""#, titles)
}

/// The beginning of a table with these attributes.
fn table(attributes: &str, titles: &[&str]) -> String {
    let cells: String = titles.iter().map(|title| format!("<th>{}</th>", escape(title))).collect();
    format!("<table{attributes}><tr>{cells}</tr>")
}

/// What a table leaves out.
fn note(text: &str) -> String {
    format!(r#"<p class="note">{}</p>"#, escape(text))
}

fn row(cells: &[String]) -> String {
    let cells: String = cells.iter().map(|cell| format!("<td>{}</td>", escape(cell))).collect();
    format!("<tr>{cells}</tr>")
}
