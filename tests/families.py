"""Tiny models of random weights, one of each family of encoders, for tests."""

import functools
import os

from conftest import SHAPE, sample_words

import training

# model type of transformers: (tokenizer, how the configuration differs from a BERT of that size)
FAMILIES = {
    "bert": ("wordpiece", {}),
    "distilbert": ("wordpiece", {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 64}),
    "electra": ("wordpiece", {"embedding_size": 16}),
    "xlm-roberta": ("unigram", {"type_vocab_size": 1}),
    "camembert": ("bytes", {"type_vocab_size": 1}),
    "deberta-v2": (
        "unigram",
        {
            "relative_attention": True,
            "position_buckets": 16,
            "pos_att_type": ["p2c", "c2p"],
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "conv_kernel_size": 3,
            "type_vocab_size": 0,
            "position_biased_input": False,
        },
    ),
    "modernbert": ("bytes", {"global_attn_every_n_layers": 2}),
    "rembert": ("unigram", {"input_embedding_size": 16, "output_embedding_size": 24}),
    "xlm-roberta-xl": ("unigram", {"type_vocab_size": 1}),
    "roberta-prelayernorm": ("bytes", {"type_vocab_size": 1}),
    "gte": ("unigram", {"type_vocab_size": 1}),
    "jina_embeddings_v3": ("unigram", {"type_vocab_size": 1}),
    "eurobert": ("bytes", {"num_key_value_heads": 4}),
}
NAMES = {"bos": "<s>", "cls": "<s>", "eos": "</s>", "sep": "</s>", "unk": "<unk>", "pad": "<pad>", "mask": "<mask>"}


@functools.cache
def tokenizer_of(kind):
    """A `tokenizers` tokenizer and its special subwords {name: subword}."""
    from tokenizers import (
        Tokenizer,
        models,
        normalizers,
        pre_tokenizers,
        processors,
        trainers,
    )

    words = sample_words()[:6000]
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    if kind == "wordpiece":
        letters = sorted({letter for word in sample_words() for letter in word})
        tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *("##" + letter for letter in letters), "the"]
        tokenizer = Tokenizer(models.WordPiece({token: n for n, token in enumerate(tokens)}, unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
        return tokenizer, {name: f"[{name.upper()}]" for name in ("unk", "pad", "cls", "sep", "mask")}
    if kind == "unigram":
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
        )
        trainer = trainers.UnigramTrainer(
            vocab_size=900, special_tokens=special, unk_token="<unk>", show_progress=False
        )
    else:
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(
            vocab_size=900, special_tokens=special, show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )  # fmt: skip
    tokenizer.train_from_iterator([" ".join(words)], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer, NAMES


def build_family(family, folder):
    """Write a tiny model of a family, of random weights, with the head of its pretraining where it has one; returns the
    folder."""
    import torch
    from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

    kind, differences = FAMILIES[family]
    tokenizer, names = tokenizer_of(kind)
    named = {name + "_token": token for name, token in names.items()}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=128, **named).save_pretrained(folder)
    ids = {name: tokenizer.token_to_id(token) for name, token in names.items() if name not in ("unk", "mask")}
    sizes = {"vocab_size": tokenizer.get_vocab_size(), "max_position_embeddings": 130, **SHAPE}
    sizes |= {f"{name}_token_id": number for name, number in ids.items()}
    config = AutoConfig.for_model(family, **{**sizes, **differences})
    build = training.auto_class_for(config, "PreTraining") or training.auto_class_for(config, "MaskedLM") or AutoModel
    torch.manual_seed(0)
    build.from_config(config).save_pretrained(folder)
    assert os.path.exists(os.path.join(folder, "tokenizer.json"))
    return str(folder)
