"""Human translations to the experiment's data: no translation system stands between the question and its answer.

In:   a folder that holds, at any depth, what there is of
        XX_pud*.conllu                  UD's PUD treebanks of English and of the languages whose order is tried
        dev-XX.tsv, test-XX.tsv         XTREME's udpos, xnli and pawsx; a folder's task is told from its dev-en.tsv
        XXen.src-tgt enXX.src-tgt       gold alignments, each with its .gold
        en-XX/alignment.json            manual links of PUD's content words, with the sent_ids.txt beside it
Out:  OUTPUT/udpos     train-en.tsv (English PUD), dev-XX.tsv (XTREME's), manual-XX.align (Pharaoh, a line a sentence)
      OUTPUT/xnli      XTREME's test has no labels: train-en.tsv holds the first four fifths of dev's premises, dev-XX.tsv
                       the others. Where test-en.tsv has labels: train-en.tsv is test, dev-XX.tsv is dev
      OUTPUT/pawsx     the same of dev; pairs that share an English sentence stay together
      OUTPUT/*/train-en-XX.txt       `English words ||| words of the translation`, a line for each sentence of train-en.tsv
      OUTPUT/parallel/en-XX.txt      what aligners are tuned on: sentences of XNLI's test, those of its dev left out
      OUTPUT/align                   the gold alignments
      OUTPUT/missing.json            [{"task", "language", "what"}]: what could not be had, also a line each on stderr

    python data/human.py --input DATA --langs fr,de,hi,zh --tasks udpos,xnli,pawsx --output runs/human/data

Every XX is a human translation of the same sentences. What is missing leaves out a language or a test; it is an error
only where nothing is left of a task. Text of pairs is split into words by the rule of data/split.py.
"""

import filecmp
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from data.cli import Arguments, InputError, error_at, run_script, warn
from data.conllu import convert, read_conllu
from data.download import DEV_LANGS, PAWSX_LANGS, XNLI_LANGS
from data.files import (
    PAIR_LABEL_ALIASES,
    PAIR_LABELS,
    UPOS,
    format_links,
    open_output,
    read_lines,
    read_pairs,
    read_parallel,
    write_lines,
    write_pairs,
    write_parallel,
    write_udpos,
)
from data.words import split_text

TASKS = {"udpos": DEV_LANGS, "xnli": XNLI_LANGS, "pawsx": PAWSX_LANGS}  # and the languages of their tests
ORIGIN = {
    "udpos": "data/download.py --tasks udpos (Universal Dependencies 2.5, LINDAT handle 11234/1-3105)",
    "pud": "data/download.py --tasks pud, or a release of Universal Dependencies",
    "xnli": "data/download.py --tasks xnli (XNLI-1.0.zip)",
    "pawsx": "data/download.py --tasks pawsx (x-final.tar.gz)",
}
NOT_TRANSLATED = "NS"  # what PAWS-X has in place of a sentence that its translators gave up
TRAIN_FIFTHS = 4


# ---- what lies in the folder -------------------------------------------------------------------------


def list_files(folder):
    """Return the paths of all files below a folder, at any depth, sorted. Raises InputError where there is no folder."""
    if not os.path.isdir(folder):
        raise InputError(f"{folder}: no such folder; expected one that holds treebanks and XTREME's files")
    walk = os.walk(folder, followlinks=True)
    return sorted(os.path.join(place, name) for place, _, names in walk for name in names)


def only(paths, what):
    """Return the first of paths that all hold the same, None of no path. Raises InputError where two differ."""
    for other in paths[1:]:
        if not filecmp.cmp(paths[0], other, shallow=False):
            raise InputError(f"{other}: another {what} than {paths[0]}; expected one, leave the other out of the folder")
    return paths[0] if paths else None


def task_files(paths):
    """Return {task: {file name: path}} of the dev-XX.tsv and test-XX.tsv that lie beside a dev-en.tsv.

    The last column of its first line tells the task. Raises InputError where two folders hold different files of a task.
    """
    tasks_of = {tag: "udpos" for tag in UPOS} | {label: task for task in PAIR_LABELS for label in PAIR_LABELS[task]}
    folders = {}
    for path in paths:
        if os.path.basename(path) == "dev-en.tsv":
            last = next(read_lines(path), "").removesuffix("\r").split("\t")[-1]
            task = tasks_of.get(PAIR_LABEL_ALIASES.get(last, last))
            folders.setdefault(task, []).append(path)
    files = {}
    for task in TASKS:
        english = only(folders.get(task, []), f"dev-en.tsv of {task}")
        folder = os.path.dirname(english) if english else None
        files[task] = {os.path.basename(path): path for path in paths if os.path.dirname(path) == folder}
    return files


def require(path, what, origin):
    """Return a path. Raises InputError where it is None."""
    if path is None:
        raise InputError(f"{what} is not there; get it by {origin}")
    return path


def copy_tests(task, files, output):
    """Copy a task's dev-XX.tsv whole. Returns what is missing: a list of (task, language, what)."""
    missing = []
    for lang in TASKS[task]:
        if f"dev-{lang}.tsv" in files:
            write_lines(os.path.join(output, task, f"dev-{lang}.tsv"), read_lines(files[f"dev-{lang}.tsv"]))
        else:
            missing.append((task, lang, f"no dev-{lang}.tsv to test on; get it by {ORIGIN[task]}"))
    return missing


# ---- tagging: PUD ------------------------------------------------------------------------------------


def read_treebank(paths, lang):
    """Return (path, {sent_id: (words, tags)}) of a language's PUD treebank, (None, {}) where there is none."""
    start = f"{lang}_pud"
    named = [path for path in paths if os.path.basename(path).startswith(start) and path.endswith(".conllu")]
    path = only(named, f"PUD treebank of {lang}")
    return path, {comments.get("sent_id"): sentence for comments, sentence in convert(path, lang)} if path else {}


def word_positions(path):
    """Return {sent_id: {node id: index of its word from 0}} of a treebank, as XTREME's conversion counts words.

    The nodes of a multiword token (`15-16`, French `aux`) share the word that stands in their place.
    """
    positions = {}
    for comments, nodes, spans in read_conllu(path):
        fused = {node: first for first, last, _ in spans for node in range(first, last + 1)}
        firsts = [fused.get(node, node) for node in range(1, len(nodes) + 1)]
        index = {first: i for i, first in enumerate(sorted(set(firsts)))}
        positions[comments.get("sent_id")] = {str(node): index[first] for node, first in enumerate(firsts, 1)}
    return positions


def read_manual_links(path, english_path, target_path):
    """Return {sent_id: set of 0-indexed (English word, word of the translation)} of an alignment.json.

    It is a list, a dict for each line of the sent_ids.txt beside it, from ids of English nodes to lists of ids of the
    translation's nodes; "X" on either side is no node. Raises InputError for anything else, and for nodes that
    the treebanks lack.
    """
    names = os.path.join(os.path.dirname(path), "sent_ids.txt")
    identifiers = [line.removesuffix("\r") for line in read_lines(names)]
    try:
        sentences = json.loads("\n".join(read_lines(path)))
        nodes = [[(i, j) for i, found in sentence.items() for j in found] for sentence in sentences]
    except (ValueError, AttributeError, TypeError):
        raise InputError(f"{path}: no manual links; expected a JSON list of {{node: [nodes]}}") from None
    if len(identifiers) != len(nodes):
        raise InputError(f"{path}: {len(nodes)} sentences, but {names} has {len(identifiers)}; expected the same")
    english, target, links = word_positions(english_path), word_positions(target_path), {}
    for number, (identifier, pairs) in enumerate(zip(identifiers, nodes), 1):
        try:
            source_of, target_of = english[identifier], target[identifier]
            links[identifier] = {(source_of[i], target_of[j]) for i, j in pairs if "X" not in (i, j)}
        except KeyError as unknown:
            raise error_at(names, number, f"{identifier}: {unknown} is not in the treebanks; expected them") from None
    return links


def make_udpos(paths, files, langs, output):
    """Write udpos/ from PUD and XTREME's tests. Returns what is missing. Raises InputError where nothing can be done."""
    folder = os.path.join(output, "udpos")
    require(files.get("dev-en.tsv"), "udpos: XTREME's dev-en.tsv", ORIGIN["udpos"])
    english_path, english = read_treebank(paths, "en")
    require(english_path, "udpos: the English treebank en_pud*.conllu", ORIGIN["pud"])
    missing, found = copy_tests("udpos", files, output), []
    for lang in langs:
        path, translation = read_treebank(paths, lang)
        if path is None:
            missing.append(("udpos", lang, f"no treebank {lang}_pud*.conllu; get it by {ORIGIN['pud']}"))
            continue
        found.append(lang)
        if list(translation) != list(english):
            odd = next((a for a, b in zip(english, translation) if a != b), "the last one")
            raise InputError(f"{path}: other sentences than {english_path} from {odd} on; expected the same sent_ids")
        pairs = ((english[key][0], translation[key][0]) for key in english)
        write_parallel(os.path.join(folder, f"train-en-{lang}.txt"), pairs)
        manual = only([p for p in paths if p.endswith(os.path.join(f"en-{lang}", "alignment.json"))], "manual links")
        if manual is None:
            missing.append(("udpos", lang, f"no manual links, en-{lang}/alignment.json"))
            continue
        links = read_manual_links(manual, english_path, path)
        write_lines(os.path.join(folder, f"manual-{lang}.align"), (format_links(links.get(key, ())) for key in english))
    require(found or None, f"udpos: a PUD treebank of any of {', '.join(langs)}", ORIGIN["pud"])
    write_udpos(os.path.join(folder, "train-en.tsv"), english.values())
    return missing


# ---- pairs: XNLI and PAWS-X --------------------------------------------------------------------------


def groups_of(rows, fields):
    """Return the number of the group of each row, counted from 0 as they appear.

    Rows are of one group where they share one of their first `fields` sentences, or each shares one with a third.
    """
    parent = {}

    def root(sentence):
        while parent.setdefault(sentence, sentence) != sentence:
            sentence = parent[sentence]
        return sentence

    for row in rows:
        for sentence in row[:fields]:
            parent[root(sentence)] = root(row[0])
    number = {}
    return [number.setdefault(root(row[0]), len(number)) for row in rows]


def train_rows(task, rows):
    """Return for each row of dev whether it is trained on: the first groups, as many as fit into four fifths of rows."""
    groups = groups_of(rows, 1 if task == "xnli" else 2)
    sizes = [groups.count(group) for group in range(max(groups) + 1)]
    last, total = 0, sizes[0]
    while last + 1 < len(sizes) and 5 * (total + sizes[last + 1]) <= TRAIN_FIFTHS * len(rows):
        last, total = last + 1, total + sizes[last + 1]
    return [group <= last for group in groups]


def read_translation(task, english_path, path):
    """Return the rows of (English pairs, translated pairs). Raises InputError where they differ in number."""
    english, translation = read_pairs(english_path, task), read_pairs(path, task)
    if len(english) != len(translation):
        raise InputError(
            f"{path}: {len(translation)} pairs, but {english_path} has {len(english)}; expected the same, line by line"
        )
    return english, translation


def sentences_of(rows):
    """Return the words of every sentence of rows, 1 of pair 1, 2 of pair 1, 1 of pair 2, ..."""
    return [[] if text == NOT_TRANSLATED else split_text(text) for row in rows for text in row[:2]]


def make_pairs(task, files, langs, output):
    """Write xnli/ or pawsx/. Returns what is missing. Raises InputError where nothing can be done."""
    folder = os.path.join(output, task)
    dev = require(files.get("dev-en.tsv"), f"{task}: XTREME's dev-en.tsv", ORIGIN[task])
    labelled = "test-en.tsv" in files and read_pairs(files["test-en.tsv"], task)[0][2] is not None
    split = "test" if labelled else "dev"
    english = read_pairs(files[f"{split}-en.tsv"], task)
    chosen = [True] * len(english) if labelled else train_rows(task, english)
    if not labelled and all(chosen):
        raise InputError(f"{dev}: its pairs all share sentences; expected some to train on and others to test on")
    missing, found = [], []
    if labelled:
        missing += copy_tests(task, files, output)
    else:
        missing.append((task, None, f"no labels in test-en.tsv: {sum(chosen)} pairs of dev are trained on, not tested"))
        for lang in TASKS[task]:
            if f"dev-{lang}.tsv" not in files:
                missing.append((task, lang, f"no dev-{lang}.tsv to test on; get it by {ORIGIN[task]}"))
                continue
            _, rows = read_translation(task, dev, files[f"dev-{lang}.tsv"])
            tested = [row for row, train in zip(rows, chosen) if not train]
            write_pairs(os.path.join(folder, f"dev-{lang}.tsv"), tested)
    for lang in langs:
        if f"{split}-{lang}.tsv" not in files:
            has = f"get it by {ORIGIN[task]}" if lang in TASKS[task] else f"{task} was never translated into {lang}"
            missing.append((task, lang, f"no {split}-{lang}.tsv, the translation of what is trained on; {has}"))
            continue
        found.append(lang)
        _, rows = read_translation(task, files[f"{split}-en.tsv"], files[f"{split}-{lang}.tsv"])
        rows = [row for row, train in zip(rows, chosen) if train]
        pairs = list(zip(sentences_of(row for row, train in zip(english, chosen) if train), sentences_of(rows)))
        empty = sum(not target for _, target in pairs)
        if empty:
            missing.append((task, lang, f"{empty} of {len(pairs)} sentences have no translation and keep their order"))
        write_parallel(os.path.join(folder, f"train-en-{lang}.txt"), pairs)
    require(found or None, f"{task}: a translation into any of {', '.join(langs)}", ORIGIN[task])
    write_pairs(os.path.join(folder, "train-en.tsv"), [row for row, train in zip(english, chosen) if train])
    return missing


# ---- what aligners are tuned on and scored by --------------------------------------------------------


def make_parallel(files, langs, tasks, output):
    """Write parallel/en-XX.txt, each pair of sentences once. Returns what is missing.

    files: XNLI's. A language that XNLI's test lacks has the training sentences of a task in its place.
    """
    missing = []
    for lang in langs:
        if {"dev-en.tsv", "test-en.tsv", f"test-{lang}.tsv"} <= files.keys():
            english, rows = read_translation("xnli", files["test-en.tsv"], files[f"test-{lang}.tsv"])
            tested = {tuple(words) for words in sentences_of(read_pairs(files["dev-en.tsv"], "xnli"))}
            pairs = zip(sentences_of(english), sentences_of(rows))
            pairs = [(source, target) for source, target in pairs if tuple(source) not in tested]
        else:
            texts = (os.path.join(output, task, f"train-en-{lang}.txt") for task in ("xnli", "udpos", "pawsx") if task in tasks)
            text = next(filter(os.path.exists, texts), None)
            what = f"the training sentences in {text} instead" if text else "its aligners cannot be tuned"
            missing.append(("parallel", lang, f"no test-{lang}.tsv of XNLI to tune aligners on; {what}"))
            pairs = read_parallel(text) if text else ()
        pairs = dict.fromkeys((tuple(source), tuple(target)) for source, target in pairs if target)
        if pairs:
            write_parallel(os.path.join(output, "parallel", f"en-{lang}.txt"), pairs)
    return missing


def copy_gold(paths, langs, output):
    """Copy the gold alignments of the languages. Returns what is missing."""
    missing = []
    for lang in langs:
        names = [f"{pair}.{end}" for pair in (f"en{lang}", f"{lang}en") for end in ("src-tgt", "gold")]
        found = {name: only([p for p in paths if os.path.basename(p) == name], "gold alignment") for name in names}
        whole = [name for name in names if all(found[f"{name.split('.')[0]}.{end}"] for end in ("src-tgt", "gold"))]
        for name in whole:
            write_lines(os.path.join(output, "align", name), read_lines(found[name]))
        if not whole:
            missing.append(("align", lang, f"no gold alignment, en{lang} or {lang}en, to score aligners by"))
    return missing


def main():
    parser = Arguments(__doc__)
    parser.add_argument("--input", required=True, metavar="DIR", help="folder that holds the data, at any depth")
    parser.add_argument("--langs", default="fr,de,hi,zh", help="languages whose order is tried")
    parser.add_argument("--tasks", default="udpos,xnli,pawsx", help="tasks to make the data of")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder to write to")
    args = parser.parse_args()
    langs, tasks = args.langs.split(","), args.tasks.split(",")
    for task in tasks:
        if task not in TASKS:
            parser.error(f"argument --tasks: unknown task {task!r}; expected some of {','.join(TASKS)}")

    paths = list_files(args.input)
    files = task_files(paths)

    missing = make_udpos(paths, files["udpos"], langs, args.output) if "udpos" in tasks else []
    for task in ("xnli", "pawsx"):
        missing += make_pairs(task, files[task], langs, args.output) if task in tasks else []
    missing += make_parallel(files["xnli"], langs, tasks, args.output)
    missing += copy_gold(paths, langs, args.output)

    for task, lang, what in missing:
        warn(f"{task}{', ' + lang if lang else ''}: {what}")
    with open_output(os.path.join(args.output, "missing.json")) as stream:
        json.dump([dict(zip(("task", "language", "what"), item)) for item in missing], stream, indent=1)
        stream.write("\n")


if __name__ == "__main__":
    run_script(main)
