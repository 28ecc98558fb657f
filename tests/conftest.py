"""Fixtures: tiny models of both families, the default model and the real data where they are, and a way to run a script
in this process."""

import collections
import contextlib
import importlib
import json
import os
import shutil
import sys
from types import SimpleNamespace

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SAMPLE = os.path.join(ROOT, "data", "sample")
SHARED = os.path.join(os.path.dirname(ROOT), "shared", "data")
DEFAULT_MODEL = os.path.join(ROOT, "models", "multilingual-e5-small")
sys.path.insert(0, ROOT)

with contextlib.suppress(ImportError):  # reference implementations need it, which common.py keeps from transformers
    import sklearn  # noqa: F401

from data.files import read_parallel, read_udpos, run_script  # noqa: E402


def sample_words():
    """The words of the sample's udpos files, all languages, with repetitions."""
    words = [
        word
        for lang in ("en", "fr", "de", "hi", "zh")
        for sentence, _ in read_udpos(os.path.join(SAMPLE, "udpos", f"dev-{lang}.tsv"))
        for word in sentence
    ]
    for lang in ("fr", "de", "hi", "zh"):
        for source, target in read_parallel(os.path.join(SAMPLE, "udpos", f"train-en-{lang}.txt")):
            words += source + target
    return words


SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "initializer_range": 0.2,
}


def save_tiny(folder, tokenizer, names, build, config):
    """Write a Hugging Face folder: a tokenizer with its special tokens by name, and a randomly initialised model."""
    import torch
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=128, **names).save_pretrained(folder)
    torch.manual_seed(0)
    build(config).save_pretrained(folder)


def build_tiny_bert(folder, head=True):
    """A BERT with a WordPiece vocabulary and, with `head`, the heads of pretraining, as mBERT has them."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertForPreTraining, BertModel

    words = sample_words()
    letters = sorted({letter for word in words for letter in word})
    common = sorted(word for word, count in collections.Counter(words).items() if count > 8 and len(word) > 1)
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + letters + ["##" + letter for letter in letters] + common
    tokenizer = Tokenizer(models.WordPiece({token: i for i, token in enumerate(tokens)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {name + "_token": f"[{name.upper()}]" for name in ("unk", "pad", "cls", "sep", "mask")}
    config = BertConfig(vocab_size=len(tokens), max_position_embeddings=128, **SHAPE)
    save_tiny(folder, tokenizer, names, BertForPreTraining if head else BertModel, config)


def build_tiny_xlmr(folder):
    """An XLM-R with a Unigram vocabulary and its masked-language-model head."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import XLMRobertaConfig, XLMRobertaForMaskedLM

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    trainer = trainers.UnigramTrainer(
        vocab_size=1500,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(sample_words())], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    names = {"bos": "<s>", "cls": "<s>", "eos": "</s>", "sep": "</s>", "unk": "<unk>", "pad": "<pad>", "mask": "<mask>"}
    config = XLMRobertaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        max_position_embeddings=130,
        type_vocab_size=1,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        **SHAPE,
    )
    save_tiny(
        folder, tokenizer, {name + "_token": token for name, token in names.items()}, XLMRobertaForMaskedLM, config
    )


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("models") / "tiny-bert")
    build_tiny_bert(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_headless(tmp_path_factory):
    """Like tiny_bert, without a masked-language-model head, as the default model is."""
    folder = str(tmp_path_factory.mktemp("models") / "tiny-headless")
    build_tiny_bert(folder, head=False)
    return folder


@pytest.fixture(scope="session")
def tiny_xlmr(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("models") / "tiny-xlmr")
    build_tiny_xlmr(folder)
    return folder


def without_dropout(model, folder):
    """A copy of a model folder whose encoder drops nothing, for runs that must compute the same; returns `folder`."""
    shutil.copytree(model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({**config, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})
    )
    return folder


@pytest.fixture(params=["bert", "xlmr"])
def tiny_model(request, tiny_bert, tiny_xlmr):
    """Each of the two families in turn."""
    return {"bert": tiny_bert, "xlmr": tiny_xlmr}[request.param]


@pytest.fixture(scope="session")
def default_model():
    if not os.path.exists(os.path.join(DEFAULT_MODEL, "align.json")):
        pytest.skip("the default model is not here; python data/get_model.py gets it")
    return DEFAULT_MODEL


@pytest.fixture(scope="session")
def shared():
    if not os.path.isdir(SHARED):
        pytest.skip("the real XTREME data beside the checkout is not here")
    return SHARED


@pytest.fixture
def run(monkeypatch, capfd):
    """run('align', '--model', ...) runs a script's main() in this process; returns its exit code, stdout and stderr."""

    def call(script, *arguments):
        module = importlib.import_module(script.replace("/", "."))
        monkeypatch.setattr(sys, "argv", [script.split("/")[-1] + ".py", *map(str, arguments)])
        capfd.readouterr()
        code = 0
        try:
            run_script(module.main)
        except SystemExit as end:
            code = end.code or 0
        captured = capfd.readouterr()
        return SimpleNamespace(code=code, out=captured.out, err=captured.err)

    return call
