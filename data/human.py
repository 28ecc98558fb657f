"""Make the experiment's data from human translations, so that no translation system has a part in the results.

In:   a folder that holds, at any depth, what there is of
        XX_pud*.conllu                  UD's PUD treebanks of English and of the languages whose order is tried
        dev-XX.tsv, test-XX.tsv         XTREME's udpos, xnli and pawsx; a folder's task is told from its dev-en.tsv
        xnli.test.tsv                   of XNLI's own release, which has the labels that XTREME takes out of test
        XXen.src-tgt enXX.src-tgt       gold alignments, each with its .gold
        en-XX/alignment.json            manual links of PUD's content words, with the sent_ids.txt beside it
Out:  OUTPUT/udpos     train-en.tsv (English PUD), dev-XX.tsv (XTREME's), manual-XX.align (Pharaoh, a line a sentence)
      OUTPUT/xnli      train-en.tsv is test, dev-XX.tsv is dev, where test has labels. XTREME's has none: then
                       train-en.tsv has the first four fifths of dev's premises, dev-XX.tsv the others
      OUTPUT/pawsx     train-en.tsv and dev-XX.tsv, both from dev (test shares sentences with it); pairs that share an
                       English sentence are on one side
      OUTPUT/*/train-en-XX.txt       `English words ||| words of the translation`, a line for each training sentence
      OUTPUT/parallel/en-XX.txt      what aligners are tuned on: sentences of XNLI's test, those of its dev left out
      OUTPUT/align                   the gold alignments
      OUTPUT/missing.json            [{"task", "language", "what"}]: what could not be had, also a line each on stderr
      OUTPUT/asked.txt               --langs and --tasks, written last: run_all.sh reads it

    python data/human.py --input DATA --langs fr,de,hi,zh --tasks udpos,xnli,pawsx --output runs/human/data

Every XX is a human translation of the same sentences; PUD's are paired by their sent_ids. What is missing leaves out a
language or a test; it is an error only where nothing is left of a task. A sentence that a translation lacks has nothing
behind its bars, thus no links, and keeps its English order. Text of pairs is split into words by the rule of
data/split.py.
"""

import filecmp
import functools
import glob
import itertools
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from data.conllu import convert, read_conllu
from data.download import PAWSX_LANGS, UDPOS_LANGS, XNLI_LANGS
from data.files import (
    PAIR_LABEL_ALIASES, PAIR_LABELS, TAGS, Arguments, InputError, check_count, check_folder, check_writable, error_at,
    format_links, list_files, read_lines, read_pairs, run_script, warn, write_lines, write_pairs, write_parallel,
    write_udpos,
)  # fmt: skip
from data.words import split_text

TASKS = {"udpos": UDPOS_LANGS["dev"], "xnli": XNLI_LANGS, "pawsx": PAWSX_LANGS}  # and the languages of XTREME's tests
ORIGIN = {
    "udpos": "data/download.py --tasks udpos (Universal Dependencies 2.5, LINDAT handle 11234/1-3105)",
    "pud": "data/download.py --tasks pud, or a release of Universal Dependencies",
    "xnli": "data/download.py --tasks xnli (XNLI-1.0.zip)",
    "pawsx": "data/download.py --tasks pawsx (x-final.tar.gz)",
}
NOT_TRANSLATED = "NS"  # what PAWS-X has in place of a sentence that its translators left out


# ---- what lies in the folder -------------------------------------------------------------------------


def only(paths, what):
    """Return the first of paths that all hold the same, None of no path. Raises InputError where two differ."""
    for other in paths[1:]:
        if not filecmp.cmp(paths[0], other, shallow=False):
            raise InputError(f"{other}: another {what} than {paths[0]}; expected one, keep the other elsewhere")
    return paths[0] if paths else None


def task_files(paths, tasks):
    """Return {task: {file name: path}} of the dev-XX.tsv and test-XX.tsv that lie beside a dev-en.tsv.

    The last column of its first line tells the task. For XNLI's own release test-XX.tsv is its rows, not a path. Raises
    InputError where two folders hold different files of a task, and for one of `tasks` without dev-en.tsv.
    """
    tasks_of = {label: task for task, labels in {**TAGS, **PAIR_LABELS}.items() for label in labels}
    folders, others, files = {}, "", {}
    for path in paths:
        if os.path.basename(path) == "dev-en.tsv":
            last = next(filter(str.strip, read_lines(path)), "").removesuffix("\r").split("\t")[-1]
            task = tasks_of.get(PAIR_LABEL_ALIASES.get(last, last))
            others += "" if task else f"; {path} is of no task, since {last!r} is no tag or label"
            folders[os.path.dirname(path)] = task
    for task in TASKS:
        named = {}
        for folder, name in map(os.path.split, paths):
            if folders.get(folder) == task and name.startswith(("dev-", "test-")):
                named.setdefault(name, []).append(os.path.join(folder, name))
        files[task] = {name: only(found, f"{name} of {task}") for name, found in named.items()}
        if task in tasks and "dev-en.tsv" not in files[task]:
            raise InputError(f"{task}: XTREME's dev-en.tsv is not there; get it by {ORIGIN[task]}{others}")
    release = only([path for path in paths if os.path.basename(path) == "xnli.test.tsv"], "xnli.test.tsv")
    for lang, rows in read_release(release).items() if release else ():
        files["xnli"][f"test-{lang}.tsv"] = rows
    return files


def read_release(path):
    """Return {language: rows of (sentence 1, sentence 2, label)} of XNLI's own xnli.test.tsv. Raises InputError."""
    rows = {}
    for number, line in itertools.islice(enumerate(read_lines(path), 1), 1, None):
        fields = [field.strip() for field in line.split("\t")]
        if not any(fields):
            continue
        lang, label, one, two = [*fields[:2], *fields[6:8]] if len(fields) > 7 else [""] * 4
        label = PAIR_LABEL_ALIASES.get(label, label)
        if label not in PAIR_LABELS["xnli"] or not (one and two):
            raise error_at(path, number, "expected XNLI's columns: language, label, and sentences in the 7th and 8th")
        rows.setdefault(lang, []).append((one, two, label))
    if "en" not in rows:
        raise InputError(f"{path}: has no rows of en in its first column; expected XNLI's own xnli.test.tsv")
    return rows


def rows_of(task, file):
    """Return the rows of one of task_files(). Raises InputError where it is malformed."""
    return read_pairs(file, task) if isinstance(file, str) else file


# The functions find_... and make_... return (outputs, missing): {path below OUTPUT: (its writer, what to write)}, and a
# list of (task, language, what). Nothing is written before all is read, so that an error leaves nothing behind.


def copy_of(path):
    """Return the output that is a copy of a text file. Raises InputError where it cannot be read."""
    return write_lines, list(read_lines(path))


def find_tests(task, files, langs):
    """Return ({language: its dev-XX.tsv}, missing) of the languages of a task's tests and of `langs`."""
    there, missing = {}, []
    for lang in [*TASKS[task], *(lang for lang in langs if lang not in TASKS[task])]:
        if f"dev-{lang}.tsv" in files:
            there[lang] = files[f"dev-{lang}.tsv"]
        else:
            advice = f"get it by {ORIGIN[task]}" if lang in TASKS[task] else f"XTREME's {task} has none"
            missing.append((task, lang, f"no dev-{lang}.tsv to test on; {advice}"))
    return there, missing


# ---- tagging: PUD ------------------------------------------------------------------------------------


def read_treebank(paths, lang):
    """Return (path, {sent_id: (words, tags)}) of a language's PUD treebank, (None, {}) where there is none.

    Raises InputError where sentences have no id or the same one.
    """
    named = [path for path in paths if os.path.basename(path).startswith(f"{lang}_pud") and path.endswith(".conllu")]
    path = only(named, f"PUD treebank of {lang}")
    converted = convert(path, lang) if path else []
    sentences = {comments.get("sent_id"): sentence for comments, sentence in converted}
    if None in sentences or len(sentences) < len(converted):
        raise InputError(f"{path}: {len(converted)} sentences, but {len(sentences)} sent_ids; expected one for each")
    return path, sentences


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

    It is a list of dicts, one for each line of the sent_ids.txt beside it: {English node: [nodes of the translation]},
    nodes being their ids and "X" no node. Raises InputError for anything else and for nodes that the treebanks lack.
    """
    names = os.path.join(os.path.dirname(path), "sent_ids.txt")
    identifiers = [line.removesuffix("\r") for line in read_lines(names)]
    try:
        sentences = json.loads("\n".join(read_lines(path)))
        found = [nodes for sentence in sentences for nodes in sentence.values()]
        right = all(isinstance(nodes, list) and all(isinstance(node, str) for node in nodes) for nodes in found)
    except (ValueError, AttributeError, TypeError):
        right = False
    if not right:
        raise InputError(f"{path}: no manual links; expected a JSON list of {{node: [nodes]}}")
    check_count(path, len(sentences), len(identifiers), names, "sentences")
    english, target, links = word_positions(english_path), word_positions(target_path), {}
    for number, (identifier, sentence) in enumerate(zip(identifiers, sentences), 1):
        if identifier in links:
            raise error_at(names, number, f"{identifier} stands there before; expected every sentence once")
        pairs = [(i, j) for i, nodes in sentence.items() for j in nodes if "X" not in (i, j)]
        try:
            links[identifier] = {(english[identifier][i], target[identifier][j]) for i, j in pairs}
        except KeyError as unknown:
            raise error_at(names, number, f"{identifier}: {unknown} is not in the treebanks; check both") from None
    return links


def make_udpos(paths, files, langs):
    """Return udpos/ of PUD and XTREME's tests. Raises InputError where all is missing, and for malformed files."""
    english_path, english = read_treebank(paths, "en")
    if english_path is None:
        raise InputError(f"udpos: the English treebank en_pud*.conllu is not there; get it by {ORIGIN['pud']}")
    tests, missing = find_tests("udpos", files, langs)
    outputs = {f"udpos/dev-{lang}.tsv": copy_of(test) for lang, test in tests.items()}
    outputs["udpos/train-en.tsv"] = write_udpos, list(english.values())
    for lang in langs:
        path, translation = read_treebank(paths, lang)
        if path is None:
            missing.append(("udpos", lang, f"no treebank {lang}_pud*.conllu; get it by {ORIGIN['pud']}"))
            continue
        if unknown := next((key for key in translation if key not in english), None):
            raise InputError(f"{path}: sentence {unknown} is not in {english_path}; expected translations of it")
        pairs = [(words, translation[key][0] if key in translation else ()) for key, (words, _) in english.items()]
        outputs[f"udpos/train-en-{lang}.txt"] = write_parallel, pairs
        if gaps := len(english) - len(translation):
            missing.append(("udpos", lang, f"{gaps} of {len(english)} sentences lack a translation and stay English"))
        manual = only([p for p in paths if p.endswith(os.path.join(f"en-{lang}", "alignment.json"))], "manual links")
        if manual is None:
            missing.append(("udpos", lang, f"no manual links, en-{lang}/alignment.json"))
            continue
        links = read_manual_links(manual, english_path, path)
        if unlinked := sum(key not in links for key in english):
            missing.append(("udpos", lang, f"{unlinked} of {len(english)} sentences have no manual links"))
        outputs[f"udpos/manual-{lang}.align"] = write_lines, [format_links(links.get(key, ())) for key in english]
    if not any(f"udpos/train-en-{lang}.txt" in outputs for lang in langs):
        raise InputError(f"udpos: no PUD treebank of {' or '.join(langs)} is there; get one by {ORIGIN['pud']}")
    return outputs, missing


# ---- pairs: XNLI and PAWS-X --------------------------------------------------------------------------


def groups_of(rows, fields):
    """Return the number of each row's group, counted from 0 as they appear: rows that share one of their first `fields`
    sentences, or each share one with a third, are of one group.
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


def read_translation(task, english, file):
    """Return the rows of the translation of English rows. Raises InputError where it has more or fewer."""
    rows = rows_of(task, file)
    name = file if isinstance(file, str) else "xnli.test.tsv"
    check_count(name, len(rows), len(english), "the English file", "pairs")
    return rows


def sentences_of(rows):
    """Return the words of every sentence of rows, 1 of pair 1, 2 of pair 1, 1 of pair 2, ..."""
    return [split_once(text) for row in rows for text in row[:2]]


@functools.cache  # every language needs the English ones
def split_once(text):
    """Return the words of a text."""
    return () if text == NOT_TRANSLATED else tuple(split_text(text))


def training_split(task, files):
    """Return (split, trained): the split that is trained on, and for each of its rows whether it is.

    XNLI's test, all of it, where it has labels; else dev, the first groups of it that fit into four fifths of its rows.
    Raises InputError where none fits.
    """
    if task == "xnli" and "test-en.tsv" in files:
        english = rows_of(task, files["test-en.tsv"])
        if english[0][2] is not None:
            return "test", [True] * len(english)
    groups = groups_of(read_pairs(files["dev-en.tsv"], task), 1 if task == "xnli" else 2)
    sizes = [groups.count(group) for group in range(max(groups) + 1)]
    last = sum(5 * total <= 4 * len(groups) for total in itertools.accumulate(sizes)) - 1
    if last < 0:
        raise InputError(f"{files['dev-en.tsv']}: its first pairs share sentences; expected some for either side")
    return "dev", [group <= last for group in groups]


def make_pairs(task, files, langs):
    """Return xnli/ or pawsx/. Raises InputError where all is missing, and for malformed files."""
    split, trained = training_split(task, files)
    tests, missing = find_tests(task, files, langs)
    outputs = {f"{task}/dev-{lang}.tsv": test_output(task, files, test, split, trained) for lang, test in tests.items()}
    if (task, split) == ("xnli", "dev"):
        instead = f"{sum(trained)} of {len(trained)} pairs of dev are trained on"
        missing.append((task, "en", f"no labels of test, which xnli.test.tsv of XNLI-1.0.zip has; {instead}"))
    english = rows_of(task, files[f"{split}-en.tsv"])
    train = list(itertools.compress(english, trained))
    outputs[f"{task}/train-en.tsv"] = write_pairs, train
    for lang in langs:
        name = f"{split}-{lang}.tsv"
        if name not in files:
            advice = f"get it by {ORIGIN[task]}" if lang in TASKS[task] else f"{task} has no translation into it"
            missing.append((task, lang, f"no {name}, so its order is left out; {advice}"))
            continue
        translation = itertools.compress(read_translation(task, english, files[name]), trained)
        pairs = list(zip(sentences_of(train), sentences_of(translation)))
        outputs[f"{task}/train-en-{lang}.txt"] = write_parallel, pairs
        if empty := sum(not target for _, target in pairs):
            missing.append((task, lang, f"{empty} of {len(pairs)} training sentences have no translation"))
    if not any(f"{task}/train-en-{lang}.txt" in outputs for lang in langs):
        raise InputError(f"{task}: no translation into {' or '.join(langs)} is there; get one by {ORIGIN[task]}")
    return outputs, missing


def test_output(task, files, test, split, trained):
    """Return the output of a dev-XX.tsv: all of it, or its rows that are not trained on. Raises InputError."""
    if split == "test":
        return copy_of(test)
    rows = read_translation(task, read_pairs(files["dev-en.tsv"], task), test)
    return write_pairs, [row for row, train in zip(rows, trained) if not train]


# ---- what aligners are tuned on and scored by --------------------------------------------------------


def make_parallel(files, langs, texts):
    """Return parallel/en-XX.txt, each pair of sentences once. Raises InputError for malformed files.

    files: XNLI's; texts: the outputs of the tasks, whose training sentences are taken for a language that XNLI lacks.
    """
    outputs, missing = {}, []
    for lang in langs:
        if {"dev-en.tsv", "test-en.tsv", f"test-{lang}.tsv"} <= files.keys():
            english = rows_of("xnli", files["test-en.tsv"])
            rows = read_translation("xnli", english, files[f"test-{lang}.tsv"])
            tested = set(sentences_of(read_pairs(files["dev-en.tsv"], "xnli")))
            pairs = [pair for pair in zip(sentences_of(english), sentences_of(rows)) if pair[0] not in tested]
        else:
            name = next(filter(texts.get, (f"{task}/train-en-{lang}.txt" for task in TASKS)), None)
            what = f"{name} takes its place" if name else "they cannot be tuned"
            missing.append(("parallel", lang, f"no test-{lang}.tsv of XNLI to tune aligners on; {what}"))
            pairs = [(source, target) for source, target in texts[name][1] if target] if name else []
        if pairs:
            distinct = dict.fromkeys((tuple(source), tuple(target)) for source, target in pairs)
            outputs[f"parallel/en-{lang}.txt"] = write_parallel, list(distinct)
    return outputs, missing


def find_gold(paths, langs):
    """Return align/, the gold alignments of the languages. Raises InputError where two differ."""
    outputs, missing = {}, []
    for lang in langs:
        for pair in (f"en{lang}", f"{lang}en"):
            names = f"{pair}.src-tgt", f"{pair}.gold"
            found = [only([p for p in paths if os.path.basename(p) == name], f"file {name}") for name in names]
            if all(found):
                outputs.update((f"align/{name}", copy_of(path)) for name, path in zip(names, found))
        if not {f"align/en{lang}.gold", f"align/{lang}en.gold"} & outputs.keys():
            missing.append(("align", lang, f"no en{lang} or {lang}en .src-tgt and .gold to score aligners by"))
    return outputs, missing


def remove_outputs(folder, tasks):
    """Remove what an earlier run wrote of these tasks; asked.txt, which says that all is there, goes first."""
    names = ["asked.txt", "missing.json", "parallel/en-*.txt", "align/*.src-tgt", "align/*.gold"]
    names += [f"{task}/{name}" for task in tasks for name in ("train-en*", "dev-*.tsv", "manual-*.align")]
    for path in [path for name in names for path in glob.glob(os.path.join(glob.escape(folder), name))]:
        os.remove(path)


def main():
    parser = Arguments(__doc__)
    add = parser.add_argument
    add("--input", required=True, metavar="DIR", help="folder that holds the data, at any depth")
    add("--langs", default="fr,de,hi,zh", help="languages whose order is tried")
    add("--tasks", default="udpos,xnli,pawsx", help="tasks to make the data of")
    add("--output", required=True, metavar="DIR", help="folder to write to")
    args = parser.parse_args()
    langs, tasks = args.langs.split(","), args.tasks.split(",")
    for task in tasks:
        if task not in TASKS:
            parser.error(f"argument --tasks: unknown task {task!r}; expected some of {','.join(TASKS)}")

    check_writable(os.path.join(args.output, "missing.json"))
    check_folder(args.input, "treebanks and XTREME's files")
    paths = list_files(args.input, [args.output])
    files = task_files(paths, tasks)

    parts = [make_udpos(paths, files["udpos"], langs)] if "udpos" in tasks else []
    parts += [make_pairs(task, files[task], langs) for task in ("xnli", "pawsx") if task in tasks]
    texts = {path: output for outputs, _ in parts for path, output in outputs.items()}
    parts += [make_parallel(files["xnli"], langs, texts), find_gold(paths, langs)]

    remove_outputs(args.output, tasks)
    for outputs, missing in parts:
        for path, (write, content) in outputs.items():
            write(os.path.join(args.output, path), content)
        for task, lang, what in missing:
            warn(f"{task}, {lang}: {what}")
    names = "task", "language", "what"
    rows = [json.dumps(dict(zip(names, item)), ensure_ascii=False) for _, missing in parts for item in missing]
    write_lines(os.path.join(args.output, "missing.json"), ["[" + ",\n ".join(rows) + "]"])
    write_lines(os.path.join(args.output, "asked.txt"), [f"{args.langs} {args.tasks}"])


if __name__ == "__main__":
    run_script(main)
