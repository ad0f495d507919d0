"""FineWeb-2's thresholds and stop words as one table.

    fineweb2_table.py FINEWEB2_CHECKOUT > internevo-data/src/filters/tables/fineweb2.tsv     (Python with pyyaml and langcodes)

One line a language that has an ISO 639-1 code, in the script most of FineWeb-2 has it in. FineWeb-2: Apache-2.0.
"""

import csv
import subprocess
import sys
from pathlib import Path

import langcodes
import yaml

NUMBERS = ["language_score", "min_avg_word_length", "max_avg_word_length", "max_non_alpha_words_ratio", "dup_line_frac",
           "line_punct_thr", "new_line_ratio"]


def main():
    root = Path(sys.argv[1])
    revision = subprocess.run(["git", "-C", root, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True).stdout
    with open(root / "fineweb2-language-distribution.csv", encoding="utf-8") as file:
        sizes = {row["subset"]: int(row["utf8_bytes"]) for row in csv.DictReader(file) if row["split"] == "train"}
    best = {}
    for path in (root / "configs").glob("*.yml"):
        code = langcodes.standardize_tag(path.stem.split("_")[0], macro=True)
        if len(code) == 2 and sizes.get(path.stem, 0) > sizes.get(best.get(code, ""), -1):
            best[code] = path.stem
    print(f"# FineWeb-2 {revision.strip()}, by xtask/peers/data/fineweb2_table.py")
    print("\t".join(["# lang", "subset", *NUMBERS, "top_n_grams", "dup_n_grams", "stopwords"]))
    for code, subset in sorted(best.items()):
        rules = yaml.safe_load((root / "configs" / f"{subset}.yml").read_text(encoding="utf-8"))
        shares = [" ".join(str(share) for _, share in rules[key]) for key in ("top_n_grams", "dup_n_grams")]
        words = [word for word in rules["stopwords"] if not any(c.isspace() for c in word)]
        print("\t".join([code, subset, *(str(rules[n]) for n in NUMBERS), *shares, " ".join(words)]))


if __name__ == "__main__":
    main()
