//! What the safe stage costs: `cargo run --release -p internevo-data --example safe_bench -- lists FOLDER 13000000`
//!
//! | command | measures |
//! |---|---|
//! | `lists FOLDER COUNT` | a domain list of so many made-up entries: build, bytes per entry, look-ups, memory. The folder keeps the lists and what is built of them; a second call measures memory without the build |
//! | `classifier FILES…` | training and prediction of a text classifier |
//! | `filters FILES…` | the filters `blocked_words`, `blocked_urls` and `personal_data` |
//!
//! Speeds are megabytes (10^6 bytes of UTF-8) per second of one thread. Files are text, cut into documents of 4 000 bytes at line ends.

use std::{
    fs,
    hint::black_box,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    time::Instant,
};

use internevo_core::rng::CounterRng;
use internevo_data::{
    Document, Features, Filter,
    classifier::{ClassifierSettings, Labelled, TextClassifier},
    safety::{Address, BlockedUrls, BlockedWords, PersonalData, domains::DomainList},
    testing::build,
};

/// The product's allocator: what it costs and keeps is part of what is measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const DOCUMENT_BYTES: usize = 4000;
const LOOKUPS: u64 = 2_000_000;

fn documents(paths: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for path in paths {
        let text = String::from_utf8_lossy(&fs::read(path).expect("a readable file")).into_owned();
        let mut current = String::new();
        for line in text.split_inclusive('\n') {
            current.push_str(line);
            if current.len() > DOCUMENT_BYTES {
                found.push(std::mem::take(&mut current));
            }
        }
        found.push(current);
    }
    found
}

fn megabytes(documents: &[String]) -> f64 {
    documents.iter().map(String::len).sum::<usize>() as f64 / 1e6
}

/// Tells documents of the first half from those of the second: the weights are what they may be, the work is the same.
fn classifier(paths: &[String]) {
    let documents = documents(paths);
    let half = documents.len() / 2;
    let labelled = documents.iter().enumerate();
    let labelled: Vec<Labelled> =
        labelled.map(|(at, text)| Labelled::new(text, if at < half { "first" } else { "second" })).collect();
    let settings = ClassifierSettings::default();
    let start = Instant::now();
    let classifier = TextClassifier::train(labelled, &settings).expect("two labels");
    let training = start.elapsed().as_secs_f64();
    let (count, size) = (documents.len(), megabytes(&documents));
    println!("{count} documents, {size:.1} MB; training {training:.1} s for {} epochs", settings.epochs);
    let start = Instant::now();
    documents.iter().for_each(|text| drop(black_box(classifier.probabilities(text))));
    println!("prediction {:.1} MB/s", size / start.elapsed().as_secs_f64());
}

fn filters(paths: &[String]) {
    let texts = documents(paths);
    let size = megabytes(&texts);
    let documents: Vec<Document> = texts.into_iter().map(|text| Document::new("d", text)).collect();
    let filters: [(&str, Box<dyn Filter>); 3] = [
        ("blocked_words", build::<BlockedWords>("")),
        ("blocked_urls", build::<BlockedUrls>("")),
        ("personal_data", build::<PersonalData>("")),
    ];
    for (name, filter) in &filters {
        let start = Instant::now();
        let kept = documents.iter().filter(|document| filter.judge(&Features::new(document)).keeps()).count();
        let speed = size / start.elapsed().as_secs_f64();
        println!("{name:14} {speed:7.1} MB/s, {kept} of {} kept", documents.len());
    }
}

/// Made-up names of the lengths that blacklists have: 18 characters on average.
fn domain(rng: &CounterRng, at: u64) -> String {
    let [a, b, c, d] = rng.words(at);
    let top = ["com", "net", "org", "info", "xyz", "co.uk", "ru", "de"][(d % 8) as usize];
    let letters = |mut word: u32, count: u32| -> String {
        (0..count)
            .map(|_| {
                let letter = char::from(b'a' + (word % 26) as u8);
                word /= 26;
                letter
            })
            .collect()
    };
    format!("{}{}-{}{at:x}.{top}", letters(a, 2 + c % 5), letters(b, c / 5 % 4), letters(d, 1 + c / 20 % 2))
}

fn write_lists(folder: &Path, count: u64) {
    let rng = CounterRng::new(1, "safe_bench");
    for (at, category) in ["adult", "gambling", "malware", "phishing"].into_iter().enumerate() {
        fs::create_dir_all(folder.join(category)).expect("folder");
        let mut file = BufWriter::new(fs::File::create(folder.join(category).join("domains")).expect("list"));
        let own = (at as u64..count).step_by(4);
        own.for_each(|entry| writeln!(file, "{}", domain(&rng, entry)).expect("room on the disk"));
    }
}

/// A line of this process' memory, MB.
fn memory(key: &str) -> f64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("a line of Linux");
    line.split_whitespace().find_map(|word| word.parse::<f64>().ok()).expect("a number") / 1000.0
}

fn lists(folder: &Path, count: u64) {
    let sources = folder.join(format!("lists-{count}"));
    if !sources.exists() {
        write_lists(&sources, count);
    }
    let before = memory("RssAnon:");
    let start = Instant::now();
    let list = DomainList::of_sources(&[PathBuf::from(&sources)], folder).expect("lists");
    let bytes = fs::metadata(list.path()).expect("file").len();
    println!(
        "{} entries open after {:.1} s, {:.1} bytes each",
        list.len(),
        start.elapsed().as_secs_f64(),
        bytes as f64 / list.len() as f64
    );
    println!(
        "peak so far {:.0} MB, anonymous {:.0} MB more than before",
        memory("VmHWM:"),
        memory("RssAnon:") - before
    );
    let (rng, probe) = (CounterRng::new(1, "safe_bench"), CounterRng::new(2, "probe"));
    let hits: Vec<Address> = (0..LOOKUPS)
        .map(|i| {
            Address::parse(&format!("http://www.shop.{}/a/b", domain(&rng, probe.below(i, count)))).expect("an address")
        })
        .collect();
    let misses: Vec<Address> = (0..LOOKUPS)
        .map(|i| Address::parse(&format!("http://www.shop.x{}/a/b", domain(&probe, i))).expect("an address"))
        .collect();
    for (name, addresses, expected) in [("misses", &misses, 0), ("hits", &hits, LOOKUPS as usize)] {
        let start = Instant::now();
        let found = addresses.iter().filter(|address| !list.lookup(address).is_empty()).count();
        let nanoseconds = start.elapsed().as_nanos() as f64 / LOOKUPS as f64;
        assert_eq!(found, expected, "{name}");
        println!(
            "{name}: {nanoseconds:.0} ns a look-up of three or four names; mapped and touched {:.0} MB",
            memory("RssFile:")
        );
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["lists", folder, count] => lists(Path::new(folder), count.parse().expect("a number of entries")),
        ["classifier", _, ..] => classifier(&arguments[1..]),
        ["filters", _, ..] => filters(&arguments[1..]),
        _ => eprintln!("safe_bench lists FOLDER COUNT | classifier FILES… | filters FILES…"),
    }
}
