"""finetune_aligner.py: objectives equal awesome-align's, runs go on after a kill, what is saved is whole, and
aligners get better.
"""

import json
import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from conftest import ROOT, SAMPLE
from families import build_family
from safetensors.torch import load_file

import common
import finetune_aligner as ft
import links
import training
import versions
from align import entmax15
from data.files import InputError, read_pharaoh
from links import both_directions, similarity_matrix

RECORDED = os.path.join(os.path.dirname(__file__), "fixtures", "losses.json")
PAIRS = os.path.join(SAMPLE, "udpos", "train-en-{}.txt")


def recorded():
    with open(RECORDED, encoding="utf-8") as stream:
        return json.load(stream)


def padded_batch(case):
    """(source, target, cells, guide) of a recorded case; cells leave out special and padded subwords, as awesome-align
    does.
    """
    source, target = torch.tensor(case["source"]), torch.tensor(case["target"])
    masks = []
    for states, lengths in zip((source, target), case["lengths"]):
        place = torch.arange(states.shape[1])
        masks.append((place >= 1) & (place < torch.tensor(lengths)[:, None] + 1))
    return source, target, masks[0][:, :, None] & masks[1][:, None, :], torch.tensor(case["guide"]).bool()


@pytest.mark.parametrize("method", ["softmax", "entmax"])
def test_self_training_and_consistency_equal_awesome_aligns(method):
    for case in recorded()["cases"]:
        source, target, cells, guide = padded_batch(case)
        scores = similarity_matrix(source, target, cells, "dot")
        forward, backward = both_directions(scores, cells, torch.softmax if method == "softmax" else entmax15)
        assert ft.self_training(forward, backward, guide, cells).mean().item() == pytest.approx(
            case[f"so {method}"], abs=1e-5
        )
        co = ft.consistency(forward, backward, cells).mean().item()
        assert co == pytest.approx(case[f"co {method}"], abs=1e-5)


def test_objectives_equal_the_installed_package():
    modeling = pytest.importorskip(
        "awesome_align.modeling", reason="awesome-align is not installed (pip install --no-deps awesome-align)"
    )
    for case in recorded()["cases"]:
        source, target, cells, guide = padded_batch(case)
        ids = [torch.where(cells.any(dim), 5, 0) for dim in (2, 1)]
        for extraction, probabilities in (("softmax", torch.softmax), ("entmax15", entmax15)):
            forward, backward = both_directions(similarity_matrix(source, target, cells, "dot"), cells, probabilities)
            so = ft.self_training(forward, backward, guide, cells)
            ours = (so + ft.consistency(forward, backward, cells)).mean()
            head = modeling.BertGuideHead(None)
            theirs = head(
                source, target, *ids, guide=guide[:, None].float(), extraction=extraction, train_so=True, train_co=True
            )
            assert ours.item() == pytest.approx(theirs.item(), abs=1e-5)


def test_sentence_identification_equals_awesome_aligns():
    psi = recorded()["psi"]
    head = torch.nn.Sequential(torch.nn.Linear(5, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2))
    head.load_state_dict({name: torch.tensor(value) for name, value in psi["weights"].items()})
    losses = ft.sentence_identification(head(torch.tensor(psi["states"])[:, 0]), torch.tensor(psi["labels"]))
    assert losses.shape == (3,) and losses.mean().item() == pytest.approx(psi["loss"], abs=1e-6)


def test_contrast_equals_its_formula_sentence_by_sentence():
    generator = torch.Generator().manual_seed(5)
    lengths = [(3, 5), (1, 2), (4, 1)]
    sides = [[torch.randn(pair[side], 6, generator=generator) for pair in lengths] for side in (0, 1)]
    pad = torch.nn.utils.rnn.pad_sequence
    source, target = (pad(side, batch_first=True) for side in sides)
    masks = [pad([torch.ones(len(states), dtype=torch.bool) for states in side], batch_first=True) for side in sides]

    def score(one, other):  # the mean over the subwords of one of their best cosine in the other
        cosine = torch.nn.functional.cosine_similarity(one[:, None], other[None], dim=2)
        return cosine.max(1).values.mean().item() / 0.1

    expected = []
    for n in range(3):
        there = [score(sides[0][n], other) for other in sides[1]]
        back = [score(sides[1][n], other) for other in sides[0]]
        expected.append(sum(math.log(sum(map(math.exp, scores))) - scores[n] for scores in (there, back)) / 2)
    assert ft.contrast(source, target, *masks, 0.1).tolist() == pytest.approx(expected, abs=1e-5)


def test_masked_language_model_averages_within_each_input():
    scores, labels, row = torch.randn(5, 7), torch.tensor([0, 3, 6, 2, 2]), torch.tensor([0, 0, 2, 2, 2])
    losses = torch.nn.functional.cross_entropy(scores, labels, reduction="none")
    expected = [losses[:2].mean().item(), 0.0, losses[2:].mean().item()]  # the second input has no masked subword
    assert ft.masked_language_model(scores, labels, row, 3).tolist() == pytest.approx(expected, abs=1e-6)


def test_fifteen_percent_of_the_allowed_subwords_are_masked():
    ids = [7] * 40_000
    allowed = [n % 2 == 0 for n in range(40_000)]
    masked, chosen = ft.mask_subwords(ids, allowed, 4, 1000, np.random.default_rng(1))
    masked, chosen = np.array(masked), np.array(chosen)
    assert not chosen[1::2].any() and (masked[~chosen] == 7).all()
    assert chosen[::2].mean() == pytest.approx(0.15, abs=0.01)
    assert (masked[chosen] == 4).mean() == pytest.approx(0.8, abs=0.02) and (
        masked[chosen] == 7
    ).mean() == pytest.approx(0.1, abs=0.02)


def small_file(tmp_path, lang="fr", count=24, first=0):
    path = tmp_path / f"{lang}-{first}-{count}.txt"
    with open(PAIRS.format(lang), encoding="utf-8") as stream:
        path.write_text("".join(stream.readlines()[first : first + count]), encoding="utf-8")
    return path


def tune(run, model, output, files, *options):
    required = ["--model", model, "--train", *files, "--output", output, "--batch-size", "6", "--lr", "1e-3"]
    done = run("finetune_aligner", *required, *options)
    assert done.code == 0, done.err
    return json.loads(done.out)


def weights(folder):
    return load_file(str(folder / "model.safetensors"))


@pytest.mark.parametrize("asked", ["so,contrast", "so,co,psi", "so,mlm,tlm"])
def test_what_is_saved_is_whole_and_every_part_of_it_loads(run, tmp_path, tiny_model, asked):
    from transformers import AutoModel

    options = ["--objectives", asked, "--max-steps", "3", "--layer", "2"]
    tune(run, tiny_model, tmp_path / "tuned", [small_file(tmp_path)], *options)
    before, after = load_file(os.path.join(tiny_model, "model.safetensors")), weights(tmp_path / "tuned")
    assert {name: value.shape for name, value in after.items()} == {name: value.shape for name, value in before.items()}
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    layers = {int(name.split("encoder.layer.")[1].split(".")[0]) for name in changed if "encoder.layer." in name}
    language_model = "tlm" in asked
    assert layers == ({0, 1, 2} if language_model or "psi" in asked else {0, 1})
    assert language_model == any(name.startswith(("cls.predictions", "lm_head")) for name in changed)
    [table] = [name for name in before if name.endswith("word_embeddings.weight")]
    same = (before[table] == after[table]).all(1)
    assert not same.all() and (language_model or same.any())
    model = AutoModel.from_pretrained(str(tmp_path / "tuned"))
    assert model.config.num_hidden_layers == 3
    report = json.loads((tmp_path / "tuned" / "finetuning.json").read_text())
    assert report["steps"] == 3 and report["args"]["objectives"] == asked and report["pairs"] == [18]
    assert [(entry["step"], entry["lr"] > 0) for entry in report["history"]] == [(1, True), (2, True), (3, True)]
    assert report["commit"] == versions.commit() and all(math.isfinite(entry["loss"]) for entry in report["history"])
    assert not os.path.exists(str(tmp_path / "tuned") + ".checkpoint")
    done = run("align", "--model", tmp_path / "tuned", "--input", small_file(tmp_path), "--output", tmp_path / "links")
    assert done.code == 0 and (tmp_path / "links").read_text().count("\n") == 24


def test_align_py_takes_what_travels_with_the_model(run, tmp_path, tiny_bert):
    file = small_file(tmp_path)
    tune(run, tiny_bert, tmp_path / "tuned", [file], "--max-steps", "2", "--layer", "1")
    own = json.loads((tmp_path / "tuned" / "align.json").read_text())
    assert own["layer"] == 1 and own["similarity"] == "csls" and own["method"] == "grow-diag"
    assert own["threshold"] == 0.45 and own["temperature"] == 0.075 and tuple(own["evidence"]) == links.EVIDENCE
    explicit = ["--layer", "1", "--method", "grow-diag", "--threshold", "0.45"]
    for name, options in (("a", []), ("b", explicit), ("c", ["--layer", "3", "--method", "argmax"])):
        run("align", "--model", tmp_path / "tuned", "--input", file, "--output", tmp_path / name, *options)
    a, b, c = ((tmp_path / name).read_text() for name in "abc")
    assert a == b != c
    # awesome-align's dot products bring awesome-align's extraction.
    tune(run, tiny_bert, tmp_path / "dot", [file], "--max-steps", "2", "--layer", "1", "--similarity", "dot")
    run("align", "--model", tmp_path / "dot", "--input", file, "--output", tmp_path / "d")
    given = ["--preset", "awesome", "--threshold", "0.001"]
    run("align", "--model", tmp_path / "dot", "--input", file, "--output", tmp_path / "e", *given)
    assert (tmp_path / "d").read_text() == (tmp_path / "e").read_text() != "\n" * 24


def test_links_found_beforehand_are_align_pys(run, tmp_path, tiny_bert, monkeypatch):
    """Training finds the links that align.py writes for the file, and ends elsewhere without them."""
    file, options = small_file(tmp_path), ["--max-steps", "4", "--precision", "f32", "--layer", "2"]
    found = ["--layer", "2", "--precision", "f32", "--output", tmp_path / "links"]
    run("align", "--model", tiny_bert, "--input", file, *found)
    expected, seen, find_links = list(read_pharaoh(str(tmp_path / "links"))), {}, ft.find_links

    def watched(find, file, pairs):
        found = find_links(find, file, pairs)
        seen.update({int(file["lines"][pair]): links for pair, links in found.items()})
        return found

    monkeypatch.setattr(ft, "find_links", watched)
    tune(run, tiny_bert, tmp_path / "a", [file], *options)
    assert len(seen) == 24 and [seen[line] for line in range(24)] == expected and any(expected)
    monkeypatch.setattr(ft, "find_links", lambda find, file, pairs: dict.fromkeys(pairs, []))
    tune(run, tiny_bert, tmp_path / "b", [file], *options)
    one, two = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert any(not torch.equal(one[name], two[name]) for name in one)


def test_trimmed_embeddings_give_the_same_weights(run, tmp_path, tiny_model, monkeypatch):
    def every_row(encoder, used):
        return np.arange(encoder.get_input_embeddings().num_embeddings)

    options = ["--max-steps", "4", "--precision", "f32"]
    tune(run, tiny_model, tmp_path / "trimmed", [small_file(tmp_path)], *options)
    monkeypatch.setattr(common, "trim_embeddings", every_row)
    tune(run, tiny_model, tmp_path / "whole", [small_file(tmp_path)], *options)
    one, two = weights(tmp_path / "trimmed"), weights(tmp_path / "whole")
    assert all(torch.allclose(one[name], two[name], atol=1e-6) for name in one)


def test_a_killed_run_goes_on_and_ends_with_the_same_weights(run, tmp_path, tiny_bert):
    """Killed by the system in the middle (SIGKILL); links, masks and negative examples included."""
    options = ["--model", tiny_bert, "--train", small_file(tmp_path), small_file(tmp_path, "hi"), "--max-steps", "12"]
    options += ["--objectives", "so,psi,mlm", "--batch-size", "6", "--lr", "1e-3", "--save-every", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    assert run("finetune_aligner", *options, "--output", tmp_path / "whole").code == 0
    command = [sys.executable, f"{ROOT}/finetune_aligner.py", *options, "--output", tmp_path / "killed"]
    process = subprocess.Popen(list(map(str, command)), env=environment)
    checkpoint, deadline = tmp_path / "killed.checkpoint", time.time() + 120
    while process.poll() is None and time.time() < deadline and not checkpoint.exists():
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert checkpoint.exists() and not (tmp_path / "killed").exists()
    done = run("finetune_aligner", *options, "--output", tmp_path / "killed")
    assert done.code == 0 and "resuming after step" in done.err
    one, two = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(torch.equal(one[name], two[name]) for name in one) and not checkpoint.exists()


def test_another_settings_checkpoint_is_not_used(run, tmp_path, tiny_bert, monkeypatch):
    files, options = [small_file(tmp_path)], ["--max-steps", "4", "--save-every", "0"]

    class Killed(Exception):
        pass

    def killed(*arguments, **settings):
        raise Killed

    monkeypatch.setattr(training, "save_folder", killed)
    with pytest.raises(Killed):
        tune(run, tiny_bert, tmp_path / "tuned", files, *options)
    monkeypatch.undo()
    assert os.path.exists(str(tmp_path / "tuned.checkpoint"))
    options = ["--model", tiny_bert, "--train", *files, "--output", tmp_path / "tuned", "--seed", "2", *options]
    done = run("finetune_aligner", *options)
    assert done.code == 0 and "is not used" in done.err and "goes on" not in done.err


def test_files_take_turns_whatever_their_size():
    files = [{"pairs": np.arange(count), "lengths": np.arange(count) % 7 + 5, "size": 4} for count in (100, 10)]
    drawn = [ft.training_batch(files, number, 1) for number in range(40)]
    assert [file is files[number % 2] for number, (file, _) in enumerate(drawn)] == [True] * 40
    large = [pair for file, batch in drawn if file is files[0] for pair in batch]
    small = [pair for file, batch in drawn if file is files[1] for pair in batch]
    assert len(set(large)) == len(large) == 80 and len(small) == 80
    assert all(
        len(set(small[start : start + 8])) == 8 for start in range(0, 80, 8)
    )  # an epoch: two batches of ten pairs, two left out
    assert drawn[7] == ft.training_batch(files, 7, 1)  # it can be drawn alone


def test_two_sentences_are_one_input_with_one_separator_after_each(tiny_bert):
    tokenizer = common.load_tokenizer(tiny_bert)
    sides = [links.flatten(tokenizer, [text.split()], 128)[0] for text in ("the cat", "un chat noir dort ici")]
    file, special = {"sides": sides}, [tokenizer.cls_token_id, tokenizer.sep_token_id]
    whole = [side.ids.tolist() for side in sides]
    assert ft.join_sides(file, (0, 0), (1, 0), 128)[0] == whole[1] + whole[0]
    ids, of = ft.join_sides(file, (0, 0), (0, 1), 4)  # three subwords of each and a special one
    assert ids == [part for one in whole for part in [*one[:-1][:3], special[1]]] and len(ids) <= 8
    assert [k for k, side in enumerate(of) if side < 0] == [k for k, subword in enumerate(ids) if subword in special]
    assert ft.join_sides(file, (0, 0), (0,), 128)[0] == whole[0]


def test_a_robertas_tokenizer_is_saved_as_it_was(run, tmp_path):
    """Its class and its files, which transformers reads again."""
    from transformers import AutoTokenizer

    model, tuned = tmp_path / "roberta", tmp_path / "tuned"
    build_family("roberta-prelayernorm", model)
    config = json.loads((model / "tokenizer_config.json").read_text()) | {"tokenizer_class": "RobertaTokenizer"}
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    tune(run, model, tuned, [small_file(tmp_path)], "--max-steps", "1")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tuned / name).read_bytes() == (model / name).read_bytes()
    before, after = (AutoTokenizer.from_pretrained(str(folder)) for folder in (model, tuned))
    assert type(after) is type(before) and type(after).__name__.startswith("Roberta")
    assert after("the cat")["input_ids"] == before("the cat")["input_ids"]


def test_a_small_file_takes_nothing_from_the_batches_of_a_large_one(run, tmp_path, tiny_bert):
    small = small_file(tmp_path, "hi", 3)
    options = ["--model", tiny_bert, "--train", small_file(tmp_path), small, "--max-steps", "4", "--batch-size", "8"]
    done = run("finetune_aligner", *options, "--output", tmp_path / "out")
    assert done.code == 0 and f"{small}: has fewer pairs than --batch-size 8; its batches are of 3" in done.err
    assert json.loads((tmp_path / "out" / "finetuning.json").read_text())["batch_sizes"] == [8, 3]


def test_a_masked_language_model_keeps_its_head(run, tmp_path, tiny_bert):
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    AutoModelForMaskedLM.from_pretrained(tiny_bert).save_pretrained(tmp_path / "mlm")  # without BERT's second head
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(tmp_path / "mlm")
    options = ["--train", small_file(tmp_path), "--objectives", "mlm", "--max-steps", "1", "--batch-size", "4"]
    for model, output in (("mlm", "one"), ("one", "two")):
        done = run("finetune_aligner", "--model", tmp_path / model, *options, "--output", tmp_path / output)
        assert done.code == 0, done.err
    assert weights(tmp_path / "two").keys() == weights(tmp_path / "mlm").keys()


def test_a_linked_folder_stays_a_link_and_a_pipe_is_refused(run, tmp_path, tiny_bert):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    options = ["--model", tiny_bert, "--max-steps", "1", "--batch-size", "4", "--output", tmp_path / "link"]
    for _ in range(2):
        assert run("finetune_aligner", "--train", small_file(tmp_path), *options).code == 0
    assert (tmp_path / "link").is_symlink() and (tmp_path / "disk" / "align.json").exists()
    assert {path.name for path in tmp_path.iterdir() if "tmp" in path.name or "old" in path.name} == set()
    os.mkfifo(tmp_path / "pipe")
    for train in ("-", tmp_path / "pipe"):
        done = run("finetune_aligner", "--train", train, *options)
        assert done.code == 2 and "is no regular file" in done.err and done.err.count("\n") == 1


def test_of_a_large_file_only_pairs_that_can_be_used_are_read(tmp_path, tiny_bert):
    tokenizer = common.load_tokenizer(tiny_bert)
    (tmp_path / "pairs").write_text("".join(f"word {n} ||| mot {n}\n" for n in range(1000)) + "\nno pair\n")
    with pytest.raises(InputError, match="pairs:1001: 0 separators"):
        ft.read_training(str(tmp_path / "pairs"), tokenizer, 64, 40, np.random.default_rng(1))
    (tmp_path / "pairs").write_text("".join(f"word {n} ||| mot {n}\n" for n in range(1000)))
    first, same, other = (
        ft.read_training(str(tmp_path / "pairs"), tokenizer, 64, 40, np.random.default_rng(seed))["lines"].tolist()
        for seed in (1, 1, 2)
    )
    assert first == same != other and len(first) == len(other) == 40 and max(first) > 500


def test_word_links_become_links_of_all_their_subwords(tmp_path, tiny_bert):
    tokenizer = common.load_tokenizer(tiny_bert)
    (tmp_path / "pairs").write_text("the zzz ||| xxxx le\n ||| b\nthe ||| le\n")
    file = ft.read_training(str(tmp_path / "pairs"), tokenizer, 64, 9, np.random.default_rng(1))
    words = [side.word[: side.lengths[0]].tolist() for side in file["sides"]]
    file["links"] = {0: [(0, 1), (1, 0)], 1: [(0, 0)]}
    assert file["lines"].tolist() == [0, 2] and len(words[0]) > 5
    found = ft.link_targets(file, [0])[0]
    expected = [[(i, j) in [(0, 1), (1, 0)] for j in words[1]] for i in words[0]]
    assert found.tolist() == expected


def test_training_lowers_the_error_rate(run, tmp_path, default_model):
    """The default model on the sample, by argmax without evidence, trained on links that it finds with evidence."""
    pairs, gold = (os.path.join(SAMPLE, "align", f"ende.{kind}") for kind in ("src-tgt", "gold"))

    def error_rate(model):
        files = ["--input", pairs, "--output", tmp_path / "x", "--gold", gold, "--scores", tmp_path / "scores"]
        assert run("align", "--model", model, *files).code == 0
        return json.loads((tmp_path / "scores").read_text())["methods"]["argmax"]["aer"]

    options = ["--train", pairs, "--max-steps", "12", "--batch-size", "8", "--lr", "5e-5"]
    done = run("finetune_aligner", "--model", default_model, "--output", tmp_path / "tuned", *options)
    assert done.code == 0, done.err
    assert error_rate(tmp_path / "tuned") < error_rate(default_model)


def test_without_a_head_masked_language_models_are_refused(run, tmp_path, tiny_headless):
    options = ["--train", small_file(tmp_path), "--output", tmp_path / "x", "--objectives", "so,tlm"]
    done = run("finetune_aligner", "--model", tiny_headless, *options)
    assert done.code == 2 and "no masked-language-model head" in done.err and "so, co, psi and contrast" in done.err
    tune(run, tiny_headless, tmp_path / "x", [small_file(tmp_path)], "--max-steps", "1", "--objectives", "so,psi")
    assert set(weights(tmp_path / "x")) == set(load_file(os.path.join(tiny_headless, "model.safetensors")))
