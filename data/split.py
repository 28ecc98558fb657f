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
import re
import sys
import unicodedata

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from data.files import Arguments, InputError, at, check_writable, iterate_pairs, read_lines, read_parallel, run_script, write_parallel

# Python's \w lacks the marks (vowel signs, tones, accents) that Hindi and Thai words are full of.
MARKS = "".join(chr(code) for code in range(0x300, 0x1F000) if unicodedata.category(chr(code)).startswith("M")) + "\u200c\u200d"
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff々〆"
)
UNSPACED_CHARACTER = re.compile(f"[{UNSPACED}]")
LETTER = rf"(?:(?![{UNSPACED}])[^\W_][{MARKS}]*)"
INITIALS = rf"(?:(?!\d){LETTER}\.){{2,}}(?!{LETTER})"
WORD = re.compile(rf"{INITIALS}|{LETTER}(?:['’\-‐‑]?{LETTER}|(?<=\d)[.,](?=\d))*|[{UNSPACED}][{MARKS}]*|(\S)\1*")


def split_text(text):
    """The words of a text by the rule above, a list."""
    return [match[0].replace("|||", "|") for match in WORD.finditer(text)]


def split_with_spaces(text):
    """The words of a text, and how to write them again: three lists, words, before and after.

    before[k] tells that word k is a punctuation mark that stood without a space behind the word before it (a comma), after[k] that
    it stood so before the next word (an opening bracket). They belong to the mark and move with it.
    """
    matches = list(WORD.finditer(text))
    words = [match[0].replace("|||", "|") for match in matches]
    stuck = [False] + [one.end() == two.start() for one, two in zip(matches, matches[1:])] + [False]
    mark = [not word[0].isalnum() for word in words]
    return words, [a and b for a, b in zip(stuck, mark)], [a and b for a, b in zip(stuck[1:], mark)]


def join_words(words, before, after):
    """Text of words with split_with_spaces' marks, in any order; in the original one it is the text but for runs of spaces."""
    parts = []
    for k, word in enumerate(words):
        apart = k and not (before[k] or after[k - 1] or UNSPACED_CHARACTER.match(word) and UNSPACED_CHARACTER.match(words[k - 1]))
        parts.append(" " * bool(apart) + word)
    return "".join(parts)


def read_rows(path, task):
    """Yield the sentences of each line of a file: two of xnli and pawsx, one of text. A header of XNLI-MT is left out. Raises InputError."""
    if task == "text":
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
            raise at(
                path, number, f"{len(fields)} columns; expected English 1, English 2, translation 1, translation 2, label, as in line 1"
            )
        for source, target in zip(fields[:2], fields[2:4]):
            found[tuple(split_text(source))] = tuple(split_text(target))
    return found


def parallel_sentences(source_path, target_path, task):
    """Yield (source words, target words) of every sentence of the source file, in order. Raises InputError where one has no translation."""
    found = read_dictionary(target_path)
    if found is None:
        source, target = read_rows(source_path, task), read_rows(target_path, task)
        for number, (one, other) in enumerate(itertools.zip_longest(source, target), 1):
            if one is None or other is None:
                counts = number + sum(1 for _ in source), number + sum(1 for _ in target)
                ours, theirs = (count - (row is None) for count, row in zip(counts, (one, other)))
                raise InputError(f"{target_path}: {theirs} lines, but {source_path} has {ours}; expected the same sentences, line by line")
            yield from ((split_text(a), split_text(b)) for a, b in zip(one, other))
    else:
        for number, row in enumerate(read_rows(source_path, task), 1):
            for words in map(split_text, row):
                if tuple(words) not in found:
                    raise at(
                        source_path,
                        number,
                        f"{' '.join(words)[:60]!r} has no translation in {target_path}; expected one for every sentence",
                    )
                yield words, found[tuple(words)]


def main():
    parser = Arguments(__doc__)
    parser.add_argument("--task", choices=["xnli", "pawsx", "text"], required=True, help="format of the files; text is a sentence a line")
    parser.add_argument("--source", required=True, metavar="FILE", help="sentences of the source language")
    parser.add_argument(
        "--target",
        required=True,
        metavar="FILE",
        help="their translations: line by line in the same format (XNLI-MT's files too), XTREME's translate-train file of five columns, "
        "or `source ||| target` lines in any order",
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="parallel file to write")
    parser.add_argument(
        "--every", action="store_true", help="write every sentence in its place, repeated ones too, as reorder.py wants them aligned"
    )
    args = parser.parse_args()

    check_writable(args.output)
    pairs = parallel_sentences(args.source, args.target, args.task)
    if not args.every:
        pairs = dict.fromkeys((tuple(source), tuple(target)) for source, target in pairs)
    write_parallel(args.output, pairs)


if __name__ == "__main__":
    run_script(main)
