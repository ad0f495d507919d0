//! Blocks of extracted text: which of them are boilerplate, and how they become Markdown.

use super::html::MainContentConfig;

/// A piece of text between two block boundaries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    pub kind: Kind,
    pub text: String,
    /// Characters of `text`, and of them those inside links.
    pub chars: usize,
    pub link_chars: usize,
    /// Depth of quotation.
    pub quotes: usize,
}

/// What a block is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Paragraph,
    /// Level 1 to 6.
    Heading(u8),
    /// An item of a list inside `depth` others; further paragraphs of an item have an empty marker.
    Item {
        depth: usize,
        marker: String,
    },
    /// A table's row.
    Row,
    /// Code in a language (may be empty).
    Code(String),
}

/// Drops blocks that are mostly links, then headings with nothing left below them (Kohlschütter et al. 2010 call the measure link
/// density).
pub fn density_filter(blocks: Vec<Block>, config: &MainContentConfig) -> Vec<Block> {
    let is_menu = |block: &Block| {
        let share = block.link_chars as f64 / block.chars as f64;
        !matches!(block.kind, Kind::Heading(_) | Kind::Code(_))
            && share > config.max_link_share
            && block.chars < config.long_block_chars
    };
    let mut kept: Vec<Block> = Vec::with_capacity(blocks.len());
    for block in blocks.into_iter().filter(|block| !is_menu(block)) {
        if let Kind::Heading(level) = block.kind {
            while matches!(kept.last(), Some(Block { kind: Kind::Heading(above), .. }) if *above >= level) {
                kept.pop();
            }
        }
        kept.push(block);
    }
    while matches!(kept.last(), Some(Block { kind: Kind::Heading(_), .. })) {
        kept.pop();
    }
    kept
}

/// The blocks as Markdown.
pub fn render(blocks: &[Block]) -> String {
    let mut text = String::new();
    for (at, block) in blocks.iter().enumerate() {
        if let Some(before) = at.checked_sub(1).map(|at| &blocks[at]) {
            let tight =
                matches!((&before.kind, &block.kind), (Kind::Item { .. }, Kind::Item { .. }) | (Kind::Row, Kind::Row));
            text.push_str(if tight && before.quotes == block.quotes { "\n" } else { "\n\n" });
        }
        let body = body(block);
        if block.quotes == 0 {
            text.push_str(&body);
        } else {
            let lines: Vec<String> = body.lines().map(|line| format!("{} {line}", ">".repeat(block.quotes))).collect();
            text.push_str(&lines.join("\n"));
        }
    }
    if !text.is_empty() {
        text.push('\n');
    }
    text
}

fn body(block: &Block) -> String {
    let text = &block.text;
    match &block.kind {
        Kind::Paragraph => text.clone(),
        Kind::Heading(level) => format!("{} {}", "#".repeat(usize::from(*level)), text.replace('\n', " ")),
        Kind::Item { depth, marker } => {
            let indent = "  ".repeat(*depth);
            let hanging = if marker.is_empty() { format!("{indent}  ") } else { format!("{indent}{marker}") };
            format!("{hanging}{}", text.replace('\n', &format!("\n{indent}  ")))
        }
        Kind::Row => format!("| {} |", text.trim_end_matches(['|', ' '])),
        Kind::Code(language) => super::fenced(language, text),
    }
}
