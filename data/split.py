"""Make aligner input of text and its translation, split into words by the rule in data/words.py.

In:   sentences of one language (XTREME's xnli or pawsx files, SQuAD's JSON, or plain text, a sentence a line) and their
      translations
Out:  `source words ||| target words` a line: each distinct pair of sentences once, to train an aligner on (XNLI repeats
      every premise three times), or with --every each sentence in its place, to reorder a training file by

    python data/split.py --task xnli --source xnli/test-en.tsv --target xnli/test-hi.tsv --output en-hi.txt
    python data/split.py --task xnli --source train-en.tsv --target multinli.train.hi.tsv --output en-hi.txt --every

A sentence whose translation is empty is kept with an empty side. Of plain text reorder.py --task text takes the left
sides of what this writes, whose words the links are of, not the text itself. Where a file names both sides, sentences
are found in it whatever their quotation marks.
"""

import itertools
import os
import sys

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from data.cli import Arguments, InputError, check_writable, error_at, run_script, warn
from data.files import quotation_hint, read_lines, read_parallel, unquoted, write_parallel
from data.tasks import FORMATS
from data.words import split_text


def without_quotes(words):
    """Return the words that are no quotation marks, a tuple."""
    return tuple(word for word in words if word.strip('"'))


def translation_words(text):
    """Split a translation into words; where it doubles its quotation marks, as CSV files do, they are written once."""
    return split_text(unquoted(text).replace('""', '"') if '""' in text else text)


def read_dictionary(path):
    """Read {source words: target words}, tuples, of a file that names both sides; None where it does not.

    Such files are `source ||| target` and XTREME's translate-train files of five columns: English 1, English 2,
    translation 1, translation 2, label. A source with quotation marks is there without them too. Raises InputError.
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
    """Yield (source words, target words) of files that are parallel line by line. Raises InputError where they are
    not.
    """
    source, target = form.rows(source_path), form.rows(target_path, translation=True)
    for number, (one, other) in enumerate(itertools.zip_longest(source, target), 1):
        if one is None or other is None:
            counts = number + sum(1 for _ in source), number + sum(1 for _ in target)
            ours, theirs = (count - (row is None) for count, row in zip(counts, (one, other)))
            raise InputError(
                f"{target_path}: {theirs} lines, but {source_path} has {ours}; "
                "expected the same sentences, line by line"
            )
        yield from ((split_text(a), translation_words(b)) for a, b in zip(one, other))


def looked_up(form, source_path, target_path, found):
    """Yield (source words, target words) of every sentence in read_dictionary's. Raises InputError where one is
    missing.
    """
    for number, row in enumerate(form.rows(source_path), 1):
        for words in map(split_text, row):
            target = found.get(tuple(words), found.get(without_quotes(words)))
            if words and target is None:
                text = " ".join(words)[:60]
                raise error_at(
                    source_path,
                    number,
                    f"{text!r} has no translation in {target_path}; expected one for every sentence",
                )
            yield words, target or ()


def parallel_sentences(task, source_path, target_path):
    """Yield (source words, target words) of every sentence of the source file, in order.

    Raises InputError where one has no place in the translation.
    """
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
    parser.add_argument(
        "--task",
        choices=[name for name, form in FORMATS.items() if form.rows],
        required=True,
        help="format of the files; text is a sentence a line, qa SQuAD's JSON",
    )
    parser.add_argument("--source", required=True, metavar="FILE", help="sentences of the source language")
    parser.add_argument(
        "--target",
        required=True,
        metavar="FILE",
        help="their translations: line by line in the same format (XNLI-MT's files too), XTREME's translate-train file "
        "of five columns, SQuAD's JSON with the same question ids, or `source ||| target` lines in any order",
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="parallel file to write")
    parser.add_argument(
        "--every",
        action="store_true",
        help="write every sentence in its place, repeated ones too, as reorder.py wants them aligned",
    )
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
