"""What the trainings share: options, models with a head, steps and their losses, checkpoints, scores."""

import json
import math
import os
import shutil
import time
import warnings
import zlib

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from tqdm import tqdm

import common
import versions
from data.files import (
    InputError, check_writable, fraction, non_negative, one_line, open_output, positive, positive_float, random_seed,
    remove, warn, whole,
)  # fmt: skip

TOKENIZER_FILES = (
    "tokenizer.json tokenizer_config.json special_tokens_map.json added_tokens.json vocab.txt vocab.json merges.txt "
    "sentencepiece.bpe.model spiece.model spm.model tokenizer.model"
).split()
HEADS = {  # kinds of heads: names in transformers' classes, and in its mappings
    "PreTraining": "PRETRAINING", "MaskedLM": "MASKED_LM", "TokenClassification": "TOKEN_CLASSIFICATION",
    "SequenceClassification": "SEQUENCE_CLASSIFICATION", "QuestionAnswering": "QUESTION_ANSWERING",
}  # fmt: skip
LBFGS_STEPS, L2_PENALTY = 60, 1e-4  # of a fitted head
CLIP = 1.0  # largest norm of the gradient
RECORDS = 20  # of the loss in a training


# ---- options --------------------------------------------------------------------------------------


def add_options(parser, epochs, lr=2e-5, max_length=128):
    """Add the options that every train script has."""
    add = parser.add_argument
    add("--model", required=True, help="Hugging Face folder or hub name of an encoder")
    add("--train", required=True, metavar="FILE", help="file to train on, in XTREME's layout")
    add("--data-dir", required=True, metavar="DIR", help="folder of the dev files in XTREME's layout")
    add("--output", required=True, metavar="DIR", help="folder for predictions and scores.json")
    add("--order", default="original", help="name of the word order of --train, for the report")
    add("--aligner", default="none", help="name of the aligner that made the order, for the report")
    add("--langs", default="all", help="dev languages, such as en,hi; all: every dev file there")
    add("--epochs", type=positive, default=epochs, help="passes over the training data")
    add("--batch-size", type=positive, default=32, help="examples in a batch, over all processes")
    add("--lr", type=positive_float, default=lr, help="highest learning rate of AdamW")
    add("--warmup", type=fraction, default=0.1, help="fraction of the steps in which the rate rises; then it falls")
    add("--weight-decay", type=fraction, default=0.0, help="weight decay of AdamW")
    add("--max-length", type=positive, default=max_length, help="most subwords in an input, special ones included")
    add("--max-dev", type=positive, metavar="N", help="take the first N examples of each dev file (default: all)")
    add("--seed", type=random_seed, default=1, help="seed of the new layers, the batches and dropout")
    add("--save", action="store_true", help="also write the model, a Hugging Face folder, to OUTPUT/model")
    add_machine_options(parser)


def add_machine_options(parser):
    """Add the options of every training that say how it runs."""
    add = parser.add_argument
    add("--save-every", type=non_negative, default=10.0, metavar="MINUTES", help="time between checkpoints, from which "
        "a killed run goes on; 0: after every step")  # fmt: skip
    add("--precision", choices=["bf16", "f32"], help="of matrix products (default: bf16 where the machine has it)")


def add_view_options(parser):
    """Add the options of training on every example in two orders, and of how the last layer starts."""
    add = parser.add_argument
    add("--reordered", metavar="FILE", help="the same examples in another word order: each is trained on in both "
        "(--train itself: R-Drop)")  # fmt: skip
    add("--consistency", type=non_negative, default=0.0, metavar="WEIGHT", help="weight of the divergence between the "
        "predictions for the two, which is added to the loss")  # fmt: skip
    add("--head", choices=["fitted", "random"], default="fitted", help="start of the last layer: logistic regression "
        "on the untrained encoder, or random weights (XTREME)")  # fmt: skip


def check_options(args, files, below=False):
    """Return the dev files that --langs names, {language: path}. Raises InputError for a language without one, for an
    output that cannot be written or would mix with the dev files, and for --consistency without --reordered.

    files: all dev files there are; below: they are looked for at any depth, so no output may lie below --data-dir.
    """
    if getattr(args, "consistency", 0) and not args.reordered:
        raise InputError("--consistency: compares two views of every example; expected --reordered FILE too")
    if args.save:
        common.check_name(args.output)
    output, data = os.path.realpath(args.output), os.path.realpath(args.data_dir)
    if output == data or below and output.startswith(data + os.sep):
        where = f"lies in --data-dir {args.data_dir}, among the dev files"
        raise InputError(f"{args.output}: {where}; expected another folder")
    for path in ("scores.json", "model/config.json"):
        check_writable(os.path.join(args.output, path))
    check_writable(checkpoint_path(args.output))
    langs = list(files) if args.langs == "all" else list(dict.fromkeys(args.langs.split(",")))
    for lang in langs:
        if lang not in files:
            raise InputError(f"{args.data_dir}: no dev file of {lang}; expected one of {' '.join(files)}")
    return {lang: files[lang] for lang in langs}


def load_tokenizer(args, kind, least):
    """Return (tokenizer, the most subwords of an input). Raises InputError where that is fewer than `least`, and where
    the model cannot be loaded with a head: see load_with_head."""
    name, config = args.model, common.load_config(args.model)
    if auto_class_for(config, kind) is None:
        raise InputError(f"{name}: transformers has no model of type {config.model_type} for {kind}; {common.ENCODER}")
    tokenizer = common.load_tokenizer(name)
    limit = min(args.max_length, common.subword_limit(tokenizer, config))
    if limit < least:
        raise InputError(f"--max-length {limit}: leaves no room for an input; expected {least} or more")
    return tokenizer, limit


# ---- the model ------------------------------------------------------------------------------------


def auto_class_for(config, kind):
    """Return transformers' AutoModelFor`kind`, None where it has none for this family."""
    import transformers

    known = type(config) in getattr(transformers, f"MODEL_FOR_{HEADS[kind]}_MAPPING")
    return getattr(transformers, f"AutoModelFor{kind}") if known else None


def load_with_head(name, kind, labels):
    """Return transformers' AutoModelFor`kind`, the head that this family has, in float32 on the CPU.

    kind: 'TokenClassification', 'SequenceClassification' or 'QuestionAnswering'; labels: their names. The last layer,
    and whatever else the folder lacks, is random. The encoder is the model's base_model. Raises InputError.
    """
    config = common.load_config(name)
    config.id2label, config.label2id = dict(enumerate(labels)), {label: n for n, label in enumerate(labels)}
    settings = {"config": config, "attn_implementation": common.pick_attention(), "ignore_mismatched_sizes": True}
    model, _ = common.load_weights(name, auto_class_for(config, kind), **settings)
    common.find_layers(name, model.base_model)
    torch.nn.init.normal_(last_layer(model).weight, std=getattr(config, "initializer_range", 0.02))
    torch.nn.init.zeros_(last_layer(model).bias)
    for module in head_layers(model):
        module.forward = in_float32(module.forward)
    return model


def head_layers(model):
    """Return the linear layers of a model with a head that are not its encoder's."""
    inside = {id(module) for module in model.base_model.modules()}
    return [module for module in model.modules() if isinstance(module, torch.nn.Linear) and id(module) not in inside]


def last_layer(model):
    """Return the linear layer that gives a model of load_with_head its scores."""
    return [layer for layer in head_layers(model) if layer.out_features == model.config.num_labels][-1]


def in_float32(forward):
    """Wrap a layer's forward so that it runs in float32 inside autocast."""

    def run(hidden):
        with torch.autocast(hidden.device.type, enabled=False):
            return forward(hidden.float())

    return run


def fit_last_layer(model, passes, rank):
    """Set the last layer of a model to logistic regression on what the untrained model gives it.

    LP-FT (Kumar et al. 2022). From there, tagging varies less between seeds than from random weights, and a training
    on pairs that had failed now learns (docs/results.md). passes: runs the model on batch after batch and yields
    (index, labels): which of the last layer's inputs count, and their labels (N,). Process 0 fits for all.
    """
    layer, states, labels = last_layer(model), [], []
    hook = layer.register_forward_pre_hook(lambda _, inputs: states.append(inputs[0]))
    model.eval()
    if rank == 0:
        with torch.inference_mode():
            for index, found in passes:
                states[-1] = states[-1][index].float()
                labels.append(found)
                if states[-1].dim() != 2:  # EuroBERT's, whose scores are averaged afterwards
                    what = f"the last layer of models of type {model.config.model_type} scores every subword of a pair"
                    raise InputError(f"--head fitted: {what}; expected --head random")
    hook.remove()
    if rank == 0:  # clones, since tensors of inference take no part in gradients
        fit_logistic_regression(layer, torch.cat(states).clone(), torch.cat(labels).clone())
    for parameter in layer.parameters() if dist.is_initialized() else ():
        dist.broadcast(parameter.data, 0)


def fit_logistic_regression(layer, states, labels):
    """Set a linear layer to logistic regression of labels (N,) on states (N, H), by L-BFGS, with L2_PENALTY."""
    torch.nn.init.zeros_(layer.weight)
    solver = torch.optim.LBFGS(layer.parameters(), max_iter=LBFGS_STEPS, line_search_fn="strong_wolfe")

    def loss():
        solver.zero_grad()
        value = F.cross_entropy(layer(states), labels) + L2_PENALTY * layer.weight.square().sum()
        value.backward()
        return value

    solver.step(loss)
    solver.zero_grad()


def symmetric_divergence(one, other):
    """Return ½ (KL(p ‖ q) + KL(q ‖ p)), (N,), of distributions p and q given as log probabilities, (N, C) each.

    R-Drop's regularisation (Liang et al. 2021, equation 2) with p and q from one input and two dropouts; xTune's
    example consistency (Zheng et al. 2021) with p and q from two views of an example.
    """
    return 0.5 * ((one.exp() - other.exp()) * (one - other)).sum(1)


# ---- steps ----------------------------------------------------------------------------------------


def start(args):
    """Return (device, rank, world size) of a training's process, with args.precision and the random numbers set."""
    device = common.pick_device()
    rank, world = common.start_distributed(device)
    args.precision = args.precision or common.pick_precision(device, args.model)
    seed_everything(args.seed)
    return device, rank, world


def seed_everything(seed):
    """Fix torch's random numbers and, where possible, the order of its sums."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # a kernel for each, which only finds mistakes


def seed_step(seed, step, rank):
    """Make a step's random draws (dropout) depend on seed, step and process alone, so that a run can resume at any."""
    torch.manual_seed(seed + 1_000_003 * step + 1000 * rank)


def steps(sizes, args, rank, state, save):
    """Yield (step, batch, rate) from step state["step"] to the end of all epochs; a batch is numbers of examples.

    sizes: subwords of each example, by which batches are made and progress is shown. An epoch's batches depend on the
    seed and its number alone. After each step, state["loss"] is expected to hold its loss (in process 0, whose share
    of the batch may stand for the rest). Process 0 calls save() every --save-every minutes.
    """
    per_epoch = -(-len(sizes) // args.batch_size)
    total, tokens = args.epochs * per_epoch, int(np.sum(sizes)) * args.epochs
    started = saved = time.perf_counter()
    before, batches = state["seconds"], None
    look = {"unit": " tokens", "unit_scale": True, "desc": "train", "disable": None if rank == 0 else True}
    with tqdm(total=tokens, initial=int(tokens * state["step"] / total), **look) as bar:
        for step in range(state["step"], total):
            epoch, number = divmod(step, per_epoch)
            if number == 0 or batches is None:
                batches = common.shuffled_batches(sizes, args.batch_size, np.random.default_rng([args.seed, epoch]))
            rate = args.lr * linear_schedule(step, total, args.warmup)
            seed_step(args.seed, step, rank)
            yield step, batches[number], rate
            state |= {"step": step + 1, "seconds": before + time.perf_counter() - started}
            record_loss(state, total, rate, bar)
            bar.update(int(sum(sizes[n] for n in batches[number])))
            if rank == 0 and time.perf_counter() - saved >= 60 * args.save_every:
                save()
                saved = time.perf_counter()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    state["seconds"] = before + time.perf_counter() - started


def record_loss(state, total, rate, bar):
    """Add this step's loss to the mean that enters state["history"], and is printed, RECORDS times in a training.

    In between it is not read, because that would make a GPU wait.
    """
    state["losses"] = state["losses"] + torch.as_tensor(state.pop("loss")).detach()
    if state["step"] * RECORDS // total > (state["step"] - 1) * RECORDS // total:
        last = state["history"][-1]["step"] if state["history"] else 0
        loss = float(state["losses"]) / (state["step"] - last)
        state["history"].append({"step": state["step"], "loss": loss, "lr": rate})
        state["losses"] = torch.zeros(())
        bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
        if bar.disable and os.environ.get("RANK", "0") == "0":  # no terminal, but a log
            warn(f"step {state['step']} of {total}: loss {loss:.4f}, rate {rate:.2e}")
        if not math.isfinite(loss):
            raise InputError(f"--lr: the loss is no longer finite at step {state['step']}; expected a lower rate")


def linear_schedule(step, steps, warmup):
    """Return the fraction of the learning rate at a step (from 0): up in the first `warmup` of the steps, then down."""
    rise = round(steps * warmup)
    return min((step + 1) / max(1, rise), (steps - step) / max(1, steps - rise))


def update(optimizer, rate):
    """Take one step of the optimizer at a learning rate, with the gradients of all processes, clipped to the norm CLIP.

    A group of the optimizer with a "factor" has that many times the rate.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if dist.is_initialized():  # gradients are summed over all processes, in one message
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        for p, summed in zip(parameters, flat.split([gradient.numel() for gradient in gradients])):
            p.grad = summed.view_as(p)
    torch.nn.utils.clip_grad_norm_(parameters, CLIP)
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("factor", 1.0)
    optimizer.step()
    optimizer.zero_grad()


# ---- checkpoints ------------------------------------------------------------------------------------


def checkpoint_path(output):
    """Return the path of a training's checkpoint."""
    return f"{output.rstrip('/')}.checkpoint"


def resume(script, args, data, modules, optimizer):
    """Return (state, save): the state in which a killed run of this training stopped, or a new one, and a function that
    saves it.

    state: {"step", "seconds", "history", ...}; modules, {name: module}, and the optimizer are restored in place.
    A checkpoint is of the same training if its code, options, `data` (numpy arrays), initial weights and number of
    processes are the same.
    Raises InputError for one that cannot be read.
    """
    path = checkpoint_path(args.output)
    options = {name: value for name, value in vars(args).items() if name not in ("output", "save_every", "save")}
    processes = os.environ.get("WORLD_SIZE", "1")  # of torchrun: dropout depends on them
    crc = zlib.crc32(json.dumps([options, processes, versions.code_digests(script)], sort_keys=True).encode())
    for module in modules.values():
        crc = zlib.crc32(module.config.to_json_string().encode(), crc) if hasattr(module, "config") else crc
        data = [*data, *(parameter.detach().cpu().numpy() for parameter in module.parameters())]
    for array in data:
        crc = zlib.crc32(np.ascontiguousarray(array), crc)
    state = {"step": 0, "seconds": 0.0, "history": [], "losses": torch.zeros(())}
    if os.path.exists(path):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of another protocol; the error says what is wrong
                saved = torch.load(path, map_location="cpu", weights_only=True)
            note = f"{path}: belongs to other code, settings, data or another model, and is not used"
            if saved["crc"] == crc:
                for name, module in modules.items():
                    module.load_state_dict(saved["weights"][name], strict=False)
                optimizer.load_state_dict(saved["optimizer"])
                state = {name: type(value)(saved["state"][name]) for name, value in state.items()}
                note = f"resuming after step {state['step']}, from {path}"
        except Exception as error:
            reason = f"cannot be read as a checkpoint ({one_line(error)[:100]})"
            raise InputError(f"{path}: {reason}; remove it to start again") from None
        if os.environ.get("RANK", "0") == "0":
            warn(note)

    def save():
        weights = {name: module.state_dict() for name, module in modules.items()}
        try:
            with whole(path) as temporary:
                content = {"crc": crc, "state": state, "weights": weights, "optimizer": optimizer.state_dict()}
                torch.save(content, temporary)
        except (OSError, RuntimeError) as error:  # torch.save raises the latter where the disk is full
            reason = getattr(error, "strerror", None) or "is the disk full?"
            raise InputError(f"{path}: cannot be written ({reason}); make room, then start again") from None

    return state, save


# ---- results -----------------------------------------------------------------------------------------


def put_weights(full, weights, new_id):
    """Put trained weights, of an encoder or of a model with its head, into `full`, which has all the embedding rows.

    weights: a state dict. new_id: trim_embeddings' array, or None.
    """
    target = full if any(key.startswith(full.base_model_prefix + ".") for key in weights) else full.base_model
    embedding = target.get_input_embeddings().weight
    name = next(name for name, parameter in target.named_parameters() if parameter is embedding)
    rows = slice(None) if new_id is None else torch.from_numpy(np.flatnonzero(new_id >= 0))
    embedding.data[rows] = weights[name].cpu()
    target.load_state_dict({key: value for key, value in weights.items() if key != name}, strict=False)


def save_folder(model, name, folder, contents=None, **settings):
    """Write a model as a whole Hugging Face folder, with the tokenizer files of the checkpoint `name` as they are.

    contents: {file name: JSON value} of further files; settings: save_pretrained's. Raises InputError.
    """
    try:
        with whole(folder) as temporary:
            model.save_pretrained(temporary, **settings)
            for file in TOKENIZER_FILES:  # written anew they would lose the tokenizer's class
                if path := common.find_file(name, file):
                    shutil.copyfile(path, os.path.join(temporary, file))
            for file, content in (contents or {}).items():
                with open(os.path.join(temporary, file), "w", encoding="utf-8") as stream:
                    json.dump(content, stream, indent=1)
    except Exception as error:  # safetensors has its own type for a full disk
        raise InputError(f"{folder}: cannot be written ({one_line(error)[:160]})") from None


def finish_training(args, kind, labels, model, new_id, rank):
    """Save the model with --save, as a folder that AutoModelFor`kind` loads, and make it ready for its test.

    The scores of an earlier run are removed first, since they must not stand beside other predictions. new_id:
    trim_embeddings' array.
    """
    if rank == 0:
        remove(os.path.join(args.output, "scores.json"))
    if dist.is_initialized():
        dist.barrier()
    if args.save and rank == 0:
        full = load_with_head(args.model, kind, labels)
        put_weights(full, model.state_dict(), new_id)
        save_folder(full, args.model, os.path.join(args.output, "model"))
    common.store_linear(model.base_model, args.precision)


def test_languages(langs, rank, world):
    """Return the languages that this process tests, with a progress bar."""
    return tqdm(langs[rank::world], unit=" languages", desc="dev", disable=None if rank == 0 else True)


def write_scores(args, metric, scores, langs, state, examples, tokens):
    """Gather the scores of all processes, {language: metrics}; process 0 writes OUTPUT/scores.json and prints them.

    metric: the one that the report puts first; examples, tokens: of an epoch.
    """
    import transformers

    world = 1
    if dist.is_initialized():
        rank, world = dist.get_rank(), dist.get_world_size()
        gathered = [None] * world
        dist.all_gather_object(gathered, scores)
        scores = {lang: score for part in gathered for lang, score in part.items()}
        dist.destroy_process_group()
        if rank:
            return
    content = {
        "task": args.task, "model": args.model, "order": args.order, "aligner": args.aligner, "seed": args.seed,
        "metric": metric, "dev": {lang: scores[lang] for lang in langs},
        "train": {
            "examples": examples, "steps": state["step"], "seconds": state["seconds"],
            "tokens_per_second": tokens * args.epochs / state["seconds"], "history": state["history"],
        },
        "machine": {
            "precision": args.precision, "threads": torch.get_num_threads(), "world": world,
            "torch": torch.__version__, "transformers": transformers.__version__,
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        },
        "commit": versions.commit(), "args": vars(args),
    }  # fmt: skip
    with open_output(os.path.join(args.output, "scores.json")) as stream:
        json.dump(content, stream, indent=1)
    remove(checkpoint_path(args.output))  # the run is complete
    for lang in langs:
        numbers = [f"{name} {100 * value:5.1f}" for name, value in scores[lang].items() if name != "count"]
        print(f"{lang}  {'  '.join(numbers)}  ({scores[lang]['count']})")
