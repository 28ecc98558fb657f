"""train_qa.py finds answers, cuts contexts into windows, reads its scores as eval.py does; reordering loses no
answer."""

import json
import os
import random
import unicodedata

import numpy as np
import pytest
import torch
from conftest import SAMPLE, without_dropout

import common
import eval as evaluation
import train_qa
from data.metrics import squad_scores
from data.paragraphs import paragraph_sentences, paragraph_texts, reorder_paragraph
from data.squad import gold_answers, read_answer_predictions, read_squad, stripped, write_squad
from data.words import split_text
from lib import subwords, training

SQUAD, XQUAD = os.path.join(SAMPLE, "squad", "train-v1.1.json"), os.path.join(SAMPLE, "xquad")


@pytest.fixture
def small(tmp_path):
    """A folder with the sample's first three training paragraphs as train.json, and dev files of en (the same) and
    zh."""
    folder = tmp_path / "data"
    folder.mkdir()
    for path, name in (
        (SQUAD, "train.json"),
        (SQUAD, "dev-en.json"),
        (os.path.join(XQUAD, "xquad.zh.json"), "dev-zh.json"),
    ):
        document = json.load(open(path, encoding="utf-8"))
        document["data"] = document["data"][:3]
        (folder / name).write_text(json.dumps(document), encoding="utf-8")
    return folder


def train(run, model, folder, output, *options, task="xquad"):
    data = [
        "--train",
        folder / "train.json",
        "--data-dir",
        folder,
        "--output",
        output,
        "--lr",
        "3e-3",
        "--batch-size",
        "4",
    ]
    done = run("train_qa", "--task", task, "--model", model, *data, *options)
    assert done.code == 0, done.err
    return json.loads((output / "scores.json").read_text())


def test_it_learns_and_its_files_hold_what_other_tools_read(run, tmp_path, tiny_xlmr, small):
    scores = train(run, tiny_xlmr, small, tmp_path / "run", "--epochs", "15", "--order", "hi", "--aligner", "joint")
    assert scores["dev"]["en"]["f1"] > 0.5  # its own training data
    assert (scores["task"], scores["metric"], scores["order"], scores["aligner"]) == ("xquad", "f1", "hi", "joint")
    for lang in ("en", "zh"):
        path = str(small / f"dev-{lang}.json")
        gold, found = (
            gold_answers(path, read_squad(path)),
            read_answer_predictions(str(tmp_path / "run" / f"dev-{lang}.json")),
        )
        assert squad_scores(gold, found, lang, "xquad") == scores["dev"][lang] and scores["dev"][lang]["count"] == 9
        contexts = {name: context for context, questions in read_squad(path) for name, _, _ in questions}
        assert all(text in contexts[name] and len(text) > 0 for name, text in found.items())
    [read] = evaluation.find_runs(str(tmp_path / "run"))
    dev, _ = evaluation.read_dev("xquad", read["args"]["data_dir"], None, list(read["dev"]))
    for lang, counts in evaluation.count_run(read, dev).items():
        assert {name: float(value) for name, value in evaluation.task_metrics(counts.sum(0)).items()} == pytest.approx(
            {name: scores["dev"][lang][name] for name in ("f1", "exact_match")}
        )


def test_windows_hold_the_whole_context_and_the_answer(tiny_model):
    tokenizer = common.load_tokenizer(tiny_model)
    paragraphs = [
        paragraph for name in ("en", "zh", "hi") for paragraph in read_squad(os.path.join(XQUAD, f"xquad.{name}.json"))
    ]
    before, _, after, _ = subwords.special_pair_pieces(tokenizer)
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
        every = {
            (a, b): float(row[a, 0] + row[b, 1]) for a in places for b in places if a <= b < a + train_qa.LONGEST_ANSWER
        }
        assert max(every, key=every.get) == (first + window.first, last + window.first) and score == pytest.approx(
            max(every.values())
        )


def test_max_dev_langs_and_mlqa(run, tmp_path, tiny_bert, small, monkeypatch):
    asked = []
    monkeypatch.setattr(train_qa, "squad_scores", lambda *rest: asked.append(rest[2:]) or squad_scores(*rest))
    scores = train(
        run, tiny_bert, small, tmp_path / "run", "--epochs", "1", "--langs", "zh", "--max-dev", "5", task="mlqa"
    )
    assert set(scores["dev"]) == {"zh"} and scores["dev"]["zh"]["count"] == 5
    assert asked == [("zh", "mlqa")]
    os.rename(small / "dev-zh.json", small / "dev-fr.json")
    data = ["--train", small / "train.json", "--data-dir", small, "--output", tmp_path / "fr"]
    done = run("train_qa", "--task", "mlqa", "--model", tiny_bert, *data)
    assert done.code == 2 and "'fr': MLQA has no rules" in done.err and not (tmp_path / "fr").exists()


def test_predictions_never_lie_among_the_dev_files(run, tiny_bert, small):
    before = {path: path.read_bytes() for path in small.iterdir()}
    for output in (small, small / "run"):
        done = run(
            "train_qa",
            "--task",
            "xquad",
            "--model",
            tiny_bert,
            "--train",
            SQUAD,
            "--data-dir",
            small,
            "--output",
            output,
        )
        assert done.code == 2 and "among the dev files; expected another folder" in done.err
    udpos = os.path.join(SAMPLE, "udpos")
    train = ["--train", os.path.join(udpos, "train-en.tsv"), "--data-dir", udpos, "--output", udpos]
    assert run("train_pos", "--model", tiny_bert, *train).code == 2
    assert before == {path: path.read_bytes() for path in small.iterdir()}


def test_contexts_of_several_windows_are_compared_in_none_and_make_no_more_steps():
    def window(question):
        return train_qa.Window([0] * 3, [0] * 3, 1, [(0, 1)], (0, 0), question)

    forms = [window(n) for n in (0, 0, 1, 2)], [window(n) for n in (0, 1, 1, 2)]
    examples = train_qa.pair_windows(*forms, [[(0, 0)]] * 3)
    assert [len(inputs) for inputs, _ in examples] == [2, 1, 2, 1, 2]  # the longer form's steps
    assert [inputs[0].question for inputs, groups in examples if groups] == [2]


def test_pieces_of_the_first_form_that_the_second_has_in_one_are_a_group():
    def window(spans):
        return train_qa.Window([0] * (len(spans) + 2), [], 1, spans, (0, 0), 0)

    groups = train_qa.same_words(window([(0, 1), (1, 2), (3, 4)]), window([(0, 2), (3, 4)]), [(0, 0)])
    assert groups == ([0, 1, 1, 2, 0], [0, 1, 2, 0])
    merged = train_qa.same_words(window([(0, 1), (1, 3)]), window([(0, 3)]), [(0, 1), (2, 0)])
    assert merged == ([0, 1, 1, 0], [0, 1, 0])  # a piece of the context is never with what is not


def test_a_file_without_answers_is_not_trained_on(run, tmp_path, tiny_bert, small):
    paragraphs = [
        {"context": "Paris.", "qas": []},
        {"context": "Paris lies here.", "qas": [{"id": "1", "question": "Where?", "answers": []}]},
    ]
    (small / "train.json").write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    data = ["--train", small / "train.json", "--data-dir", small, "--output", tmp_path / "run"]
    done = run("train_qa", "--task", "xquad", "--model", tiny_bert, *data)
    assert done.code == 2 and "train.json: no answers; expected SQuAD's JSON" in done.err


def test_the_divergence_of_two_forms_is_the_formula_for_first_and_last_pieces():
    scores = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(1)).double()
    # Of the first example the second form has the last two positions the other way round; the last window stands alone.
    examples = [([None, None], ([0, 1, 2, 3], [0, 1, 3, 2])), ([None], None)]
    p, q = (scores[row].softmax(0)[order].numpy() for row, order in ((0, [0, 1, 2, 3]), (1, [0, 1, 3, 2])))
    expected = (
        sum(0.5 * sum(a * np.log(a / b) + b * np.log(b / a) for a, b in zip(p[:, k], q[:, k])) for k in (0, 1)) / 2
    )
    assert float(train_qa.consistency(scores, examples)) == pytest.approx(float(expected))


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

    def note(optimizer, parameters, rate):
        update(optimizer, parameters, rate)
        rest, head = optimizer.param_groups
        assert len(rest["params"]) + len(head["params"]) == len(parameters)
        seen.append((round(rest["lr"] / rate, 6), round(head["lr"] / rate, 6), [len(p) for p in head["params"]]))

    monkeypatch.setattr(training, "update", note)
    train(run, tiny_model, small, tmp_path / "ten", "--epochs", "1")
    train(run, tiny_model, small, tmp_path / "one", "--epochs", "1", "--head-rate", "1")
    assert set(map(repr, seen)) == {repr((1.0, 10.0, [2, 2])), repr((1.0, 1.0, [2, 2]))}


# ---- reordering --------------------------------------------------------------------------------------


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
    full = {
        "context": "Paris lies here.",
        "qas": [{"id": "1", "question": "Where?", "answers": [{"text": "Paris", "answer_start": 0}]}],
    }
    (tmp_path / "in.json").write_text(json.dumps({"data": [{"paragraphs": [empty, full, empty]}]}))
    (tmp_path / "links").write_text("0-2 1-1 2-0\n0-0\n")
    done = run(
        "reorder",
        "--task",
        "qa",
        "--input",
        tmp_path / "in.json",
        "--alignment",
        tmp_path / "links",
        "--output",
        tmp_path / "out",
    )
    assert done.code == 0, done.err
    assert [context for context, _ in read_squad(str(tmp_path / "out"))] == ["", "here lies Paris.", ""]
    (tmp_path / "links").write_text("0-2 1-1 2-0\n0-0\n0-0\n")
    done = run(
        "reorder",
        "--task",
        "qa",
        "--input",
        tmp_path / "in.json",
        "--alignment",
        tmp_path / "links",
        "--output",
        tmp_path / "out",
    )
    assert done.code == 2 and done.err.count("\n") == 1
    full["qas"][0]["answers"][0] = {"text": " ", "answer_start": 5}
    (tmp_path / "in.json").write_text(json.dumps({"data": [{"paragraphs": [full]}]}))
    done = run(
        "reorder",
        "--task",
        "qa",
        "--input",
        tmp_path / "in.json",
        "--alignment",
        tmp_path / "links",
        "--output",
        tmp_path / "out",
    )
    assert done.code == 2 and "the answer ' ' is not at character 5" in done.err


def test_a_translation_cut_otherwise_is_paired_by_length(run, tmp_path):
    document = json.load(open(SQUAD, encoding="utf-8"))
    translated = json.load(
        open(os.path.join(SAMPLE, "squad", "translate-train", "squad.translate.train.en-de.json"), encoding="utf-8")
    )
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


# ---- consistency -------------------------------------------------------------------------------------


@pytest.fixture
def forms(small):
    """Adds second.json, every sentence of train.json in a random order, and its permutations."""
    source = str(small / "train.json")
    shuffle, paragraphs, lines = shuffled(3), [], []
    for paragraph in read_squad(source):
        sentences = paragraph_sentences(*paragraph)
        orders = [shuffle(list(range(len(sentence.spans)))) for sentence in sentences]
        paragraphs.append(reorder_paragraph(paragraph, sentences, orders)[0])
        lines += [" ".join(map(str, order)) + "\n" for order in orders]
    write_squad(str(small / "second.json"), paragraphs, source)
    (small / "orders").write_text("".join(lines))
    return small


def weights(run, model, folder, name, *options):
    train(
        run,
        model,
        folder,
        folder.parent / name,
        "--epochs",
        "2",
        "--langs",
        "zh",
        "--precision",
        "f32",
        "--save",
        *options,
    )
    return (folder.parent / name / "model" / "model.safetensors").read_bytes()


def second(folder):
    return ["--reordered", folder / "second.json", "--permutations", folder / "orders"]


def long_model(model, folder):
    """A copy of a tiny model without dropout that takes whole contexts."""
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    config = AutoConfig.from_pretrained(without_dropout(model, folder))
    config.max_position_embeddings = 600
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.model_max_length = 600
    tokenizer.save_pretrained(folder)
    return folder


def test_weight_0_gives_the_very_same_weights_as_without(run, tmp_path, tiny_bert, forms):
    model = long_model(tiny_bert, tmp_path / "model")
    plain = weights(run, model, forms, "plain")
    assert weights(run, model, forms, "zero", "--consistency", "0") == plain
    both = weights(run, model, forms, "both", *second(forms))
    assert weights(run, model, forms, "both-zero", *second(forms), "--consistency", "0") == both != plain
    assert weights(run, model, forms, "one", *second(forms), "--consistency", "1") != both
    same = ["--reordered", forms / "train.json"]  # R-Drop; without dropout the two forms are one, and nothing is added
    assert weights(run, model, forms, "none", *same) == weights(run, model, forms, "five", *same, "--consistency", "5")


def test_text_is_compared_with_itself(tmp_path, tiny_model, forms, monkeypatch):
    """Scores that depend on the piece alone give the same probability to the same text in both orders, wherever it
    stands."""
    tokenizer = common.load_tokenizer(tiny_model)
    monkeypatch.setattr(train_qa, "LONGEST_QUESTION", 0)  # the questions' pieces are in one group, in any order
    paragraphs = read_squad(str(forms / "train.json"))
    orders = str(forms / "second.json"), str(forms / "orders")
    other, moves = train_qa.read_orders(*orders, paragraphs, "train")
    windows = [train_qa.make_windows(tokenizer, form, 5000)[0] for form in (paragraphs, other)]
    examples = train_qa.pair_windows(*windows, [found for found, (_, asked) in zip(moves, paragraphs) for _ in asked])
    assert len(examples) == 9 and all(groups for _, groups in examples)
    inputs = [window for both, _ in examples for window in both]
    length = max(len(window.ids) for window in inputs)
    scores = torch.full((len(inputs), length, 2), float("-inf"))
    for row, window in enumerate(inputs):
        values = np.zeros((len(window.ids), 2))
        inside = slice(window.first, window.first + len(window.spans))
        values[inside] = [((piece * 7 % 13) / 3, (piece * 5 % 11) / 3) for piece in window.ids[inside]]
        scores[row, : len(window.ids)] = torch.tensor(values, dtype=torch.float32)
    pieces = [sorted(window.ids[window.first : window.first + len(window.spans)]) for window in inputs]
    alike = [k for k in range(9) if pieces[2 * k] == pieces[2 * k + 1]]  # where the order changes no word's pieces
    for k in alike:
        assert train_qa.consistency(scores[2 * k : 2 * k + 2], examples[k : k + 1]).item() == pytest.approx(
            0.0, abs=1e-5
        )
        wrong = [(inputs[2 * k : 2 * k + 2], (examples[k][1][0], sorted(examples[k][1][1])))]
        assert train_qa.consistency(scores[2 * k : 2 * k + 2], wrong).item() > 1e-3
    assert alike or tokenizer.convert_tokens_to_ids("▁") != tokenizer.unk_token_id


def test_forms_that_do_not_fit_and_other_bad_input_are_named(run, tmp_path, tiny_bert, forms):
    def error(*options, folder=forms, file="train.json", model=tiny_bert):
        data = ["--train", forms / file, "--data-dir", folder, "--output", tmp_path / "bad"]
        done = run("train_qa", "--task", "xquad", "--model", model, *data, *options)
        assert done.code == 2 and done.err.count("\n") == 1 and not (tmp_path / "bad").exists(), done.err
        return done.err

    assert "expected --reordered FILE too" in error("--consistency", "1")
    assert "second.json: paragraph 1 is not that of" in error("--reordered", forms / "second.json")
    assert "orders:" in error("--reordered", forms / "second.json", "--permutations", forms / "dev-en.json").replace(
        "dev-en.json", "orders"
    )
    assert "no dev file of fr" in error("--langs", "fr")
    assert "leaves no room" in error("--max-length", "16")
    assert "no such folder" in error(folder=tmp_path / "nowhere")
    document = json.loads((forms / "train.json").read_text())
    for paragraph in (paragraph for article in document["data"] for paragraph in article["paragraphs"]):
        for question in paragraph["qas"]:
            question["answers"] = [{"text": "", "answer_start": 0}]
    (forms / "blank.json").write_text(json.dumps(document))
    assert "blank.json: no answers" in error(file="blank.json")
    (forms / "dev-en.json").write_text(json.dumps(document))
    assert "dev-en.json: question 't01-1': no answers" in error()


@pytest.mark.parametrize("text", ["cafe\u0301 noir", "한국어 노래", "क\u093c\u093e है"])
def test_a_span_reaches_over_the_marks_that_follow(tiny_xlmr, text):
    """The normaliser joins or drops combining marks, so that a piece's own offsets would end before them."""
    from tokenizers import normalizers

    decomposed = unicodedata.normalize("NFD", text)
    for normalizer in (normalizers.NFKC(), normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])):
        tokenizer = common.load_tokenizer(tiny_xlmr)
        tokenizer.backend_tokenizer.normalizer = normalizer
        [(ids, spans)] = train_qa.pieces_with_spans(tokenizer, [decomposed])
        assert len(ids) == len(spans)
        covered = {place for span in spans for place in range(*span)}
        assert covered >= {place for place, letter in enumerate(decomposed) if not letter.isspace()}
