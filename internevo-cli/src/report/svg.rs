//! Line charts and bar charts as inline SVG: no script, no font, no network. Knows nothing of runs or metrics.

use std::fmt::Write as _;

/// Width of every chart, in SVG units.
const WIDTH: f64 = 640.0;
/// Height of a line chart.
const HEIGHT: f64 = 260.0;
/// Space for the labels of the vertical axis.
const LEFT: f64 = 62.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 36.0;
/// More points than this cannot be told apart at this width.
const MAX_POINTS: usize = 1200;

/// One line of a chart.
pub struct Series<'a> {
    /// Name in the legend.
    pub name: &'a str,
    /// CSS class: `a`, `b` or `c` choose a colour of the page's palette; `rule` draws a dashed horizontal guide.
    pub class: &'a str,
    /// (x, y); points that are not finite leave a gap.
    pub points: Vec<(f64, f64)>,
}

/// A line chart with "nice" ticks. Empty series give a chart that says so.
pub fn line_chart(x_label: &str, y_label: &str, series: &[Series<'_>]) -> String {
    let finite = || series.iter().flat_map(|s| &s.points).filter(|(x, y)| x.is_finite() && y.is_finite());
    let Some((x_range, y_range)) = range(finite().map(|p| p.0)).zip(range(finite().map(|p| p.1))) else {
        return format!(
            r#"<svg viewBox="0 0 {WIDTH} 80" role="img"><text class="tick" x="{}" y="44" text-anchor="middle">nothing recorded yet</text></svg>"#,
            WIDTH / 2.0
        );
    };
    let y_range = padded(y_range);
    let sx = |x: f64| LEFT + (x - x_range.0) / (x_range.1 - x_range.0).max(f64::MIN_POSITIVE) * (WIDTH - LEFT - RIGHT);
    let sy = |y: f64| HEIGHT - BOTTOM - (y - y_range.0) / (y_range.1 - y_range.0) * (HEIGHT - TOP - BOTTOM);

    let mut out = format!(r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{}">"#, escape(y_label));
    for tick in ticks(y_range, 5) {
        let y = sy(tick);
        let _ = write!(
            out,
            r#"<line class="grid" x1="{LEFT}" x2="{}" y1="{y:.1}" y2="{y:.1}"/><text class="tick" x="{}" y="{:.1}" text-anchor="end">{}</text>"#,
            WIDTH - RIGHT,
            LEFT - 8.0,
            y + 4.0,
            short(tick)
        );
    }
    for tick in ticks(x_range, 6) {
        let x = sx(tick);
        let _ = write!(
            out,
            r#"<text class="tick" x="{x:.1}" y="{}" text-anchor="middle">{}</text>"#,
            HEIGHT - BOTTOM + 18.0,
            short(tick)
        );
    }
    let _ = write!(
        out,
        r#"<text class="axis" x="{}" y="{}" text-anchor="end">{}</text>"#,
        WIDTH - RIGHT,
        HEIGHT - 4.0,
        escape(x_label)
    );
    for s in series {
        let _ = write!(out, r#"<path class="line {}" d="{}"/>"#, s.class, path(&thin(&s.points), &sx, &sy));
        if let [(x, y)] = s.points[..] {
            let _ = write!(out, r#"<circle class="dot {}" cx="{:.1}" cy="{:.1}" r="3"/>"#, s.class, sx(x), sy(y));
        }
    }
    out.push_str("</svg>");
    if series.len() > 1 {
        out.push_str(r#"<div class="legend">"#);
        for s in series {
            let _ = write!(out, r#"<span><i class="{}"></i>{}</span>"#, s.class, escape(s.name));
        }
        out.push_str("</div>");
    }
    out
}

/// One bar of a [`funnel`]: what came in and what was kept.
pub struct Bar {
    /// Label at the left.
    pub label: String,
    /// Length of the pale bar.
    pub total: f64,
    /// Length of the solid bar.
    pub kept: f64,
    /// Text at the right.
    pub note: String,
}

/// Horizontal bars on one scale, for quantities that shrink from stage to stage.
pub fn funnel(bars: &[Bar]) -> String {
    const ROW: f64 = 34.0;
    const LABEL: f64 = 86.0;
    const NOTE: f64 = 190.0;
    let widest = bars.iter().map(|b| b.total).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let scale = (WIDTH - LABEL - NOTE) / widest;
    let height = ROW * bars.len() as f64 + 6.0;
    let mut out =
        format!(r#"<svg class="funnel" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="corpus funnel">"#);
    for (i, bar) in bars.iter().enumerate() {
        let y = ROW * i as f64 + 6.0;
        let _ = write!(
            out,
            concat!(
                r#"<text class="label" x="{x}" y="{ty}" text-anchor="end">{label}</text>"#,
                r#"<rect class="lost" x="{LABEL}" y="{y}" width="{total:.1}" height="22" rx="3"/>"#,
                r#"<rect class="kept" x="{LABEL}" y="{y}" width="{kept:.1}" height="22" rx="3"/>"#,
                r#"<text class="tick" x="{nx:.1}" y="{ty}">{note}</text>"#
            ),
            x = LABEL - 10.0,
            ty = y + 15.5,
            label = escape(&bar.label),
            LABEL = LABEL,
            y = y,
            total = bar.total * scale,
            kept = bar.kept * scale,
            nx = LABEL + bar.total * scale + 8.0,
            note = escape(&bar.note)
        );
    }
    out.push_str("</svg>");
    out
}

/// Two groups of numbers in bins on one scale.
pub struct Bins<'a> {
    /// Lower end of the first bin.
    pub low: f64,
    /// Upper end of the last bin.
    pub high: f64,
    /// Counts of the group that stays, drawn from the axis up.
    pub kept: &'a [u64],
    /// Counts of the group that goes, on top of it.
    pub lost: &'a [u64],
    /// A vertical line.
    pub threshold: Option<f64>,
}

/// Stacked bars with a line where the threshold is. Heights are square roots of counts: a few documents beside many stay visible.
pub fn histogram(label: &str, bins: &Bins<'_>) -> String {
    const HEIGHT: f64 = 150.0;
    let count = bins.kept.len().max(1) as f64;
    let width = (WIDTH - 2.0 * RIGHT) / count;
    let sx = |value: f64| RIGHT + (value - bins.low) / (bins.high - bins.low) * (WIDTH - 2.0 * RIGHT);
    let totals = || bins.kept.iter().zip(bins.lost).map(|(kept, lost)| (kept + lost) as f64);
    let tallest = totals().fold(1.0, f64::max).sqrt();
    let scale = (HEIGHT - TOP - BOTTOM) / tallest;
    let floor = HEIGHT - BOTTOM;
    let mut out =
        format!(r#"<svg class="histogram" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{}">"#, escape(label));
    for (bin, (total, kept)) in totals().zip(bins.kept).enumerate() {
        let (x, height) = (RIGHT + bin as f64 * width, total.sqrt() * scale);
        let solid = if total > 0.0 { height * *kept as f64 / total } else { 0.0 };
        for (class, top, height) in [("lost", floor - height, height - solid), ("kept", floor - solid, solid)] {
            if height > 0.0 {
                let w = (width - 1.0).max(0.5);
                let _ = write!(
                    out,
                    r#"<rect class="{class}" x="{x:.1}" y="{top:.1}" width="{w:.1}" height="{height:.1}"/>"#
                );
            }
        }
    }
    for tick in ticks((bins.low, bins.high), 6) {
        let (x, y) = (sx(tick), floor + 18.0);
        let _ = write!(out, r#"<text class="tick" x="{x:.1}" y="{y}" text-anchor="middle">{}</text>"#, short(tick));
    }
    if let Some(x) = bins.threshold.map(sx).filter(|x| x.is_finite()) {
        let _ = write!(out, r#"<line class="threshold" x1="{x:.1}" x2="{x:.1}" y1="{TOP}" y2="{floor}"/>"#);
    }
    out.push_str("</svg>");
    out
}

/// Text that is safe inside HTML and SVG.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

/// A number with three significant digits and a unit prefix: `12.3k`, `0.0015`, `4.0M`.
pub fn short(value: f64) -> String {
    let magnitude = value.abs();
    let (scaled, suffix) = match magnitude {
        m if m >= 1e12 => (value / 1e12, "T"),
        m if m >= 1e9 => (value / 1e9, "G"),
        m if m >= 1e6 => (value / 1e6, "M"),
        m if m >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    if magnitude != 0.0 && magnitude < 1e-3 {
        return format!("{value:.1e}");
    }
    let digits = format!(
        "{scaled:.*}",
        if scaled.abs() >= 100.0 {
            0
        } else if scaled.abs() >= 1.0 {
            2
        } else {
            4
        }
    );
    let trimmed = if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { &digits };
    format!("{trimmed}{suffix}")
}

fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.fold(None, |r, v| Some(r.map_or((v, v), |(lo, hi): (f64, f64)| (lo.min(v), hi.max(v)))))
}

fn padded((lo, hi): (f64, f64)) -> (f64, f64) {
    let pad = if hi > lo { (hi - lo) * 0.06 } else { lo.abs().max(1.0) * 0.1 };
    (lo - pad, hi + pad)
}

/// Round numbers (1, 2 or 5 times a power of ten) inside the range, about `count` of them.
fn ticks((lo, hi): (f64, f64), count: usize) -> Vec<f64> {
    if hi <= lo {
        return vec![lo];
    }
    let raw = (hi - lo) / count as f64;
    let power = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= raw).unwrap_or(10.0 * power);
    let first = (lo / step).ceil() as i64;
    let last = (hi / step).floor() as i64;
    (first..=last).map(|i| i as f64 * step).collect()
}

/// At most [`MAX_POINTS`] points: the mean of equal runs, so that a long curve keeps its shape.
fn thin(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let run = points.len().div_ceil(MAX_POINTS).max(1);
    points
        .chunks(run)
        .map(|c| {
            (c.iter().map(|p| p.0).sum::<f64>() / c.len() as f64, c.iter().map(|p| p.1).sum::<f64>() / c.len() as f64)
        })
        .collect()
}

fn path(points: &[(f64, f64)], sx: &impl Fn(f64) -> f64, sy: &impl Fn(f64) -> f64) -> String {
    let mut d = String::new();
    let mut pen_down = false;
    for (x, y) in points {
        if x.is_finite() && y.is_finite() {
            let _ = write!(d, "{}{:.1} {:.1}", if pen_down { "L" } else { "M" }, sx(*x), sy(*y));
            pen_down = true;
        } else {
            pen_down = false;
        }
    }
    d
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside_the_range() {
        for (lo, hi) in [(0.0, 1.0), (2.31, 8.9), (-3.0, 7.5), (1e-4, 3e-3), (0.0, 2e6)] {
            let found = ticks((lo, hi), 5);
            assert!((2..=11).contains(&found.len()), "{lo}..{hi}: {found:?}");
            assert!(found.iter().all(|t| *t >= lo - 1e-12 && *t <= hi + 1e-12), "{lo}..{hi}: {found:?}");
        }
    }

    #[test]
    fn a_gap_in_the_data_is_a_gap_in_the_line() {
        let points = vec![(0.0, 1.0), (1.0, 2.0), (2.0, f64::NAN), (3.0, 1.0), (4.0, 3.0)];
        let chart = line_chart("step", "loss", &[Series { name: "loss", class: "a", points }]);
        assert_eq!(
            chart.split(r#" d=""#).nth(1).map(|d| d.split('"').next().unwrap_or("").matches('M').count()),
            Some(2)
        );
        assert!(!chart.contains("NaN"));
    }

    #[test]
    fn a_chart_without_points_says_so() {
        assert!(line_chart("step", "loss", &[]).contains("nothing recorded"));
    }

    #[test]
    fn a_histogram_draws_every_bin_that_holds_something_and_the_threshold_in_its_place() {
        let bins = Bins { low: 0.0, high: 4.0, kept: &[0, 0, 3, 9], lost: &[4, 1, 0, 0], threshold: Some(2.0) };
        let chart = histogram("words", &bins);
        assert_eq!((chart.matches("class=\"lost\"").count(), chart.matches("class=\"kept\"").count()), (2, 2));
        assert!(chart.contains(&format!(r#"class="threshold" x1="{:.1}""#, WIDTH / 2.0)), "{chart}");
        let none = Bins { low: 0.0, high: 1.0, kept: &[], lost: &[], threshold: None };
        assert!(!histogram("nothing", &none).contains("NaN"));
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(short(0.0), "0");
        assert_eq!(short(1234.0), "1234");
        assert_eq!(short(12_345.0), "12.35k");
        assert_eq!(short(4_000_000.0), "4M");
        assert_eq!(short(0.0015), "0.0015");
        assert_eq!(short(120.0), "120");
    }
}
