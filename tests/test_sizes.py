"""Inputs of no, one and two examples, and of one above every limit of a batch or chunk: as many results as examples.

One example, or one subword, is where an index of one element would be taken for a number. test_torchrun.py has two
processes.
"""

import itertools
import json

import pytest
from conftest import sample_words

import align
import common
import finetune_aligner
import links
import train_pos
import train_qa
import train_xnli


@pytest.fixture(scope="module")
def words(tiny_bert):
    """Words that are one subword each."""
    tokenizer = common.load_tokenizer(tiny_bert)
    distinct = sorted(set(sample_words()))
    found = common.words_to_subwords(tokenizer, [[word] for word in distinct])
    return [word for word, (ids, _) in zip(distinct, found) if len(ids) == 1][:40]


def lines_of(path):
    return path.read_text(encoding="utf-8").splitlines()


def align_pairs(run, model, folder, pairs, *options):
    """Run align.py on lines; returns its lines."""
    (folder / "pairs").write_text("".join(f"{one} ||| {two}\n" for one, two in pairs), encoding="utf-8")
    done = run("align", "--model", model, "--input", folder / "pairs", "--output", folder / "links", *options)
    assert done.code == 0, done.err
    return lines_of(folder / "links")


@pytest.mark.parametrize("count", [0, 1, 2, links.PAIRS, links.PAIRS + 1, 2 * links.PAIRS + 1, links.CHUNK + 1])
def test_pairs_of_one_subword_are_linked_however_many_there_are(run, tmp_path, tiny_bert, words, count):
    pairs = list(itertools.islice(itertools.product(words, words), count))
    assert align_pairs(run, tiny_bert, tmp_path, pairs) == ["0-0"] * count


@pytest.mark.parametrize("method", align.METHODS)
def test_one_pair_is_aligned_by_every_method(run, tmp_path, tiny_bert, words, method):
    if method == "match":
        pytest.importorskip("scipy")
    (tmp_path / "gold").write_text("1-1\n")
    gold = ["--gold", tmp_path / "gold", "--scores", tmp_path / "scores", "--html", tmp_path / "page"]
    preset = "awesome" if method in ("softmax", "entmax") else "simalign"
    for options in ([], ["--level", "word"], ["--preset", preset]):
        if method == "grow-diag" and "--preset" in options:
            continue
        for pair in ((words[0], words[1]), (words[0], " ".join(words[:7])), (" ".join(words[:7]), words[0])):
            [found] = align_pairs(run, tiny_bert, tmp_path, [pair], "--method", method, *options)
            assert all(link in {f"{i}-{j}" for i in range(7) for j in range(7)} for link in found.split())
        align_pairs(run, tiny_bert, tmp_path, [(words[0], words[1])], "--method", method, *options, *gold)


def test_any_number_of_pairs_is_aligned_at_every_limit(run, tmp_path, monkeypatch, tiny_xlmr, words):
    """With limits of a few, so that their neighbours are many."""
    monkeypatch.setattr(links, "PAIRS", 2)
    monkeypatch.setattr(links, "CHUNK", 4)
    monkeypatch.setattr(links, "CELLS", 16)
    monkeypatch.setattr(links, "BUDGET", {"cpu": 9, "cuda": 9})
    for count in (*range(7), 8, 9):
        mixed = [(words[n], " ".join(words[: 1 + n % 3])) for n in range(count)]
        assert len(align_pairs(run, tiny_xlmr, tmp_path, mixed + [("", "")] * (count % 2))) == count + count % 2


EVERY = ",".join(finetune_aligner.OBJECTIVES)


@pytest.mark.parametrize("count, objective", [*((1, one) for one in EVERY.split(",")), (2, EVERY), (3, EVERY)])
def test_any_number_of_pairs_is_tuned_on(run, tmp_path, monkeypatch, tiny_bert, words, count, objective):
    monkeypatch.setattr(finetune_aligner, "READ", 2)
    monkeypatch.setattr(links, "CHUNK", 2)
    (tmp_path / "pairs").write_text("".join(f"{words[n]} ||| {words[n + 1]}\n" for n in range(count)), encoding="utf-8")
    options = ["--output", tmp_path / "out", "--max-steps", "2", "--batch-size", "2", "--objectives", objective]
    done = run("finetune_aligner", "--model", tiny_bert, "--train", tmp_path / "pairs", *options)
    assert done.code == 0, done.err
    assert json.loads((tmp_path / "out" / "finetuning.json").read_text())["pairs"] == [count]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_any_number_of_examples_is_trained_and_tested_on(run, tmp_path, monkeypatch, tiny_bert, count):
    """Of one word or subword each."""
    monkeypatch.setattr(train_xnli, "READ", 2)
    for script in (train_pos, train_xnli, train_qa):
        monkeypatch.setattr(script, "TEST_BUDGET", {"cpu": 9, "cuda": 9})
    questions = [{"id": str(n), "question": "a", "answers": [{"text": "a", "answer_start": 0}]} for n in range(count)]
    squad = {"version": "1", "data": [{"title": "", "paragraphs": [{"context": "a", "qas": questions}]}]}
    texts = {"udpos": "a\tNOUN\n\n" * count, "xnli": "a\ta\tneutral\n" * count, "xquad": json.dumps(squad)}
    for script, task in (("train_pos", "udpos"), ("train_xnli", "xnli"), ("train_qa", "xquad")):
        (tmp_path / task).mkdir()
        for name in ("train", "dev-en"):
            (tmp_path / task / f"{name}.{'json' if task == 'xquad' else 'tsv'}").write_text(texts[task])
        train = next((tmp_path / task).glob("train.*"))
        options = ["--train", train, "--data-dir", tmp_path / task, "--output", tmp_path / "out" / task]
        options += ["--epochs", "1", "--task", task, "--batch-size", "2", "--save"]
        for more in ([], ["--reordered", train, "--consistency", "1"])[: 1 if task == "xquad" else 2]:
            done = run(script, "--model", tiny_bert, *options, *more)
            assert done.code == 0, done.err
        scores = json.loads((tmp_path / "out" / task / "scores.json").read_text())
        assert scores["dev"]["en"]["count"] == scores["train"]["examples"] == count
