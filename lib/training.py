"""What the train scripts share: options, steps, learning rate, scores, saving."""

import contextlib
import json
import os
import shutil
import time

import numpy as np
import torch
import torch.distributed as dist
from tqdm import tqdm

import common
from data.cli import (
    InputError,
    check_writable,
    fraction,
    non_negative,
    open_output,
    positive,
    positive_float,
    random_seed,
)
from lib import checkpoints, heads

CLIP = 1.0  # largest norm of the gradient


# ---- options ---------------------------------------------------------------------------------------


def add_options(parser, epochs, lr=2e-5, max_length=128):
    """Add the options that every train script has."""
    parser.add_argument(
        "--model", required=True, help="Hugging Face folder or hub name of an encoder"
    )
    parser.add_argument("--train", required=True, metavar="FILE", help="file to train on, in XTREME's layout")
    parser.add_argument(
        "--reordered",
        metavar="FILE",
        help="the same examples in another word order: each is trained on in both (--train itself: R-Drop)",
    )
    parser.add_argument(
        "--consistency",
        type=non_negative,
        default=0.0,
        metavar="WEIGHT",
        help="of the divergence between the predictions for the two, which is added to the loss",
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
    parser.add_argument("--lr", type=positive_float, default=lr, help="highest learning rate of AdamW")
    parser.add_argument(
        "--warmup", type=fraction, default=0.1, help="fraction of the steps in which the rate rises; then it falls to 0"
    )
    parser.add_argument("--weight-decay", type=fraction, default=0.0, help="of AdamW")
    parser.add_argument(
        "--max-length", type=positive, default=max_length, help="most pieces in an input, special ones included"
    )
    parser.add_argument(
        "--max-dev", type=positive, metavar="N", help="take the first N examples of each dev file (default: all)"
    )
    parser.add_argument("--seed", type=random_seed, default=1, help="of the new layers, the batches and dropout")
    parser.add_argument(
        "--save-every",
        type=non_negative,
        default=10.0,
        metavar="MINUTES",
        help="time between checkpoints, from which a killed run goes on; 0: after every step",
    )
    parser.add_argument(
        "--save", action="store_true", help="also write the fine-tuned model, a Hugging Face folder, to OUTPUT/model"
    )
    parser.add_argument(
        "--precision", choices=["bf16", "f32"], help="of matrix products (default: bf16 where the machine has it)"
    )


def add_head_option(parser):
    """Add the option of those train scripts that can fit the head before training, see fit_last_layer."""
    parser.add_argument(
        "--head",
        choices=["fitted", "random"],
        default="fitted",
        help="start of the last layer: logistic regression on the untrained encoder, or random weights (XTREME)",
    )


def check_views(reordered, consistency, permutations=None):
    """Raise InputError for --consistency or --permutations without a second view of the examples."""
    if consistency and not reordered:
        raise InputError("--consistency: compares two forms of every example; expected --reordered FILE too")
    if permutations and not reordered:
        raise InputError("--permutations: belongs to a second form of the examples; expected --reordered FILE too")


def check_output(output, data_dir, below=False):
    """Raise InputError where a train script's output cannot be written, or would be written over the dev files.

    below: dev files are looked for at any depth, so that predictions anywhere below data_dir would pass for them.
    """
    inside, data = os.path.realpath(output), os.path.realpath(data_dir)
    if inside == data or below and inside.startswith(data + os.sep):
        raise InputError(f"{output}: lies in --data-dir {data_dir}, among the dev files; expected another folder")
    for path in ("scores.json", "model/config.json"):
        check_writable(os.path.join(output, path))
    check_writable(checkpoints.path_of(output))
    checkpoints.sweep(checkpoints.path_of(output))
    for name in ("model", "model.old"):
        checkpoints.sweep(os.path.join(output, name))


def dev_languages(langs, known, data_dir):
    """Return the languages that --langs names, or all that are `known`, each once. Raises InputError for one without
    dev file."""
    if langs == "all":
        return sorted(known)
    for lang in (named := list(dict.fromkeys(langs.split(",")))):
        if lang not in known:
            raise InputError(f"{data_dir}: no dev file of {lang}; expected one of {' '.join(sorted(known))}")
    return named


def input_limit(max_length, tokenizer, config, least):
    """Return the most pieces of an input. Raises InputError where that is fewer than `least`."""
    limit = min(max_length, common.piece_limit(tokenizer, config))
    if limit < least:
        raise InputError(f"--max-length {limit}: leaves no room for an input; expected {least} or more")
    return limit


# ---- one step after the other ------------------------------------------------------------------------


def seed_everything(seed):
    """Fix torch's random numbers and, where it can be had, the order of its sums."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # a kernel for each, which only finds mistakes


def seed_step(seed, step, rank):
    """Make what a step draws at random (dropout) depend on seed, step and process alone: a run can go on from any
    step."""
    torch.manual_seed(seed + 1_000_003 * step + 1000 * rank)


def steps(sizes, batch_size, epochs, seed, rank, state, save, minutes):
    """Yield (step, batch), batch being numbers of examples, from step state["step"] on to the end of all epochs.

    sizes: pieces of each example, by which batches are made and progress is shown. An epoch's batches depend on the
    seed and its number alone. state: {"step", "seconds"} is kept up to date; a "loss" put there is shown. Process 0
    calls save() when `minutes` have passed since it last did.
    """
    per_epoch = -(-len(sizes) // batch_size)
    tokens, done = int(np.sum(sizes)) * epochs, state["step"] / (epochs * per_epoch)
    started = saved = time.perf_counter()
    before, batches = state["seconds"], None
    look = {"unit": " tokens", "unit_scale": True, "desc": "train", "disable": None if rank == 0 else True}
    with tqdm(total=tokens, initial=int(tokens * done), **look) as bar:
        for step in range(state["step"], epochs * per_epoch):
            epoch, number = divmod(step, per_epoch)
            if number == 0 or batches is None:
                batches = common.shuffled_batches(sizes, batch_size, np.random.default_rng([seed, epoch]))
            yield step, batches[number]
            state |= {"step": step + 1, "seconds": before + time.perf_counter() - started}
            loss = state.pop("loss", None)
            if step % 20 == 19 and loss is not None and not bar.disable:  # reading the loss makes the GPU wait
                bar.set_postfix(loss=f"{float(loss):.3f}", refresh=False)
            bar.update(int(sum(sizes[n] for n in batches[number])))
            if rank == 0 and time.perf_counter() - saved >= 60 * minutes:
                save()
                saved = time.perf_counter()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    state["seconds"] = before + time.perf_counter() - started


def trim_inputs(encoder, inputs, pad_piece):
    """Trim an encoder to the pieces of `inputs`, lists of ids, which are renumbered in place. Returns trim_embeddings'
    array."""
    new_id = common.trim_embeddings(encoder, {pad_piece, *(piece for ids in inputs for piece in ids)})
    for ids in inputs:
        ids[:] = new_id[ids].tolist()
    return new_id


def linear_schedule(step, steps, warmup):
    """Return the fraction of the learning rate at a step (from 0): up over the first `warmup` of the steps, then down
    to 0."""
    rise = round(steps * warmup)
    return min((step + 1) / max(1, rise), (steps - step) / max(1, steps - rise))


def update(optimizer, parameters, rate):
    """Take one step of the optimizer at a learning rate, with the gradients of all processes, clipped to the norm CLIP.

    A group of the optimizer with a "factor" has that many times the rate.
    """
    sum_gradients(parameters)
    torch.nn.utils.clip_grad_norm_(parameters, CLIP)
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("factor", 1.0)
    optimizer.step()
    optimizer.zero_grad()


def sum_gradients(parameters):
    """Add up the gradients over all processes, in one message. Without torchrun nothing happens."""
    if dist.is_initialized():
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        for p, summed in zip(parameters, flat.split([gradient.numel() for gradient in gradients])):
            p.grad = summed.view_as(p)


def broadcast(module):
    """Give the weights that process 0 has to all processes."""
    if dist.is_initialized():
        for parameter in module.parameters():
            dist.broadcast(parameter.data, 0)


def fit_last_layer(model, passes, rank):
    """Start the last layer of a model with a head from logistic regression on what the untrained model gives it.

    LP-FT (Kumar et al. 2022). Tagging scatters less between seeds from there than from random weights, and a training
    for pairs that failed learnt from there (docs/results.md). passes: runs the model on a batch and yields (index,
    labels): which of the last layer's inputs count, and their labels, (N,); and
    so on. One process fits; all get what it found.
    """
    layer, states, labels = heads.last_layer(model), [], []
    hook = layer.register_forward_pre_hook(lambda _, inputs: states.append(inputs[0]))
    model.eval()
    if rank == 0:
        with torch.inference_mode():
            for index, found in passes:
                states[-1] = states[-1][index].float()
                labels.append(found)
        heads.fit_logistic_regression(layer, torch.cat(states).clone(), torch.cat(labels).clone())
    hook.remove()
    broadcast(layer)


def symmetric_divergence(one, other):
    """Return ½ (KL(p ‖ q) + KL(q ‖ p)), (N,), of distributions p and q given as log probabilities, (N, C) each.

    R-Drop's regularisation (Liang et al. 2021, equation 2) with p and q from one input and two dropouts; xTune's
    example consistency (Zheng et al. 2021) with p and q from two views of an example.
    """
    return 0.5 * ((one.exp() - other.exp()) * (one - other)).sum(1)


# ---- results -----------------------------------------------------------------------------------------


def describe_machine(precision, world):
    """Return what the numbers of a run depend on beside its options."""
    import transformers

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    return {"precision": precision, "threads": torch.get_num_threads(), "world": world, **versions, "device": device}


def withdraw_scores(output):
    """Remove the scores.json of a former run, whose predictions are replaced next: scores and predictions belong
    together."""
    with contextlib.suppress(FileNotFoundError):
        os.remove(os.path.join(output, "scores.json"))


def describe_training(examples, steps, tokens, seconds):
    """Return what scores.json says of the training; tokens are the pieces of all epochs."""
    return {"examples": examples, "steps": steps, "seconds": seconds, "tokens_per_second": tokens / seconds}


def write_scores(options, task, metric, machine, scores, langs, train):
    """Gather the scores of all processes, {language: metrics}; the first one writes OUTPUT/scores.json and prints them.

    options: of the command line, {name: value}. metric: the one that the report puts first. machine:
    describe_machine's. train: what scores.json says of the training.
    """
    if dist.is_initialized():
        gathered = [None] * dist.get_world_size()
        dist.all_gather_object(gathered, scores)
        scores = {lang: score for part in gathered for lang, score in part.items()}
        first = dist.get_rank() == 0
        dist.destroy_process_group()
        if not first:
            return
    content = {key: options[key] for key in ("model", "order", "aligner", "seed")}
    content = {"task": task, **content, "metric": metric, "dev": {lang: scores[lang] for lang in langs}, "train": train}
    with open_output(os.path.join(options["output"], "scores.json")) as stream:
        options = {**options, "precision": machine["precision"]}
        json.dump({**content, "machine": machine, "args": options}, stream, indent=1)
    with contextlib.suppress(OSError):
        os.remove(checkpoints.path_of(options["output"]))  # the run is whole
    for lang in langs:
        numbers = [f"{name} {100 * value:5.1f}" for name, value in scores[lang].items() if name != "count"]
        print(f"{lang}  {'  '.join(numbers)}  ({scores[lang]['count']})")


def save_model(name, kind, labels, model, new_id, folder):
    """Write a trained model of heads.load_with_head as a folder that transformers' AutoModelFor`kind` loads.

    name: the checkpoint that it was; new_id: trim_embeddings' array.
    """
    whole = heads.load_with_head(name, kind, labels)
    heads.put_weights(whole, model.state_dict(), new_id)
    save_folder(whole, common.load_tokenizer(name), folder)


def save_folder(model, tokenizer, folder):
    """Write a Hugging Face folder, which is whole or not there at any moment. Raises InputError."""
    folder = os.path.realpath(folder)  # a link stays what it is
    temporary = checkpoints.temporary_path(folder)
    try:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        replace_folder(temporary, folder)
    except Exception as error:  # safetensors and tokenizers have their own types for a full disk
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"{folder}: cannot be written ({reason})") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def replace_folder(temporary, folder):
    """Put a folder in another's place, which is whole or not there at any moment."""
    old = checkpoints.temporary_path(folder + ".old")
    if os.path.isdir(folder):
        os.replace(folder, old)
    os.replace(temporary, folder)
    shutil.rmtree(old, ignore_errors=True)
