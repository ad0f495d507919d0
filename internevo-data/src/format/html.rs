//! `main_content`: the text of an HTML page, as Markdown: headings, paragraphs, list items, tables and code, without what surrounds
//! them.
//!
//! The content is `<main>` (or `role="main"`, or rustdoc's `#main-content`), else the page's only `<article>`, else the whole
//! `<body>`; only there the density rule decides (`blocks.rs`). The tree is walked without recursion: pages nest without limit.

use ego_tree::{NodeId, NodeRef, iter::Edge};
use internevo_core::plugin::Plugin;
use schemars::JsonSchema;
use scraper::{Html, Node, node::Element};
use serde::{Deserialize, Serialize};

use super::{
    blocks::{Block, Kind, density_filter, render},
    extractor::{Extractor, Page},
};
use crate::register_extractor;

/// The extractor.
#[derive(Clone, Debug, Default)]
pub struct MainContent {
    config: MainContentConfig,
}

/// Settings of `main_content`: what is a menu on pages that do not mark their content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MainContentConfig {
    /// Blocks with a larger share of link text are menus.
    pub max_link_share: f64,
    /// Blocks of at least this many characters are text even if most of it are links.
    pub long_block_chars: usize,
}

impl Default for MainContentConfig {
    fn default() -> Self {
        Self { max_link_share: 0.5, long_block_chars: 400 }
    }
}

impl Plugin for MainContent {
    const NAME: &'static str = "main_content";
    const ABOUT: &'static str =
        "The page's <main> or only <article>, else its body without menus (link density), as Markdown.";
    type Config = MainContentConfig;
}

register_extractor!(MainContent { config });

/// Elements whose content is no text of the page.
const SKIPPED: &[&str] = &[
    "nav",
    "script",
    "style",
    "noscript",
    "template",
    "header",
    "footer",
    "aside",
    "svg",
    "math",
    "form",
    "button",
    "select",
    "iframe",
    "object",
    "canvas",
    "audio",
    "video",
    "dialog",
    "head",
    "rustdoc-toolbar",
    "rustdoc-search",
];

/// `role`s of what surrounds a page's content.
const SKIPPED_ROLES: &[&str] = &["navigation", "banner", "contentinfo", "complementary", "search"];

/// Classes of controls in mdBook and rustdoc pages (hidden lines of examples among them).
const SKIPPED_CLASSES: &[&str] = &[
    "boring",
    "buttons",
    "nav-chapters",
    "nav-wide-wrapper",
    "anchor",
    "doc-anchor",
    "src",
    "srclink",
    "out-of-band",
    "sidebar",
    "tooltip",
    "hideme",
    "rustdoc-breadcrumbs",
    "rightside",
    "sub-heading",
    "since",
];

/// Parts of rustdoc pages that repeat on every page of a type.
const SKIPPED_IDS: &[&str] = &[
    "synthetic-implementations",
    "synthetic-implementations-list",
    "blanket-implementations",
    "blanket-implementations-list",
    "copy-path",
];

/// Elements that begin and end a block of text.
const BLOCKS: &[&str] = &[
    "address",
    "article",
    "blockquote",
    "body",
    "caption",
    "center",
    "dd",
    "details",
    "div",
    "dl",
    "dt",
    "fieldset",
    "figcaption",
    "figure",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "header",
    "hr",
    "html",
    "li",
    "main",
    "ol",
    "p",
    "pre",
    "section",
    "summary",
    "table",
    "tbody",
    "td",
    "th",
    "thead",
    "tr",
    "ul",
];

impl Extractor for MainContent {
    fn extract(&self, html: &str, _url: Option<&str>) -> Page {
        let page = Html::parse_document(html);
        let root = page.tree.root();
        let elements = || root.descendants().filter_map(|node| Some((node, node.value().as_element()?)));
        let find = |wanted: fn(&Element) -> bool| elements().find(|(_, element)| wanted(element)).map(|(node, _)| node);
        let title =
            find(|element| element.name() == "title").map(|node| fold_space(&text_of(node))).unwrap_or_default();
        let lang =
            elements().find(|(_, element)| element.name() == "html").and_then(|(_, element)| element.attr("lang"));
        let main = find(|element| {
            element.name() == "main" && element.attr("hidden").is_none() || element.attr("role") == Some("main")
        });
        let content = find(|element| element.attr("id") == Some("main-content")).or(main).or_else(|| {
            let mut articles = elements().filter(|(_, element)| element.name() == "article").map(|(node, _)| node);
            articles.next().filter(|_| articles.next().is_none())
        });
        let mut walk = Walk::new(content.unwrap_or(root).id());
        for edge in content.unwrap_or(root).traverse() {
            walk.step(edge);
        }
        walk.flush();
        let blocks = if content.is_some() { walk.blocks } else { density_filter(walk.blocks, &self.config) };
        let lang = lang.unwrap_or_default().split(['-', '_']).next().unwrap_or_default().to_ascii_lowercase();
        Page { title, lang, text: render(&blocks) }
    }
}

/// State of the walk through the tree.
#[derive(Default)]
struct Walk {
    root: Option<NodeId>,
    blocks: Vec<Block>,
    /// Text of the block that is being read.
    text: String,
    link_chars: usize,
    /// The element whose content is passed over.
    skipping: Option<NodeId>,
    links: usize,
    preformatted: usize,
    quotes: usize,
    /// Depth of open cells of data tables, and cells of the current row so far.
    cells: usize,
    row_cells: usize,
    heading: u8,
    language: String,
    lists: Vec<List>,
    /// The open tables: does each hold data, or lay out the page?
    tables: Vec<bool>,
}

/// An open list.
struct List {
    ordered: bool,
    number: usize,
    /// The marker of the current item is not written yet.
    marker_due: bool,
}

impl Walk {
    fn new(root: NodeId) -> Self {
        Self { root: Some(root), ..Self::default() }
    }

    fn step(&mut self, edge: Edge<'_, Node>) {
        match edge {
            Edge::Open(node) if self.skipping.is_none() => match node.value() {
                Node::Text(text) => self.add_text(text),
                Node::Element(element) if Some(node.id()) != self.root && is_skipped(node, element) => {
                    self.skipping = Some(node.id());
                }
                Node::Element(element) => self.open(node, element),
                _ => {}
            },
            Edge::Close(node) if self.skipping == Some(node.id()) => self.skipping = None,
            Edge::Close(node) if self.skipping.is_none() => {
                if let Node::Element(element) = node.value() {
                    self.close(element);
                }
            }
            _ => {}
        }
    }

    fn add_text(&mut self, text: &str) {
        if self.preformatted > 0 {
            self.text.push_str(text);
            return;
        }
        let before = self.text.len();
        for c in text.chars() {
            if !c.is_whitespace() {
                self.text.push(c);
            } else if !self.text.is_empty() && !self.text.ends_with([' ', '\n']) {
                self.text.push(' ');
            }
        }
        if self.links > 0 {
            self.link_chars += self.text[before..].chars().count();
        }
    }

    fn open(&mut self, node: NodeRef<'_, Node>, element: &Element) {
        let name = element.name();
        if self.in_data_table() && matches!(name, "td" | "th") {
            return self.begin_cell();
        }
        if BLOCKS.contains(&name) {
            self.boundary();
        }
        match name {
            _ if is_heading(name) => self.heading = name.as_bytes()[1] - b'0',
            "table" => self.tables.push(is_data_table(node)),
            "tr" => self.row_cells = 0,
            "pre" => {
                self.preformatted += 1;
                self.note_language(element);
            }
            "code" if self.preformatted > 0 => self.note_language(element),
            "code" | "kbd" | "samp" => self.text.push('`'),
            "a" => self.links += 1,
            "br" => self.text.push(if self.cells == 0 { '\n' } else { ' ' }),
            "ul" | "ol" | "dl" => self.lists.push(List { ordered: name == "ol", number: 0, marker_due: false }),
            "li" | "dt" => self.begin_item(),
            "blockquote" => self.quotes += 1,
            _ => {}
        }
    }

    fn in_data_table(&self) -> bool {
        self.tables.last() == Some(&true)
    }

    fn begin_cell(&mut self) {
        self.cells += 1;
        self.row_cells += 1;
        if self.row_cells > 1 {
            self.text.push_str("| ");
        }
    }

    fn close(&mut self, element: &Element) {
        let name = element.name();
        match name {
            "code" | "kbd" | "samp" if self.preformatted == 0 => self.text.push('`'),
            "a" => self.links = self.links.saturating_sub(1),
            "td" | "th" if self.cells > 0 => {
                self.cells -= 1;
                if self.cells == 0 && !self.text.ends_with(' ') {
                    self.text.push(' ');
                }
                return;
            }
            "tr" if self.in_data_table() => return self.flush_as(Kind::Row),
            _ => {}
        }
        let ends_code = name == "pre" && self.preformatted == 1;
        if ends_code || (self.heading > 0 && is_heading(name)) {
            self.flush();
        } else if BLOCKS.contains(&name) {
            self.boundary();
        }
        match name {
            _ if is_heading(name) => self.heading = 0,
            "pre" => {
                self.preformatted = self.preformatted.saturating_sub(1);
                if self.preformatted == 0 {
                    self.language.clear();
                }
            }
            "blockquote" => self.quotes = self.quotes.saturating_sub(1),
            "ul" | "ol" | "dl" => drop(self.lists.pop()),
            "table" => drop(self.tables.pop()),
            _ => {}
        }
    }

    fn begin_item(&mut self) {
        if self.lists.is_empty() {
            self.lists.push(List { ordered: false, number: 0, marker_due: false });
        }
        let list = self.lists.last_mut().expect("pushed above");
        list.number += 1;
        list.marker_due = true;
    }

    /// The end of a block; only a line end inside of code, only a space inside of a table's cell or a heading.
    fn boundary(&mut self) {
        let separator = if self.preformatted > 0 {
            '\n'
        } else if self.cells > 0 || self.heading > 0 {
            ' '
        } else {
            return self.flush();
        };
        if !self.text.is_empty() && !self.text.ends_with([separator, '\n']) {
            self.text.push(separator);
        }
    }

    fn flush(&mut self) {
        let kind = if self.preformatted > 0 {
            Kind::Code(self.language.clone())
        } else if self.heading > 0 {
            Kind::Heading(self.heading)
        } else if let Some(depth) = self.lists.len().checked_sub(1) {
            let list = &mut self.lists[depth];
            let marker = match (list.marker_due, list.ordered) {
                (false, _) => String::new(),
                (true, false) => "- ".to_owned(),
                (true, true) => format!("{}. ", list.number),
            };
            Kind::Item { depth, marker }
        } else {
            Kind::Paragraph
        };
        self.flush_as(kind);
    }

    fn flush_as(&mut self, kind: Kind) {
        let is_code = matches!(kind, Kind::Code(_));
        let text = if is_code { self.text.trim_matches('\n').trim_end() } else { self.text.trim() };
        if !text.is_empty() && text != "``" {
            if let (Kind::Item { .. }, Some(list)) = (&kind, self.lists.last_mut()) {
                list.marker_due = false;
            }
            let (text, chars) = (text.to_owned(), text.chars().count());
            self.blocks.push(Block { kind, text, chars, link_chars: self.link_chars, quotes: self.quotes });
        }
        self.text.clear();
        self.link_chars = 0;
    }

    /// `class="language-rust"` of `<code>` (mdBook and others), `class="rust"` of `<pre>` (rustdoc).
    fn note_language(&mut self, element: &Element) {
        for class in element.classes() {
            if let Some(language) = class.strip_prefix("language-").or_else(|| class.strip_prefix("lang-")) {
                self.language = language.split(',').next().unwrap_or_default().to_owned();
            } else if class == "rust" {
                self.language = "rust".to_owned();
            }
        }
    }
}

fn is_heading(name: &str) -> bool {
    matches!(name, "h1" | "h2" | "h3" | "h4" | "h5" | "h6")
}

fn is_skipped(node: NodeRef<'_, Node>, element: &Element) -> bool {
    let name = element.name();
    if name == "header" {
        // An article's header holds its title.
        return !node.descendants().any(|inner| inner.value().as_element().is_some_and(|e| e.name() == "h1"));
    }
    SKIPPED.contains(&name)
        || element.attr("hidden").is_some()
        || element.attr("aria-hidden") == Some("true")
        || element.attr("role").is_some_and(|role| SKIPPED_ROLES.contains(&role))
        || element.attr("id").is_some_and(|id| SKIPPED_IDS.contains(&id))
        || element.classes().any(|class| SKIPPED_CLASSES.contains(&class))
}

/// Is it a table of data? Tables that hold tables, code or headings lay out a page.
fn is_data_table(table: NodeRef<'_, Node>) -> bool {
    let mut inner = table.descendants().skip(1).filter_map(|node| node.value().as_element());
    !inner.any(|element| matches!(element.name(), "table" | "pre" | "h1" | "h2" | "h3"))
}

fn text_of(node: NodeRef<'_, Node>) -> String {
    node.descendants().filter_map(|inner| inner.value().as_text()).map(|text| &**text).collect()
}

fn fold_space(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
