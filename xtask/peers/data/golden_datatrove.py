"""datatrove's verdicts: `golden_datatrove.py documents.jsonl > datatrove.jsonl`, with datatrove 0.10.1.

The first line is the header. Rules are those of FineWeb for documents without `lang`, of FineWeb-2 (d0defb24f193) for Chinese. `true`
is kept, a string the reason of the drop. C4 runs on a copy: it edits the text.
"""

import json
import sys
from importlib.metadata import version

from datatrove.data import Document
from datatrove.pipeline.filters import C4QualityFilter, FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter
from datatrove.utils.text import split_into_words

ZH = {
    "repetition": dict(dup_para_frac=0, dup_line_char_frac=0, dup_para_char_frac=0, dup_line_frac=0.287,
                       top_n_grams=[[2, 0.256], [3, 0.201], [4, 0.171]],
                       dup_n_grams=[[5, 0.198], [6, 0.182], [7, 0.167], [8, 0.154], [9, 0.14], [10, 0.127]]),
    "fineweb": dict(short_line_thr=999, char_duplicates_ratio=0.1, line_punct_thr=0.106, new_line_ratio=0.178),
    "quality": dict(max_avg_word_length=5, min_avg_word_length=1, max_non_alpha_words_ratio=0.735, min_stop_words=2,
                    stop_words=list("的年在月是和日了於·為有被人中为他與後也而由")),
}


def filters(lang):
    tables, code = (ZH, "cmn_Hani") if lang == "zh" else ({}, "eng_Latn")
    made = {
        "gopher_repetition": GopherRepetitionFilter(language=code, **tables.get("repetition", {})),
        "gopher_quality": GopherQualityFilter(language=code, **tables.get("quality", {})),
        "fineweb": FineWebQualityFilter(language=code, **tables.get("fineweb", {})),
    }
    if lang != "zh":
        made["c4"] = C4QualityFilter(language=code)
        made["c4_fineweb"] = C4QualityFilter(language=code, filter_no_terminal_punct=False)
    return code, made


def verdict(filter_, text):
    document = Document(text=text, id="x")
    try:
        result = filter_.filter(document)
    except (ZeroDivisionError, ValueError) as error:
        return f"error: {type(error).__name__}", document.text
    return (result if result is True else result[1] if isinstance(result, tuple) else "dropped"), document.text


def main():
    packages = {name: version(name) for name in ("datatrove", "spacy", "jieba")}
    print(json.dumps({"peer": "datatrove", "packages": packages, "made_by": "xtask/peers/data/golden_datatrove.py"}))
    sets = {lang: filters(lang) for lang in ("en", "zh")}
    for line in open(sys.argv[1], encoding="utf-8"):
        document = json.loads(line)
        code, made = sets[document.get("lang", "en")]
        row = {"id": document["id"], "words": len(split_into_words(document["text"], code)) if document["text"] else 0}
        for name, filter_ in made.items():
            row[name], edited = verdict(filter_, document["text"])
            if name.startswith("c4") and row[name] is True:
                row[f"{name}_lines"] = len(edited.split("\n"))
        print(json.dumps(row, ensure_ascii=False))


if __name__ == "__main__":
    main()
