//! Pages as mdBook, rustdoc and the rest of the web write them.

use super::{Extractor as _, MainContent, Page, convert, raw_document};

fn extract(html: &str) -> Page {
    MainContent::default().extract(html, None)
}

#[test]
fn an_mdbook_page_keeps_its_text_and_loses_the_book_around_it() {
    let html = r##"<!DOCTYPE HTML><html lang="en" class="light sidebar-visible"><head><title>Ownership - The Book</title><style>x</style></head>
<body><nav id="sidebar"><ol class="chapter"><li><a href="x">Foreword</a></li></ol></nav>
<div id="menu-bar"><h1 class="menu-title">The Book</h1></div>
<div id="content" class="content"><main>
<h2 id="o"><a class="header" href="#o">What Is   Ownership?</a></h2>
<p>A set of
<em>rules</em> for <code>String</code>.</p>
<ul><li>One owner.
<ul><li>Nested item</li></ul></li><li><p>First.</p><p>Second.</p></li></ul>
<ol><li>a</li><li>b</li></ol>
<pre><pre class="playground"><code class="language-rust edition2021"><span class="boring">fn main() {
</span>    let s = "hello   world";
<span class="boring">}</span></code></pre></pre>
<blockquote><p>Note this.</p></blockquote>
<table><thead><tr><th>Name</th><th>Use</th></tr></thead><tbody><tr><td></td><td><p>first <b>letter</b></p></td></tr></tbody></table>
</main><nav class="nav-wrapper"><a rel="next">Next</a></nav></div><script>var x;</script></body></html>"##;
    let page = extract(html);
    assert_eq!((page.title.as_str(), page.lang.as_str()), ("Ownership - The Book", "en"));
    let expected = "## What Is Ownership?\n\nA set of rules for `String`.\n\n- One owner.\n  - Nested item\n- First.\n  Second.\n\
        1. a\n2. b\n\n```rust\n    let s = \"hello   world\";\n```\n\n> Note this.\n\n| Name | Use |\n| | first letter |\n";
    assert_eq!(page.text, expected);
}

#[test]
fn a_rustdoc_page_loses_its_tool_bar_anchors_and_blanket_implementations() {
    let html = r##"<html lang="en"><body class="rustdoc"><nav class="sidebar"><h2>Crate</h2></nav><main><section id="main-content">
<div class="main-heading"><h1>Struct <span class="struct">Thing</span> <button id="copy-path">Copy</button></h1><rustdoc-toolbar>x</rustdoc-toolbar>
<a class="src" href="s">Source</a></div>
<pre class="rust item-decl"><code>pub struct Thing<div class="where">where T: Copy,</div>{ <span>..</span> }</code></pre>
<details class="toggle top-doc" open><summary class="hideme"><span>Expand description</span></summary><div class="docblock"><p>A thing.</p></div></details>
<h2 id="fields"><a class="doc-anchor">§</a>Fields<div>of a Thing</div><a href="#fields" class="anchor">§</a></h2>
<dl class="item-table"><dt><a href="x">Other</a></dt><dd>Another thing.</dd></dl>
<h2 id="blanket-implementations">Blanket Implementations</h2><div id="blanket-implementations-list">impl T</div>
</section></main></body></html>"##;
    let expected = "# Struct Thing\n\n```rust\npub struct Thing\nwhere T: Copy,\n{ .. }\n```\n\nA thing.\n\n## Fields of a Thing\n\n\
        - Other\n  Another thing.\n";
    assert_eq!(extract(html).text, expected);
}

#[test]
fn without_a_main_part_menus_and_their_headings_go_by_link_density() {
    let html = "<body><h3>Menu</h3><ul><li><a>Home</a><li><a>About us</a></ul><h1>Story</h1><div>Long ago there was a \
        <a>link</a> in the text.<br>New line.</div><p><a>Read</a> <a>more</a></p><h4>Links</h4><div><a>x</a></div></body>";
    assert_eq!(extract(html).text, "# Story\n\nLong ago there was a link in the text.\nNew line.\n");
}

#[test]
fn broken_and_deeply_nested_html_gives_text_and_no_crash() {
    assert_eq!(extract("<p>a<p>b<div><b>c").text, "a\n\nb\n\nc\n");
    assert_eq!(extract("").text, "");
    let deep = format!("{}x{}", "<div>".repeat(20_000), "</div>".repeat(20_000));
    assert_eq!(extract(&deep).text, "x\n");
}

#[test]
fn a_page_that_declares_the_wrong_language_is_told_by_its_script() {
    let text = "所有权是这门语言最独特的特性，它无需垃圾回收器即可保证内存安全。";
    let mut document = raw_document("a.html", format!("<html lang=en><body><p>{text}</p></body></html>"));
    convert(&mut document, &MainContent::default(), None, "a.html");
    assert_eq!((document.lang(), document.text.trim()), (Some("zh"), text));
    let once = document.clone();
    convert(&mut document, &MainContent::default(), None, "b");
    assert_eq!(document, once);
}
