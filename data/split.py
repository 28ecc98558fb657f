"""Split text into words by one rule, and make aligner input of files that are parallel line by line.

In:   two files with the same sentences in two languages: XTREME's xnli or pawsx files, or plain text, a sentence a line
Out:  `source words ||| target words` a line, each distinct pair of sentences once (XNLI repeats every premise three times)

    python data/split.py --task xnli --source xnli/test-en.tsv --target xnli/test-hi.tsv --output en-hi.txt

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

import os
import re
import sys
import unicodedata

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from data.files import Arguments, InputError, check_writable, read_lines, read_pairs, run_script, write_parallel

# Python's \w lacks the marks (vowel signs, tones, accents) that Hindi and Thai words are full of.
MARKS = "".join(chr(code) for code in range(0x300, 0x1F000) if unicodedata.category(chr(code)).startswith("M")) + "\u200c\u200d"
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff々〆"
)
LETTER = rf"(?:(?![{UNSPACED}])[^\W_][{MARKS}]*)"
INITIALS = rf"(?:(?!\d){LETTER}\.){{2,}}(?!{LETTER})"
WORD = re.compile(rf"{INITIALS}|{LETTER}(?:['’\-‐‑]?{LETTER}|(?<=\d)[.,](?=\d))*|[{UNSPACED}][{MARKS}]*|(\S)\1*")


def split_text(text):
    """The words of a text by the rule above, a list."""
    return [match[0].replace("|||", "|") for match in WORD.finditer(text)]


def read_sentences(path, task):
    """The sentences of every line of a file, a list of tuples: two for xnli and pawsx, one for text. Raises InputError."""
    if task == "text":
        return [(line.removesuffix("\r"),) for line in read_lines(path)]
    return [row[:2] for row in read_pairs(path, task)]


def main():
    parser = Arguments(__doc__)
    parser.add_argument("--task", choices=["xnli", "pawsx", "text"], required=True, help="format of the files; text is a sentence a line")
    parser.add_argument("--source", required=True, metavar="FILE", help="sentences of the source language")
    parser.add_argument("--target", required=True, metavar="FILE", help="their translations, line by line")
    parser.add_argument("--output", required=True, metavar="FILE", help="parallel file to write")
    args = parser.parse_args()

    check_writable(args.output)
    source, target = read_sentences(args.source, args.task), read_sentences(args.target, args.task)
    if len(source) != len(target):
        raise InputError(
            f"{args.target}: {len(target)} lines, but {args.source} has {len(source)}; expected the same sentences, line by line"
        )
    pairs = dict.fromkeys(pair for one, other in zip(source, target) for pair in zip(one, other))
    write_parallel(args.output, ((split_text(one), split_text(other)) for one, other in pairs))


if __name__ == "__main__":
    run_script(main)
