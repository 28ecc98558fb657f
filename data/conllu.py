"""CoNLL-U treebanks to XTREME's udpos files, by XTREME's own conversion rules.

In:   the .conllu files of one language and split (Universal Dependencies), in any order
Out:  one udpos file: word<TAB>TAG a line, a blank line after each sentence

    python data/conllu.py --lang zh --input zh_gsd-ud-dev.conllu --output dev-zh.tsv

The rules (XTREME calls B. Plank's ud-conversion-tools, conllu_to_conll.py with --replace_subtokens_with_fused_forms):
files are read in sorted name order; a multiword token (`1-2`, French `du`) replaces its parts and takes the tag of the
part nearest the root, or among equally near ones the tag that comes first in TAG_PRECEDENCE; empty nodes (`8.1`) are
dropped; spaces and U+200C inside a form are removed; sentences whose every form is `_` (no text licence), or every one
but one, are dropped.
"""

import os
import re
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from data.files import UPOS, Arguments, InputError, check_label, check_mark, error_at, read_lines, run_script, write_udpos

TAG_PRECEDENCE = {
    "default": "VERB NOUN PROPN PRON ADJ NUM ADV INTJ AUX ADP DET PART CCONJ SCONJ X PUNCT".split(),
    "fr": "VERB AUX PRON NOUN ADJ ADV ADP DET PART SCONJ CONJ".split(),
    "es": "VERB AUX PRON ADP DET".split(),
    "it": "VERB AUX ADV PRON ADP DET INTJ".split(),
}


def read_conllu(path):
    """Yield the sentences of a CoNLL-U file as (comments, words, multiword tokens).

    comments: dict of `# key = value` lines; words: list of (form, tag, head), head 0 is the root; multiword tokens:
    list of (first, last, form), first and last numbering words from 1. A head may be missing (`_`, returned as 0) in
    sentences without multiword tokens, where nothing depends on it.
    Raises InputError for a line without 10 columns, an id out of order, a head that is no number, an unknown tag.
    """
    comments, words, spans, headless = {}, [], [], None

    def sentence():
        if spans and headless:
            raise error_at(path, headless, "head '_' in column 7, beside multiword tokens; expected a word's number")
        if spans and spans[-1][1] > len(words):
            wrong = f"multiword token {spans[-1][0]}-{spans[-1][1]} in a sentence of {len(words)} words"
            raise error_at(path, number, f"{wrong}; expected its last word there")
        return comments, words, spans

    for number, line in enumerate(read_lines(path), 1):
        line, following = line.removesuffix("\r").lstrip("\ufeff"), str(len(words) + 1)  # joined files have several
        if line.startswith("#"):
            key, _, value = line[1:].partition("=")
            comments[key.strip()] = value.strip()
            continue
        if not line.strip():
            if words:
                yield sentence()
            comments, words, spans, headless = {}, [], [], None
            continue
        fields = line.split("\t")
        if len(fields) != 10:
            raise error_at(path, number, f"{len(fields)} columns; expected CoNLL-U's 10 columns separated by tabs")
        identifier, form, tag, head = fields[0], fields[1], fields[3], fields[6]
        if "." in identifier:
            continue
        check_mark(path, number, form)
        if not plain(form):
            raise error_at(path, number, f"the form {form!r} in column 2 is empty; expected a word")
        if "-" in identifier:
            match = re.fullmatch(rf"{following}-([0-9]{{1,9}})", identifier)
            if not match or int(match[1]) <= len(words) + 1 or spans and len(words) < spans[-1][1]:
                expected = f"expected {following}-N before its first word"
                raise error_at(path, number, f"multiword token {identifier!r}; {expected}")
            spans.append((len(words) + 1, int(match[1]), form))
            continue
        if identifier != following:
            raise error_at(path, number, f"word id {identifier!r}; expected {following}")
        check_label(path, number, tag, UPOS, "tag")
        if head == "_":
            headless, head = headless or number, "0"
        if not re.fullmatch("[0-9]{1,9}", head):
            raise error_at(path, number, f"head {head!r} in column 7; expected a word's number, 0 for the root")
        words.append((form, tag, int(head)))
    if words:
        yield sentence()


def plain(form):
    """Return a form without spaces and zero-width non-joiners, as XTREME writes it."""
    return form.replace(" ", "").replace("\u200c", "")


def depth(words, index):
    """Count the ancestors of a word (its index from 0) in the tree."""
    count, head = 0, words[index][2]
    while head and count <= len(words):  # the bound ends a cycle, which no valid tree has
        count, head = count + 1, words[head - 1][2] if head <= len(words) else 0
    return count


def merge_multiword(words, spans, lang):
    """Return (words, tags) of a sentence in XTREME's form: fused words in place of their parts, odd spaces removed."""
    order = TAG_PRECEDENCE.get(lang, TAG_PRECEDENCE["default"])
    rank = {tag: order.index(tag) if tag in order else len(order) for tag in UPOS}
    fused = {first: (last, form) for first, last, form in spans}
    forms, tags, i = [], [], 1
    while i <= len(words):
        last, form = fused.get(i, (i, words[i - 1][0]))
        head = min(range(i - 1, last), key=lambda part: (depth(words, part), rank[words[part][1]]))
        forms.append(plain(form))
        tags.append(words[head][1])
        i = last + 1
    return forms, tags


def convert(path, lang):
    """Return (comments, (words, tags)) of each sentence of a CoNLL-U file. Raises InputError where none has text."""
    sentences = []
    for comments, words, spans in read_conllu(path):
        forms, tags = merge_multiword(words, spans, lang)
        if "_" not in forms or forms.count("_") < len(forms) - 1:
            sentences.append((comments, (forms, tags)))
    if not sentences:
        raise InputError(f"{path}: no sentences with text; expected a CoNLL-U file")
    return sentences


def main():
    parser = Arguments(__doc__)
    add = parser.add_argument
    add("--input", nargs="+", required=True, metavar="FILE", help="CoNLL-U files of one language and split")
    add("--lang", required=True, help="language code; it picks the tag of multiword tokens")
    add("--output", required=True, metavar="FILE", help="udpos file to write")
    args = parser.parse_args()
    files = sorted(args.input, key=os.path.basename)
    write_udpos(args.output, [sentence for path in files for _, sentence in convert(path, args.lang)])


if __name__ == "__main__":
    run_script(main)
