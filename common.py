"""What several scripts share: loading an encoder, words to pieces, length-sorted batches, precision, data-parallel training.

Sentences are lists of words. A piece is a token of the model's vocabulary. Encoders are plain transformers models.
"""

import contextlib
import ctypes
import gc
import importlib.util
import json
import logging
import os
import shutil
import zlib

import numpy as np
import torch
import torch.distributed as dist

from data.cli import (
    InputError,
    check_writable,
    fraction,
    non_negative,
    open_output,
    positive,
    positive_float,
    random_seed,
    warn,
)

SENTENCEPIECE = {
    "sentencepiece": "sentencepiece",
    "protobuf": "google.protobuf",
}  # packages that read such files, their modules
CLIP = 1.0  # largest norm of the gradient
ENCODER = (
    "expected a BERT or XLM-R type Hugging Face folder (config.json, model.safetensors, tokenizer.json) or the name of one on a hub that "
    "is reachable"
)


# ---- the encoder -------------------------------------------------------------------------------


def load_tokenizer(name):
    """The fast tokenizer of a Hugging Face folder or hub name. Raises InputError where it has none."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    def load():
        settings = os.path.join(name, "tokenizer_config.json")
        if os.path.isfile(settings):
            with open(settings, encoding="utf-8") as stream:
                settings = json.load(stream)
            if (
                settings.get("tokenizer_class") == PreTrainedTokenizerFast.__name__
            ):  # AutoTokenizer reads its 17 MB five times
                return PreTrainedTokenizerFast(tokenizer_file=os.path.join(name, "tokenizer.json"), **settings)
        return AutoTokenizer.from_pretrained(name)

    tokenizer = load_pretrained(name, load)
    release_memory()  # loading made a second copy of 280 MB
    if not tokenizer.is_fast or tokenizer.pad_token_id is None or tokenizer.unk_token_id is None:
        raise InputError(f"{name}: no fast tokenizer with <pad> and <unk>; expected a BERT or XLM-R type of model")
    return tokenizer


def release_memory():
    """Hand memory that was freed back to the system; glibc would keep it."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def load_config(name):
    """The configuration of a Hugging Face folder or hub name. Raises InputError."""
    from transformers import AutoConfig

    return load_pretrained(name, lambda: AutoConfig.from_pretrained(name))


def load_encoder(name, layers=None, attention=None, pooler=False):
    """The encoder in float32 on the CPU; with `layers` only its first layers are built.

    attention: transformers' attn_implementation, 'eager' or 'sdpa' (None: its choice). pooler: with the dense layer over the first
    position, the checkpoint's, or one of random weights where it has none.

    The last hidden state of an encoder cut to N layers is the whole one's hidden state N: BERT and XLM-R normalise after
    each layer. Weights stay on disk until they are touched (safetensors are memory-mapped). Raises InputError.
    """
    from transformers import AutoModel
    from transformers.utils.logging import disable_progress_bar, set_verbosity_error

    settings = {"attn_implementation": attention}
    if layers is not None:
        settings["num_hidden_layers"] = layers
    set_verbosity_error()  # it reports every weight that it was told not to load
    disable_progress_bar()
    settings |= {"add_pooling_layer": pooler, "dtype": torch.float32, "output_loading_info": True}
    model, info = load_pretrained(name, lambda: AutoModel.from_pretrained(name, **settings))
    lost = sorted(key for key in info["missing_keys"] if not key.startswith("pooler."))  # a pooler may be new
    if lost:
        raise InputError(f"{name}: its weights lack {lost[0]} and {len(lost) - 1} more of the encoder's; {ENCODER}")
    return model.eval()


def load_whole(name):
    """The model in float32 with all that its folder holds: encoder, pooler, masked-language-model head. Raises InputError.

    Returns (model, missing): the names of the weights that the class has and the folder lacks; these are random.
    """
    from transformers import AutoModelForPreTraining
    from transformers.utils.logging import disable_progress_bar, set_verbosity_error

    set_verbosity_error()
    disable_progress_bar()
    model, info = load_pretrained(
        name, lambda: AutoModelForPreTraining.from_pretrained(name, dtype=torch.float32, output_loading_info=True)
    )
    return model.eval(), set(info["missing_keys"])


def load_pretrained(name, load, expected=ENCODER):
    """What load() returns. Raises InputError, with what was `expected`, for all that can be wrong with a folder or hub name."""
    if os.path.isdir(name) and not os.path.isfile(os.path.join(name, "config.json")):
        raise InputError(f"{name}: no config.json in this folder; {expected}")
    if not os.path.isdir(name) and (os.path.exists(name) or name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise InputError(f"{name}: no such model folder; {expected}")
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries; the error below says what came of them
    try:
        return load()
    except (
        Exception
    ) as error:  # transformers and its parts raise dozens of types for what is wrong in a folder or on a hub
        reason = " ".join((str(error).strip() or type(error).__name__).split())
    missing = [package for package, module in SENTENCEPIECE.items() if not importable(module)]
    if missing and any(
        word in reason.lower() for word in ("sentencepiece", "tiktoken", "protobuf")
    ):  # transformers may name another one
        raise InputError(
            f"{name}: its tokenizer is a SentencePiece file; run `pip install {' '.join(missing)}` to read it"
        )
    raise InputError(f"{name}: cannot be loaded as a model ({reason[:160]}); {expected}")


def importable(module):
    """Whether a module can be imported."""
    try:
        return bool(importlib.util.find_spec(module))
    except ModuleNotFoundError:  # of the package that it is in
        return False


def piece_limit(tokenizer, config):
    """How many pieces, special ones included, the encoder can take."""
    # XLM-R counts positions from the pad id + 1, so that many of its position embeddings are never used.
    unused = config.pad_token_id + 1 if config.model_type in ("roberta", "xlm-roberta", "camembert") else 0
    return min(tokenizer.model_max_length, config.max_position_embeddings - unused)


# ---- words to pieces ---------------------------------------------------------------------------


def words_to_pieces(tokenizer, sentences):
    """For each sentence (a list of words, at least one) its pieces without special ones: (ids, word), two lists.

    word[k] is the index of the word that piece k belongs to. Characters that the tokenizer drops have no piece.
    """
    encoded = tokenizer(
        sentences,
        is_split_into_words=True,
        add_special_tokens=False,
        verbose=False,
        return_attention_mask=False,
        return_token_type_ids=False,
    )
    return [(ids, encoded.word_ids(i)) for i, ids in enumerate(encoded["input_ids"])]


def special_pieces(tokenizer):
    """The special pieces before and after a single sentence, two lists of ids: ([CLS], [SEP]) or (<s>, </s>)."""
    encoded = tokenizer([["a"]], is_split_into_words=True, verbose=False)
    word = encoded.word_ids(0)
    inside = [k for k, index in enumerate(word) if index is not None]
    ids = encoded["input_ids"][0]
    return ids[: inside[0]], ids[inside[-1] + 1 :]


def bare_piece(tokenizer):
    """The id of the bare `▁` that XLM-R's tokenizers put before a word they have no joined piece for, or None."""
    index = tokenizer.convert_tokens_to_ids("\u2581")
    return None if index is None or index == tokenizer.unk_token_id else index


# ---- batches -------------------------------------------------------------------------------------


def length_sorted(lengths, budget):
    """Cut the indices of `lengths`, shortest first, into batches of at most `budget` padded pieces (at least one item)."""
    batches, batch = [], []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and lengths[index] * (len(batch) + 1) > budget:
            batches.append(batch)
            batch = []
        batch.append(index)
    return batches + [batch] if batch else batches


def shuffled_batches(lengths, size, generator):
    """Random batches of `size` items of like length: sorted within random pools of 50 batches, then shuffled.

    Padding nearly vanishes, and the order stays random from epoch to epoch. `generator` is a numpy Generator.
    """
    order = generator.permutation(len(lengths))
    pools = [order[i : i + 50 * size] for i in range(0, len(order), 50 * size)]
    order = np.concatenate([pool[np.argsort(np.asarray(lengths)[pool], kind="stable")] for pool in pools])
    batches = [order[i : i + size].tolist() for i in range(0, len(order), size)]
    return [batches[i] for i in generator.permutation(len(batches))]


def place_batch(pieces, batch):
    """Where a batch of sentences lies in flat arrays of pieces: (index, inside), two numpy (len(batch), longest).

    pieces.first, pieces.lengths: where each sentence begins, and how many pieces it has. Outside its sentence `inside` is False
    and `index` 0.
    """
    lengths = pieces.lengths[batch][:, None]
    place = np.arange(lengths.max())
    inside = place < lengths
    return np.where(inside, pieces.first[batch][:, None] + place, 0), inside


def pad(sequences, value):
    """A (len(sequences), longest) int64 tensor of lists of ints, filled up with `value`."""
    width = max(map(len, sequences))
    return torch.tensor([sequence + [value] * (width - len(sequence)) for sequence in sequences])


# ---- the machine ---------------------------------------------------------------------------------


def pick_device():
    """The GPU of this process where there is one, else the CPU."""
    return (
        torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if torch.cuda.is_available() else torch.device("cpu")
    )


def pick_precision(device):
    """'bf16' where the machine multiplies bfloat16 natively, else 'f32'."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "f32"
    flags = (
        getattr(torch.cpu, "_is_avx512_bf16_supported", bool)() or getattr(torch.cpu, "_is_amx_tile_supported", bool)()
    )
    return "bf16" if flags else "f32"


def autocast(device, precision):
    """A context in which matrix products run in `precision`, 'bf16' or 'f32'."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()


def store_linear_in_bf16(model):
    """Keep the weights of linear layers in bfloat16, for testing alone: autocast would cast them anew for every batch."""
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.to(torch.bfloat16)


# ---- training ------------------------------------------------------------------------------------


def add_training_arguments(parser, epochs):
    """The options that every train script has."""
    parser.add_argument(
        "--model", required=True, help="Hugging Face folder or hub name of a BERT or XLM-R type encoder"
    )
    parser.add_argument("--train", required=True, metavar="FILE", help="file to train on, in XTREME's layout")
    parser.add_argument(
        "--reordered",
        metavar="FILE",
        help="the same examples in another word order: each is trained on in both forms (--train itself: R-Drop)",
    )
    parser.add_argument(
        "--consistency",
        type=non_negative,
        default=0.0,
        metavar="WEIGHT",
        help="of the divergence between the predictions for the two forms, which is added to the loss",
    )
    parser.add_argument("--data-dir", required=True, metavar="DIR", help="folder of the dev files in XTREME's layout")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for predictions and scores.json")
    parser.add_argument(
        "--order",
        default="original",
        help="name of the word order of --train, for the report: original, a language, or a control",
    )
    parser.add_argument(
        "--aligner",
        default="none",
        help="name of the aligner that made the order, for the report: none, pretrained, separate or joint",
    )
    parser.add_argument("--langs", default="all", help="dev languages, such as en,hi; all: every dev file there")
    parser.add_argument("--epochs", type=positive, default=epochs, help="passes over the training data")
    parser.add_argument("--batch-size", type=positive, default=32, help="examples in a batch, over all processes")
    parser.add_argument("--lr", type=positive_float, default=2e-5, help="highest learning rate of AdamW")
    parser.add_argument(
        "--warmup", type=fraction, default=0.1, help="share of the steps in which the rate rises; then it falls to 0"
    )
    parser.add_argument("--weight-decay", type=fraction, default=0.0, help="of AdamW")
    parser.add_argument(
        "--max-length", type=positive, default=128, help="most pieces in an input, special ones included"
    )
    parser.add_argument(
        "--max-dev", type=positive, metavar="N", help="take the first N examples of each dev file (default: all)"
    )
    parser.add_argument("--seed", type=random_seed, default=1, help="of the new layers, the batches and dropout")
    parser.add_argument(
        "--save-every",
        type=positive,
        default=500,
        metavar="N",
        help="steps between checkpoints, from which a killed run goes on",
    )
    parser.add_argument(
        "--save", action="store_true", help="also write the fine-tuned model, a Hugging Face folder, to OUTPUT/model"
    )
    parser.add_argument(
        "--precision", choices=["bf16", "f32"], help="of matrix products (default: bf16 where the machine has it)"
    )


def check_consistency(args):
    """Raise InputError for --consistency or --permutations without a second form of the examples."""
    if args.consistency and not args.reordered:
        raise InputError("--consistency: compares two forms of every example; expected --reordered FILE too")
    if getattr(args, "permutations", None) and not args.reordered:
        raise InputError("--permutations: belongs to a second form of the examples; expected --reordered FILE too")


def check_output(args, below=False):
    """Raise InputError where a train script's output cannot be written, or would be written over the dev files.

    below: dev files are looked for at any depth, so that predictions anywhere below --data-dir would pass for them.
    """
    output, data = os.path.realpath(args.output), os.path.realpath(args.data_dir)
    if output == data or below and output.startswith(data + os.sep):
        raise InputError(
            f"{args.output}: lies in --data-dir {args.data_dir}, among the dev files; expected another folder"
        )
    check_writable(os.path.join(args.output, "scores.json"))


def symmetric_divergence(one, other):
    """½ (KL(p ‖ q) + KL(q ‖ p)) of the distributions p and q of two tensors of log probabilities, (N, C) each: (N,).

    R-Drop's regularisation (Liang et al. 2021, equation 2) with p and q from one input and two dropouts; xTune's example
    consistency (Zheng et al. 2021) with p and q from two forms of an example.
    """
    return 0.5 * ((one.exp() - other.exp()) * (one - other)).sum(1)


def update(optimizer, parameters, rate):
    """One step of the optimizer at a learning rate, with the gradients of all processes, clipped to the norm CLIP."""
    sum_gradients(parameters)
    torch.nn.utils.clip_grad_norm_(parameters, CLIP)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad()


def training_steps(lengths, args, start=0):
    """Yield (step, batch) from step `start` on, all of args.epochs epochs. An epoch's batches depend on the seed and its number alone."""
    per_epoch = -(-len(lengths) // args.batch_size)
    for epoch in range(start // per_epoch, args.epochs):
        batches = shuffled_batches(lengths, args.batch_size, np.random.default_rng([args.seed, epoch]))
        first = epoch * per_epoch
        yield from ((first + number, batch) for number, batch in enumerate(batches) if first + number >= start)


def write_scores(args, task, metric, precision, scores, langs, train):
    """Gather every process's `scores`, {language: metrics}; the first one writes scores.json in args.output and prints them.

    metric: the one that the report puts first; train: what scores.json says of the training.
    """
    if dist.is_initialized():
        gathered = [None] * dist.get_world_size()
        dist.all_gather_object(gathered, scores)
        scores = {lang: score for part in gathered for lang, score in part.items()}
        first = dist.get_rank() == 0
        dist.destroy_process_group()
        if not first:
            return
    content = {key: getattr(args, key) for key in ("model", "order", "aligner", "seed")}
    content = {"task": task, **content, "metric": metric, "dev": {lang: scores[lang] for lang in langs}, "train": train}
    with open_output(os.path.join(args.output, "scores.json")) as stream:
        json.dump({**content, "args": {**vars(args), "precision": precision}}, stream, indent=1)
    with contextlib.suppress(OSError):
        os.remove(checkpoint_path(args))  # the run is whole
    for lang in langs:
        numbers = [f"{name} {100 * value:5.1f}" for name, value in scores[lang].items() if name != "count"]
        print(f"{lang}  {'  '.join(numbers)}  ({scores[lang]['count']})")


def seed_everything(seed):
    """Fix torch's random numbers and, where it can be had, the order of its sums."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)


def seed_step(args, step, rank):
    """Make what a step draws at random (dropout) depend on the seed, the step and the process alone, so that a run can go on from any step."""
    torch.manual_seed(args.seed + 1_000_003 * step + 1000 * rank)


def trim_embeddings(encoder, used):
    """Keep only the embedding rows of the pieces in `used` and return the array that maps old ids to new ones.

    Rows that no file of a run mentions get no gradient and cannot change a score; without them AdamW walks a few thousand
    rows instead of XLM-R's 250,002. Ids up to the pad id keep their number, because XLM-R counts positions by it.
    """
    embeddings = encoder.get_input_embeddings()
    pad_id = encoder.config.pad_token_id or 0
    kept = np.array(sorted(set(used) | set(range(pad_id + 1))))
    check_fits(encoder, kept[-1])
    weight = embeddings.weight.detach()[torch.from_numpy(kept)].clone()
    encoder.set_input_embeddings(
        torch.nn.Embedding(len(kept), weight.shape[1], padding_idx=embeddings.padding_idx, _weight=weight)
    )
    for (
        parameter
    ) in encoder.parameters():  # copied out of the mapped file, so that the file's 250,002 rows can leave the memory
        parameter.data = parameter.data.clone()
    new_id = np.full(embeddings.num_embeddings, -1, np.int64)
    new_id[kept] = np.arange(len(kept))
    return new_id


def check_fits(encoder, piece):
    """Raise InputError where `piece`, the highest id that is used, has no embedding."""
    rows = encoder.get_input_embeddings().num_embeddings
    if piece >= rows:
        raise InputError(
            f"{encoder.name_or_path}: its tokenizer has piece {piece}, but its encoder {rows} embeddings; expected a tokenizer that fits"
        )


def linear_schedule(step, steps, warmup):
    """The share of the learning rate at a step (from 0): up over the first `warmup` share of the steps, then down to 0."""
    rise = max(1, round(steps * warmup))
    return min((step + 1) / rise, (steps - step) / max(1, steps - rise))


def start_distributed(device):
    """(rank, world size) of this process: (0, 1) unless torchrun started it."""
    if "RANK" not in os.environ:
        return 0, 1
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return dist.get_rank(), dist.get_world_size()


def checkpoint_path(args):
    """Where the checkpoint of a training lies."""
    return f"{args.output.rstrip('/')}.checkpoint"


def training_crc(args, arrays):
    """A number that tells one training from another: its options, its data and the weights that it begins with (numpy arrays)."""
    options = {key: value for key, value in vars(args).items() if key not in ("output", "save_every", "save")}
    crc = zlib.crc32(json.dumps(options, sort_keys=True).encode())
    for array in arrays:
        crc = zlib.crc32(np.ascontiguousarray(array), crc)
    return crc


def save_checkpoint(args, crc, modules, optimizer, **state):
    """Write a training's state whole: the weights of `modules`, {name: module}, the optimizer's, and what else it goes on from.

    crc tells which training it is of. Raises InputError.
    """
    state["weights"] = {name: module.state_dict() for name, module in modules.items()}
    state["optimizer"] = optimizer.state_dict()
    path = checkpoint_path(args)
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        torch.save({"crc": crc, "state": state}, temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); make room, then start again") from None
    finally:
        with contextlib.suppress(OSError):
            os.remove(temporary)


def load_checkpoint(args, crc, modules, optimizer):
    """What else save_checkpoint wrote, once weights and optimizer are as they were; None where there is none of this training.

    Raises InputError.
    """
    path = checkpoint_path(args)
    if not os.path.exists(path):
        return None
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        same, state = saved["crc"] == crc, saved["state"]
    except Exception as error:
        reason = " ".join(str(error).split())[:100]
        raise InputError(f"{path}: cannot be read as a checkpoint ({reason}); remove it to start again") from None
    if not same:
        warn(f"{path}: is of other settings, data or another model, and is not used")
        return None
    for name, module in modules.items():
        module.load_state_dict(state["weights"][name], strict=False)
    optimizer.load_state_dict(state["optimizer"])
    if os.environ.get("RANK", "0") == "0":
        warn(f"goes on after step {state['step']}, from {path}")
    return state


def put_weights(whole, weights, new_id):
    """Put an encoder's trained state dict into `whole`, a model of all the embedding rows. new_id: trim_embeddings' array, or None."""
    name = "embeddings.word_embeddings.weight"
    rows = slice(None) if new_id is None else torch.from_numpy(np.flatnonzero(new_id >= 0))
    whole.get_input_embeddings().weight.data[rows] = weights[name]
    whole.base_model.load_state_dict({key: value for key, value in weights.items() if key != name}, strict=False)


def save_model(args, kind, labels, encoder, new_id, heads):
    """Write the fine-tuned model to OUTPUT/model, a folder that transformers' AutoModelFor`kind` loads.

    labels: their names; heads: {name in that class: trained module}; new_id: trim_embeddings' array.
    """
    import transformers

    folder = os.path.join(args.output, "model")
    whole = getattr(transformers, f"AutoModelFor{kind}").from_pretrained(
        args.model, num_labels=len(labels), dtype=torch.float32
    )
    whole.config.id2label, whole.config.label2id = dict(enumerate(labels)), {label: n for n, label in enumerate(labels)}
    put_weights(whole, {key: value.cpu() for key, value in encoder.state_dict().items()}, new_id)
    for name, module in heads.items():
        whole.get_submodule(name).load_state_dict({key: value.cpu() for key, value in module.state_dict().items()})
    temporary = f"{folder}.{os.getpid()}.tmp"
    try:
        whole.save_pretrained(temporary)
        load_tokenizer(args.model).save_pretrained(temporary)
        replace_folder(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def replace_folder(temporary, folder):
    """Put a folder in another's place, which is whole or not there at any moment."""
    old = f"{folder}.{os.getpid()}.old"
    if os.path.isdir(folder):
        os.replace(folder, old)
    os.replace(temporary, folder)
    shutil.rmtree(old, ignore_errors=True)


def sum_gradients(parameters):
    """Add up the gradients over all processes, in one message. Without torchrun nothing happens."""
    if dist.is_initialized():
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        for p, summed in zip(parameters, flat.split([gradient.numel() for gradient in gradients])):
            p.grad = summed.view_as(p)
