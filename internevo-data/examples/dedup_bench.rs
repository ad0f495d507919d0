//! Deduplication measured: plants known duplicates into text of this machine, runs a method, scores it.
//!
//! ```text
//! cargo run --release -p internevo-data --example dedup_bench -- plant CORPUS 60 ~/.cargo/registry/src
//! cargo run --release -p internevo-data --example dedup_bench -- run CORPUS/en OUT minhash 2 2GiB
//! cargo run --release -p internevo-data --example dedup_bench -- score CORPUS OUT
//! cargo run --release -p internevo-data --example dedup_bench -- synth LARGE 5000        # a corpus of any size, for memory and scaling
//! ```
//!
//! The recipe is the usual one: every tenth document gets a copy in which 1 to 30 % of the tokens are substituted, inserted or
//! deleted, every fiftieth an exact copy. Prose (`en`) and code come from the Markdown and source files below the folders named;
//! Chinese (`zh`) is made up, characters drawn by Zipf's law, because few machines hold any. `score` counts with sets of strings of
//! its own, nothing of the library: recall over planted pairs by their Jaccard similarity, and for every removed document whether the
//! kept copy it names is truly that similar.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs,
    io::Write,
    path::{Path, PathBuf},
    time::Instant,
};

use internevo_core::{config::PipelineConfig, rng::CounterRng};
use internevo_data::stage::{StageRequest, run_stage};
use serde_json::{Value, json};

/// The product's allocator: what it costs and keeps is part of what is measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const RATES: [f64; 10] = [0.01, 0.02, 0.03, 0.04, 0.05, 0.07, 0.10, 0.15, 0.20, 0.30];
const SHARDS: usize = 4;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["plant", corpus, megabytes, sources @ ..] => plant(corpus.as_ref(), megabytes.parse().expect("MB"), sources),
        ["synth", corpus, megabytes] => synth(corpus.as_ref(), megabytes.parse().expect("MB")),
        ["run", input, output, method, threads, memory] => run(input, output, method, threads, memory),
        ["score", corpus, output] => score(corpus.as_ref(), output.as_ref()),
        _ => eprintln!(
            "plant CORPUS MB FOLDER… | synth CORPUS MB | run INPUT OUTPUT METHOD THREADS MEMORY | score CORPUS OUTPUT"
        ),
    }
}

/// Is `c` a token of its own?
fn is_cjk(c: char) -> bool {
    ('\u{3400}'..='\u{9fff}').contains(&c)
}

/// Tokens with their places: runs of alphanumerics, single CJK characters.
fn tokens(text: &str) -> Vec<(usize, &str)> {
    let (mut found, mut start) = (Vec::new(), None);
    for (at, c) in text.char_indices().chain([(text.len(), ' ')]) {
        let in_word = c.is_alphanumeric() && !is_cjk(c);
        if !in_word && let Some(from) = start.take() {
            found.push((from, &text[from..at]));
        }
        match (in_word, is_cjk(c)) {
            (true, _) => start = start.or(Some(at)),
            (false, true) => found.push((at, &text[at..at + c.len_utf8()])),
            _ => {}
        }
    }
    found
}

/// The 5-grams of a text, folded as the language's rule folds it.
fn grams(text: &str, code: bool) -> HashSet<String> {
    let fold = |word: &str| -> String {
        if code {
            return word.to_owned();
        }
        word.to_lowercase().chars().map(|c| if c.is_numeric() { '0' } else { c }).collect()
    };
    let words: Vec<String> = tokens(text).iter().map(|(_, word)| fold(word)).collect();
    words.windows(5.min(words.len()).max(1)).map(|gram| gram.join(" ")).collect()
}

fn jaccard(a: &HashSet<String>, b: &HashSet<String>) -> f64 {
    let common = a.intersection(b).count();
    common as f64 / (a.len() + b.len() - common).max(1) as f64
}

fn edit(text: &str, rate: f64, seed: u64, vocabulary: &[String]) -> String {
    let rng = CounterRng::new(seed, "edit");
    let (mut out, mut last) = (String::with_capacity(text.len()), 0);
    for (i, (at, word)) in tokens(text).into_iter().enumerate() {
        let i = i as u64;
        if rng.uniform(3 * i) >= rate {
            continue;
        }
        out.push_str(&text[last..at]);
        let other = &vocabulary[rng.below(3 * i + 1, vocabulary.len() as u64) as usize];
        match rng.uniform(3 * i + 2) {
            r if r < 0.6 => out.push_str(other),
            r if r < 0.8 => out.push_str(&format!("{word} {other}")),
            _ => {}
        }
        last = at + word.len();
    }
    out + &text[last..]
}

fn collect(folder: &Path, extensions: &[&str], limit: u64, found: &mut Vec<String>, bytes: &mut u64) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if *bytes >= limit {
            return;
        }
        if path.is_dir() {
            collect(&path, extensions, limit, found, bytes);
        } else if path.extension().is_some_and(|e| extensions.iter().any(|x| e == *x))
            && let Ok(text) = fs::read_to_string(&path)
            && (500..200_000).contains(&text.len())
        {
            *bytes += text.len() as u64;
            found.push(text);
        }
    }
}

/// Chinese by Zipf's law over 3,000 characters.
fn made_up(limit: u64) -> Vec<String> {
    let (mut texts, mut bytes) = (Vec::new(), 0);
    while bytes < limit {
        let rng = CounterRng::new(texts.len() as u64, "zh");
        let length = 400 + rng.below(0, 3000);
        let character = |i: u64| match rng.below(2 * i, 12) {
            0 => '，',
            1 => '。',
            _ => char::from_u32(0x4e00 + (3000f64.powf(rng.uniform(2 * i + 1)) as u32)).expect("CJK"),
        };
        let text: String = (1..length).map(character).collect();
        bytes += text.len() as u64;
        texts.push(text);
    }
    texts
}

/// Drops files that share a tenth of sampled 5-grams with earlier ones: what is planted shall be all there is.
fn without_natural_duplicates(texts: Vec<String>, code: bool) -> Vec<String> {
    let mut seen: HashSet<u64> = HashSet::new();
    texts
        .into_iter()
        .filter(|text| {
            let hash = |gram: &String| xxhash_rust::xxh3::xxh3_64(gram.as_bytes());
            let sample: Vec<u64> = grams(text, code).iter().map(hash).filter(|hash| hash % 4 == 0).collect();
            let known = sample.iter().filter(|hash| seen.contains(hash)).count();
            seen.extend(&sample);
            sample.len() > 15 && known * 4 < sample.len()
        })
        .collect()
}

fn plant(corpus: &Path, megabytes: u64, sources: &[&str]) {
    let limit = megabytes * 1_000_000;
    let from_disk = |extensions: &[&str]| {
        let (mut found, mut bytes) = (Vec::new(), 0);
        sources.iter().for_each(|folder| collect(folder.as_ref(), extensions, limit, &mut found, &mut bytes));
        found
    };
    fs::create_dir_all(corpus).expect("folder");
    let mut truth = fs::File::create(corpus.join("truth.jsonl")).expect("truth");
    let kinds = [
        ("en", from_disk(&["md", "txt", "rst"])),
        ("zh", made_up(limit / 4)),
        ("code", from_disk(&["rs", "py", "c", "h"])),
    ];
    for (lang, raw) in kinds {
        let code = lang == "code";
        let texts = without_natural_duplicates(raw, code);
        let vocabulary: Vec<String> = texts
            .iter()
            .step_by(20)
            .flat_map(|text| tokens(text).into_iter().take(200))
            .map(|(_, w)| w.into())
            .collect();
        let mut documents: Vec<(String, String)> = Vec::new();
        for (i, text) in texts.into_iter().enumerate() {
            if i % 10 == 0 {
                let rate = if i % 50 == 0 { 0.0 } else { RATES[i / 10 % RATES.len()] };
                let copy = edit(&text, rate, i as u64, &vocabulary);
                let similarity = jaccard(&grams(&text, code), &grams(&copy, code));
                let line = json!({"id": format!("{lang}-p{i}"), "dup_of": format!("{lang}-d{i}"), "edit": rate,
                    "jaccard": similarity, "lang": lang});
                writeln!(truth, "{line}").expect("truth");
                documents.push((format!("{lang}-p{i}"), copy));
            }
            documents.push((format!("{lang}-d{i}"), text));
        }
        let bytes: usize = documents.iter().map(|(_, text)| text.len()).sum();
        println!("{lang}: {} documents, {:.1} MB", documents.len(), bytes as f64 / 1e6);
        write_shards(&corpus.join(lang), lang, &documents);
    }
}

fn write_shards(folder: &Path, lang: &str, documents: &[(String, String)]) {
    fs::create_dir_all(folder).expect("folder");
    let order = CounterRng::new(7, lang).permutation(documents.len());
    for shard in 0..SHARDS {
        let mut lines = Vec::new();
        for index in order.iter().skip(shard).step_by(SHARDS) {
            let (id, text) = &documents[*index as usize];
            let kind = if lang == "code" { "code" } else { "text" };
            writeln!(lines, "{}", json!({"id": id, "text": text, "lang": lang, "type": kind})).expect("memory");
        }
        fs::write(folder.join(format!("{shard:02}.jsonl")), lines).expect("shard");
    }
}

/// Made-up words by Zipf's law, 200 to 1,500 a document; every tenth document is followed by a copy with every fiftieth word replaced.
fn synth(corpus: &Path, megabytes: usize) {
    let spell = |rng: &CounterRng| -> String {
        (0..3 + rng.below(0, 7)).map(|k| char::from(b'a' + rng.below(k + 1, 26) as u8)).collect()
    };
    let words: Vec<String> = (0..50_000u64).map(|i| spell(&CounterRng::new(i, "word"))).collect();
    let pick = |rng: &CounterRng, i: u64| &*words[50_000f64.powf(rng.uniform(i)) as usize % words.len()];
    fs::create_dir_all(corpus).expect("folder");
    let (mut bytes, mut document, mut shard) = (0, 0u64, 0);
    while bytes < megabytes * 1_000_000 {
        let mut lines = String::new();
        while lines.len() < 200_000_000 && bytes + lines.len() < megabytes * 1_000_000 {
            let rng = CounterRng::new(document, "document");
            let length = 200 + rng.below(u64::MAX, 1300);
            let original: Vec<&str> = (0..length).map(|i| pick(&rng, i)).collect();
            lines.push_str(&format!("{{\"id\":\"d{document}\",\"text\":\"{}\"}}\n", original.join(" ")));
            if document % 10 == 0 {
                let edited = original.iter().zip(length..).map(|(w, i)| if i % 50 == 0 { pick(&rng, i) } else { w });
                let text = edited.collect::<Vec<_>>().join(" ");
                lines.push_str(&format!("{{\"id\":\"p{document}\",\"text\":\"{text}\"}}\n"));
            }
            document += 1;
        }
        bytes += lines.len();
        fs::write(corpus.join(format!("{shard:03}.jsonl")), lines).expect("shard");
        shard += 1;
    }
    println!("{document} documents and a tenth of copies, {:.0} MB", bytes as f64 / 1e6);
}

fn run(input: &str, output: &str, method: &str, threads: &str, memory: &str) {
    let mut pipeline = PipelineConfig::default();
    pipeline.dedup.method = method.into();
    pipeline.dedup.memory = memory.into();
    let threads = threads.parse().expect("a number of threads");
    let request = StageRequest {
        stage: "dedup",
        input: input.into(),
        output: output.into(),
        lang: None,
        threads,
        artifacts: output.into(),
        pipeline: &pipeline,
    };
    let _ = fs::remove_dir_all(output);
    let started = Instant::now();
    let report = run_stage(&request, &()).expect("the stage runs");
    let megabytes = report.bytes_in as f64 / 1e6;
    println!(
        "{method}, {threads} threads, {memory}: {} of {} documents kept, {megabytes:.1} MB in {:.2} CPU s = {:.1} MB/CPU s, {:.2} s wall, peak {:.0} MB",
        report.documents_kept,
        report.documents_in,
        report.cpu_seconds,
        megabytes / report.cpu_seconds,
        started.elapsed().as_secs_f64(),
        report.peak_rss_bytes as f64 / 1e6,
    );
}

fn json_lines(folder: &Path) -> Vec<Value> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).expect("folder").flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let texts = paths.iter().map(|path| fs::read_to_string(path).expect("file"));
    texts.flat_map(|t| t.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect::<Vec<Value>>()).collect()
}

fn score(corpus: &Path, output: &Path) {
    let string = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let rejected = json_lines(&output.join("rejected"));
    let gone: HashMap<String, String> =
        rejected.iter().map(|line| (string(line, "id"), string(line, "detail"))).collect();
    let kept: HashSet<String> = json_lines(&output.join("kept")).iter().map(|line| string(line, "id")).collect();
    let mut texts: HashMap<String, String> = HashMap::new();
    for lang in ["en", "zh", "code"] {
        texts.extend(json_lines(&corpus.join(lang)).iter().map(|line| (string(line, "id"), string(line, "text"))));
    }
    let truth = fs::read_to_string(corpus.join("truth.jsonl")).expect("truth");
    let mut bins: BTreeMap<String, [u32; 2]> = BTreeMap::new();
    for pair in truth.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")) {
        let (a, b) = (string(&pair, "id"), string(&pair, "dup_of"));
        if !kept.contains(&a) && !gone.contains_key(&a) {
            continue;
        }
        let similarity = pair["jaccard"].as_f64().expect("number");
        let found = u32::from(gone.contains_key(&a) || gone.contains_key(&b));
        let mut add = |bin: String| {
            let counts = bins.entry(bin).or_default();
            counts[0] += found;
            counts[1] += 1;
        };
        add(format!("J {:.1}", (similarity * 10.0).floor() / 10.0));
        if similarity >= 0.7 {
            add("recall, J >= 0.7".into());
        }
    }
    let true_removals = gone.iter().filter(|(removed, kept_copy)| {
        let code = removed.starts_with("code");
        let (a, b) = (grams(&texts[*removed], code), grams(&texts[*kept_copy], code));
        kept.contains(*kept_copy) && (jaccard(&a, &b) >= 0.7 - 1e-9 || texts[*removed] == texts[*kept_copy])
    });
    let true_removals = true_removals.count();
    for (bin, [found, all]) in bins {
        println!("{bin:18} {found:5} / {all:5} = {:.3}", f64::from(found) / f64::from(all));
    }
    println!("precision          {true_removals:5} / {:5}", gone.len());
}
