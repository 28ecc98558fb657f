"""Parallel UD treebanks to the experiment's training data: English udpos sentences and their human translations.

In:   a folder that holds, at any depth, XX_pud*.conllu for en and every language asked for (UD's PUD treebanks)
Out:  OUTPUT/train-en.tsv     the English sentences with gold tags, in XTREME's udpos layout
      OUTPUT/train-en-XX.txt  `English words ||| words of the translation` a line, the same sentences in the same order

    python data/pud.py --input DATA --langs fr,de,hi,zh --output runs/pud/data/udpos
"""

import glob
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from data.cli import Arguments, InputError, run_script
from data.conllu import convert
from data.files import write_parallel, write_udpos


def find_treebank(folder, lang):
    """The path of the PUD file of a language below a folder. Raises InputError unless there is exactly one."""
    found = glob.glob(os.path.join(glob.escape(folder), "**", f"{lang}_pud*.conllu"), recursive=True)
    if len(found) != 1:
        raise InputError(
            f"{folder}: {len(found)} files named {lang}_pud*.conllu in it; expected one, from UD's PUD treebank of that language"
        )
    return found[0]


def main():
    parser = Arguments(__doc__)
    parser.add_argument("--input", required=True, metavar="DIR", help="folder that holds the PUD treebanks")
    parser.add_argument("--langs", default="fr,de,hi,zh", help="languages of the translations")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder to write to")
    args = parser.parse_args()

    english_path = find_treebank(args.input, "en")
    english = convert(english_path, "en")
    translations = {}
    for lang in args.langs.split(","):
        path = find_treebank(args.input, lang)
        translations[lang] = convert(path, lang)
        if len(translations[lang]) != len(english):
            raise InputError(
                f"{path}: {len(translations[lang])} sentences, but {english_path} has {len(english)}; expected the same sentences in both"
            )
        for n, ((ours, _), (theirs, _)) in enumerate(zip(english, translations[lang]), 1):
            if ours.get("sent_id") != theirs.get("sent_id"):
                raise InputError(
                    f"{path}: sentence {n} is {theirs.get('sent_id')}, but {ours.get('sent_id')} in {english_path}; expected the same order in both"
                )

    for lang, sentences in translations.items():
        write_parallel(
            os.path.join(args.output, f"train-en-{lang}.txt"),
            ((source[0], target[0]) for (_, source), (_, target) in zip(english, sentences)),
        )
    write_udpos(os.path.join(args.output, "train-en.tsv"), [sentence for _, sentence in english])


if __name__ == "__main__":
    run_script(main)
