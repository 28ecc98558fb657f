"""align.py finds the links that SimAlign and awesome-align find, whatever the batches, and never mixes up lines."""

import json
import math
import os
import random
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, SAMPLE, sample_words

import align
import common
import links
from data.files import InputError, read_parallel, read_pharaoh

FIXTURE = os.path.join(os.path.dirname(__file__), "fixtures", "links.json")
# Pairs of each real file that SimAlign aligns here, a tenth of a second each; FULL=1 compares all of them.
SIMALIGN_PAIRS = 450 if os.environ.get("FULL") == "1" else 15
PAIRS = os.path.join(SAMPLE, "align", "enzh.src-tgt")


def load_cases():
    with open(FIXTURE, encoding="utf-8") as stream:
        return json.load(stream)


def padded_batch(cases, kind):
    """Similarity and cells of all cases in one padded batch."""
    sides = []
    for side in ("source", "target"):
        vectors = [torch.tensor(case[side], dtype=torch.float64) for case in cases]
        sides.append(
            (
                torch.nn.utils.rnn.pad_sequence(vectors, batch_first=True),
                torch.nn.utils.rnn.pad_sequence(
                    [torch.ones(len(v), dtype=torch.bool) for v in vectors], batch_first=True
                ),
            )
        )
    (source, source_mask), (target, target_mask) = sides
    cells = source_mask[:, :, None] & target_mask[:, None, :]
    return links.similarity_matrix(source, target, cells, kind), cells


def per_pair(found):
    return [sorted(matrix.nonzero().tolist()) for matrix in found]


@pytest.mark.parametrize("method", ["argmax", "itermax", "match", "softmax", "entmax"])
def test_links_equal_the_recorded_ones_of_simalign_and_awesome_align(method):
    if method == "match":
        pytest.importorskip("scipy")
    cases = load_cases()
    similarity, cells = padded_batch(cases, "dot" if method in ("softmax", "entmax") else "cosine")
    found = align.pick_links(similarity, cells, method, {"softmax": 0.1, "entmax": 0.0}.get(method), 1.0)
    assert per_pair(found) == [case[method] for case in cases]


def picked(monkeypatch, own, *options):
    """(similarity, ways) of a command line and align.json."""
    required = ["--model", "M", "--input", "in", "--output", os.path.join("nowhere", "out")]
    monkeypatch.setattr(sys, "argv", ["align.py", *required, *options])
    return align.pick_ways(align.parse_arguments(), own)


OWN = {"method": "grow-diag", "similarity": "csls", "threshold": 0.3, "temperature": 0.2, "evidence": ["lexicon"]}


@pytest.mark.parametrize("own", [{}, OWN, {"method": "softmax", "similarity": "dot", "temperature": 9}])
@pytest.mark.parametrize("method", ["softmax", "entmax"])
def test_the_preset_awesome_gives_the_recorded_links_whatever_the_model_says(monkeypatch, method, own):
    options = ["--preset", "awesome"] + (["--threshold", "0.1"] if method == "softmax" else ["--method", "entmax"])
    kind, [way] = picked(monkeypatch, own, *options)
    cases = load_cases()
    assert kind == "dot" and way["evidence"] == ()
    assert per_pair(way["pick"](*padded_batch(cases, kind))) == [case[method] for case in cases]


@pytest.mark.parametrize("method", ["argmax", "itermax"])
def test_the_preset_simalign_gives_the_recorded_links_and_argmax_alone_adds_evidence(monkeypatch, method):
    named = ["--method", method] if method != "argmax" else []
    cases = load_cases()
    for preset in (["--preset", "simalign"], ["--keep-bare-pieces"]):
        kind, [way] = picked(monkeypatch, OWN, *preset, *named)
        assert kind == "cosine" and way["evidence"] == ()
        assert per_pair(way["pick"](*padded_batch(cases, kind))) == [case[method] for case in cases]
    kind, [way] = picked(monkeypatch, {}, "--method", method)
    assert kind == "csls" and way["evidence"] == links.EVIDENCE


def test_the_preset_awesome_has_its_own_threshold_and_softmax_without_align_json_the_same_one(monkeypatch):
    scores = torch.tensor([[[0.0, 6.8], [6.8, 0.0]]])  # probabilities of 0.0011
    cells = torch.ones(1, 2, 2, dtype=torch.bool)
    for options in (["--preset", "awesome"], ["--method", "softmax"]):
        kind, [way] = picked(monkeypatch, {}, *options)
        assert kind == "dot" and way["pick"](scores, cells).all()
        assert not way["pick"](scores * 1.02, cells).all()  # 0.00097
    with pytest.raises(InputError, match="--method itermax: --preset awesome has softmax and entmax"):
        picked(monkeypatch, {}, "--preset", "awesome", "--method", "itermax")


def test_the_preset_awesome_keeps_every_subword_and_takes_eight_layers_of_twelve(run, tmp_path, tiny_xlmr):
    """Bare ones too, which --method softmax alone leaves out. Two of three layers."""
    split = next(word for word in sample_words() if common.load_tokenizer(tiny_xlmr).tokenize(word)[0] == "▁")
    (tmp_path / "in").write_text(f"{split} the ||| the {split}\n", encoding="utf-8")
    seen, similarity_batches = [], links.similarity_batches

    def watched(*arguments):
        for batch in similarity_batches(*arguments):
            seen.append(batch["similarity"])
            yield batch

    links.similarity_batches = watched
    try:
        for options in (["--preset", "awesome"], ["--preset", "awesome", "--layer", "2"], ["--method", "softmax"]):
            done = run("align", "--model", tiny_xlmr, "--input", tmp_path / "in", "--output", tmp_path / "x", *options)
            assert done.code == 0, done.err
    finally:
        links.similarity_batches = similarity_batches
    assert torch.equal(seen[0], seen[1]) and seen[0].shape[1] == seen[2].shape[1] + 1


def random_pairs(lengths, hidden=5):
    """(states of each side, padded source, padded target, cells) of pairs of these lengths."""
    generator = torch.Generator().manual_seed(4)
    pad = torch.nn.utils.rnn.pad_sequence
    sides = [[torch.randn(pair[side], hidden, generator=generator) for pair in lengths] for side in (0, 1)]
    masks = [pad([torch.ones(len(states), dtype=torch.bool) for states in side], batch_first=True) for side in sides]
    source, target = (pad(side, batch_first=True) for side in sides)
    return sides, source, target, masks[0][:, :, None] & masks[1][:, None, :]


def test_csls_equals_its_formula_pair_by_pair():
    lengths = [(7, 9), (1, 6), (3, 2)]
    sides, source, target, cells = random_pairs(lengths)
    found = links.similarity_matrix(source, target, cells, "csls")
    for n, (s, t) in enumerate(lengths):
        cosine = torch.nn.functional.cosine_similarity(sides[0][n][:, None], sides[1][n][None], dim=2).tolist()
        near = [sum(sorted(row)[-links.HUBS :]) / min(t, links.HUBS) for row in cosine]
        back = [sum(sorted(column)[-links.HUBS :]) / min(s, links.HUBS) for column in zip(*cosine)]
        csls = [[cosine[i][j] - (near[i] + back[j]) / 2 for j in range(t)] for i in range(s)]
        assert torch.allclose(found[n, :s, :t], torch.tensor(csls), atol=1e-5)


def test_evidence_of_neighbours_equals_its_formula_cell_by_cell():
    sizes = [(9, 11), (2, 5)]
    _, source, target, cells = random_pairs(sizes)
    agreed = links.agreement(source @ target.transpose(1, 2) / 20, cells)
    found, reach = links.neighbour_evidence(agreed), range(-links.REACH, links.REACH + 1)

    def weight(a, b):
        return math.exp(-(abs(a) + abs(b) + abs(a - b)) / links.DECAY) if a or b else 0.0

    total = sum(weight(a, b) for a in reach for b in reach)
    for n, (s, t) in enumerate(sizes):
        for i in range(s):
            for j in range(t):
                near = sum(weight(a - i, b - j) * float(agreed[n, a, b]) for a in range(s) for b in range(t)
                           if a - i in reach and b - j in reach)  # fmt: skip
                expected = math.log1p(near / total / links.NEIGHBOUR_FLOOR)
                assert float(found[n, i, j]) == pytest.approx(expected, abs=0.02)  # the kernel is exact to a thousandth


def test_evidence_of_the_lexicon_equals_its_formula_and_leaves_the_own_sentence_out():
    """Three pairs of words 0..4 and 0..3: the counts that a pair sees are those of the two others."""
    generator = torch.Generator().manual_seed(2)
    source, target = torch.randint(0, 5, (3, 4), generator=generator), torch.randint(0, 4, (3, 6), generator=generator)
    agreed = (torch.rand(3, 4, 6, generator=generator) * 1024).round() / 1024
    lexicon = links.new_lexicon("cpu")
    for n in range(3):  # in any batches
        links.count_links(lexicon, agreed[n : n + 1], source[n : n + 1], target[n : n + 1])
    found = links.lexicon_evidence(lexicon, agreed, source, target)
    cells = [(n, i, j) for n in range(3) for i in range(4) for j in range(6)]
    for n, i, j in cells:
        e, f = int(source[n, i]), int(target[n, j])
        others = [(int(source[m, a]), int(target[m, b]), float(agreed[m, a, b])) for m, a, b in cells if m != n]
        total, both = sum(c for *_, c in others), sum(c for x, y, c in others if (x, y) == (e, f))
        of_e, of_f = (sum(c for *types, c in others if types[side] == word) for side, word in ((0, e), (1, f)))
        ratios = [math.log((both * total / max(one, 0.01) + links.PRIOR) / (other + links.PRIOR))
                  for one, other in ((of_f, of_e), (of_e, of_f))]  # fmt: skip
        assert float(found[n, i, j]) == pytest.approx(sum(ratios) / 2, abs=1e-4)


def test_grow_diag_takes_sure_cells_and_those_beside_them(monkeypatch):
    """Sure are 0-0, by the threshold, and 1-1, best of its row and column; 2-1 is grown to, 3-3 is not."""
    forward = torch.tensor([[0.9, 0.1, 0, 0], [0.1, 0.4, 0.3, 0.2], [0, 0.95, 0, 0.05], [0, 0, 0.2, 0.8]])
    backward = torch.tensor([[0.9, 0, 0, 0], [0.1, 0.35, 0.2, 0.2], [0, 0.0, 0, 0], [0, 0.1, 0.1, 0.1]])
    monkeypatch.setattr(links, "both_directions", lambda *_: (forward[None], backward[None]))
    found = links.grow_diag(torch.zeros(1, 4, 4), torch.ones(1, 4, 4, dtype=torch.bool), 0.45)
    assert found[0].nonzero().tolist() == [[0, 0], [1, 1], [2, 1]]


def own_defaults(model, folder, **own):
    """A copy of a model folder with an align.json; returns `folder`."""
    shutil.copytree(model, folder, dirs_exist_ok=True)
    (folder / "align.json").write_text(json.dumps(own))
    return folder


def test_the_lexicon_of_a_way_is_its_own_whatever_is_scored_beside_it(run, tmp_path, tiny_bert, monkeypatch):
    """So --scores changes no link, and no way counts the text twice."""
    monkeypatch.setattr(links, "CHUNK", 8)
    taken, add_evidence = [], links.add_evidence

    def watched(batches, kinds, lexicon):
        taken.append((kinds, lexicon))
        return add_evidence(batches, kinds, lexicon)

    monkeypatch.setattr(links, "add_evidence", watched)
    model = own_defaults(tiny_bert, tmp_path / "model", evidence=["lexicon"])
    options = ["--model", model, "--input", PAIRS, "--output", tmp_path / "out"]
    scores = ["--gold", PAIRS.replace(".src-tgt", ".gold"), "--scores", tmp_path / "scores.json"]
    assert run("align", *options, *scores).code == 0
    lexicons = {kinds: {id(lexicon) for of, lexicon in taken if of == kinds} for kinds, _ in taken}
    counted = [lexicons["lexicon",], lexicons["neighbours", "lexicon"]]
    assert len(taken) > 3 * len(lexicons) and all(len(one) == 1 for one in counted) and counted[0] != counted[1]


def test_no_output_is_written_over_another_file(run, tmp_path, tiny_bert):
    (tmp_path / "in").write_text("a ||| b\n")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    for outputs in (["x", "--html", "x"], ["in"], ["link"], ["-", "--html", "-"], ["x", "--html", "in"]):
        outputs = [part if part[0] == "-" else tmp_path / part for part in outputs]
        done = run("align", "--model", tiny_bert, "--input", tmp_path / "in", "--output", *outputs)
        assert done.code == 2 and "which is named too" in done.err and done.err.count("\n") == 1
    assert (tmp_path / "in").read_text() == "a ||| b\n" and not (tmp_path / "x").exists()


def test_a_threshold_is_a_probability_of_a_method_that_has_one(run, tmp_path, tiny_bert):
    options = ["--model", tiny_bert, "--input", PAIRS, "--output", tmp_path / "x", "--threshold"]
    for value, said in (["45"], "from 0 to 1"), (["1"], "between 0 and 1"), (["0.5", "--method", "match"], "has none"):
        done = run("align", *options, *value)
        assert done.code == 2 and said in done.err and done.err.count("\n") == 1


def test_simaligns_links_are_an_aligners_too(run, tmp_path, tiny_bert):
    folder = own_defaults(tiny_bert, tmp_path / "tuned", layer=2, method="grow-diag", threshold=0.45)
    options = ["--input", PAIRS, "--keep-bare-pieces", "--output"]
    assert run("align", "--model", folder, *options, tmp_path / "a").code == 0
    run("align", "--model", tiny_bert, "--layer", "2", "--method", "argmax", *options, tmp_path / "b")
    assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text()


def test_every_line_counts_in_what_is_said_of_cut_ones(run, tmp_path, tiny_bert):
    line = " ".join(["cat"] * 200) + " ||| un chat\n"
    (tmp_path / "in").write_text(3 * line + "a ||| b\n")
    done = run("align", "--model", tiny_bert, "--input", tmp_path / "in", "--output", tmp_path / "x")
    assert done.code == 0 and "3 lines are longer than the model's" in done.err


def test_a_pair_that_comes_again_is_aligned_once(run, tmp_path, tiny_bert, monkeypatch):
    with open(PAIRS, encoding="utf-8") as stream:
        lines = stream.readlines()[:6]
    order = [0, 1, 0, 2, 3, 2, 0, 4, 5, 5, 1]
    (tmp_path / "in").write_text("".join(lines[n] for n in order) + " ||| x\n" + lines[3])
    monkeypatch.setattr(links, "CHUNK", 4)
    aligned, align_pairs = [], links.align_pairs

    def counted(model, tokenizer, pairs, **settings):
        aligned.extend(pairs)
        return align_pairs(model, tokenizer, pairs, **settings)

    monkeypatch.setattr(links, "align_pairs", counted)
    arguments = ["--model", tiny_bert, "--method", "itermax", "--input", tmp_path / "in", "--output"]
    assert run("align", *arguments, tmp_path / "out", "--html", tmp_path / "page").code == 0
    assert len(aligned) == 6
    written = (tmp_path / "out").read_text()
    found = dict(zip(order, written.splitlines()))
    assert [found[n] for n in order] == written.splitlines()[:11] and written.count("\n") == 13
    assert written == run("align", *arguments, "-").out and len(aligned) == 12


def test_every_method_is_scored_at_once_as_it_is_alone(run, tmp_path, tiny_xlmr):
    gold = os.path.join(SAMPLE, "align", "enzh.gold")
    arguments = ["--model", tiny_xlmr, "--input", PAIRS, "--output", tmp_path / "out", "--gold", gold]
    run("align", *arguments, "--scores", tmp_path / "scores.json")
    scores = json.loads((tmp_path / "scores.json").read_text())["methods"]
    assert list(scores) == list(align.SCORED)
    for name, found in scores.items():
        method, evidence = align.SCORED[name]
        own_defaults(tiny_xlmr, tmp_path / "model", method=method, similarity="csls", evidence=evidence)
        assert json.loads(run("align", *arguments, "--model", tmp_path / "model").out) == found


def test_entmax15_equals_the_entmax_package():
    entmax = pytest.importorskip("entmax")
    scores = torch.randn(7, 9, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 4
    for dim in (1, 2):
        assert torch.allclose(align.entmax15(scores, dim), entmax.entmax15(scores, dim=dim), atol=1e-12)
        assert torch.allclose(align.entmax15(scores, dim).sum(dim), torch.ones(()).double())


@pytest.mark.parametrize("method", ["argmax", "itermax", "match"])
@pytest.mark.parametrize("level", ["subword", "word"])
def test_links_equal_simalign_on_the_sample(run, tmp_path, tiny_model, method, level):
    simalign = pytest.importorskip("simalign", reason="SimAlign is not installed")
    pairs = list(read_parallel(PAIRS)) + [(["one"], ["eins", "zwei"]), (["a", "b"], ["a", "b", "c"])]
    (tmp_path / "in").write_text("".join(" ".join(s) + " ||| " + " ".join(t) + "\n" for s, t in pairs))
    peer = simalign.SentenceAligner(
        model=tiny_model,
        token_type="bpe" if level == "subword" else "word",
        matching_methods={"argmax": "a", "itermax": "i", "match": "m"}[method],
        layer=2,
    )
    key = {"argmax": "inter", "itermax": "itermax", "match": "mwmf"}[method]
    theirs = [peer.get_word_aligns(source, target)[key] for source, target in pairs]
    files = ["--input", tmp_path / "in", "--output", tmp_path / "out"]
    options = ["--preset", "simalign", "--method", method, "--level", level, "--layer", "2", "--precision", "f32"]
    done = run("align", "--model", tiny_model, *files, *options)
    assert done.code == 0, done.err
    assert list(read_pharaoh(str(tmp_path / "out"))) == theirs


@pytest.mark.parametrize("pair", ["enfr", "zhen"])
def test_links_equal_simalign_on_real_gold_data(run, tmp_path, default_model, shared, pair):
    simalign = pytest.importorskip("simalign", reason="SimAlign is not installed")
    pairs = list(read_parallel(os.path.join(shared, "align", pair + ".src-tgt")))
    pairs = pairs[:: max(1, len(pairs) // SIMALIGN_PAIRS)]
    (tmp_path / "in").write_text(
        "".join(" ".join(s) + " ||| " + " ".join(t) + "\n" for s, t in pairs), encoding="utf-8"
    )
    peer = simalign.SentenceAligner(model=default_model, token_type="bpe", matching_methods="ai", layer=7)
    theirs = [peer.get_word_aligns(source, target) for source, target in pairs]
    precision = ["--precision", "f32"]
    for method, key in (("argmax", "inter"), ("itermax", "itermax")):
        files = ["--input", tmp_path / "in", "--output", tmp_path / "out"]
        done = run("align", "--model", default_model, *files, "--preset", "simalign", "--method", method, *precision)
        assert done.code == 0
        assert list(read_pharaoh(str(tmp_path / "out"))) == [found[key] for found in theirs]


def test_output_order_is_input_order_in_any_batches(run, tmp_path, tiny_model, monkeypatch):
    """Batches never matter; the chunk, of which the lexicon is made, does only with a lexicon."""
    lines = [
        line
        for lang in ("fr", "de", "hi", "zh")
        for line in open(os.path.join(SAMPLE, "udpos", f"train-en-{lang}.txt"), encoding="utf-8").readlines()[:12]
    ]
    random.Random(3).shuffle(lines)
    lines[7:7] = [" ||| \n", "a ||| \n", lines[0], " ||| b\n"]
    (tmp_path / "in").write_text("".join(lines), encoding="utf-8")
    own_defaults(tiny_model, tmp_path / "plain", evidence=["neighbours"])
    arguments = ["--input", tmp_path / "in", "--output", tmp_path / "out", "--precision", "f32", "--method", "itermax"]
    outputs = {}
    for chunk, budget, pairs in ((1024, 1024, 128), (1024, 60, 3), (17, 60, 3), (17, 1, 1)):
        monkeypatch.setattr(links, "CHUNK", chunk)
        monkeypatch.setattr(links, "BUDGET", {"cpu": budget})
        monkeypatch.setattr(links, "PAIRS", pairs)
        for model, kind in ((tiny_model, f"lexicon {chunk}"), (tmp_path / "plain", "no lexicon")):
            done = run("align", "--model", model, *arguments)
            assert done.code == 0 and "3 lines have an empty side" in done.err
            found = (tmp_path / "out").read_text().split("\n")
            assert outputs.setdefault(kind, found) == found
            assert len(found) == len(lines) + 1 and found[7:9] == ["", ""] and found[10] == ""
            assert found[9] == found[0] and sum(map(bool, found)) == len(lines) - 3


def test_bare_subwords_are_left_out_unless_a_word_has_nothing_else(tiny_xlmr):
    tokenizer, model = common.load_tokenizer(tiny_xlmr), common.load_encoder(tiny_xlmr, 1)
    bare = common.bare_subword(tokenizer)
    assert bare is not None
    split = next(word for word in sample_words() if tokenizer.tokenize(word)[0] == "▁")
    words = ["the", split, "▁"]
    with torch.inference_mode():
        (kept, start, word), (every, _, every_word) = (
            links.encode(model, links.flatten(tokenizer, [words], 64, keep)[0], tokenizer.pad_token_id, "f32")
            for keep in (False, True)
        )
    ids = tokenizer([words], is_split_into_words=True, add_special_tokens=False)["input_ids"][0]
    stays = [
        k
        for k, w in enumerate(every_word)
        if ids[k] != bare or all(ids[n] == bare for n in np.flatnonzero(every_word == w))
    ]
    assert set(every_word) == set(word) == {0, 1, 2} and len(word) == len(stays) < len(ids) and start[-1] == len(word)
    assert torch.equal(kept[:-1], every[:-1][stays]) and kept[-1].abs().sum() == 0


def test_sentences_longer_than_the_model_and_dropped_words_are_handled(run, tmp_path, tiny_model):
    (tmp_path / "in").write_text(
        " ".join(["bread"] * 300)
        + " ||| "
        + " ".join(["Brot"] * 300)
        + "\nI \u200b see ||| ich \u200b sehe\n\u200b ||| \u200b\n",
        encoding="utf-8",
    )
    for level in ("subword", "word"):
        options = ["--level", level, "--method", "itermax"]
        done = run("align", "--model", tiny_model, "--input", tmp_path / "in", "--output", tmp_path / "out", *options)
        assert done.code == 0 and done.err.count("\n") <= 2
        assert "1 lines are longer than the model's 128 subwords" in done.err
        links = list(read_pharaoh(str(tmp_path / "out")))
        assert links[0] and max(i for i, _ in links[0]) < 128 and len(links) == 3


def test_a_last_line_without_newline_counts_and_markup_in_words_stays_text(run, tmp_path, tiny_bert):
    (tmp_path / "in").write_text("a ||| b\n</script><!-- ||| <b>", encoding="utf-8")
    (tmp_path / "gold").write_text("1-1\n1-1")
    options = ["--gold", tmp_path / "gold", "--method", "argmax", "--html", tmp_path / "page"]
    done = run("align", "--model", tiny_bert, "--input", tmp_path / "in", "--output", tmp_path / "out", *options)
    assert done.code == 0 and json.loads(done.out)["pairs"] == 2 and (tmp_path / "out").read_text() == "0-0\n0-0\n"
    page = (tmp_path / "page").read_text()
    assert page.count("</script>") == 1 and "<!--" not in page and "<b>" not in page


def test_scores_are_och_and_neys():
    # |A & S| = 2, |A & P| = 3, |A| = 4, |S| = 3
    scores = align.alignment_scores([2, 3, 4, 3])
    f1 = 2 * (3 / 4) * (2 / 3) / (3 / 4 + 2 / 3)
    assert scores == {"aer": 1 - 5 / 7, "precision": 3 / 4, "recall": 2 / 3, "f1": f1}


def test_gold_counts_from_its_index_and_possible_includes_sure(tmp_path):
    (tmp_path / "g").write_text("1-1 2p3\n")
    assert align.read_gold(str(tmp_path / "g"), 1) == [({(0, 0)}, {(0, 0), (1, 2)})]
    assert align.read_gold(str(tmp_path / "g"), 0) == [({(1, 1)}, {(1, 1), (2, 3)})]


def test_the_samples_gold_links_lie_inside_their_pairs():
    for lang in ("fr", "de", "hi", "zh"):
        pairs = list(read_parallel(os.path.join(SAMPLE, "align", f"en{lang}.src-tgt")))
        gold = align.read_gold(os.path.join(SAMPLE, "align", f"en{lang}.gold"), 1)
        assert len(gold) == len(pairs) >= 40 and all(sure and sure <= possible for sure, possible in gold)
        lengths = [(len(source), len(target)) for source, target in pairs]
        assert align.check_inside("g", gold, lengths, 1) is None


def test_single_gold_links_outside_their_pair_are_left_out_with_a_note(tmp_path):
    (tmp_path / "g").write_text("1-1 2-3 3-2\n1-1 2-2\n1-1 2-2 3-4 4p5\n")
    gold = align.read_gold(str(tmp_path / "g"), 1)
    assert align.links_inside(gold[2], (3, 4)) == ({(0, 0), (1, 1), (2, 3)}, {(0, 0), (1, 1), (2, 3)})
    note = align.check_inside("g", gold, [(3, 3), (2, 2), (3, 4)], 1)
    assert note == "g: 1 of 9 links lie outside their pairs and are left out, the first in line 3"
    many = [({(i, i) for i in range(10)},) * 2] * 40
    note = align.check_inside("g", many, [(10, 10)] * 36 + [(9, 9)] * 4, 0)
    assert "g: 4 of 400 links" in note and "line 37" in note
    assert align.check_inside("g", many, [(10, 10)] * 40, 0) is None


@pytest.mark.parametrize(
    "gold, lengths, index",
    [
        ([{(0, 0)}, {(0, 8)}], [(1, 1)] * 2, 1),  # all that a pair has
        ([{(i, i) for i in range(10)}] * 10, [(10, 10)] * 8 + [(10, 9)] * 2, 1),  # 2 in 100
        ([{(i, i) for i in range(1, 201)}], [(200, 200)], 0),  # counted from 1
        ([{(0, i) for i in range(1, 201)}], [(1, 200)], 0),  # the translation's words are
    ],
)
def test_gold_links_of_other_pairs_are_an_error(gold, lengths, index):
    with pytest.raises(InputError, match="outside the pair of"):
        align.check_inside("g", [(pairs, pairs) for pairs in gold], lengths, index)


def test_gold_links_of_another_number_of_pairs_are_an_error_in_a_stream_too(run, tmp_path, tiny_bert):
    (tmp_path / "gold").write_text("1-1\n")
    os.mkfifo(tmp_path / "pipe")
    writer = subprocess.Popen(["sh", "-c", f"printf 'a ||| b\\nc ||| d\\n' > {tmp_path / 'pipe'}"])
    options = ["--input", tmp_path / "pipe", "--output", tmp_path / "x", "--gold", tmp_path / "gold"]
    done = run("align", "--model", tiny_bert, *options)
    writer.wait()
    assert done.code == 2 and "gold: 1 lines, but" in done.err and not (tmp_path / "x").exists()


def test_gold_prints_one_json_object_and_html_shows_every_script(run, tmp_path, tiny_model):
    gold = os.path.join(SAMPLE, "align", "enzh.gold")
    files = ["--input", PAIRS, "--output", tmp_path / "out", "--gold", gold, "--html", tmp_path / "page.html"]
    done = run("align", "--model", tiny_model, *files)
    scores = json.loads(done.out)
    assert set(scores) == {"aer", "precision", "recall", "f1", "pairs"} and scores["pairs"] == 40
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "祖母" in page or "奶奶" in page
    assert page.count("</script>") == 1
    # A line for every link, right or wrong, and for every sure link that was not found, each with its evidence.
    found, truth = list(read_pharaoh(str(tmp_path / "out"))), align.read_gold(gold, 1)
    wrong = sum(len(set(ours) - possible) for ours, (_, possible) in zip(found, truth))
    missed = sum(len(sure - set(ours)) for ours, (sure, _) in zip(found, truth))
    kinds = [page.count(f'<line class="{kind}"') for kind in ("linked", "wrong", "missed")]
    assert kinds == [sum(map(len, found)) - wrong, wrong, missed]
    evidence = r'data-evidence="[^"]+: similarity -?\d\.\d\d \+ neighbours \d+\.\d\d \+ lexicon -?\d+\.\d\d"'
    assert len(re.findall(evidence, page)) == kinds[0] + kinds[1]


def test_the_models_own_defaults_are_used(run, tmp_path, tiny_bert):
    folder = own_defaults(tiny_bert, tmp_path / "model", layer=1, method="itermax", diagonal=0.1)
    run("align", "--model", folder, "--input", PAIRS, "--output", tmp_path / "a")
    options = ["--layer", "1", "--method", "itermax"]
    run("align", "--model", tiny_bert, "--input", PAIRS, "--output", tmp_path / "b", *options)
    assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text() != ""
    assert links.align_layer({}, 12) == 8 and links.align_layer({}, 3) == 2 and links.align_layer({"layer": 7}, 12) == 7


def test_the_models_own_evidence_and_threshold_are_used(monkeypatch):
    for own, evidence in (({}, links.EVIDENCE), ({"evidence": []}, ()), ({"evidence": ["lexicon"]}, ("lexicon",))):
        for options in ([], ["--method", "argmax"]):
            kind, [way] = picked(monkeypatch, own, *options)
            assert kind == "csls" and way["evidence"] == evidence

    def settings(own, *options):
        _, [way] = picked(monkeypatch, own, *options)
        return way["pick"].keywords

    assert settings(OWN) == {"method": "grow-diag", "threshold": 0.3, "temperature": 0.2}
    assert settings(OWN, "--threshold", "0.4") == {"method": "grow-diag", "threshold": 0.4, "temperature": 0.2}
    assert settings(OWN, "--method", "softmax") == {"method": "softmax", "threshold": 0.45, "temperature": 0.05}
    dot = {"method": "softmax", "similarity": "dot", "threshold": 0.002}
    assert settings(dot) == {"method": "softmax", "threshold": 0.002, "temperature": 1.0}


def test_word_vectors_are_means_of_their_subwords():
    vectors = torch.arange(12.0).view(6, 2)
    vectors[5] = 0
    means, start, word = align.average_words(vectors, np.array([0, 3, 5]), np.array([0, 0, 2, 2, 2]))
    assert (
        means.tolist() == [[1, 2], [4, 5], [7, 8], [0, 0]]
        and start.tolist() == [0, 2, 3]
        and word.tolist() == [0, 2, 2]
    )


def test_a_hub_name_loads_from_a_hub(run, tiny_xlmr, tmp_path):
    """A server on loopback speaks as much of a model hub's protocol as loading by name needs."""
    import hashlib
    import http.server
    import threading

    class Hub(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer(False)

        def do_GET(self):
            self.answer(True)

        def answer(self, body):
            path = os.path.join(tiny_xlmr, os.path.basename(self.path))
            if not self.path.startswith("/team/tiny/resolve/") or not os.path.isfile(path):
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            with open(path, "rb") as stream:
                data = stream.read()
            self.send_response(200)
            self.send_header("ETag", '"' + hashlib.sha1(data).hexdigest() + '"')
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {
        **os.environ,
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(tmp_path / "hub"),
        "HF_HUB_DISABLE_XET": "1",
    }
    arguments = ["--input", PAIRS, "--output", "-", "--precision", "f32"]
    command = [sys.executable, os.path.join(ROOT, "align.py"), "--model", "team/tiny", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    server.shutdown()
    assert done.stdout == run("align", "--model", tiny_xlmr, *arguments).out and done.stdout.count("\n") == 40
