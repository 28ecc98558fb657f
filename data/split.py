"""Split text and its translation into words, by the rule in data/words.py, as input for an aligner.

In:   sentences of one language (XTREME's xnli or pawsx files, SQuAD's JSON, or plain text, a sentence a line) and their
      translations
Out:  `source words ||| target words` a line: each distinct pair of sentences once, to train an aligner on (XNLI repeats
      every premise three times), or with --every each sentence in its place, to reorder a training file by

    python data/split.py --task xnli --source xnli/test-en.tsv --target xnli/test-hi.tsv --output en-hi.txt
    python data/split.py --task xnli --source train-en.tsv --target multinli.train.hi.tsv --output en-hi.txt --every

A sentence whose translation is empty is kept with an empty side. For plain text, reorder.py --task text takes the left
sides of the output, not the text itself: the links are those of its words. In a --target that holds both languages,
sentences are looked up whatever their quotation marks.
"""

import itertools
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from data.files import (
    Arguments, check_count, check_writable, error_at, quotation_hint, read_lines, read_parallel, run_script, warn,
    write_parallel,
)  # fmt: skip
from data.formats import FORMATS
from data.words import split_text


def without_quotes(words):
    """Return the words that are no quotation marks, a tuple."""
    return tuple(word for word in words if word.strip('"'))


def translation_words(text):
    """Split a translation into words. Quotes that are doubled, as in CSV files, are undone, with those around it."""
    if '""' in text:
        inner = text[1:-1]
        quoted = text[0] == text[-1] == '"' and '"' not in inner.replace('""', "")
        text = (inner if quoted else text).replace('""', '"')
    return split_text(text)


def read_dictionary(path):
    """Read {source words: target words}, tuples, of a file that holds both languages; None for other files.

    Such files are `source ||| target` and XTREME's translate-train files of five columns: English 1, English 2,
    translation 1, translation 2, label. A source with quotation marks is found without them too. Raises InputError.
    """
    first = next(read_lines(path), "")
    if first.lstrip().startswith("{"):
        return None
    if "|||" in first:
        found = {tuple(source): tuple(target) for source, target in read_parallel(path)}
    elif first.count("\t") == 4:
        found = {}
        for number, line in enumerate(read_lines(path), 1):
            fields = line.removesuffix("\r").split("\t")
            if len(fields) != 5:
                expected = "English 1, English 2, translation 1, translation 2, label, as in line 1"
                raise error_at(path, number, f"{len(fields)} columns; expected {expected}{quotation_hint(fields)}")
            for source, target in zip(fields[:2], fields[2:4]):
                found[tuple(split_text(source))] = tuple(translation_words(target))
    else:
        return None
    return {**{without_quotes(source): target for source, target in found.items()}, **found}


def line_by_line(form, source_path, target_path):
    """Yield (source words, target words) of two files with the same lines. Raises InputError for another number."""
    source, target = form.rows(source_path), form.rows(target_path, translation=True)
    for number, (one, other) in enumerate(itertools.zip_longest(source, target)):
        if one is None or other is None:
            left = [(row is not None) + sum(1 for _ in rows) for row, rows in ((one, source), (other, target))]
            check_count(target_path, number + left[1], number + left[0], source_path)
        yield from ((split_text(a), translation_words(b)) for a, b in zip(one, other))


def looked_up(form, source_path, target_path, found):
    """Yield (source words, target words) of every sentence, from read_dictionary's. Raises InputError for others."""
    for number, row in enumerate(form.rows(source_path), 1):
        for words in map(split_text, row):
            target = found.get(tuple(words), found.get(without_quotes(words)))
            if words and target is None:
                wrong = f"{' '.join(words)[:60]!r} has no translation in {target_path}"
                raise error_at(source_path, number, f"{wrong}; expected one for every sentence")
            yield words, target or ()


def parallel_sentences(task, source_path, target_path):
    """Yield (source words, target words) of every sentence of the source file, in order. Raises InputError."""
    form, found = FORMATS[task], read_dictionary(target_path)
    if found is not None:
        yield from looked_up(form, source_path, target_path, found)
    elif form.translations:
        pairs = form.translations(source_path, target_path)
        yield from ((split_text(one), split_text(other)) for one, other in pairs)
    else:
        yield from line_by_line(form, source_path, target_path)


def main():
    parser = Arguments(__doc__)
    tasks = [name for name, form in FORMATS.items() if form.rows]
    add = parser.add_argument
    add("--task", choices=tasks, required=True, help="format of the files; text is a sentence a line, qa SQuAD's JSON")
    add("--source", required=True, metavar="FILE", help="sentences of the source language")
    add("--target", required=True, metavar="FILE", help="their translations: line by line in the same format (also "
        "XNLI-MT's files), XTREME's translate-train file of five columns, SQuAD's JSON with the same question ids, or "
        "`source ||| target` lines in any order")  # fmt: skip
    add("--output", required=True, metavar="FILE", help="parallel file to write")
    add("--every", action="store_true", help="write every sentence in its place, repeated ones too, for reorder.py")
    args = parser.parse_args()
    check_writable(args.output)

    sentences, empty = 0, 0

    def counted(pairs):
        nonlocal sentences, empty
        for source, target in pairs:
            sentences, empty = sentences + 1, empty + (bool(source) and not target)
            yield tuple(source), tuple(target)

    pairs = counted(parallel_sentences(args.task, args.source, args.target))
    write_parallel(args.output, pairs if args.every else dict.fromkeys(pairs))
    if empty:
        warn(f"{empty} of {sentences} sentences have an empty translation and get an empty right side")


if __name__ == "__main__":
    run_script(main)
