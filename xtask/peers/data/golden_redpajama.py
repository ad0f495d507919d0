"""RedPajama's verdicts: `PYTHONPATH=RedPajama-Data/app/src golden_redpajama.py documents.jsonl > redpajama.jsonl`, at 6d2cee9df2b0.

RedPajama-V2 publishes signals; the rules below are those of its dataset card's `gopher_rules_pass`, and for the rules that the
card leaves to the reader ("rule 5: ...") Gopher's own thresholds. A list names the violated rules.
"""

import json
import sys

from core.document import Document
from core.quality_signals import natural_language as nl
from core.quality_signals import repetitions
from core.quality_signals.lines import RPS_Lines_Start_With_Bulletpoint

TOP = {2: 0.2, 3: 0.18, 4: 0.16}
DUPLICATE = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}


def value(signal, document):
    return signal()(document)[0][2]


def quality(document):
    bullets = [score or 0.0 for _, _, score in RPS_Lines_Start_With_Bulletpoint()(document)]
    words = value(nl.RPS_Doc_Word_Count, document)
    length = value(nl.RPS_Doc_Mean_Word_Length, document)
    rules = {
        "short": words < 50,
        "long": words > 10_000,
        "word_length": length is not None and not 3 <= length <= 10,
        "symbols": (value(nl.RPS_Doc_Symbol_To_Word_Ratio, document) or 0) > 0.1,
        "bullets": sum(bullets) / len(bullets) > 0.9,
        "ellipses": (value(nl.RPS_Doc_Frac_Lines_End_With_Ellipsis, document) or 0) > 0.3,
        "letters": (value(nl.RPS_Doc_Frac_No_Alph_Words, document) or 0) > 0.2,
    }
    return [name for name, violated in rules.items() if violated]


def repetition(document):
    found = []
    for n, limit in (TOP | DUPLICATE).items():
        name = f"RPS_Doc_Frac_Chars_Top_{n}gram" if n in TOP else f"RPS_Doc_Frac_Chars_Dupe_{n}Grams"
        if value(getattr(repetitions, name), document) > limit:
            found.append(f"{'top' if n in TOP else 'duplicate'}_{n}")
    return found


def main():
    print(json.dumps({"peer": "RedPajama-Data", "packages": {"RedPajama-Data": "6d2cee9df2b0"},
                      "made_by": "xtask/peers/data/golden_redpajama.py"}))
    for line in open(sys.argv[1], encoding="utf-8"):
        given = json.loads(line)
        document = Document(given["text"], domain=None)
        print(json.dumps({"id": given["id"], "gopher_quality": quality(document), "gopher_repetition": repetition(document)}))


if __name__ == "__main__":
    main()
