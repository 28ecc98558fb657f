"""align.py finds the links that SimAlign and awesome-align find, whatever the batches, and never mixes up lines."""

import json
import math
import os
import random
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, SAMPLE, sample_words

import align
import common
from data.files import read_parallel, read_pharaoh
from lib import encoding, extraction, subwords

FIXTURE = os.path.join(os.path.dirname(__file__), "fixtures", "links.json")
# Pairs of each real file that SimAlign aligns here, a tenth of a second each; FULL=1 compares all of them.
SIMALIGN_PAIRS = 450 if os.environ.get("FULL") == "1" else 15
PAIRS = os.path.join(SAMPLE, "align", "enzh.src-tgt")


def load_cases():
    with open(FIXTURE, encoding="utf-8") as stream:
        return json.load(stream)


def batch_links(cases, method, threshold):
    """Links of all cases found in one padded batch."""
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
    kind = "dot" if method in ("softmax", "entmax") else "cosine"
    similarity = extraction.similarity_matrix(source, target, cells, kind)
    found = extraction.pick_links(similarity, cells, method, threshold, 1.0)
    return [sorted(matrix.nonzero().tolist()) for matrix in found]


@pytest.mark.parametrize("method", ["argmax", "itermax", "match", "softmax", "entmax"])
def test_links_equal_the_recorded_ones_of_simalign_and_awesome_align(method):
    if method == "match":
        pytest.importorskip("scipy")
    cases = load_cases()
    threshold = {"softmax": 0.1, "entmax": 0.0}.get(method)
    assert batch_links(cases, method, threshold) == [case[method] for case in cases]


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
    found = extraction.similarity_matrix(source, target, cells, "csls")
    for n, (s, t) in enumerate(lengths):
        cosine = torch.nn.functional.cosine_similarity(sides[0][n][:, None], sides[1][n][None], dim=2).tolist()
        near = [sum(sorted(row)[-extraction.HUBS :]) / min(t, extraction.HUBS) for row in cosine]
        back = [sum(sorted(column)[-extraction.HUBS :]) / min(s, extraction.HUBS) for column in zip(*cosine)]
        csls = [[cosine[i][j] - (near[i] + back[j]) / 2 for j in range(t)] for i in range(s)]
        assert torch.allclose(found[n, :s, :t], torch.tensor(csls), atol=1e-5)


def test_evidence_of_neighbours_equals_its_formula_cell_by_cell():
    sizes = [(9, 11), (2, 5)]
    _, source, target, cells = random_pairs(sizes)
    agreed = extraction.agreement(source @ target.transpose(1, 2) / 20, cells)
    found, reach = extraction.neighbour_evidence(agreed), range(-extraction.REACH, extraction.REACH + 1)

    def weight(a, b):
        return math.exp(-(abs(a) + abs(b) + abs(a - b)) / extraction.DECAY) if a or b else 0.0

    total = sum(weight(a, b) for a in reach for b in reach)
    for n, (s, t) in enumerate(sizes):
        for i in range(s):
            for j in range(t):
                near = sum(weight(a - i, b - j) * float(agreed[n, a, b]) for a in range(s) for b in range(t)
                           if a - i in reach and b - j in reach)  # fmt: skip
                expected = math.log1p(near / total / extraction.NEIGHBOUR_FLOOR)
                assert float(found[n, i, j]) == pytest.approx(expected, abs=0.02)  # the kernel is exact to a thousandth


def test_evidence_of_the_lexicon_equals_its_formula_and_leaves_the_own_sentence_out():
    """Three pairs of words 0..4 and 0..3: the counts that a pair sees are those of the two others."""
    generator = torch.Generator().manual_seed(2)
    source, target = torch.randint(0, 5, (3, 4), generator=generator), torch.randint(0, 4, (3, 6), generator=generator)
    agreed = (torch.rand(3, 4, 6, generator=generator) * 1024).round() / 1024
    lexicon = extraction.new_lexicon("cpu")
    for n in range(3):  # in any batches
        extraction.count_links(lexicon, agreed[n : n + 1], source[n : n + 1], target[n : n + 1])
    found = extraction.lexicon_evidence(lexicon, agreed, source, target)
    cells = [(n, i, j) for n in range(3) for i in range(4) for j in range(6)]
    for n, i, j in cells:
        e, f = int(source[n, i]), int(target[n, j])
        others = [(int(source[m, a]), int(target[m, b]), float(agreed[m, a, b])) for m, a, b in cells if m != n]
        total, both = sum(c for *_, c in others), sum(c for x, y, c in others if (x, y) == (e, f))
        of_e, of_f = (sum(c for *types, c in others if types[side] == word) for side, word in ((0, e), (1, f)))
        ratios = [math.log((both * total / max(one, 0.01) + extraction.PRIOR) / (other + extraction.PRIOR))
                  for one, other in ((of_f, of_e), (of_e, of_f))]  # fmt: skip
        assert float(found[n, i, j]) == pytest.approx(sum(ratios) / 2, abs=1e-4)


def test_grow_diag_takes_sure_cells_and_those_beside_them():
    """Sure are 0-0, by the threshold, and 1-1, best of its row and column; 2-1 is grown to, 3-3 is not."""
    forward = torch.tensor([[0.9, 0.1, 0, 0], [0.1, 0.4, 0.3, 0.2], [0, 0.95, 0, 0.05], [0, 0, 0.2, 0.8]])
    backward = torch.tensor([[0.9, 0, 0, 0], [0.1, 0.35, 0.2, 0.2], [0, 0.0, 0, 0], [0, 0.1, 0.1, 0.1]])
    links = extraction.grow_diag(forward[None], backward[None], torch.ones(1, 4, 4, dtype=torch.bool), 0.45)
    assert links[0].nonzero().tolist() == [[0, 0], [1, 1], [2, 1]]


def test_the_lexicon_of_a_way_is_its_own_whatever_is_scored_beside_it(run, tmp_path, tiny_bert, monkeypatch):
    """So --scores changes no link, and no way counts the text twice."""
    monkeypatch.setattr(align, "CHUNK", 8)
    taken, add_evidence = [], extraction.add_evidence

    def watched(batches, kinds, lexicon, sum_counts):
        taken.append((kinds, lexicon))
        return add_evidence(batches, kinds, lexicon, sum_counts)

    monkeypatch.setattr(extraction, "add_evidence", watched)
    options = ["--model", tiny_bert, "--input", PAIRS, "--output", tmp_path / "out", "--neighbours", "none"]
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
    folder = shutil.copytree(tiny_bert, tmp_path / "tuned")
    (folder / "align.json").write_text(json.dumps({"layer": 2, "method": "grow-diag", "threshold": 0.45}))
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
    monkeypatch.setattr(align, "CHUNK", 4)
    aligned, align_pairs = [], align.align_pairs

    def counted(model, tokenizer, pairs, **settings):
        aligned.extend(pairs)
        return align_pairs(model, tokenizer, pairs, **settings)

    monkeypatch.setattr(align, "align_pairs", counted)
    arguments = ["--model", tiny_bert, "--method", "itermax", "--input", tmp_path / "in", "--output"]
    assert run("align", *arguments, tmp_path / "out", "--html", tmp_path / "page").code == 0
    assert len(aligned) == 6
    written = (tmp_path / "out").read_text()
    links = dict(zip(order, written.splitlines()))
    assert [links[n] for n in order] == written.splitlines()[:11] and written.count("\n") == 13
    assert written == run("align", *arguments, "-").out and len(aligned) == 12


def test_every_method_is_scored_at_once_as_it_is_alone(run, tmp_path, tiny_xlmr):
    gold = os.path.join(SAMPLE, "align", "enzh.gold")
    arguments = ["--model", tiny_xlmr, "--input", PAIRS, "--output", tmp_path / "out", "--gold", gold]
    run("align", *arguments, "--scores", tmp_path / "scores.json")
    scores = json.loads((tmp_path / "scores.json").read_text())["methods"]
    assert list(scores) == list(align.SCORED)
    for name, found in scores.items():
        method, evidence = align.SCORED[name]
        alone = ["--method", method, "--similarity", "csls"]
        alone += [part for kind in align.EVIDENCE if kind not in evidence for part in ("--" + kind, "none")]
        assert json.loads(run("align", *arguments, *alone).out) == found


def test_entmax15_equals_the_entmax_package():
    entmax = pytest.importorskip("entmax")
    scores = torch.randn(7, 9, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 4
    for dim in (1, 2):
        assert torch.allclose(extraction.entmax15(scores, dim), entmax.entmax15(scores, dim=dim), atol=1e-12)
        assert torch.allclose(extraction.entmax15(scores, dim).sum(dim), torch.ones(()).double())


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
    done = run(
        "align",
        "--model",
        tiny_model,
        "--input",
        tmp_path / "in",
        "--output",
        tmp_path / "out",
        "--method",
        method,
        "--level",
        level,
        "--layer",
        "2",
        "--keep-bare-pieces",
        "--precision",
        "f32",
    )
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
    for method, key in (("argmax", "inter"), ("itermax", "itermax")):
        done = run(
            "align",
            "--model",
            default_model,
            "--input",
            tmp_path / "in",
            "--output",
            tmp_path / "out",
            "--method",
            method,
            "--keep-bare-pieces",
            "--precision",
            "f32",
        )
        assert done.code == 0
        assert list(read_pharaoh(str(tmp_path / "out"))) == [links[key] for links in theirs]


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
    arguments = ["--model", tiny_model, "--input", tmp_path / "in", "--output", tmp_path / "out"]
    arguments += ["--precision", "f32", "--method", "itermax"]
    outputs = {}
    for chunk, budget, pairs in ((1024, 1024, 128), (1024, 60, 3), (17, 60, 3), (17, 1, 1)):
        monkeypatch.setattr(align, "CHUNK", chunk)
        monkeypatch.setattr(encoding, "BUDGET", {"cpu": budget})
        monkeypatch.setattr(align, "PAIRS", pairs)
        for lexicon in ("text", "none"):
            done = run("align", *arguments, "--lexicon", lexicon)
            assert done.code == 0 and "3 lines have an empty side" in done.err
            kind = lexicon if lexicon == "none" else f"text {chunk}"
            found = (tmp_path / "out").read_text().split("\n")
            assert outputs.setdefault(kind, found) == found
            assert len(found) == len(lines) + 1 and found[7:9] == ["", ""] and found[10] == ""
            assert found[9] == found[0] and sum(map(bool, found)) == len(lines) - 3


def test_bare_pieces_are_left_out_unless_a_word_has_nothing_else(tiny_xlmr):
    tokenizer, model = common.load_tokenizer(tiny_xlmr), common.load_encoder(tiny_xlmr, 1)
    bare = subwords.bare_piece(tokenizer)
    assert bare is not None
    split = next(word for word in sample_words() if tokenizer.tokenize(word)[0] == "▁")
    words = ["the", split, "▁"]
    with torch.inference_mode():
        (kept, start, word), (every, _, every_word) = (
            encoding.encode(model, encoding.flatten(tokenizer, [words], 64, keep)[0], tokenizer.pad_token_id, "f32")
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
        assert "1 lines are longer than the model's 128 pieces" in done.err
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
    assert scores == {
        "aer": 1 - 5 / 7,
        "precision": 3 / 4,
        "recall": 2 / 3,
        "f1": 2 * (3 / 4) * (2 / 3) / (3 / 4 + 2 / 3),
    }


def test_gold_prints_one_json_object_and_html_shows_every_script(run, tmp_path, tiny_model):
    gold = os.path.join(SAMPLE, "align", "enzh.gold")
    done = run(
        "align",
        "--model",
        tiny_model,
        "--input",
        PAIRS,
        "--output",
        tmp_path / "out",
        "--gold",
        gold,
        "--html",
        tmp_path / "page.html",
    )
    assert (
        set(json.loads(done.out)) == {"aer", "precision", "recall", "f1", "pairs"}
        and json.loads(done.out)["pairs"] == 40
    )
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "祖母" in page or "奶奶" in page
    assert "</script>" in page and page.count("</script>") == 1


def test_the_models_own_defaults_are_used(run, tmp_path, tiny_bert):
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(tiny_bert, folder)
    for content, options in (
        ('{"layer": 1, "method": "itermax", "diagonal": 0.1}', ["--layer", "1", "--method", "itermax"]),
        ('{"layer": 3, "evidence": []}', ["--layer", "3", "--neighbours", "none", "--lexicon", "none"]),
        ('{"layer": 3, "evidence": ["neighbours"]}', ["--layer", "3", "--lexicon", "none"]),
    ):
        (folder / "align.json").write_text(content)
        run("align", "--model", folder, "--input", PAIRS, "--output", tmp_path / "a")
        run("align", "--model", tiny_bert, "--input", PAIRS, "--output", tmp_path / "b", *options)
        assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text() != ""


def test_word_vectors_are_means_of_their_pieces():
    vectors = torch.arange(12.0).view(6, 2)
    vectors[5] = 0
    means, start, word = encoding.average_words(vectors, np.array([0, 3, 5]), np.array([0, 0, 2, 2, 2]))
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
