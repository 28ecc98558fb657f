"""What the scripts that run an encoder share: loading it and its tokenizer, subwords, batches, the machine.

An encoder is any model that transformers' AutoModel loads without code of its own and that has a hidden state for every
subword. Sentences are lists of words.
"""

import collections
import contextlib
import ctypes
import functools
import gc
import importlib.metadata
import inspect
import json
import logging
import os
import sys

import numpy as np
import torch
import torch.distributed as dist

from data.files import LFS, InputError, check_content, one_line, warn

# transformers imports scikit-learn where it is installed: a second of every start, and only generation uses it.
sys.modules.setdefault("sklearn", None)
SENTENCEPIECE = ("sentencepiece", "protobuf")  # packages that read its files
ENCODER = (
    "expected the Hugging Face folder of an encoder (config.json, model.safetensors, tokenizer.json), or its name on a "
    "hub that is reachable"
)
FEW_UNKNOWN, EXAMPLES = 3, 5  # unknown subwords of a run that are not worth a line, and most examples in that line
WITHOUT_BF16 = ("deberta", "xmod")  # types that do not run in bfloat16 in transformers; deberta-v2 does
MOST_LAYERS = 1000  # of an encoder: more would take minutes to build and are a damaged config.json
# What tokenizer_config.json may say of the text against tokenizer.json.
TEXT_OPTIONS = ("do_lower_case", "strip_accents", "tokenize_chinese_chars", "keep_accents", "add_prefix_space")
USUAL_NAMES = {  # of the special subwords in a tokenizer.json that no other file names
    "unk_token": ("[UNK]", "<unk>"), "pad_token": ("[PAD]", "<pad>"), "mask_token": ("[MASK]", "<mask>"),
    "cls_token": ("[CLS]", "<s>"), "sep_token": ("[SEP]", "</s>"),
}  # fmt: skip


# ---- loading -------------------------------------------------------------------------------------


def load_pretrained(name, load, expected=ENCODER):
    """Return load(). Raises InputError, ending in `expected`, for anything wrong with a folder or hub name."""
    check_name(name)
    if os.path.isdir(name) and not os.path.isfile(os.path.join(name, "config.json")):
        raise InputError(f"{name}: no config.json in this folder; {expected}")
    if not os.path.isdir(name) and (os.path.exists(name) or name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise InputError(f"{name}: no such model folder; {expected}")
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it reports retries; the error below is enough
    try:
        from transformers.utils.logging import disable_progress_bar, set_verbosity_error

        set_verbosity_error()  # it reports every weight that it was told not to load
        disable_progress_bar()
        return load()
    except InputError:
        raise
    except Exception as error:  # transformers and its parts raise dozens of types
        reason = one_line(error) or type(error).__name__
    check_fetched(name)
    installed = {distribution.name for distribution in importlib.metadata.distributions()}
    missing = [package for package in SENTENCEPIECE if package not in installed]
    if missing and any(word in reason.lower() for word in ("sentencepiece", "tiktoken", "protobuf")):
        cure = f"run `pip install {' '.join(missing)}` to read it"
        raise InputError(f"{name}: its tokenizer is a SentencePiece file; {cure}")
    raise InputError(f"{name}: cannot be loaded as a model ({reason[:160]}); {expected}")


def check_name(folder):
    """Raise InputError where the name of a model's folder is not UTF-8."""
    if os.fsencode(folder).decode(errors="replace") != folder:
        raise InputError(f"{folder}: this name is not UTF-8, as transformers needs it; rename it")


def check_fetched(name):
    """Raise InputError where a file of a model folder is the pointer that Git LFS leaves in place of a large file."""
    for file in sorted(os.listdir(name)) if os.path.isdir(name) else ():
        if os.path.isfile(path := os.path.join(name, file)):
            with open(path, "rb") as stream:
                start = stream.read(len(LFS))
            if start == LFS:  # PyTorch's own files look like zip archives
                check_content(path, start)


def release_memory(collect=True):
    """Hand memory that was freed back to the system; glibc would keep it. collect: look for cycles first."""
    if collect:
        gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def find_file(name, file):
    """Return the path of a file of a Hugging Face folder or hub name, None where it has none."""
    from transformers.utils import cached_file

    return cached_file(name, file, _raise_exceptions_for_missing_entries=False)


def load_tokenizer(name):
    """Return the fast tokenizer of a Hugging Face folder or hub name, as its tokenizer.json says. Raises InputError."""
    rows = getattr(load_config(name), "vocab_size", None) or 0
    tokenizer = load_pretrained(name, lambda: read_tokenizer(name))
    release_memory(collect=False)  # loading made a second copy of 280 MB
    if len(tokenizer) < rows / 2:  # transformers makes a vocabulary of special subwords alone where it finds no file
        check_fetched(name)
        wrong = f"its tokenizer knows {len(tokenizer)} subwords, but its encoder has {rows} embeddings"
        raise InputError(f"{name}: {wrong}; expected tokenizer.json, or the vocabulary under its usual name")
    if not tokenizer.is_fast or None in (tokenizer.pad_token_id, unknown_subword(tokenizer)):
        raise InputError(f"{name}: no fast tokenizer with a padding and an unknown or mask subword; {ENCODER}")
    return tokenizer


def read_tokenizer(name):
    """Return the tokenizer of a tokenizer.json, its special subwords named by the files beside it.

    AutoTokenizer, which also converts older files, would take three times as long, and lower-case for a cased BERT that
    has no tokenizer_config.json. Where this file has options of the text, or tokenizer.json has no separators, the
    tokenizer is AutoTokenizer's: its class knows them.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    path = find_file(name, "tokenizer.json")
    found = {}
    for file in ("special_tokens_map.json", "tokenizer_config.json"):  # the first one is of transformers 4
        if beside := find_file(name, file):
            with open(beside, encoding="utf-8") as stream:
                found |= {key: value for key, value in json.load(stream).items() if value is not None}
    if path is None:
        return AutoTokenizer.from_pretrained(name)
    names = {key: found[key] for key in (*USUAL_NAMES, "bos_token", "eos_token") if key in found}
    names = {key: value["content"] if isinstance(value, dict) else value for key, value in names.items()}
    limit = found.get("model_max_length", 1e30)
    if type(limit) not in (int, float) or not limit >= 1:
        raise ValueError(f"model_max_length {limit!r}: expected a number of subwords")
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=path, model_max_length=int(min(limit, 1e30)), **names)
    for key, contents in USUAL_NAMES.items() if not names else ():
        usual = [content for content in contents if tokenizer.backend_tokenizer.token_to_id(content) is not None]
        if usual:
            setattr(tokenizer, key, usual[0])
    bare = special_subwords(tokenizer) == ([], [])
    if not found.keys().isdisjoint(TEXT_OPTIONS):
        tokenizer = AutoTokenizer.from_pretrained(name)
    elif bare:
        theirs = AutoTokenizer.from_pretrained(name).backend_tokenizer.post_processor
        tokenizer.backend_tokenizer.post_processor = theirs
    if bare:
        before, after = map(tokenizer.convert_ids_to_tokens, special_subwords(tokenizer))
        added = f"inputs are {' '.join([*before, 'A', *after])}, as its class in this transformers says"
        warn(f"{path}: has no post-processor; {added}")
    return tokenizer


def load_config(name):
    """Return the configuration of a Hugging Face folder or hub name. Raises InputError."""
    from transformers import AutoConfig

    config = load_pretrained(name, lambda: AutoConfig.from_pretrained(name))
    if not getattr(config, "num_hidden_layers", None) or not getattr(config, "hidden_size", None):
        raise InputError(f"{name}: a model of type {config.model_type}; {ENCODER}")
    if config.is_encoder_decoder:
        raise InputError(f"{name}: a model of type {config.model_type}, an encoder and a decoder; {ENCODER}")
    if config.num_hidden_layers > MOST_LAYERS:
        raise InputError(f"{name}: its config.json speaks of {config.num_hidden_layers} layers; {ENCODER}")
    return config


def load_weights(name, auto_class, **settings):
    """Return (model, missing): auto_class.from_pretrained in float32 on the CPU, and the weights that the folder lacks.

    Weights stay on disk until they are touched (safetensors are memory-mapped). Raises InputError, also where some of
    the encoder's own weights are missing.
    """
    settings |= {"dtype": torch.float32, "output_loading_info": True}
    model, info = load_pretrained(name, lambda: auto_class.from_pretrained(name, **settings))
    prefix = "" if model.base_model is model else model.base_model_prefix + "."
    encoder = {prefix + key for key in model.base_model.state_dict() if "pooler." not in key}  # a pooler may be new
    mismatched = {key if isinstance(key, str) else key[0] for key in info.get("mismatched_keys") or ()}
    lost = {*info["missing_keys"], *mismatched}
    if inside := sorted(lost & encoder):
        raise InputError(f"{name}: its weights lack {inside[0]} and {len(inside) - 1} more of the encoder's; {ENCODER}")
    return model.eval(), lost


def pick_attention():
    """Return transformers' attn_implementation that is faster on short inputs."""
    return None if torch.cuda.is_available() else "eager"


def load_encoder(name, layers=None):
    """Return the encoder in float32 on the CPU; with `layers` only its first layers run.

    The last hidden state is then the whole encoder's hidden state of that number, which in some families (ModernBERT,
    XLM-R XL) is without the normalisation that follows the last layer. Raises InputError.
    """
    from transformers import MODEL_MAPPING, AutoModel

    config = load_config(name)
    if type(config) not in MODEL_MAPPING:
        raise InputError(f"{name}: a model of type {config.model_type}; {ENCODER}")
    model_class = MODEL_MAPPING[type(config)]
    parameters = inspect.signature(getattr(model_class, "__init__", model_class)).parameters
    settings = {"add_pooling_layer": False} if "add_pooling_layer" in parameters else {}
    encoder, _ = load_weights(name, AutoModel, attn_implementation=pick_attention(), **settings)
    cut_layers(encoder, layers or config.num_hidden_layers, find_layers(name, encoder))
    return encoder


def find_layers(name, encoder):
    """Return (path, norm) of an encoder: those of its list of layers, None where this cannot be cut, and of the layer
    norm between the last layer and the last hidden state, None without one.

    Runs on two subwords find them. Raises InputError where they show that it has no hidden state for each subword of a
    text, or one that does not depend on the subwords that follow.
    """
    count, calls = encoder.config.num_hidden_layers, {}  # path of a module: its input and its output

    def note(path, _, inputs, output):
        output = output[0] if isinstance(output, tuple) and output else output
        calls[path] = inputs[0] if inputs else None, output

    def run(last):
        ids = torch.tensor([[0, last]])
        return encoder(input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True)

    def found(path):
        """Tell whether the encoder cut to one layer gives the hidden state of the first."""
        undo = cut_layers(encoder, 1, (path, norm))
        try:
            return torch.allclose(run(2).last_hidden_state, states[1], atol=1e-5)
        except Exception:  # a family that counts its layers
            return False
        finally:
            undo()

    hooks = [module.register_forward_hook(functools.partial(note, path)) for path, module in encoder.named_modules()]
    try:
        with torch.inference_mode():
            other, made = run(0).last_hidden_state, run(2)
        state, states = made.last_hidden_state, made.hidden_states or ()
        if state.shape != (1, 2, encoder.config.hidden_size):
            raise ValueError(f"its states have the shape {tuple(state.shape)}")
        if len(states) != count + 1:
            raise ValueError(f"it has {len(states)} hidden states and {count} layers")
        if torch.allclose(state[0, 0], other[0, 0], rtol=0, atol=1e-5 * float(state.abs().max())):
            raise ValueError("they do not depend on the subwords that follow, as in a decoder")
    except Exception as error:
        wrong = f"has no hidden state for each subword of a text ({one_line(error)[:160]})"
        raise InputError(f"{name}: {wrong}; {ENCODER}") from None
    finally:
        for hook in hooks:
            hook.remove()
    lists = [(path, m) for path, m in encoder.named_modules() if isinstance(m, torch.nn.ModuleList) and len(m) == count]
    path = max(lists, key=lambda item: sum(p.numel() for p in item[1].parameters()), default=(None, None))[0]
    last = calls.get(f"{path}.{count - 1}", (None, None))[1]
    norms = [p for p, (before, after) in calls.items() if before is last and after is state and after is not last]
    norm = norms[0] if last is not None and norms else None
    with torch.inference_mode():
        return path if path and (count == 1 or found(path)) else None, norm


def cut_layers(encoder, depth, layers):
    """Let an encoder run its first `depth` layers alone; returns a function that undoes this. layers: find_layers'.

    Where the list of layers cannot be cut (ALBERT runs one many times), all run, and the hidden state is picked.
    """
    from transformers.modeling_outputs import BaseModelOutput

    count, (path, norm) = encoder.config.num_hidden_layers, layers
    if depth >= count:
        return lambda: None
    if path is None:
        forward = encoder.forward

        def first(**inputs):
            states = forward(**{**inputs, "output_hidden_states": True}).hidden_states
            return BaseModelOutput(last_hidden_state=states[depth], hidden_states=states)

        encoder.forward = first
        return functools.partial(setattr, encoder, "forward", forward)
    replaced = {path: encoder.get_submodule(path)[:depth], **({norm: torch.nn.Identity()} if norm else {})}
    kept = {name: encoder.get_submodule(name) for name in replaced}

    def put(modules, count):
        for name, module in modules.items():
            encoder.set_submodule(name, module)
        encoder.config.num_hidden_layers = count

    put(replaced, depth)
    return functools.partial(put, kept, count)


def token_types(config, types):
    """Return the argument that tells an encoder which sentence a subword is of, {} if it has none. types: (B, L)."""
    return {"token_type_ids": types} if (getattr(config, "type_vocab_size", 0) or 0) > 1 else {}


def subword_limit(tokenizer, config):
    """Return the most subwords, special ones included, that the encoder can take."""
    from transformers import AutoModel

    with torch.device("meta"):  # no memory, no time
        encoder = load_pretrained(config.name_or_path, lambda: AutoModel.from_config(config))
    positions = getattr(config, "max_position_embeddings", None) or 0
    limit = tokenizer.model_max_length
    return min(limit, positions - first_position(encoder)) if positions > 0 else limit  # XLNet says -1


def first_position(encoder):
    """Return the number of the first position: XLM-R's family counts positions from the pad id + 1, others from 0."""
    embeddings = [m for path, m in encoder.named_modules() if path.endswith("position_embeddings")]
    return next((m.padding_idx + 1 for m in embeddings if getattr(m, "padding_idx", None) is not None), 0)


def check_fits(encoder, subword):
    """Raise InputError where `subword`, the highest id in use, has no embedding."""
    rows = len(encoder.get_input_embeddings().weight)
    if subword >= rows:
        wrong = f"its tokenizer has subword {subword}, but its encoder {rows} embeddings"
        raise InputError(f"{encoder.name_or_path}: {wrong}; expected a tokenizer that fits")


def trim_embeddings(encoder, used):
    """Keep only the embedding rows of the subwords in `used` and return the array that maps old ids to new ones.

    Rows that no file of a run mentions get no gradient and cannot change a score; without them AdamW walks a few
    thousand rows instead of XLM-R's 250,002. Where positions are counted from the pad id, ids up to it stay.
    """
    embeddings = encoder.get_input_embeddings()
    pad_id = embeddings.padding_idx if embeddings.padding_idx is not None else encoder.config.pad_token_id or 0
    kept, rows = np.array(sorted({*used, pad_id, *range(first_position(encoder))})), len(embeddings.weight)
    check_fits(encoder, kept[-1])
    embeddings.weight = torch.nn.Parameter(embeddings.weight.detach()[torch.from_numpy(kept)])
    for parameter in encoder.parameters():  # copied out of the mapped file, so that its rows can leave the memory
        parameter.data = parameter.data.clone()
    new_id = np.full(rows, -1, np.int64)
    new_id[kept] = np.arange(len(kept))
    embeddings.num_embeddings = len(kept)
    if embeddings.padding_idx is not None:
        embeddings.padding_idx = int(new_id[pad_id])
    return new_id


def trim_inputs(encoder, inputs, pad_id):
    """Trim an encoder to the subwords of `inputs`, lists of ids that are renumbered in place. Returns trim_embeddings'
    array and the new pad id."""
    new_id = trim_embeddings(encoder, {pad_id, *(id for ids in inputs for id in ids)})
    for ids in inputs:
        ids[:] = new_id[ids].tolist()
    return new_id, int(new_id[pad_id])


# ---- subwords ------------------------------------------------------------------------------------


def tokenize(tokenizer, texts, words=False):
    """Return the subwords of texts, or of lists of `words`, without special ones: a list of tokenizers.Encoding.

    Text stays text: `</s>` in it is never the special subword of that name. A unigram vocabulary holds such names, so
    that it would still find them; they become their letters, see spell_out.
    """
    settings = {"is_split_into_words": words, "add_special_tokens": False, "split_special_tokens": True}
    return tokenizer(texts, verbose=False, **settings).encodings


def count_unknown(tokenizer, texts, parts):
    """Count the subwords of `texts`, which tokenize made `parts` of, and the unknown ones, for check_known."""
    found, unknown = vars(tokenizer).setdefault("found", collections.Counter()), tokenizer.unk_token_id
    for text, part in zip(texts, parts):
        found["all"] += len(part.ids)
        for place in [k for k, id in enumerate(part.ids) if id == unknown] if unknown in part.ids else ():
            found["unknown"] += 1
            if len(found) < 2 + EXAMPLES:
                owner = text if isinstance(text, str) else text[part.word_ids[place]]
                found["text " + owner[slice(*part.offsets[place])].strip()] += 1


def check_known(name, tokenizer):
    """Say how many of the input's subwords are unknown to the tokenizer of the model `name`, if more than a few are.

    Raises InputError where nearly all are: every word would look the same to the encoder.
    """
    found = vars(tokenizer).get("found", collections.Counter())
    fraction = found["unknown"] / max(1, found["all"])
    if found["unknown"] > FEW_UNKNOWN and fraction > 0.01:
        what = f"{100 * fraction:.1f} % of the input's {found['all']} subwords are unknown to {name}"
        what += "".join([", such as", *(key[4:] for key in found if key.startswith("text "))]) * (len(found) > 2)
        if fraction > 0.9:
            raise InputError(f"{what}; expected a model with a vocabulary for this text")
        if os.environ.get("RANK", "0") == "0":
            warn(what)


def spell_out(tokenizer, ids, *others):
    """Replace special subwords among the ids of a text by the subwords of their letters.

    others: lists beside `ids`, such as the words of its subwords, whose values are repeated. Returns all these lists.
    """
    special = {id for id, token in tokenizer.added_tokens_decoder.items() if token.special} - {tokenizer.unk_token_id}
    if special.isdisjoint(ids):
        return (ids, *others)
    rows = []
    for id, *values in zip(ids, *others):
        letters = tokenizer.convert_tokens_to_ids(list(tokenizer.convert_ids_to_tokens(id))) if id in special else [id]
        rows += [(unknown_subword(tokenizer) if letter is None else letter, *values) for letter in letters]
    return tuple(map(list, zip(*rows)))


def words_to_subwords(tokenizer, sentences):
    """Return (ids, word) for each sentence, a list of words: its subwords without special ones, and the index of the
    word of each. Characters that the tokenizer drops have no subword.

    Byte-level tokenizers, which know a word's beginning by the space before it, are given that space.
    """
    if tokenize(tokenizer, ["a a"])[0].ids != tokenize(tokenizer, [["a", "a"]], words=True)[0].ids:
        sentences = [[" " + word for word in words] for words in sentences]
    parts = tokenize(tokenizer, sentences, words=True)
    count_unknown(tokenizer, sentences, parts)
    return [spell_out(tokenizer, part.ids, part.word_ids) for part in parts]


def texts_to_subwords(tokenizer, texts):
    """Return for each text the ids of its subwords without special ones."""
    parts = tokenize(tokenizer, texts)
    count_unknown(tokenizer, texts, parts)
    return [spell_out(tokenizer, part.ids)[0] for part in parts]


def special_subwords(tokenizer):
    """Return the ids before and after a single sentence, two lists: ([CLS], [SEP]) or (<s>, </s>)."""
    encoded = tokenizer([["a"]], is_split_into_words=True, verbose=False)
    inside = [k for k, index in enumerate(encoded.word_ids(0)) if index is not None]
    ids = encoded["input_ids"][0]
    return ids[: inside[0]], ids[inside[-1] + 1 :]


def special_pair_subwords(tokenizer):
    """Return the ids before, between and after two sentences, three lists, and the second one's token type."""
    encoded = tokenizer("a", "b", return_token_type_ids=True)
    sequence, ids = encoded.sequence_ids(0), encoded["input_ids"]
    a, b = ([k for k, of in enumerate(sequence) if of == side] for side in (0, 1))
    return ids[: a[0]], ids[a[-1] + 1 : b[0]], ids[b[-1] + 1 :], encoded["token_type_ids"][b[0]]


def bare_subword(tokenizer):
    """Return the id of the bare `▁`, which XLM-R's tokenizers put before words without a joined subword, or None."""
    index = tokenizer.convert_tokens_to_ids("\u2581")
    return None if index is None or index == tokenizer.unk_token_id else index


def unknown_subword(tokenizer):
    """Return the id for text that no subword covers: <unk>, or <mask> in byte-level vocabularies without it."""
    return tokenizer.mask_token_id if tokenizer.unk_token_id is None else tokenizer.unk_token_id


# ---- batches -------------------------------------------------------------------------------------


def length_sorted(lengths, budget):
    """Cut the indices of `lengths`, shortest first, into batches of at most `budget` padded subwords, or one item."""
    batches, batch = [], []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and lengths[index] * (len(batch) + 1) > budget:
            batches.append(batch)
            batch = []
        batch.append(index)
    return batches + [batch] if batch else batches


def shuffled_batches(lengths, size, generator):
    """Return batches of `size` items of similar length, in random order: sorted within random pools of 50 batches.

    Padding nearly vanishes, and batches differ from epoch to epoch. `generator` is a numpy Generator.
    """
    order = generator.permutation(len(lengths))
    pools = [order[i : i + 50 * size] for i in range(0, len(order), 50 * size)]
    order = np.concatenate([pool[np.argsort(np.asarray(lengths)[pool], kind="stable")] for pool in pools])
    batches = [order[i : i + size].tolist() for i in range(0, len(order), size)]
    return [batches[i] for i in generator.permutation(len(batches))]


def place_batch(flat, batch):
    """Return (index, mask), both numpy (B, L), that gather a padded batch of sentences from flat arrays of subwords.

    flat.first, flat.lengths: where each sentence begins, and how many subwords it has. Outside its sentence `mask` is
    False and `index` 0.
    """
    lengths = flat.lengths[batch][:, None]
    place = np.arange(lengths.max())
    mask = place < lengths
    return np.where(mask, flat.first[batch][:, None] + place, 0), mask


def pad(sequences, value):
    """Return a (len(sequences), longest) int64 tensor of lists of ints, filled up with `value`."""
    width = max(map(len, sequences))
    return torch.tensor([sequence + [value] * (width - len(sequence)) for sequence in sequences])


# ---- the machine ---------------------------------------------------------------------------------


def start_distributed(device):
    """Return (rank, world size) of this process: (0, 1) unless torchrun started it. Raises InputError."""
    if "RANK" not in os.environ:
        return 0, 1
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        wrong = "RANK is set in the environment, but torchrun did not start this process"
        raise InputError(f"{wrong}; expected `torchrun --nproc_per_node N SCRIPT ...`, or `unset RANK`")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return dist.get_rank(), dist.get_world_size()


def pick_device():
    """Return the GPU of this process where there is one, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    torch.backends.cuda.enable_cudnn_sdp(False)  # it plans anew, a tenth of a second, for every length of a batch
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))


def pick_precision(device, name=None):
    """Return 'bf16' where the machine multiplies bfloat16 natively and the encoder `name` can, else 'f32'."""
    if name and load_config(name).model_type in WITHOUT_BF16:
        return "f32"
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "f32"
    native = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return "bf16" if any(getattr(torch.cpu, name, bool)() for name in native) else "f32"


def autocast(device, precision):
    """Return a context in which matrix products run in `precision`, 'bf16' or 'f32'."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()


def store_linear(model, precision):
    """Keep the weights of linear layers in `precision`, for testing alone: autocast would cast them for every batch."""
    for module in model.modules():
        if precision == "bf16" and isinstance(module, torch.nn.Linear):
            module.to(torch.bfloat16)
