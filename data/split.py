"""Split text into words by one rule, and make aligner input of files that are parallel line by line.

In:   sentences of one language (XTREME's xnli or pawsx files, or plain text, a sentence a line) and their translations
Out:  `source words ||| target words` a line: each distinct pair of sentences once, to train an aligner on (XNLI repeats every
      premise three times), or with --every each sentence in its place, to reorder a training file by

    python data/split.py --task xnli --source xnli/test-en.tsv --target xnli/test-hi.tsv --output en-hi.txt
    python data/split.py --task xnli --source xnli/train-en.tsv --target multinli.train.hi.tsv --output train-en-hi.txt --every

The rule, the same for every language:

- A word is a run of letters, marks and digits. An apostrophe or a hyphen between two of them stays inside, and so does a full
  stop or a comma between two digits: `don't`, `l'homme`, `well-known`, `3.5` and `10,000` are one word each. So English keeps
  its words whole, and a French `l'homme` is linked to both words of `the man`.
- Single letters with full stops are one word: `U.S.`, `p.m.`.
- Scripts without spaces (Chinese, Japanese, Thai, Lao, Burmese, Khmer): every character, with the marks upon it, is a word.
- Any other character is a word of its own, a run of the same one (`...`, `--`) a single word.
- `|||` would end a side, and is written as `|`.

Tags are never involved: udpos files and CoNLL-U bring their own words, which nothing here touches.
"""

import itertools
import os
import sys

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from data.cli import Arguments, InputError, check_writable, error_at, run_script
from data.files import iterate_pairs, read_lines, read_parallel, write_parallel
from data.paragraphs import pair_paragraphs, paragraph_texts, translated_paragraphs
from data.squad import read_squad
from data.words import split_text


def read_rows(path, task):
    """Yield the sentences of each line of a file: two of xnli and pawsx, one of text. A header of XNLI-MT is left out. Raises InputError."""
    if task == "qa":
        yield from ((sentence,) for paragraph in read_squad(path) for sentence in paragraph_texts(*paragraph))
    elif task == "text":
        yield from ((line.removesuffix("\r"),) for line in read_lines(path))
    else:
        header = next(read_lines(path), "").rstrip("\r\n").split("\t")[:2] == ["premise", "hypo"]
        yield from (row[:2] for row in iterate_pairs(path, task, skip=int(header)))


def read_dictionary(path):
    """{source words: target words}, tuples, of a file that names both sides. None where it does not: it is parallel line by line.

    Such files are `source ||| target` and XTREME's translate-train files of five columns: English 1, English 2, translation 1,
    translation 2, label. Raises InputError.
    """
    first = next(read_lines(path), "")
    if "|||" in first:
        return {tuple(source): tuple(target) for source, target in read_parallel(path)}
    if first.count("\t") != 4:
        return None
    found = {}
    for number, line in enumerate(read_lines(path), 1):
        fields = line.removesuffix("\r").split("\t")
        if len(fields) != 5:
            raise error_at(
                path,
                number,
                f"{len(fields)} columns; expected English 1, English 2, translation 1, translation 2, label, as in line 1",
            )
        for source, target in zip(fields[:2], fields[2:4]):
            found[tuple(split_text(source))] = tuple(split_text(target))
    return found


def parallel_sentences(source_path, target_path, task):
    """Yield (source words, target words) of every sentence of the source file, in order. Raises InputError where one has no translation."""
    found = read_dictionary(target_path) if task != "qa" or not is_json(target_path) else None
    if found is None and task == "qa":
        for paragraph, other in translated_paragraphs(read_squad(source_path), read_squad(target_path)):
            yield from ((split_text(one), split_text(two)) for one, two in pair_paragraphs(paragraph, other))
    elif found is None:
        source, target = read_rows(source_path, task), read_rows(target_path, task)
        for number, (one, other) in enumerate(itertools.zip_longest(source, target), 1):
            if one is None or other is None:
                counts = number + sum(1 for _ in source), number + sum(1 for _ in target)
                ours, theirs = (count - (row is None) for count, row in zip(counts, (one, other)))
                raise InputError(
                    f"{target_path}: {theirs} lines, but {source_path} has {ours}; expected the same sentences, line by line"
                )
            yield from ((split_text(a), split_text(b)) for a, b in zip(one, other))
    else:
        for number, row in enumerate(read_rows(source_path, task), 1):
            for words in map(split_text, row):
                if tuple(words) not in found:
                    raise error_at(
                        source_path,
                        number,
                        f"{' '.join(words)[:60]!r} has no translation in {target_path}; expected one for every sentence",
                    )
                yield words, found[tuple(words)]


def is_json(path):
    """Whether a file begins like a JSON object."""
    return next(read_lines(path), "").lstrip().startswith("{")


def main():
    parser = Arguments(__doc__)
    parser.add_argument(
        "--task",
        choices=["xnli", "pawsx", "text", "qa"],
        required=True,
        help="format of the files; text is a sentence a line, qa SQuAD's JSON",
    )
    parser.add_argument("--source", required=True, metavar="FILE", help="sentences of the source language")
    parser.add_argument(
        "--target",
        required=True,
        metavar="FILE",
        help="their translations: line by line in the same format (XNLI-MT's files too), XTREME's translate-train file of five columns, "
        "SQuAD's JSON with the same question ids, or `source ||| target` lines in any order",
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="parallel file to write")
    parser.add_argument(
        "--every",
        action="store_true",
        help="write every sentence in its place, repeated ones too, as reorder.py wants them aligned",
    )
    args = parser.parse_args()

    check_writable(args.output)
    pairs = parallel_sentences(args.source, args.target, args.task)
    if not args.every:
        pairs = dict.fromkeys((tuple(source), tuple(target)) for source, target in pairs)
    write_parallel(args.output, pairs)


if __name__ == "__main__":
    run_script(main)
