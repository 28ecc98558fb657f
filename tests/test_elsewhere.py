"""Folders that --save and finetune_aligner.py write load with AutoTokenizer and AutoModel of other versions of
transformers: the same subwords, the same tags, the same states."""

import json
import os
import subprocess
import sys

import pytest
import torch
import transformers
from conftest import SAMPLE, without_dropout
from families import build_family, tokenizer_of

from data.files import read_udpos, write_udpos
from evaluation.runs import read_tag_predictions

OLD = "4.57.6"
WHOLE = os.environ.get("FULL") == "1"
# What a user does with a folder: a tag for the first subword of each word, and the sum of an encoder's states.
LOAD = """
import json, sys
import torch, transformers
from transformers import AutoModel, AutoModelForTokenClassification, AutoTokenizer
folder, tuned, sentences = json.load(open(sys.argv[1]))
found = []
for path, kind in ((folder, AutoModelForTokenClassification), (tuned, AutoModel)):
    tokenizer, model = AutoTokenizer.from_pretrained(path), kind.from_pretrained(path).eval()
    for words in sentences:
        if "ByteLevel" in tokenizer.backend_tokenizer.to_str():
            words = [" " + word for word in words]
        batch = tokenizer([words], is_split_into_words=True, return_tensors="pt")
        ids, owner = batch["input_ids"][0].tolist(), batch.word_ids(0)
        with torch.inference_mode():
            made = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        if kind is AutoModel:
            found.append([ids, round(made.last_hidden_state.abs().sum().item(), 2)])
            continue
        bare = tokenizer.convert_tokens_to_ids("\\u2581")
        places = [[k for k, of in enumerate(owner) if of == n] for n in range(len(words))]
        places = [next((k for k in some if ids[k] != bare), some[0]) for some in places]
        found.append([ids, [model.config.id2label[n] for n in made.logits[0][places].argmax(1).tolist()]])
json.dump([transformers.__version__, found], open(sys.argv[2], "w"))
"""


def class_folder(family, folder):
    """Write a tiny model whose tokenizer has a class of its own, and the files that transformers 4 wrote for it."""
    build_family(family, folder)
    names = {"bert": "BertTokenizer", "camembert": "RobertaTokenizer", "xlm-roberta": "XLMRobertaTokenizer"}
    path = folder / "tokenizer_config.json"
    own = json.loads(path.read_text())
    kept = {key: value for key, value in own.items() if key.endswith("_token") or key == "model_max_length"}
    options = {"bert": {"do_lower_case": False}, "camembert": {"add_prefix_space": True}}.get(family, {})
    path.write_text(json.dumps({**kept, **options, "tokenizer_class": names.get(family, "PreTrainedTokenizerFast")}))
    if family == "camembert":  # a RoBERTa is a CamemBERT with another name
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "model_type": "roberta"}))
        vocabulary = json.loads(tokenizer_of("bytes")[0].to_str())["model"]
        (folder / "vocab.json").write_text(json.dumps(vocabulary["vocab"]))
        (folder / "merges.txt").write_text("\n".join(" ".join(merge) for merge in vocabulary["merges"]) + "\n")
    return folder


@pytest.fixture(scope="module")
def pythons(tmp_path_factory):
    """{version of transformers: a Python that has it}: this one, and with FULL=1 one with transformers 4."""
    found = {transformers.__version__: sys.executable}
    if WHOLE:
        folder = tmp_path_factory.mktemp("old") / "venv"
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = str(folder / "bin" / "python")
        subprocess.run([python, "-m", "pip", "install", "-q", f"transformers=={OLD}"], check=True)
        (site,) = folder.glob("lib/python*/site-packages")
        (site / "others.pth").write_text(os.path.dirname(os.path.dirname(torch.__file__)) + "\n")  # torch is the same
        found[OLD] = python
    return found


@pytest.mark.parametrize("family", ["camembert", "bert", "xlm-roberta", "modernbert", "deberta-v2"][: 5 if WHOLE else 1])
def test_what_is_written_loads_elsewhere_with_the_same_tags(run, tmp_path, pythons, family):
    model = without_dropout(class_folder(family, tmp_path / "model"), tmp_path / "quiet")
    sentences = read_udpos(os.path.join(SAMPLE, "udpos", "dev-fr.tsv"))[:4]
    write_udpos(str(tmp_path / "data" / "dev-fr.tsv"), sentences)
    pairs = "".join(f"{' '.join(words)} ||| {' '.join(words[::-1])}\n" for words, _ in sentences)
    (tmp_path / "pairs").write_text(pairs)
    options = ["--train", tmp_path / "data" / "dev-fr.tsv", "--data-dir", tmp_path / "data", "--precision", "f32"]
    options += ["--epochs", "8", "--lr", "1e-3", "--batch-size", "2", "--save", "--output", tmp_path / "run"]
    done = run("train_pos", "--model", model, *options)
    assert done.code == 0, done.err
    options = ["--train", tmp_path / "pairs", "--output", tmp_path / "tuned", "--max-steps", "2", "--batch-size", "2"]
    done = run("finetune_aligner", "--model", model, *options)
    assert done.code == 0, done.err
    job = [str(tmp_path / "run" / "model"), str(tmp_path / "tuned"), [words for words, _ in sentences]]
    (tmp_path / "job").write_text(json.dumps(job))
    tags, found = read_tag_predictions(str(tmp_path / "run" / "dev-fr.tsv")), {}
    for version, python in pythons.items():
        command = [python, "-c", LOAD, str(tmp_path / "job"), str(tmp_path / version)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        loaded, found[version] = json.loads((tmp_path / version).read_text())
        assert loaded == version
        assert [made for _, made in found[version][: len(sentences)]] == tags
        assert found[version] == found[transformers.__version__]
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"):
        for folder in (tmp_path / "run" / "model", tmp_path / "tuned"):
            assert (folder / name).exists() == (model / name).exists()
            assert not (folder / name).exists() or (folder / name).read_bytes() == (model / name).read_bytes()
    assert len({tag for sentence in tags for tag in sentence}) > 2
