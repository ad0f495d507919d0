//! Word and domain lists: the small ones that are built in, and list files.
//!
//! The built-in lists cover what any crawl meets (adult, gambling, pharmacy and phishing spam) in the phrases that such
//! pages repeat; they are a floor, not a policy, and deliberately small. The lists behind published corpora have tens of
//! thousands of words and millions of domains: give them as files.

use std::path::Path;

use internevo_core::storage;

use crate::DataError;

/// Phrases that hardly occur outside pages of their kind.
pub const HARD_WORDS: &[&str] = &[
    // adult
    "free porn",
    "porn videos",
    "porn tube",
    "hardcore porn",
    "xxx videos",
    "live sex cams",
    "sex chat",
    "adult webcams",
    "escort service",
    "call girls",
    "nude pics",
    "hentai porn",
    "色情网站",
    "成人视频",
    "成人电影",
    "裸聊",
    "一夜情交友",
    "アダルト動画",
    "無修正動画",
    "หนังโป๊",
    // gambling
    "casino bonus",
    "free spins",
    "no deposit bonus",
    "online casino",
    "sports betting odds",
    "slot gacor",
    "agen judi",
    "judi online",
    "澳门赌场",
    "百家乐开户",
    "网上赌博",
    "时时彩平台",
    "オンラインカジノ",
    "สล็อตเว็บตรง",
    "คาสิโนออนไลน์",
    // pharmacy spam
    "buy viagra",
    "cheap viagra",
    "cialis online",
    "buy xanax",
    "no prescription needed",
    "penis enlargement",
    // phishing and fraud
    "verify your account immediately",
    "your account has been suspended",
    "claim your prize",
    "you have won a lottery",
    "wire transfer fee",
    "nigerian prince",
    "double your bitcoin",
    "guaranteed investment returns",
    "代开发票",
    "刷单兼职",
];

/// Words that count only in numbers: each has an honest use.
pub const SOFT_WORDS: &[&str] = &[
    "porn",
    "porno",
    "pornographic",
    "xxx",
    "nude",
    "nudes",
    "hentai",
    "milf",
    "camgirl",
    "webcam sex",
    "escorts",
    "erotic",
    "fetish",
    "casino",
    "casinos",
    "jackpot",
    "roulette",
    "baccarat",
    "bookmaker",
    "betting",
    "slot machine",
    "viagra",
    "cialis",
    "levitra",
    "tramadol",
    "payday loan",
    "click here to win",
    "act now",
    "limited time offer",
    "risk free",
    "色情",
    "赌博",
    "赌场",
    "博彩",
    "彩票平台",
    "包养",
    "約炮",
    "エロ動画",
    "出会い系",
];

/// Phrases with a blocked word in them that are honest.
pub const ALLOWED_PHRASES: &[&str] = &[
    "nude mouse",
    "nude mice",
    "casino royale",
    "risk free rate",
    "anti porn",
    "porn addiction",
    "反赌博",
    "禁毒禁赌",
];

/// Words of texts in which soft words have their honest use, by the name of the context.
pub const CONTEXTS: &[(&str, &[&str])] = &[
    (
        "medical",
        &[
            "patient",
            "patients",
            "clinical",
            "disease",
            "symptom",
            "symptoms",
            "treatment",
            "diagnosis",
            "dose",
            "doctor",
            "hospital",
            "therapy",
            "syndrome",
            "患者",
            "临床",
            "疾病",
            "症状",
            "治疗",
            "诊断",
            "医院",
            "医生",
            "药物",
        ],
    ),
    (
        "education",
        &[
            "education",
            "school",
            "students",
            "teacher",
            "curriculum",
            "research",
            "study",
            "prevention",
            "教育",
            "学校",
            "学生",
            "老师",
            "课程",
            "研究",
            "预防",
            "青少年",
        ],
    ),
    (
        "law",
        &[
            "police",
            "court",
            "law",
            "illegal",
            "arrested",
            "convicted",
            "regulation",
            "ban",
            "警方",
            "公安",
            "法院",
            "法律",
            "违法",
            "犯罪",
            "打击",
            "查处",
        ],
    ),
];

/// Domains whose pages are adult or gambling sites as a whole. Subdomains are included.
pub const BLOCKED_DOMAINS: &[&str] = &[
    "pornhub.com",
    "xvideos.com",
    "xnxx.com",
    "xhamster.com",
    "redtube.com",
    "youporn.com",
    "tube8.com",
    "spankbang.com",
    "chaturbate.com",
    "stripchat.com",
    "livejasmin.com",
    "bongacams.com",
    "brazzers.com",
    "adultfriendfinder.com",
    "onlyfans.com",
    "bet365.com",
    "1xbet.com",
    "888casino.com",
    "pokerstars.com",
    "betway.com",
    "unibet.com",
    "bovada.lv",
    "stake.com",
];

/// Parts of an address (between anything that is not a letter or digit) that give such a page away. One is enough.
pub const HARD_URL_WORDS: &[&str] = &[
    "porn", "porno", "pornos", "xxx", "xvideos", "camgirls", "sexcams", "hentai", "escorts", "viagra", "1xbet", "judi",
];

/// Parts of an address of which two are needed.
pub const SOFT_URL_WORDS: &[&str] = &[
    "sex", "sexy", "nude", "nudes", "erotic", "adult", "milf", "casino", "casinos", "slots", "betting", "poker",
    "cialis",
];

/// Reads a list file: one entry per line, `#` begins a comment, blank lines do not count; entries are folded to lower
/// case.
///
/// # Errors
/// When the file cannot be read, is not UTF-8 or has no entry.
pub fn read_list(path: &Path) -> Result<Vec<String>, DataError> {
    let text = storage::read_to_string(path)?;
    let entries: Vec<String> = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim().to_lowercase())
        .filter(|entry| !entry.is_empty())
        .collect();
    if entries.is_empty() {
        return Err(DataError::invalid(path, 1, "the list has no entry"));
    }
    Ok(entries)
}
