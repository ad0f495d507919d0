"""A few hundred short texts on which the peers give their verdicts.

    golden_documents.py RUST_DOC_HTML CARGO_REGISTRY_SRC > documents.jsonl      (then: zstd -19 documents.jsonl)

Texts are passages of the Rust Book and of Rust by Example (English and Chinese) and READMEs of crates, all MIT or Apache-2.0, and
texts made from them: repeated lines, lists, ellipses, placeholders, and whatever else a rule looks for, around its threshold.
The same arguments give the same bytes. A line is `{"id", "text", "lang"?}`.
"""

import html
import json
import random
import re
import sys
from pathlib import Path

PASSAGE = 1500


def plain(page):
    """Text of a page of mdBook; blocks are lines, code stays as it is."""
    main = page[page.index("<main>"):page.index("</main>")]
    main = re.sub(r"(?s)<(script|style).*?</\1>", "", main)
    main = re.sub(r"\s*\n\s*(?=[^<]*<)", " ", main) if "<pre" not in main else main
    main = re.sub(r"</?(p|h\d|li|pre|tr|div|ul|ol|table)[^>]*>", "\n", main)
    text = html.unescape(re.sub(r"<[^>]+>", "", main))
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]+\n", "\n", text)).strip()


def passages(text, size=PASSAGE):
    """Cuts at empty lines into pieces of about `size` characters."""
    piece = ""
    for block in text.split("\n\n"):
        if piece and len(piece) + len(block) > size:
            yield piece.strip("\n")
            piece = ""
        piece += block + "\n\n"
    if piece.strip():
        yield piece.strip("\n")


def readmes(registry, rng):
    """Beginnings of READMEs of crates under MIT or Apache-2.0."""
    found = {}
    for manifest in sorted(Path(registry).glob("*/*/Cargo.toml")):
        readme = manifest.parent / "README.md"
        if readme.exists() and re.search(r'(?m)^license = "[^"]*(MIT|Apache-2.0)', manifest.read_text(errors="ignore")):
            text = readme.read_text(encoding="utf-8", errors="ignore")
            if 80 < len(text):
                found[re.sub(r"-\d+\..*", "", manifest.parent.name)] = text[:rng.choice([600, 1200, 2400])]
    names = sorted(found)
    rng.shuffle(names)
    return [found[name] for name in sorted(names[:150])]


EDGES = [
    "", " ", "\n", "\n\n\n", "word", "one two", ".", "...", "…", "###", "-", "•", "a\u00a0b", "\u200b", "\ufeff", "{", "}",
    "\x1c\x1d\x1e\x1f", "\x85", "\u2028", "a\rb\r\nc\x0bd\x0ce", "é", "e\u0301", "ﬁ", "K", "İ", "ß", "😀", "😀 😀 😀", "👩‍👩‍👧‍👦", "ಠ_ಠ",
    "don't", "Don't can't won't it's I'd've y'all o'clock ma'am", "Mr. Smith went to Washington D.C. at 5p.m. e.g. by car, i.e. slowly.",
    ":) :( :-) ;) :D (: \\o/ <3 ^_^ (ಠ_ಠ) ¯\\(ツ)/¯ smile:) (sad:() :)):)", "http://example.com https://a.b/c?d=e#f www.example.org a.b/c",
    "mail me@example.com or mailto:you@example.com:80 now", "10.0.0.1 8.8.8.8 192.168.1.1 1.2.3.4:80/x", "C++ C# a. b. z. ä. 10km 5kg 20% 3m² 4GB 7°C.",
    "$5 US$5 5$ 5€ €5 5US$ C$3 A$ 1+1 1+ +1 +a a+ 1-2 1*2 2^3", "a--b a---b a----b a–b a—b a——b a~b 1-a a-1", "'' \"\" `` '''' \"quoted\" 'single' “curly” ‘x’ «y»",
    "x'' 'em 'cause ’tis 're ’s dog's dogs' O’Reilly", "U.S. U.K. U.S.A. Ph.D. vs. etc. No.1 Inc.", "a.b.c A.B lower.Upper UPPER.lower end.Next end.\"Next",
    "a,b 1,000 a, b ,a a,", "a/b a:b a=b a<b a>b 1/2 1:a a::b a->b a=>b", "...a a... .... a....b a..b a.b ..", "(((a))) [[b]] {{c}} ((", "#tag @user _it_ *b* ~x~ |y|",
    "IS_ALPHA", "a\tb\t\tc  d   e", "日本語のテキストです。", "한국어 텍스트입니다.", "Текст на русском языке. Ещё один!", "نص عربي قصير.", "हिन्दी में पाठ।", "ข้อความภาษาไทย",
    "所有权是 Rust 最独特的特性。", "ＡＢＣ　１２３！？", "（括号）【方头】《书名》「引号」", "……——～～", "x" * 1001, "word " * 60, "ab " * 60, "abcdefghijkl " * 60,
    "The. " * 60, "the of and to " * 15, "1 2 3 4 5 6 7 8 9 10 " * 6, "Lorem ipsum dolor sit amet, consectetur adipiscing elit. " * 6,
]


def sentences(text):
    return [s.strip() for s in re.split(r"(?<=[.!?])\s+", text.replace("\n", " ")) if 25 < len(s.strip()) < 220 and "`" not in s]


class Made:
    """Texts around the rules' thresholds, from sentences of prose."""

    def __init__(self, prose, rng):
        self.pool, self.rng = prose, rng

    def prose(self, count):
        return self.rng.sample(self.pool, count)

    def lines(self, count):
        return [" ".join(self.prose(self.rng.randint(1, 3))) for _ in range(count)]

    def share(self, lines, change, part):
        return [change(line) if self.rng.random() < part else line for line in lines]

    def all(self):
        rng, lines = self.rng, self.lines
        for part in [0.05, 0.1, 0.2, 0.25, 0.3, 0.35, 0.5, 0.8, 0.9, 0.95, 1.0]:
            n = rng.randint(8, 16)
            yield "ellipsis", "\n".join(self.share(lines(n), lambda s: s.rstrip(".") + rng.choice(["...", "…", " ...", ". . ."]), part))
            yield "bullet", "\n".join(self.share(lines(n), lambda s: rng.choice(["- ", "• ", "* ", "  - ", "● ", "– "]) + s, part))
            yield "hash", " ".join(self.share(" ".join(lines(8)).split(), lambda w: "#" + w, part / 3))
            yield "dots", " ".join(self.share(" ".join(lines(8)).split(), lambda w: w + rng.choice(["...", "…"]), part / 3))
            yield "numbers", " ".join(self.share(" ".join(lines(8)).split(), lambda w: str(rng.randint(0, 9999)), part / 2))
            yield "marks", " ".join(self.share(" ".join(lines(8)).split(), lambda w: f'"{w}",', part))
            yield "no_end", "\n".join(self.share(lines(n), lambda s: s.rstrip(".!?") + rng.choice(["", ",", ":", " |"]), part))
            yield "short", "\n".join(self.share(lines(n), lambda s: " ".join(s.split()[:rng.randint(1, 6)]), part))
            yield "no_stop", " ".join(self.share(" ".join(lines(8)).split(), lambda w: "zz" if w.lower() in
                                                 {"the", "be", "to", "of", "and", "that", "have", "with"} else w, part + 0.1))
            same = lines(1)[0]
            yield "repeated_line", "\n".join(self.share(lines(n), lambda _: same, part / 1.5))
            yield "repeated_short", "\n".join(self.share(lines(n), lambda _: "Read more", part))
            yield "repeated_paragraph", "\n\n".join(self.share(lines(n), lambda _: same, part / 1.5))
            phrase = " ".join(same.split()[:rng.randint(2, 4)])
            yield "top", " ".join(self.share(" ".join(lines(8)).split(), lambda w: w + " " + phrase, part / 6))
            phrase = " ".join(same.split()[:rng.randint(5, 12)])
            yield "duplicate", " ".join(self.share(self.prose(rng.randint(8, 20)), lambda s: phrase + " " + s, part))
            yield "javascript", "\n".join(self.share(lines(n), lambda s: "Please enable JavaScript. " + s, part))
            yield "policy", "\n".join(self.share(lines(n), lambda s: s + " We use cookies, see our Privacy Policy.", part))
            yield "citation", "\n".join(self.share(lines(n), lambda s: s + rng.choice(["[1]", "[12].", "[edit]", " [citation needed]"]), part))
            yield "wide", "\n".join(self.share(lines(n), lambda s: s.replace(". ", ".  ").replace(" ", "\t", 2), part))
            yield "glued", "".join(w + rng.choice([" ", " ", "-", "/", ":", ",", "--", "_"]) for w in " ".join(lines(6)).split())
            yield "contractions", " ".join(self.share(" ".join(lines(8)).split(), lambda _: rng.choice(
                ["don't", "It's", "we're", "I'll", "cannot", "gonna", "they've", "e.g.", "U.S.", ":)", "5pm", "10km", "...", "(e.g.,"]), part / 2))
        for count in range(1, 9):
            yield "sentences", "\n".join(self.prose(count))
            yield "words", " ".join(" ".join(lines(8)).split()[:46 + count])
        for place in (0, 3):
            for extra in ("lorem ipsum dolor sit amet.", "function f() { return 1; }", "{ short.", "x" * 1200 + " is a long word.", "Java[1]Script is here."):
                kept = lines(8)
                kept.insert(place, extra)
                yield "extra", "\n".join(kept)
        for _ in range(20):
            yield "random", "".join(rng.choice("ab AB.,;:!?'\"()[]{}<>-–—_*#&/\\|~^+=$%…°12 \n") for _ in range(rng.randint(50, 900)))
        for _ in range(10):
            yield "characters", "".join(rng.choice("abé ñß中文字，。！ 한국Ωж́①½²°€😀\u200b\u00a0\u3000\n") for _ in range(rng.randint(80, 500)))


def chinese(text, rng):
    """Passages, and what the rules look for in Chinese."""
    pieces = [piece for piece in passages(text, 700) if len(re.findall("[\u4e00-\u9fff]", piece)) > 60]
    pool = [s for s in re.split(r"(?<=[。！？])", "".join(pieces).replace("\n", "")) if 10 < len(s) < 90 and not re.search("[a-zA-Z]{6}", s)]
    yield from rng.sample(pieces, 60)
    for _ in range(12):
        some = rng.sample(pool, 8)
        yield "\n".join(some)
        yield "".join(some) + some[0] * rng.randint(1, 8)
        yield "\n".join(rng.sample(pool, 6) + [some[1]] * rng.randint(1, 6))
        yield "\n".join(s.rstrip("。！？") for s in some)
        yield "，".join(" ".join(s) for s in some)
        yield "".join(s + "１２３４５６" for s in some)


def main():
    rust, registry = Path(sys.argv[1]), sys.argv[2]
    rng = random.Random(7)
    book = plain((rust / "book/print.html").read_text(encoding="utf-8"))
    example = plain((rust / "rust-by-example/print.html").read_text(encoding="utf-8"))
    documents = [("edge", "", text) for text in EDGES]
    documents += [("book", "", text) for text in rng.sample(list(passages(book)), 120)]
    documents += [("example", "", text) for text in rng.sample(list(passages(example)), 60)]
    documents += [("readme", "", text) for text in readmes(registry, rng)]
    documents += [(kind, "", text) for kind, text in Made(sentences(book), rng).all()]
    zh = plain((rust / "rust-by-example/zh/print.html").read_text(encoding="utf-8"))
    documents += [("zh", "zh", text) for text in chinese(zh, rng)]
    for number, (kind, lang, text) in enumerate(documents):
        document = {"id": f"{kind}-{number}", "text": text} | ({"lang": lang} if lang else {})
        print(json.dumps(document, ensure_ascii=False))


if __name__ == "__main__":
    main()
