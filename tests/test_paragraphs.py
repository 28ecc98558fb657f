"""Reordering SQuAD's paragraphs loses no answer and no word, and finds sentences of translations."""

import json
import os
import random

from conftest import SAMPLE

from data.paragraphs import paragraph_sentences, paragraph_texts, reorder_paragraph
from data.squad import read_squad, stripped
from data.words import split_text

SQUAD, XQUAD = os.path.join(SAMPLE, "squad", "train-v1.1.json"), os.path.join(SAMPLE, "xquad")


def check_paragraph(paragraph, orders=None, shuffle=None):
    """Reorder a paragraph and check that every answer stands where it should, and that no word is lost. Returns how
    many answers."""
    sentences = paragraph_sentences(*paragraph)
    orders = orders or [shuffle(list(range(len(sentence.spans)))) for sentence in sentences]
    (context, questions), moves = reorder_paragraph(paragraph, sentences, orders)
    assert sorted("".join(context.split())) == sorted("".join(paragraph[0].split()))
    count = 0
    for (name, _, answers), (old, _, given) in zip(questions, paragraph[1]):
        assert name == old
        for (text, start), answer in zip(answers, given, strict=True):
            assert context.startswith(text, start) and text == stripped(*answer)[0]
            count += 1
    assert all(context[new : new + end - begin] == paragraph[0][begin:end] for begin, end, new in moves)
    return count


def shuffled(seed):
    generator = random.Random(seed)
    return lambda order: generator.sample(order, len(order))


def test_no_answer_is_lost_by_any_order():
    for path in [SQUAD] + [os.path.join(XQUAD, f"xquad.{lang}.json") for lang in ("fr", "hi", "zh")]:
        paragraphs = read_squad(path)
        assert sum(check_paragraph(paragraph, shuffle=shuffled(1)) for paragraph in paragraphs) == 3 * len(paragraphs)
    odd = ("A «big-red» (or 1920s.[3]) bus|||s: 5km/h! So what? He came.", [])
    answers = ["big-red", "big", "1920s", "[3]) bus|||s", "km", "h! So", "He came."]
    odd[1].extend((str(n), "Why?", [(text, odd[0].index(text))]) for n, text in enumerate(answers))
    assert all(check_paragraph(odd, shuffle=shuffled(seed)) == len(answers) for seed in range(50))


def test_no_answer_of_tydiqa_is_lost(shared):
    """A third of the 3,696 questions, one a paragraph, with random permutations."""
    paragraphs = read_squad(os.path.join(shared, "xtreme", "tydiqa", "tydiqa.goldp.en.train.json"))[::3]
    assert sum(check_paragraph(paragraph, shuffle=shuffled(2)) for paragraph in paragraphs) == 1232


def test_real_orders_move_answers_as_blocks(run, tmp_path, tiny_bert):
    """The whole way: text beside its translation, links, the reordered file, in the sample's four languages."""
    for lang in ("fr", "zh"):
        translation = os.path.join(SAMPLE, "squad", "translate-train", f"squad.translate.train.en-{lang}.json")
        split = ["--task", "qa", "--source", SQUAD, "--target", translation, "--output", tmp_path / "text", "--every"]
        assert run("data/split", *split).code == 0
        paragraphs = read_squad(SQUAD)
        lines = (tmp_path / "text").read_text().splitlines()
        texts = [text for paragraph in paragraphs for text in paragraph_texts(*paragraph)]
        assert [line.split(" ||| ")[0] for line in lines] == [" ".join(split_text(text)) for text in texts]
        assert all(line.split(" ||| ")[1] for line in lines)
        aligned = ["--input", tmp_path / "text", "--output", tmp_path / "links", "--method", "argmax"]
        assert run("align", "--model", tiny_bert, *aligned).code == 0
        files = ["--input", SQUAD, "--alignment", tmp_path / "links", "--output", tmp_path / "new.json"]
        done = run("reorder", "--task", "qa", *files, "--permutations", tmp_path / "orders")
        assert done.code == 0 and json.loads(done.out)["moved"] > 0.2
        orders = iter([list(map(int, line.split())) for line in (tmp_path / "orders").read_text().splitlines()])
        new = read_squad(str(tmp_path / "new.json"))  # which checks that answers are where it says
        for paragraph, other in zip(paragraphs, new, strict=True):
            assert paragraph[0] != other[0] or paragraph[1] != other[1]
            check_paragraph(paragraph, orders=[next(orders) for _ in paragraph_sentences(*paragraph)])
        same = run("reorder", "--task", "qa", *files, "--identity")
        assert same.code == 0 and read_squad(str(tmp_path / "new.json")) == paragraphs


def test_a_paragraph_without_text_stays(run, tmp_path):
    empty = {"context": "", "qas": []}
    files = ["--input", tmp_path / "in.json", "--alignment", tmp_path / "links", "--output", tmp_path / "out"]
    question = {"id": "1", "question": "Where?", "answers": [{"text": "Paris", "answer_start": 0}]}
    full = {"context": "Paris lies here.", "qas": [question]}
    (tmp_path / "in.json").write_text(json.dumps({"data": [{"paragraphs": [empty, full, empty]}]}))
    (tmp_path / "links").write_text("0-2 1-1 2-0\n0-0\n")
    done = run("reorder", "--task", "qa", *files)
    assert done.code == 0, done.err
    assert [context for context, _ in read_squad(str(tmp_path / "out"))] == ["", "here lies Paris.", ""]
    (tmp_path / "links").write_text("0-2 1-1 2-0\n0-0\n0-0\n")
    done = run("reorder", "--task", "qa", *files)
    assert done.code == 2 and done.err.count("\n") == 1
    full["qas"][0]["answers"][0] = {"text": " ", "answer_start": 5}
    (tmp_path / "in.json").write_text(json.dumps({"data": [{"paragraphs": [full]}]}))
    done = run("reorder", "--task", "qa", *files)
    assert done.code == 2 and "the answer ' ' is not at character 5" in done.err


def test_a_translation_cut_otherwise_is_paired_by_length(run, tmp_path):
    document = json.load(open(SQUAD, encoding="utf-8"))
    path = os.path.join(SAMPLE, "squad", "translate-train", "squad.translate.train.en-de.json")
    translated = json.load(open(path, encoding="utf-8"))
    entry = translated["data"][0]["paragraphs"][0]
    whole = entry["context"]
    entry["context"] = whole.replace(". ", ", ", 1)  # two sentences become one
    for question in entry["qas"]:
        question["answers"] = [{"text": entry["context"][:5], "answer_start": 0}]
    translated["data"].append(translated["data"].pop(0))  # found by the ids of its questions
    del translated["data"][3]  # and one is not there
    for name, value in (("en.json", document), ("de.json", translated)):
        (tmp_path / name).write_text(json.dumps(value), encoding="utf-8")
    files = ["--source", tmp_path / "en.json", "--target", tmp_path / "de.json", "--output", tmp_path / "text"]
    assert run("data/split", "--task", "qa", *files, "--every").code == 0
    lines = [line.split(" ||| ") for line in (tmp_path / "text").read_text().splitlines()]
    paragraphs = read_squad(SQUAD)
    counts = [len(paragraph_texts(*paragraph)) for paragraph in paragraphs]
    assert lines[0][1] == lines[1][1] and len({line[1] for line in lines[1 : counts[0]]}) == counts[0] - 1
    gone = slice(sum(counts[:4]), sum(counts[:5]))
    assert all(target.strip() == "" for _, target in (line if len(line) > 1 else (line[0], "") for line in lines[gone]))
