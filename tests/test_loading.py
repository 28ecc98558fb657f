"""Model folders as people have them: what loads, what is said where one does not, and the tokenizer's short cut."""

import json
import os
import shutil

import pytest
import torch
from conftest import SAMPLE
from safetensors.torch import load_file, save_file

import common
import finetune_aligner
import training
from data.files import InputError, read_udpos

SENTENCES = [
    ["Hello", "world"],
    ["我是", "学生", "。"],
    ["मैं", "छात्र", "हूँ"],
    ["cafe\u0301", "naïve", "x\u200by", "1920s"],
]


@pytest.fixture
def copy(tmp_path):
    """copy(folder): a copy of a model folder to spoil."""

    def make(model):
        return shutil.copytree(model, tmp_path / "copy", dirs_exist_ok=True)

    return make


def same_tokenizer(ours, theirs):
    """Check that two tokenizers give the same subwords, words and special subwords."""
    texts = [" ".join(words) for words in SENTENCES]
    sample = [words for words, _ in read_udpos(os.path.join(SAMPLE, "udpos", "dev-zh.tsv"))[:20]]
    for sentences in (SENTENCES, sample):
        one, two = (tokenizer(sentences, is_split_into_words=True) for tokenizer in (ours, theirs))
        assert one["input_ids"] == two["input_ids"]
        assert all(one.word_ids(n) == two.word_ids(n) for n in range(len(sentences)))
    assert ours(texts, texts[::-1])["input_ids"] == theirs(texts, texts[::-1])["input_ids"]
    for name in ("pad", "unk", "mask", "cls", "sep"):
        assert getattr(ours, f"{name}_token_id") == getattr(theirs, f"{name}_token_id"), name
    assert ours.model_max_length == theirs.model_max_length
    assert common.special_subwords(ours) == common.special_subwords(theirs)
    assert common.special_pair_subwords(ours) == common.special_pair_subwords(theirs)


def test_the_tokenizer_is_the_one_that_transformers_loads(tiny_model):
    from transformers import AutoTokenizer

    same_tokenizer(common.load_tokenizer(tiny_model), AutoTokenizer.from_pretrained(tiny_model))


def test_the_default_models_tokenizer_is_the_one_that_transformers_loads(default_model):
    from transformers import AutoTokenizer

    same_tokenizer(common.load_tokenizer(default_model), AutoTokenizer.from_pretrained(default_model))


def test_files_of_transformers_4_name_the_special_subwords(tiny_bert, copy):
    folder = copy(tiny_bert)
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "pad", "cls", "sep")}
    names["mask_token"] = {"content": "[MASK]", "lstrip": True, "normalized": False, "rstrip": False}
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False, "model_max_length": 128}))
    (folder / "special_tokens_map.json").write_text(json.dumps(names))
    same_tokenizer(common.load_tokenizer(str(folder)), common.load_tokenizer(tiny_bert))


def test_a_cased_bert_without_tokenizer_config_keeps_its_case(tiny_bert, copy):
    folder = copy(tiny_bert)
    os.remove(folder / "tokenizer_config.json")
    ours, whole = common.load_tokenizer(str(folder)), common.load_tokenizer(tiny_bert)
    for words in (["Über", "Paris"], ["ÉCOLE"]):
        assert common.words_to_subwords(ours, [words]) == common.words_to_subwords(whole, [words])
    assert ours.pad_token_id == whole.pad_token_id and ours.mask_token_id == whole.mask_token_id


def test_a_length_may_be_written_with_a_point(tiny_bert, copy):
    folder = copy(tiny_bert)
    names = json.loads((folder / "tokenizer_config.json").read_text())
    for length, kept in ((64.5, 64), (1e30, 10**30)):
        (folder / "tokenizer_config.json").write_text(json.dumps(names | {"model_max_length": length}))
        found = common.load_tokenizer(str(folder)).model_max_length
        assert type(found) is int and found == pytest.approx(kept)


@pytest.mark.parametrize("length", ["long", [1], -5, 0.5])
def test_a_length_that_is_no_number_of_subwords_ends_in_one_line(tiny_bert, copy, length):
    folder = copy(tiny_bert)
    names = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(names | {"model_max_length": length}))
    with pytest.raises(InputError, match="model_max_length"):
        common.load_tokenizer(str(folder))


def test_sizes_that_fit_no_model_end_in_one_line(tiny_bert, copy):
    folder = copy(tiny_bert)
    sizes = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(sizes | {"intermediate_size": -64}))
    with pytest.raises(InputError, match="cannot be loaded as a model"):
        common.subword_limit(common.load_tokenizer(str(folder)), common.load_config(str(folder)))


def states(folder):
    encoder = common.load_encoder(str(folder))
    with torch.inference_mode():
        return encoder(input_ids=torch.tensor([[2, 9, 30, 3]])).last_hidden_state


@pytest.mark.parametrize("kind", ["bin", "sharded", "half", "gamma"])
def test_weights_load_from_every_kind_of_file(tiny_bert, copy, kind):
    folder, expected = copy(tiny_bert), states(tiny_bert)
    path = folder / "model.safetensors"
    weights = load_file(path)
    if kind == "half":
        save_file({key: value.half() for key, value in weights.items()}, path, {"format": "pt"})
    elif kind == "sharded":
        finetune_aligner.load_whole(tiny_bert)[0].save_pretrained(folder, max_shard_size="40KB")
        path.unlink(missing_ok=True)
        assert len(list(folder.glob("model-*.safetensors"))) > 1
    else:
        os.remove(path)
        old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"} if kind == "gamma" else {}
        for new, name in old.items():
            weights = {key.replace(new, name): value for key, value in weights.items()}
        torch.save(weights, folder / "pytorch_model.bin")
    found = states(folder)
    assert torch.allclose(found, expected, atol=0.05 if kind == "half" else 1e-6)


def test_weights_saved_from_a_parallel_wrapper_are_refused_in_one_line(tiny_bert, copy):
    folder = copy(tiny_bert)
    weights = load_file(folder / "model.safetensors")
    wrapped = {f"module.{key}": value for key, value in weights.items()}
    save_file(wrapped, folder / "model.safetensors", {"format": "pt"})
    for load in (common.load_encoder, lambda name: training.load_with_head(name, "TokenClassification", ["a", "b"])):
        with pytest.raises(InputError, match="its weights lack .* more of the encoder's") as error:
            load(str(folder))
        assert "\n" not in str(error.value)


def test_a_head_that_a_checkpoint_already_has_is_replaced(tiny_bert, tmp_path):
    """One of another task, with as many labels or with others: the last layer is a new one, drawn from the seed."""
    torch.manual_seed(1)
    first = training.load_with_head(tiny_bert, "SequenceClassification", ["a", "b", "c"])
    first.save_pretrained(tmp_path / "model")
    shutil.copy(os.path.join(tiny_bert, "tokenizer.json"), tmp_path / "model")
    for labels in (["x", "y", "z"], ["0", "1"]):
        torch.manual_seed(2)
        again = training.load_with_head(str(tmp_path / "model"), "SequenceClassification", labels)
        assert again.classifier.weight.shape[0] == len(labels) == len(again.config.id2label)
        assert not torch.equal(again.classifier.weight[:2], first.classifier.weight[:2])
        assert torch.equal(again.bert.pooler.dense.weight, first.bert.pooler.dense.weight)


def test_what_is_no_encoder_is_said_in_one_line(tmp_path, tiny_bert):
    from transformers import AutoConfig, AutoModel

    shutil.copy(os.path.join(tiny_bert, "tokenizer.json"), tmp_path)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"intermediate_size": 64, "vocab_size": 90}
    for kind, more in (("xmod", {"languages": ["en_XX"]}), ("t5", {"d_model": 32, "num_layers": 2})):
        model = AutoModel.from_config(AutoConfig.for_model(kind, **{**sizes, **more}))
        model.save_pretrained(tmp_path / kind)
        with pytest.raises(InputError) as error:
            common.load_encoder(str(tmp_path / kind))
        assert "\n" not in str(error.value) and len(str(error.value)) < 600


def test_sizes_that_no_model_has_are_refused_at_once_in_one_line(tmp_path, tiny_bert, run):
    folder = shutil.copytree(tiny_bert, tmp_path / "odd")
    sizes = json.loads((folder / "config.json").read_text())
    (tmp_path / "pairs").write_text("a ||| b\n")
    for name, value in (("num_hidden_layers", 99_999_999), ("hidden_size", 2**40), ("pad_token_id", 10**9)):
        (folder / "config.json").write_text(json.dumps(sizes | {name: value}))
        done = run("align", "--model", folder, "--input", tmp_path / "pairs", "--output", tmp_path / "links")
        assert done.code == 2 and done.err.count("\n") == 1 and f"{folder}: " in done.err


@pytest.mark.parametrize("prefix_space", [True, False])
def test_a_saved_folder_has_the_tokenizer_of_its_checkpoint(tmp_path, prefix_space):
    """Its class too, which a tokenizer that is read from tokenizer.json alone does not know."""
    from families import tokenizer_of
    from transformers import (
        AutoConfig,
        AutoModelForMaskedLM,
        AutoTokenizer,
        RobertaTokenizerFast,
    )

    vocabulary = json.loads(tokenizer_of("bytes")[0].to_str())["model"]
    merges = [tuple(merge) for merge in vocabulary["merges"]]
    theirs = RobertaTokenizerFast(vocab=vocabulary["vocab"], merges=merges, add_prefix_space=prefix_space)
    theirs.save_pretrained(tmp_path / "roberta")
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = AutoConfig.for_model("roberta", vocab_size=len(theirs), max_position_embeddings=66, **sizes)
    AutoModelForMaskedLM.from_config(config).save_pretrained(tmp_path / "roberta")
    model = training.load_with_head(str(tmp_path / "roberta"), "TokenClassification", ["a", "b"])
    training.save_folder(model, str(tmp_path / "roberta"), str(tmp_path / "saved"), {"more.json": [1]})
    first, saved = (AutoTokenizer.from_pretrained(tmp_path / name) for name in ("roberta", "saved"))
    assert type(saved) is type(first) and "Roberta" in type(saved).__name__
    assert saved.add_prefix_space == first.add_prefix_space == prefix_space
    for texts in (["the house", " of the people"], ["</s>", "cafe\u0301"]):
        assert saved(texts)["input_ids"] == first(texts)["input_ids"]
    same_tokenizer(common.load_tokenizer(str(tmp_path / "saved")), common.load_tokenizer(str(tmp_path / "roberta")))
    assert json.loads((tmp_path / "saved" / "more.json").read_text()) == [1]


def align_one(run, folder, tmp_path, text="the ||| the\n"):
    (tmp_path / "pairs").write_text(text, encoding="utf-8")
    return run("align", "--model", folder, "--input", tmp_path / "pairs", "--output", tmp_path / "links")


def said(done, *parts):
    """Check that a run ended in one line, which has these parts."""
    assert done.code == 2 and done.err.count("\n") == 1 and not done.out, done.err
    assert all(part in done.err for part in parts), done.err


@pytest.mark.parametrize("kind", ["none", "renamed", "sentencepiece", "small"])
def test_a_vocabulary_that_does_not_fit_is_said(run, tmp_path, tiny_model, copy, kind):
    """transformers makes one of special subwords alone where it finds no file; every word would be unknown."""
    folder = copy(tiny_model)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    for name in ("tokenizer.json", "tokenizer_config.json"):
        os.remove(folder / name)
    if kind == "renamed":
        (folder / "vocabulary.txt").write_text("\n".join(map(str, tokenizer["model"]["vocab"])))
    elif kind == "sentencepiece":
        spm = pytest.importorskip("sentencepiece")
        (tmp_path / "text").write_text("the people of the world\n" * 50)
        spm.SentencePieceTrainer.train(
            input=str(tmp_path / "text"), model_prefix=str(folder / "mine"), vocab_size=15, minloglevel=2
        )
    elif kind == "small":
        (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\n")
    said(align_one(run, folder, tmp_path), f"{folder}: its tokenizer knows", "expected tokenizer.json")


@pytest.mark.parametrize(
    "file", ["model.safetensors", "pytorch_model.bin", "tokenizer.json", "vocab.txt", "config.json", "align.json"]
)
def test_a_pointer_of_git_lfs_is_said(run, tmp_path, tiny_bert, copy, file):
    folder = copy(tiny_bert)
    for name in {"pytorch_model.bin": ["model.safetensors"], "vocab.txt": ["tokenizer.json"]}.get(file, ()):
        os.remove(folder / name)
    (folder / file).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n")
    said(align_one(run, folder, tmp_path), f"{folder}/{file}: is the pointer", "run `git lfs pull`")


def test_unknown_subwords_are_told_of_and_refused_where_nearly_all_are(run, tmp_path, tiny_bert):
    known = "the people ||| the people\n" * 30
    for unknown, told in (("", False), ("𐎀𐎁 ||| 𐎂\n", False), ("𐎀𐎁 ||| 𐎂\n𐎃 𐎄 ||| 𐎅 𐎆\n", True)):
        done = align_one(run, tiny_bert, tmp_path, known + unknown)
        assert done.code == 0
        assert (f"subwords are unknown to {tiny_bert}, such as 𐎀𐎁 𐎂" in done.err) == told
    said(align_one(run, tiny_bert, tmp_path, "𐎃 𐎄 𐎃 ||| 𐎅 𐎆\n"), "100.0 % of the input's 5 subwords are unknown", "𐎃 𐎄")
    (tmp_path / "dev-xx.tsv").write_text("𐎃\tNOUN\n" * 5)
    files = ["--train", tmp_path / "dev-xx.tsv", "--data-dir", tmp_path, "--output", tmp_path / "out"]
    said(run("train_pos", "--model", tiny_bert, *files), "100.0 % of the input's 10 subwords")


@pytest.mark.parametrize("option, value", [("do_lower_case", True), ("strip_accents", True), ("do_lower_case", False)])
def test_options_of_the_text_are_those_of_the_tokenizers_class(tiny_bert, copy, option, value):
    from transformers import AutoTokenizer

    folder = copy(tiny_bert)
    names = json.loads((folder / "tokenizer_config.json").read_text())
    text = json.loads((folder / "tokenizer.json").read_text())
    text["normalizer"]["lowercase"] = option == "do_lower_case" and not value
    (folder / "tokenizer.json").write_text(json.dumps(text))
    options = {"do_lower_case": False, "tokenizer_class": "BertTokenizer", option: value}
    (folder / "tokenizer_config.json").write_text(json.dumps({**names, **options}))
    ours, theirs = common.load_tokenizer(str(folder)), AutoTokenizer.from_pretrained(folder)
    sentences = [["Das", "Haus", "élan"], ["ÉCOLE"]]
    found = [ids for ids, _ in common.words_to_subwords(ours, sentences)]
    assert found == theirs(sentences, is_split_into_words=True, add_special_tokens=False)["input_ids"]
    text["normalizer"]["lowercase"] = options["do_lower_case"]
    text["normalizer"]["strip_accents"] = options.get("strip_accents")
    (folder / "tokenizer.json").write_text(json.dumps(text))
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    assert found == [ids for ids, _ in common.words_to_subwords(common.load_tokenizer(str(folder)), sentences)]


@pytest.mark.parametrize("kind, separators", [("BertTokenizer", ([2], [3])), ("PreTrainedTokenizerFast", ([], []))])
def test_separators_that_a_tokenizer_lacks_are_those_of_its_class_and_said(tiny_bert, copy, capsys, kind, separators):
    folder = copy(tiny_bert)
    for name, key, value in (
        ("tokenizer.json", "post_processor", None), ("tokenizer_config.json", "tokenizer_class", kind)
    ):  # fmt: skip
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**content, key: value}))
    tokenizer = common.load_tokenizer(str(folder))
    assert common.special_subwords(tokenizer) == separators
    shown = "[CLS] A [SEP]" if separators[0] else "A"
    assert f"tokenizer.json: has no post-processor; inputs are {shown}, as its class" in capsys.readouterr().err
    assert common.words_to_subwords(tokenizer, [["Das"]]) == common.words_to_subwords(
        common.load_tokenizer(tiny_bert), [["Das"]]
    )


@pytest.mark.parametrize("kind", ["bart", "mbart", "plbart", "t5", "mt5", "gpt2"])
def test_encoder_decoders_and_decoders_are_refused(run, tmp_path, tiny_bert, kind):
    from transformers import AutoConfig, AutoModel

    sizes = {"vocab_size": 2807, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "num_layers": 2, "d_kv": 8}
    sizes |= {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "num_heads": 4, "d_ff": 64, "n_embd": 32}
    sizes |= {"encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "n_layer": 2, "n_head": 4, "max_position_embeddings": 128}
    AutoModel.from_config(AutoConfig.for_model(kind, **sizes)).save_pretrained(tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(os.path.join(tiny_bert, name), tmp_path / "model")
    what = "as in a decoder" if kind == "gpt2" else f"a model of type {kind}, an encoder and a decoder"
    said(align_one(run, tmp_path / "model", tmp_path), what)
