"""dolma's verdicts: `golden_dolma.py documents.jsonl > dolma.jsonl`, with dolma 1.2.1.

dolma tags and filters by expressions of a mixer's configuration: the rules below are those of `configs/dolma-v1_5/mixing/
cc-head.yaml` at 669f534823b0, over the values of its tagger `gopher_v2`. A list names the violated rules.
"""

import json
import sys
from importlib.metadata import version

from dolma.taggers.gopher import get_attributes

QUALITY = [
    ("short", lambda a: a.word_count < 50),
    ("long", lambda a: a.word_count > 100_000),
    ("short_words", lambda a: a.median_word_length < 3),
    ("long_words", lambda a: a.median_word_length > 10),
    ("symbols", lambda a: a.symbol_to_word_ratio > 0.1),
    ("letters", lambda a: a.fraction_of_words_with_alpha_character < 0.8),
    ("stop_words", lambda a: a.required_word_count < 2),
    ("bullets", lambda a: a.fraction_of_lines_starting_with_bullet_point > 0.9),
    ("ellipses", lambda a: a.fraction_of_lines_ending_with_ellipsis > 0.3),
]
TOP = {2: 0.2, 3: 0.18, 4: 0.16}
DUPLICATE = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}


def main():
    print(json.dumps({"peer": "dolma", "packages": {"dolma": version("dolma")}, "made_by": "xtask/peers/data/golden_dolma.py"}))
    for line in open(sys.argv[1], encoding="utf-8"):
        document = json.loads(line)
        found = get_attributes(document["text"], ignore_empty_lines=True)
        repetition = ["lines"] if found.fraction_of_duplicate_lines > 0.3 else []
        repetition += ["line_chars"] if found.fraction_of_characters_in_duplicate_lines > 0.3 else []
        repetition += [f"top_{n}" for n, v in found.fraction_of_characters_in_most_common_ngram if v > TOP[n]]
        repetition += [f"duplicate_{n}" for n, v in found.fraction_of_characters_in_duplicate_ngrams if v > DUPLICATE[n]]
        quality = [name for name, violated in QUALITY if violated(found)]
        print(json.dumps({"id": document["id"], "gopher_quality": quality, "gopher_repetition": repetition}))


if __name__ == "__main__":
    main()
