"""train_qa.py finds answers, cuts contexts into windows, and its scores are those that eval.py computes."""

import json
import os
import unicodedata

import pytest
import torch
from conftest import SAMPLE

import common
import train_qa
import training
from data.squad import gold_answers, read_answer_predictions, read_squad, squad_scores
from evaluation import runs

SQUAD, XQUAD = os.path.join(SAMPLE, "squad", "train-v1.1.json"), os.path.join(SAMPLE, "xquad")


@pytest.fixture
def small(tmp_path):
    """A folder with the sample's first three training paragraphs as train.json, and dev files of en (the same) and
    zh."""
    folder = tmp_path / "data"
    folder.mkdir()
    sources = {"train.json": SQUAD, "dev-en.json": SQUAD, "dev-zh.json": os.path.join(XQUAD, "xquad.zh.json")}
    for name, path in sources.items():
        document = json.load(open(path, encoding="utf-8"))
        document["data"] = document["data"][:3]
        (folder / name).write_text(json.dumps(document), encoding="utf-8")
    return folder


def train(run, model, folder, output, *options, task="xquad"):
    data = ["--train", folder / "train.json", "--data-dir", folder, "--output", output]
    data += ["--lr", "3e-3", "--batch-size", "4"]
    done = run("train_qa", "--task", task, "--model", model, *data, *options)
    assert done.code == 0, done.err
    return json.loads((output / "scores.json").read_text())


def test_it_learns_and_its_files_hold_what_other_tools_read(run, tmp_path, tiny_xlmr, small):
    scores = train(run, tiny_xlmr, small, tmp_path / "run", "--epochs", "15", "--order", "hi", "--aligner", "joint")
    assert scores["dev"]["en"]["f1"] > 0.3  # its own training data; untrained it is near 0
    assert (scores["task"], scores["metric"], scores["order"], scores["aligner"]) == ("xquad", "f1", "hi", "joint")
    for lang in ("en", "zh"):
        path = str(small / f"dev-{lang}.json")
        gold = gold_answers(path, read_squad(path))
        found = read_answer_predictions(str(tmp_path / "run" / f"dev-{lang}.json"))
        assert squad_scores(gold, found, lang, "xquad") == scores["dev"][lang] and scores["dev"][lang]["count"] == 9
        contexts = {name: context for context, questions in read_squad(path) for name, _, _ in questions}
        assert all(text in contexts[name] and len(text) > 0 for name, text in found.items())
    [read] = runs.find_runs(str(tmp_path / "run"))
    dev, _ = runs.read_dev("xquad", read["args"]["data_dir"], None, list(read["dev"]))
    for lang, (counts, _) in runs.count_run(read, dev).items():
        found = {name: float(value) for name, value in runs.task_metrics(counts.sum(0)).items()}
        assert found == pytest.approx({name: scores["dev"][lang][name] for name in ("f1", "exact_match")})


def test_windows_hold_the_whole_context_and_the_answer(tiny_model):
    tokenizer = common.load_tokenizer(tiny_model)
    paths = (os.path.join(XQUAD, f"xquad.{name}.json") for name in ("en", "zh", "hi"))
    paragraphs = [paragraph for path in paths for paragraph in read_squad(path)]
    before, _, after, _ = common.special_pair_subwords(tokenizer)
    for limit in (128, 300, 2000):
        windows, cut = train_qa.make_windows(tokenizer, paragraphs, limit)
        questions = [(context, answers[0]) for context, asked in paragraphs for _, _, answers in asked]
        exact = 0
        for number, (context, (text, start)) in enumerate(questions):
            mine = [window for window in windows if window.question == number]
            covered = {place for window in mine for span in window.spans for place in range(*span)}
            assert covered == {place for place, letter in enumerate(context) if not letter.isspace()}
            assert limit < 2000 or len(mine) == 1
            for window, following in zip(mine, mine[1:]):
                stride = min(train_qa.STRIDE, (len(window.spans) + 1) // 2)
                assert window.spans[stride:] == following.spans[: len(window.spans) - stride]
            found = [window for window in mine if window.answer != (0, 0)]
            assert found and all(len(window.ids) == len(window.types) <= limit for window in mine)
            for window in found:
                first, last = (window.spans[place - window.first] for place in window.answer)
                assert first[0] <= start and start + len(text) <= last[1]
                exact += window is found[0] and (first[0], last[1]) == (start, start + len(text))
        assert exact == len(questions) - cut
    [whole] = [window for window in windows if window.question == 0]
    question = paragraphs[0][1][0][1]
    expected = tokenizer(question, paragraphs[0][0], max_length=2000, verbose=False, return_token_type_ids=True)
    assert whole.ids == expected["input_ids"] and whole.types == expected["token_type_ids"]
    assert whole.ids[: len(before)] == before and whole.ids[-len(after) :] == after


def test_a_bert_whose_tokenizer_numbers_no_sentences_gets_its_types(tiny_bert):
    """Such as the default model: a BERT with XLM-R's tokenizer."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = common.load_tokenizer(tiny_bert)
    plain = "[CLS] $A [SEP] $B:0 [SEP]"
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair=plain, special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    windows, _ = train_qa.make_windows(tokenizer, read_squad(SQUAD)[:1], 128)
    assert not any(any(window.types) for window in windows)


def test_the_best_span_is_the_best_of_all():
    generator = torch.Generator().manual_seed(0)
    windows = [
        train_qa.Window([0] * size, [], first, [(0, 1)] * spans, (0, 0), 0)
        for size, first, spans in ((60, 5, 54), (20, 9, 3))
    ]
    scores = torch.randn(2, 60, 2, generator=generator)
    for window, row, (score, first, last) in zip(windows, scores, train_qa.best_spans(scores, windows)):
        places = range(window.first, window.first + len(window.spans))
        spans = [(a, b) for a in places for b in places if a <= b < a + train_qa.LONGEST_ANSWER]
        every = {(a, b): float(row[a, 0] + row[b, 1]) for a, b in spans}
        assert max(every, key=every.get) == (first + window.first, last + window.first)
        assert score == pytest.approx(max(every.values()))


def test_max_dev_langs_and_mlqa(run, tmp_path, tiny_bert, small, monkeypatch):
    asked = []
    monkeypatch.setattr(train_qa, "squad_scores", lambda *rest: asked.append(rest[2:]) or squad_scores(*rest))
    options = ["--epochs", "1", "--langs", "zh", "--max-dev", "5"]
    scores = train(run, tiny_bert, small, tmp_path / "run", *options, task="mlqa")
    assert set(scores["dev"]) == {"zh"} and scores["dev"]["zh"]["count"] == 5
    assert asked == [("zh", "mlqa")]
    os.rename(small / "dev-zh.json", small / "dev-fr.json")
    data = ["--train", small / "train.json", "--data-dir", small, "--output", tmp_path / "fr"]
    done = run("train_qa", "--task", "mlqa", "--model", tiny_bert, *data)
    assert done.code == 2 and "'fr': MLQA has no rules" in done.err and not (tmp_path / "fr").exists()


def test_predictions_never_lie_among_the_dev_files(run, tiny_bert, small):
    before = {path: path.read_bytes() for path in small.iterdir()}
    for output in (small, small / "run"):
        data = ["--train", SQUAD, "--data-dir", small, "--output", output]
        done = run("train_qa", "--task", "xquad", "--model", tiny_bert, *data)
        assert done.code == 2 and "among the dev files; expected another folder" in done.err
    udpos = os.path.join(SAMPLE, "udpos")
    train = ["--train", os.path.join(udpos, "train-en.tsv"), "--data-dir", udpos, "--output", udpos]
    assert run("train_pos", "--model", tiny_bert, *train).code == 2
    assert before == {path: path.read_bytes() for path in small.iterdir()}


def test_a_file_without_answers_is_not_trained_on(run, tmp_path, tiny_bert, small):
    paragraphs = [
        {"context": "Paris.", "qas": []},
        {"context": "Paris lies here.", "qas": [{"id": "1", "question": "Where?", "answers": []}]},
    ]
    (small / "train.json").write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    data = ["--train", small / "train.json", "--data-dir", small, "--output", tmp_path / "run"]
    done = run("train_qa", "--task", "xquad", "--model", tiny_bert, *data)
    assert done.code == 2 and "train.json: no answers; expected SQuAD's JSON" in done.err


def test_the_saved_model_predicts_what_the_run_did(run, tmp_path, tiny_model, small):
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer

    train(run, tiny_model, small, tmp_path / "run", "--epochs", "5", "--precision", "f32", "--save")
    model = AutoModelForQuestionAnswering.from_pretrained(tmp_path / "run" / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    paragraphs = read_squad(str(small / "dev-en.json"))
    windows, _ = train_qa.make_windows(tokenizer, paragraphs, 128)
    found = train_qa.predict(model.eval(), windows, paragraphs, tokenizer.pad_token_id, "f32")
    assert found == read_answer_predictions(str(tmp_path / "run" / "dev-en.json"))


def test_the_last_layer_has_a_rate_of_its_own(run, tmp_path, tiny_model, small, monkeypatch):
    seen, update = [], training.update

    def note(optimizer, rate):
        update(optimizer, rate)
        rest, head = optimizer.param_groups
        seen.append((round(rest["lr"] / rate, 6), round(head["lr"] / rate, 6), [len(p) for p in head["params"]]))

    monkeypatch.setattr(training, "update", note)
    train(run, tiny_model, small, tmp_path / "ten", "--epochs", "1")
    train(run, tiny_model, small, tmp_path / "one", "--epochs", "1", "--head-rate", "1")
    assert set(map(repr, seen)) == {repr((1.0, 10.0, [2, 2])), repr((1.0, 1.0, [2, 2]))}


def test_bad_input_is_named(run, tmp_path, tiny_bert, small):
    def error(*options, folder=small, file="train.json"):
        data = ["--train", small / file, "--data-dir", folder, "--output", tmp_path / "bad"]
        done = run("train_qa", "--task", "xquad", "--model", tiny_bert, *data, *options)
        assert done.code == 2 and done.err.count("\n") == 1 and not (tmp_path / "bad").exists(), done.err
        return done.err

    assert "no dev file of fr" in error("--langs", "fr")
    assert "leaves no room" in error("--max-length", "16")
    assert "no such folder" in error(folder=tmp_path / "nowhere")
    assert "unrecognized arguments: --reordered" in error("--reordered", "x")
    document = json.loads((small / "train.json").read_text())
    for paragraph in (paragraph for article in document["data"] for paragraph in article["paragraphs"]):
        for question in paragraph["qas"]:
            question["answers"] = [{"text": "", "answer_start": 0}]
    (small / "blank.json").write_text(json.dumps(document))
    assert "blank.json: no answers" in error(file="blank.json")
    (small / "dev-en.json").write_text(json.dumps(document))
    assert "dev-en.json: question 't01-1': no answers" in error()


@pytest.mark.parametrize("text", ["cafe\u0301 noir", "한국어 노래", "क\u093c\u093e है"])
def test_a_span_reaches_over_the_marks_that_follow(tiny_xlmr, text):
    """The normaliser joins or drops combining marks, so that a subword's own offsets would end before them."""
    from tokenizers import normalizers

    decomposed = unicodedata.normalize("NFD", text)
    for normalizer in (normalizers.NFKC(), normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])):
        tokenizer = common.load_tokenizer(tiny_xlmr)
        tokenizer.backend_tokenizer.normalizer = normalizer
        [(ids, spans)] = train_qa.subwords_with_spans(tokenizer, [decomposed])
        assert len(ids) == len(spans)
        covered = {place for span in spans for place in range(*span)}
        assert covered >= {place for place, letter in enumerate(decomposed) if not letter.isspace()}
