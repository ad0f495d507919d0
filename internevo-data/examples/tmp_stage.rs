//! Temporary.
use internevo_core::config::PipelineConfig;
use internevo_data::stage::*;
struct P;
impl Progress for P { fn message(&self, t: &str) { eprintln!("{t}") } }
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let pipeline = PipelineConfig::default();
    let r = StageRequest { stage: &a[1], input: a[2].as_str().into(), output: a[3].as_str().into(), lang: None, threads: a[4].parse().unwrap(), artifacts: "x".into(), pipeline: &pipeline };
    match run_stage(&r, &P) { Ok(r) => println!("{} in {} kept {} MB {:.1} cpu {:.2} wall {:.2} rss {} MB/cpu-s {:.1} reused {} {:?}", r.stage, r.documents_in, r.documents_kept, r.bytes_in as f64/1e6, r.cpu_seconds, r.wall_seconds, r.peak_rss_bytes/1000000, r.bytes_in as f64/1e6/r.cpu_seconds, r.reused, r.reasons), Err(e) => { println!("error: {e}"); std::process::exit(2) } }
}
