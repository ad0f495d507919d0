"""KenLM's own models and scores on a few passages of `documents.jsonl`.

    golden_kenlm.py DOCUMENTS KENLM_BIN OUT       OUT is internevo-data/tests/golden/ngram_lm

Then `zstd -19 --rm *.arpa *.binary *.jsonl`. KENLM_BIN holds `lmplz` and `build_binary`; the module `kenlm` must be importable. OUT gets the text, the ARPA files of `lmplz` for
several settings, one binary model of each kind, and what KenLM says about held-out lines: the log10 probability of every token
and the perplexity of the line. The same arguments give the same bytes.
"""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import kenlm

# Setting -> arguments of lmplz.
ARPA = {
    "order2": ["-o", "2"],
    "order3": ["-o", "3"],
    "order5": ["-o", "5", "--discount_fallback"],
    "pruned": ["-o", "4", "--discount_fallback", "--prune", "0", "0", "1"],
}
# Kind -> arguments of build_binary, all made from `order3`.
BINARY = {
    "probing": ["probing"],
    "trie": ["trie"],
    "trie_quantised": ["-q", "8", "-b", "6", "trie"],
    "trie_array": ["-a", "10", "trie"],
    "trie_both": ["-q", "6", "-b", "8", "-a", "22", "trie"],
}


def lines(document):
    """Sentences of a passage as tokens between single spaces."""
    for line in re.split(r"(?<=[.!?。！？])\s*|\n+", document["text"]):
        tokens = re.findall(r"[\u4e00-\u9fff]|\w+|[^\w\s]", line.lower())
        if len(tokens) > 3:
            yield " ".join(tokens)


def run(*command, **options):
    subprocess.run([str(part) for part in command], check=True, stderr=subprocess.DEVNULL, **options)


def main(documents, kenlm_bin, out):
    passages = [json.loads(line) for line in open(documents, encoding="utf-8")]
    book, zh = ([p for p in passages if p["id"].startswith(kind)] for kind in ("book-", "zh-"))
    text = [line for p in book[:10] + zh[:8] for line in lines(p)]
    held_out = [line for p in book[20:22] + zh[20:22] for line in lines(p)][:56] + ["", "unheard words", text[0], "the"]
    (out / "text.txt").write_text("".join(line + "\n" for line in text), encoding="utf-8")
    for name, arguments in ARPA.items():
        run(kenlm_bin / "lmplz", *arguments, "-S", "64M", "--text", out / "text.txt", "--arpa", out / f"{name}.arpa")
    small = out / "small.txt"
    small.write_text("".join(line + "\n" for line in text[::3]), encoding="utf-8")
    small_arpa = out / "small.arpa"
    fallback = ["--discount_fallback"]
    run(kenlm_bin / "lmplz", "-o", "3", *fallback, "-S", "64M", "--text", small, "--arpa", small_arpa)
    small.unlink()
    for name, arguments in BINARY.items():
        run(kenlm_bin / "build_binary", *arguments, small_arpa, out / f"{name}.binary", stdout=subprocess.DEVNULL)
    models = {name: out / f"{name}.arpa" for name in [*ARPA, "small"]} | {n: out / f"{n}.binary" for n in BINARY}
    with open(out / "scores.jsonl", "w", encoding="utf-8") as scores:
        for name, path in models.items():
            model = kenlm.Model(str(path))
            for line in held_out:
                tokens = [round(token[0], 6) for token in model.full_scores(line)]
                perplexity = model.perplexity(line)
                assert math.isfinite(perplexity)
                json.dump({"model": name, "line": line, "log10": tokens, "perplexity": perplexity}, scores)
                scores.write("\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
