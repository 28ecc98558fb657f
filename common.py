"""What several scripts share: loading an encoder and its tokenizer, length-sorted batches, precision.

A piece is a token of the model's vocabulary. Encoders are plain transformers models:
every one that AutoModel loads without code of its own and that has a hidden state for every piece.
"""

import contextlib
import ctypes
import gc
import importlib.util
import inspect
import json
import logging
import os
import sys

import numpy as np
import torch
import torch.distributed as dist

from data.cli import InputError

SENTENCEPIECE = {"sentencepiece": "sentencepiece", "protobuf": "google.protobuf"}  # readers of such files: modules
ENCODER = (
    "expected the Hugging Face folder of an encoder (config.json, model.safetensors, tokenizer.json), or its name on a "
    "hub that is reachable"
)
MOST_LAYERS = 1000  # of an encoder: more would take minutes to build and are a damaged config.json
USUAL_NAMES = {  # of the special pieces in a tokenizer.json, where no other file names them
    "unk_token": ("[UNK]", "<unk>"),
    "pad_token": ("[PAD]", "<pad>"),
    "mask_token": ("[MASK]", "<mask>"),
    "cls_token": ("[CLS]", "<s>"),
    "sep_token": ("[SEP]", "</s>"),
}


# ---- loading -------------------------------------------------------------------------------------


def load_pretrained(name, load, expected=ENCODER):
    """Return load(). Raises InputError, with what was `expected`, for all that can be wrong with a folder or hub
    name."""
    if os.path.isdir(name) and not os.path.isfile(os.path.join(name, "config.json")):
        raise InputError(f"{name}: no config.json in this folder; {expected}")
    if not os.path.isdir(name) and (os.path.exists(name) or name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise InputError(f"{name}: no such model folder; {expected}")
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries; the error below says what came of them
    try:
        with without_sklearn():
            from transformers.utils.logging import disable_progress_bar, set_verbosity_error

            set_verbosity_error()  # it reports every weight that it was told not to load
            disable_progress_bar()
            return load()
    except InputError:
        raise
    except Exception as error:  # transformers and its parts raise dozens of types
        reason = " ".join((str(error).strip() or type(error).__name__).split())
    missing = [package for package, module in SENTENCEPIECE.items() if not importable(module)]
    words = ("sentencepiece", "tiktoken", "protobuf")  # transformers may name another one than it lacks
    if missing and any(word in reason.lower() for word in words):
        raise InputError(
            f"{name}: its tokenizer is a SentencePiece file; run `pip install {' '.join(missing)}` to read it"
        )
    raise InputError(f"{name}: cannot be loaded as a model ({reason[:160]}); {expected}")


@contextlib.contextmanager
def without_sklearn():
    """Import transformers without scikit-learn: it takes a second where it is installed, and only generation uses
    it."""
    hidden = sys.modules.get("sklearn", False)
    sys.modules["sklearn"] = None
    try:
        yield
    finally:
        del sys.modules["sklearn"]
        if hidden is not False:
            sys.modules["sklearn"] = hidden


def importable(module):
    """Tell whether a module can be imported."""
    try:
        return bool(importlib.util.find_spec(module))
    except ModuleNotFoundError:  # of the package that it is in
        return False


def release_memory(collect=True):
    """Hand memory that was freed back to the system; glibc would keep it. collect: look for cycles first."""
    if collect:
        gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def load_tokenizer(name):
    """Return the fast tokenizer of a Hugging Face folder or hub name, as its tokenizer.json says. Raises InputError."""

    def load():
        tokenizer = read_tokenizer(name)
        unknown = tokenizer.mask_token_id if tokenizer.unk_token_id is None else tokenizer.unk_token_id
        return tokenizer, tokenizer.is_fast and None not in (tokenizer.pad_token_id, unknown)

    tokenizer, fit = load_pretrained(name, load)
    release_memory(collect=False)  # loading made a second copy of 280 MB
    if not fit:
        raise InputError(f"{name}: no fast tokenizer with a pad piece and an unknown or mask piece; {ENCODER}")
    return tokenizer


def read_tokenizer(name):
    """Read tokenizer.json, and the names of its special pieces from the files beside it; AutoTokenizer converts older
    files.

    AutoTokenizer would take three times as long, and lower-case for a cased BERT that has no tokenizer_config.json.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast
    from transformers.utils import cached_file

    def find(file):
        return cached_file(name, file, _raise_exceptions_for_missing_entries=False)

    path = find("tokenizer.json")
    if path is None:
        return AutoTokenizer.from_pretrained(name)
    found = {}
    for beside in filter(None, map(find, ("special_tokens_map.json", "tokenizer_config.json"))):
        with open(beside, encoding="utf-8") as stream:  # the first one is of transformers 4
            found |= {key: value for key, value in json.load(stream).items() if value is not None}
    names = {key: found[key] for key in (*USUAL_NAMES, "bos_token", "eos_token") if key in found}
    names = {key: value["content"] if isinstance(value, dict) else value for key, value in names.items()}
    limit = {key: found[key] for key in ("model_max_length",) if key in found}
    if not all(type(value) in (int, float) and value >= 1 for value in limit.values()):
        raise ValueError(f"model_max_length {limit['model_max_length']!r}: expected a number of pieces")
    limit = {key: int(min(value, 10**30)) for key, value in limit.items()}  # files may have floats, such as 1e30
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=path, **names, **limit)
    for key, contents in USUAL_NAMES.items():
        usual = [content for content in contents if tokenizer.backend_tokenizer.token_to_id(content) is not None]
        if not names and usual:
            setattr(tokenizer, key, usual[0])
    return tokenizer


def load_config(name):
    """Return the configuration of a Hugging Face folder or hub name. Raises InputError."""
    from transformers import AutoConfig

    config = load_pretrained(name, lambda: AutoConfig.from_pretrained(name))
    if not getattr(config, "num_hidden_layers", None) or not getattr(config, "hidden_size", None):
        raise InputError(f"{name}: a model of type {config.model_type}; {ENCODER}")
    if config.num_hidden_layers > MOST_LAYERS:
        raise InputError(f"{name}: its config.json speaks of {config.num_hidden_layers} layers; {ENCODER}")
    return config


def load_weights(name, auto_class, **settings):
    """Return (model, missing): auto_class.from_pretrained in float32 on the CPU, and the names of what the folder
    lacks.

    Weights stay on disk until they are touched (safetensors are memory-mapped). Raises InputError, also where the
    encoder's own weights are not all there.
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


def load_encoder(name, layers=None, attention=None):
    """Return the encoder in float32 on the CPU; with `layers` only its first layers are built.

    attention: transformers' attn_implementation (None: 'eager' without a GPU, where it is the faster one on short
    inputs, else transformers' choice). The last hidden state of an encoder cut to N layers is the whole one's hidden
    state N, without the normalisation that some families (ModernBERT, XLM-R XL) have after their last layer. Raises
    InputError.
    """
    from transformers import MODEL_MAPPING, AutoModel

    config = load_config(name)
    if type(config) not in MODEL_MAPPING:
        raise InputError(f"{name}: a model of type {config.model_type}; {ENCODER}")
    model_class = MODEL_MAPPING[type(config)]
    parameters = inspect.signature(getattr(model_class, "__init__", model_class)).parameters
    settings = {"add_pooling_layer": False} if "add_pooling_layer" in parameters else {}
    whole, layers = config.num_hidden_layers, min(layers or config.num_hidden_layers, config.num_hidden_layers)
    config.num_hidden_layers = layers
    if getattr(config, "layer_types", None):  # of each layer
        config.layer_types = config.layer_types[:layers]
    settings |= {"config": config, "attn_implementation": attention or pick_attention()}
    encoder, _ = load_weights(name, AutoModel, **settings)
    norm = final_norm(name, encoder)
    if norm and layers < whole:
        encoder.set_submodule(norm, torch.nn.Identity())
    return encoder


def pick_attention():
    """Return transformers' attn_implementation that is the faster one on short inputs."""
    return None if torch.cuda.is_available() else "eager"


# ---- inside an encoder -----------------------------------------------------------------------------


def final_norm(name, encoder):
    """Return the path of the layer norm between the last layer and the last hidden state, None where the family has
    none.

    It is found by a run on two pieces, which also shows that the encoder has a hidden state for each. Raises InputError
    if not.
    """
    calls = {}  # path of a module: its input and its output

    def note(path):
        def hook(_, inputs, output):
            output = output[0] if isinstance(output, tuple) and output else output
            calls[path] = inputs[0] if inputs else None, output

        return hook

    hooks = [module.register_forward_hook(note(path)) for path, module in encoder.named_modules()]
    try:
        with torch.inference_mode():
            state = encoder(input_ids=torch.tensor([[0, 2]]), attention_mask=torch.ones(1, 2).long()).last_hidden_state
        if state.shape != (1, 2, encoder.config.hidden_size):
            raise ValueError(f"its states have the shape {tuple(state.shape)}")
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"{name}: has no hidden state for each piece of a text ({reason}); {ENCODER}") from None
    finally:
        for hook in hooks:
            hook.remove()
    path, layers = layer_list(encoder)
    last = calls[f"{path}.{len(layers) - 1}"][1] if layers else None
    norms = [p for p, (before, after) in calls.items() if before is last and after is state and after is not last]
    return norms[0] if layers and norms else None


def layer_list(encoder):
    """Return (path, ModuleList) of an encoder's layers: the largest list of the configured length, (None, None) without
    one."""
    count = encoder.config.num_hidden_layers
    lists = [(path, module) for path, module in encoder.named_modules() if isinstance(module, torch.nn.ModuleList)]
    sized = [item for item in lists if len(item[1]) == count]
    return max(sized, key=lambda item: sum(p.numel() for p in item[1].parameters()), default=(None, None))


@contextlib.contextmanager
def first_layers(encoder, depth, norm):
    """Let an encoder run its first `depth` layers alone: in this context its last hidden state is the hidden state
    `depth`.

    norm: what final_norm says of it. The state dict within lacks what does not run.
    """
    path, layers = layer_list(encoder)
    if depth == len(layers):
        yield
        return
    kept = encoder.get_submodule(norm) if norm else None
    try:
        encoder.set_submodule(path, layers[:depth])
        if norm:
            encoder.set_submodule(norm, torch.nn.Identity())
        yield
    finally:
        encoder.set_submodule(path, layers)
        if norm:
            encoder.set_submodule(norm, kept)


def token_types(config, types):
    """Return the argument of an encoder that tells sentences apart, {} where it knows none. types: (B, L) of 0 and
    1."""
    return {"token_type_ids": types} if (getattr(config, "type_vocab_size", 0) or 0) > 1 else {}


def piece_limit(tokenizer, config):
    """Return how many pieces, special ones included, the encoder can take."""
    from transformers import AutoModel

    with torch.device("meta"):  # no memory, no time
        encoder = load_pretrained(config.name_or_path, lambda: AutoModel.from_config(config))
    positions = getattr(config, "max_position_embeddings", None) or tokenizer.model_max_length
    return min(tokenizer.model_max_length, positions - first_position(encoder))


def first_position(encoder):
    """Return the number of the first position: XLM-R's families count positions from the pad id + 1, others from 0."""
    embeddings = [m for path, m in encoder.named_modules() if path.endswith("position_embeddings")]
    return next((m.padding_idx + 1 for m in embeddings if getattr(m, "padding_idx", None) is not None), 0)


def trim_embeddings(encoder, used):
    """Keep only the embedding rows of the pieces in `used` and return the array that maps old ids to new ones.

    Rows that no file of a run mentions get no gradient and cannot change a score; without them AdamW walks a few
    thousand rows instead of XLM-R's 250,002. Where positions are counted by the pad id, ids up to it keep their number.
    """
    embeddings = encoder.get_input_embeddings()
    pad_id = embeddings.padding_idx if embeddings.padding_idx is not None else encoder.config.pad_token_id or 0
    kept = np.array(sorted({*used, pad_id, *range(first_position(encoder))}))
    check_fits(encoder, kept[-1])
    embeddings.weight = torch.nn.Parameter(embeddings.weight.detach()[torch.from_numpy(kept)])
    for parameter in encoder.parameters():  # copied out of the mapped file, so that its rows can leave the memory
        parameter.data = parameter.data.clone()
    new_id = np.full(embeddings.num_embeddings, -1, np.int64)
    new_id[kept] = np.arange(len(kept))
    embeddings.num_embeddings = len(kept)
    if embeddings.padding_idx is not None:
        embeddings.padding_idx = int(new_id[pad_id])
    return new_id


def check_fits(encoder, piece):
    """Raise InputError where `piece`, the highest id that is used, has no embedding."""
    rows = encoder.get_input_embeddings().num_embeddings
    if piece >= rows:
        raise InputError(
            f"{encoder.name_or_path}: its tokenizer has piece {piece}, but its encoder {rows} embeddings; "
            "expected a tokenizer that fits"
        )


# ---- batches -------------------------------------------------------------------------------------


def length_sorted(lengths, budget):
    """Cut the indices of `lengths`, shortest first, into batches of at most `budget` padded pieces (at least one
    item)."""
    batches, batch = [], []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and lengths[index] * (len(batch) + 1) > budget:
            batches.append(batch)
            batch = []
        batch.append(index)
    return batches + [batch] if batch else batches


def shuffled_batches(lengths, size, generator):
    """Return random batches of `size` items of like length: sorted within random pools of 50 batches, then shuffled.

    Padding nearly vanishes, and the order stays random from epoch to epoch. `generator` is a numpy Generator.
    """
    order = generator.permutation(len(lengths))
    pools = [order[i : i + 50 * size] for i in range(0, len(order), 50 * size)]
    order = np.concatenate([pool[np.argsort(np.asarray(lengths)[pool], kind="stable")] for pool in pools])
    batches = [order[i : i + size].tolist() for i in range(0, len(order), size)]
    return [batches[i] for i in generator.permutation(len(batches))]


def place_batch(pieces, batch):
    """Find a batch of sentences in flat arrays of pieces: (index, inside), two numpy (len(batch), longest).

    pieces.first, pieces.lengths: where each sentence begins, and how many pieces it has. Outside its sentence `inside`
    is False and `index` 0.
    """
    lengths = pieces.lengths[batch][:, None]
    place = np.arange(lengths.max())
    inside = place < lengths
    return np.where(inside, pieces.first[batch][:, None] + place, 0), inside


def pad(sequences, value):
    """Return a (len(sequences), longest) int64 tensor of lists of ints, filled up with `value`."""
    width = max(map(len, sequences))
    return torch.tensor([sequence + [value] * (width - len(sequence)) for sequence in sequences])


# ---- the machine ---------------------------------------------------------------------------------


def start_distributed(device):
    """Return (rank, world size) of this process: (0, 1) unless torchrun started it."""
    if "RANK" not in os.environ:
        return 0, 1
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


def pick_precision(device):
    """Return 'bf16' where the machine multiplies bfloat16 natively, else 'f32'."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "f32"
    flags = (
        getattr(torch.cpu, "_is_avx512_bf16_supported", bool)() or getattr(torch.cpu, "_is_amx_tile_supported", bool)()
    )
    return "bf16" if flags else "f32"


def autocast(device, precision):
    """Return a context in which matrix products run in `precision`, 'bf16' or 'f32'."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()


def store_linear_in_bf16(model):
    """Keep the weights of linear layers in bfloat16, for testing alone: autocast would cast them anew for every
    batch."""
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.to(torch.bfloat16)


