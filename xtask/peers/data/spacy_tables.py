"""The tables of spaCy's rule tokenizer that `internevo-data/src/features/spacy` compiles in.

    spacy_tables.py OUT          (Python with datatrove 0.10.1 and spaCy 3.8.18)

`classes.tsv`: a line a class, `name<TAB>ranges` in hexadecimal, asked of Python and of spaCy's own regular expressions for every
character. `special_cases.tsv`: `base|en<TAB>text<TAB>token<TAB>…`. spaCy and datatrove: MIT and Apache-2.0.
"""

import re
import sys
import unicodedata
from pathlib import Path

import spacy
from datatrove.utils.text import PUNCTUATION_SET, TERMINAL_PUNCTUATION
from spacy.lang import char_classes as cc
from spacy.lang.tokenizer_exceptions import BASE_EXCEPTIONS
from spacy.pipeline.sentencizer import Sentencizer

# Surrogates are no characters of a text.
CHARS = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def in_class(body):
    return re.compile(f"[{body}]").match


def single(pieces, anchor):
    """Pieces of an affix rule that are one character whatever stands beside it."""
    plain = [p for p in pieces if len(re.sub(r"^\\", "", p)) == 1 or p.startswith("[")]
    return re.compile("|".join(p + anchor for p in plain)).match


def classes():
    english = spacy.blank("en").Defaults
    before_period = rf"0-9{cc.ALPHA_LOWER}%²\-\+{cc.PUNCT}(?:{cc.CONCAT_QUOTES})"
    return {
        "space": str.isspace,
        "letter": str.isalpha,
        "symbol": PUNCTUATION_SET.__contains__,
        "punctuation": lambda c: unicodedata.category(c).startswith("P"),
        "terminal": TERMINAL_PUNCTUATION.__contains__,
        "sentence_end": set(Sentencizer.default_punct_chars).__contains__,
        "alpha": in_class(cc.ALPHA),
        "lower": in_class(cc.ALPHA_LOWER),
        "upper": in_class(cc.ALPHA_UPPER),
        "quote": in_class(cc.CONCAT_QUOTES),
        "icon": in_class(cc.CONCAT_ICONS),
        "prefix": single([p for p in english.prefixes], ""),
        "suffix": single([p for p in english.suffixes], "$"),
        "before_period": in_class(before_period),
        "currency": re.compile(cc.CURRENCY).fullmatch,
    }


def ranges(member):
    found = []
    for char in filter(member, CHARS):
        code = ord(char)
        if found and found[-1][1] == code - 1:
            found[-1][1] = code
        else:
            found.append([code, code])
    return " ".join(f"{a:x}" if a == b else f"{a:x}-{b:x}" for a, b in found)


def main():
    out = Path(sys.argv[1])
    source = f"# spaCy {spacy.__version__}, by xtask/peers/data/spacy_tables.py\n"
    with open(out / "classes.tsv", "w", encoding="utf-8") as file:
        file.write(source)
        for name, member in classes().items():
            file.write(f"{name}\t{ranges(member)}\n")
    rules = spacy.blank("en").tokenizer.rules
    with open(out / "special_cases.tsv", "w", encoding="utf-8", newline="\n") as file:
        file.write(source)
        for text, tokens in sorted(rules.items()):
            if text.isspace():
                continue
            tokens = [token[spacy.symbols.ORTH] for token in tokens]
            file.write("\t".join(["base" if text in BASE_EXCEPTIONS else "en", text, *tokens]) + "\n")


if __name__ == "__main__":
    main()
