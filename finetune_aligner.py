"""Fine-tune an encoder so that it aligns words better, on plain parallel text: no gold links needed.

In:   one or several files of `source words ||| target words` lines, tokenised by spaces
Out:  OUTPUT/                 a Hugging Face folder for `align.py --model` and for every train script
      OUTPUT/align.json       how align.py finds links with it: layer, method, similarity, evidence, threshold
      OUTPUT/finetuning.json  how it was made

    python finetune_aligner.py --model models/multilingual-e5-small --train en-fr.txt --output aligners/fr   # separate
    python finetune_aligner.py --model M --train en-fr.txt en-de.txt en-zh.txt --output aligners/joint      # joint
    python finetune_aligner.py --model M --train en-fr.txt corpus.txt --output aligners/corpus   # also on its own text
    torchrun --nproc_per_node 4 finetune_aligner.py ...      # the same batches, shared out over four GPUs

Self-training (so) makes links more probable that are found before the training: by the model itself as align.py finds
them, with the evidence of neighbours and of a lexicon, which the encoder so learns to need less; or by another aligner
(--links). Of several files each gets the same number of batches, taken in turn; a small one is begun again the sooner.
A killed run goes on from OUTPUT.checkpoint when it is started again and ends with the same weights.

Sources: Dou and Neubig 2021 (awesome-align); lib/objectives.py holds the formulas.
"""

import functools
import itertools
import json
import math
import os
import shutil
import time

import numpy as np
import torch
import torch.distributed as dist
from tqdm import tqdm

import align
import common
from data.cli import (
    Arguments,
    InputError,
    check_writable,
    error_at,
    non_negative,
    open_output,
    positive,
    positive_float,
    random_seed,
    run_script,
    warn,
)
from data.files import file_style, read_lines, read_parallel, read_pharaoh
from lib import checkpoints, encoding, heads, objectives, training

OBJECTIVES = ["so", "co", "psi", "contrast", "mlm", "tlm"]
# How align.py finds links after training: by our evidence, or, where dot products were trained, by awesome-align's
# rule.
EXTRACTION = {"cosine": ("grow-diag", "csls", align.EVIDENCE), "dot": ("softmax", "dot", ())}
WARMUP = 0.1  # fraction of the steps in which the rate rises
MAX_LENGTH = 128  # most pieces of a sentence, special ones included; the rest is cut off
READ = 20_000  # pairs that are tokenised at a time


# ---- batches --------------------------------------------------------------------------------------


def read_training(path, tokenizer, limit, most, generator):
    """Return the pairs of a training file as flat arrays: a dict of 'path', 'sides', 'lengths', 'lines', 'pairs' and
    'links'. Of more than `most` pairs that many are drawn.

    'sides': encoding.Pieces of the sources and of the targets; 'lengths': the pieces of both sides of a pair; 'lines':
    their line numbers from 0, as pairs with an empty side are left out; 'pairs': numbers of the pairs to use; 'links':
    None. Raises InputError.
    """
    file_style(path)  # it is read more than once
    full, total = [], 0
    for total, pair in enumerate(read_parallel(path), 1):
        if all(pair):
            full.append(total - 1)
    if len(full) < total:
        warn(f"{path}: {total - len(full)} lines have an empty side and are left out")
    if not full:
        raise InputError(f"{path}: no pairs; expected `source words ||| target words` a line")
    lines, parts, cut = np.sort(generator.permutation(full)[:most]), ([], []), 0
    wanted = set(lines.tolist())
    chosen = (pair for number, pair in enumerate(read_parallel(path)) if number in wanted)
    while chunk := list(itertools.islice(chosen, READ)):
        for side, part in enumerate(parts):
            pieces, truncated, _ = encoding.flatten(tokenizer, [pair[side] for pair in chunk], limit)
            part.append(pieces)
            cut += int(truncated.sum())
    sides = []
    for part in parts:
        ids, word, keep, _, lengths = (np.concatenate(arrays) for arrays in zip(*part))
        sides.append(encoding.Pieces(ids, word, keep, np.cumsum(lengths) - lengths, lengths))
    units = [np.add.reduceat(side.keep.astype(int), side.first) for side in sides]
    pairs = np.flatnonzero(np.minimum(*units))  # without those all of whose characters the tokenizer drops
    if not len(pairs):
        raise InputError(
            f"{path}: the model's tokenizer drops every character of a side in every pair; expected another model"
        )
    if len(pairs) < len(lines):
        warn(f"{path}: of {len(lines) - len(pairs)} pairs the tokenizer drops every character of a side; left out")
    if cut:
        warn(f"{path}: {cut} sentences have more than {limit} pieces and are cut")
    lengths = sides[0].lengths + sides[1].lengths
    return {"path": path, "sides": sides, "lengths": lengths, "lines": lines, "pairs": pairs, "links": None}


def read_files(paths, tokenizer, limit, steps, batch_size, seed, world):
    """Return read_training's files, of each no more pairs than `steps` can draw, with the 'size' of its batches too."""
    files, most = [], -(-steps // len(paths)) * batch_size
    for which, path in enumerate(paths):
        file = read_training(path, tokenizer, limit, most, np.random.default_rng([seed, which]))
        file["size"] = min(batch_size, len(file["pairs"])) // world * world
        if not file["size"]:
            raise InputError(f"{path}: fewer pairs than the {world} processes; expected more of them")
        files.append(file)
    return files


def training_batch(files, number, seed):
    """Return batch `number` of the training, from 0: (file, pairs). It depends on the seed alone, so a run can go on
    from any step.

    Files take turns. Within a file an epoch's batches are of like length and in random order; each has file["size"]
    pairs, the last ones of an epoch, too few for a batch, being left out.
    """
    turn, which = divmod(number, len(files))
    file, size = files[which], files[which]["size"]
    epoch, place = divmod(turn, len(file["pairs"]) // size)
    if file.get("epoch") != epoch:
        generator = np.random.default_rng([seed, which, epoch])
        batches = common.shuffled_batches(file["lengths"][file["pairs"]], size, generator)
        file["epoch"], file["batches"] = epoch, [batch for batch in batches if len(batch) == size]
    return file, file["pairs"][file["batches"][place]].tolist()


def load_aligner(name, tokenizer, layer, limit, precision, device, rank, world):
    """Return the function of a chunk of pairs that finds their links as align.py does by default."""
    model = common.load_encoder(name, layer).to(device)
    if precision == "bf16":
        common.store_linear_in_bf16(model)
    find = functools.partial(
        align.align_pairs, model, tokenizer, ways=[align.way_of(*EXTRACTION["cosine"], {})], similarity="csls",
        limit=limit, lexicons={}, keep_bare=False, level="subword", precision=precision,
        sum_counts=dist.all_reduce if world > 1 else None,
    )  # fmt: skip
    return functools.partial(align.align_shared, find, rank=rank, world=world)


def read_links(path, file, pairs):
    """Return {pair: links} of `pairs` of a training file from the Pharaoh file at `path`. Raises InputError."""
    file_style(path)  # it is read more than once
    wanted, links, lines = dict(zip(file["lines"][pairs].tolist(), pairs)), {}, 0
    for lines, (found, (source, target)) in enumerate(zip(read_pharaoh(path), read_parallel(file["path"])), 1):
        if any(i >= len(source) or j >= len(target) for i, j in found):
            size = f"{len(source)} and {len(target)} words"
            raise error_at(path, lines, f"a link is outside the pair of {size}; expected words numbered from 0")
        if lines - 1 in wanted:
            links[wanted[lines - 1]] = found
    found, expected = (sum(1 for _ in read_lines(name)) for name in (path, file["path"]))
    if found != expected:
        raise InputError(f"{path}: {found} lines, but {file['path']} has {expected}; expected one line for each pair")
    return links


def find_links(align_chunk, file, pairs):
    """Return {pair: links} of `pairs` of a training file, in the order of the file. align_chunk:
    align.align_shared's function.
    """
    wanted = dict(zip(file["lines"][pairs].tolist(), pairs))
    chosen = ((wanted[n], pair) for n, pair in enumerate(read_parallel(file["path"])) if n in wanted)
    links = {}
    with torch.inference_mode(), tqdm(total=len(pairs), unit=" pairs", desc="links", disable=None) as bar:
        while chunk := list(itertools.islice(chosen, align.CHUNK)):
            [found], *_ = align_chunk([pair for _, pair in chunk])
            links |= dict(zip((number for number, _ in chunk), found))
            bar.update(len(chunk))
    return links


def add_links(files, steps, seed, paths, load):
    """Put into each file the links of those pairs alone that the training draws: from `paths`, a file for each, or,
    where these are None, as found by what load() returns, load_aligner's function. Raises InputError."""
    drawn = [training_batch(files, step, seed) for step in range(steps)]
    align_chunk = None if paths else load()
    for file, path in zip(files, paths or files):
        pairs = sorted({pair for of, batch in drawn if of is file for pair in batch})
        file["links"] = read_links(path, file, pairs) if paths else find_links(align_chunk, file, pairs)


# ---- model and output -------------------------------------------------------------------------------


def load_model(name, depth, masked, used):
    """Return (model, new_id): what is trained, cut to the layers and embedding rows that the training can change.

    Masked language modelling predicts any piece, so there all rows stay and the head too. used: pieces of the text;
    new_id: trim_embeddings' array, None where all rows stay. Raises InputError for a checkpoint without the head that
    it needs.
    """
    if masked:
        model, missing = heads.load_whole(name, masked=True)
        if any(not key.startswith(model.base_model_prefix + ".") for key in missing):
            raise InputError(
                f"{name}: has no masked-language-model head, which mlm and tlm need; expected a checkpoint with one, "
                "such as xlm-roberta-base, or --objectives of so, co, psi and contrast, which work with this one"
            )
        new_id = None
    else:
        model = common.load_encoder(name, depth)
        new_id = common.trim_embeddings(model, used)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # the links are those of a model without dropout; with it no run was better
    return model.train(), new_id


def record_loss(state, bar):
    """Add the mean loss since the last record to state["history"] and show it."""
    state["history"].append({"step": state["step"], "train_loss": state["loss"] / state["steps"]})
    state |= {"loss": 0.0, "steps": 0}
    bar.set_postfix(loss=f"{state['history'][-1]['train_loss']:.3f}")


def describe(args, files, history, layer, seconds):
    """Return what the folder tells of itself, {file name: what its JSON holds}."""
    method, similarity, evidence = EXTRACTION[args.similarity]
    drawn = sum(files[step % len(files)]["size"] for step in range(args.max_steps))
    report = {
        "model": args.model, "pairs": [len(file["pairs"]) for file in files], "steps": args.max_steps,
        "batch_sizes": [file["size"] for file in files], "history": history, "seconds": seconds,
        "pairs_per_second": drawn / seconds, "args": vars(args),
    }  # fmt: skip
    settings = {"layer": layer, "similarity": similarity, **align.way_of(method, similarity, evidence, {})}
    return {"align.json": settings, "finetuning.json": report}


def save_aligner(name, weights, new_id, contents, folder):
    """Write a whole Hugging Face folder: the checkpoint `name` with the trained weights put in its place.

    new_id: load_model's; contents: describe()'s.
    """
    folder = os.path.realpath(folder)  # a link stays what it is
    whole, missing = heads.load_whole(name)
    heads.put_weights(whole, weights, new_id)
    temporary = checkpoints.temporary_path(folder)
    try:
        kept = {key: value for key, value in whole.state_dict().items() if key not in missing}
        whole.save_pretrained(temporary, state_dict=kept)
        common.load_tokenizer(name).save_pretrained(temporary)
        for file, content in contents.items():
            with open_output(os.path.join(temporary, file)) as stream:
                json.dump(content, stream, indent=1)
        training.replace_folder(temporary, folder)
    except Exception as error:  # safetensors and tokenizers have their own types for a full disk
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"{folder}: cannot be written ({reason})") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def parse_arguments():
    """Return the command line. Raises InputError for options that do not go together."""
    parser = Arguments(__doc__)
    add = parser.add_argument
    add("--model", required=True, help="Hugging Face folder or hub name of an encoder")
    add("--train", required=True, nargs="+", metavar="FILE", help="`source ||| target` a line; several files: joint")
    add("--output", required=True, metavar="DIR", help="model folder to write")
    add("--objectives", default="so,contrast", help="what is trained, a sum of: so (self-training on links), co "
        "(consistency of the two directions), psi (parallel sentence identification), contrast (that within the batch, "
        "by word similarities), mlm, tlm (masked language models, for checkpoints with such a head)")  # fmt: skip
    add("--links", nargs="+", metavar="FILE", help="links of the --train files, for so (default: the model finds them)")
    add("--similarity", choices=["cosine", "dot"], default="cosine", help="of so and co; dot is awesome-align's, "
        "whose links so then finds anew at each step")  # fmt: skip
    add("--max-steps", type=positive, default=500, metavar="N", help="steps of the optimizer")
    add("--batch-size", type=positive, default=32, help="pairs in a batch, over all processes")
    add("--lr", type=positive_float, default=3e-5, help="highest learning rate of AdamW")
    add("--layer", type=positive, metavar="N", help="hidden layer to train for (default: align.json's, else 8 of 12)")
    add("--save-every", type=non_negative, default=10.0, metavar="MINUTES", help="time between checkpoints, from which "
        "a killed run goes on; 0: after every step")  # fmt: skip
    add("--seed", type=random_seed, default=1, help="of the batches, masks, negative examples and new layers")
    add("--precision", choices=["bf16", "f32"], help="of matrix products (default: bf16 where the machine has it)")
    args = parser.parse_args()

    asked = args.objectives.split(",")
    if not set(asked) <= set(OBJECTIVES) or len(set(asked)) < len(asked):
        raise InputError(
            f"--objectives {args.objectives}: expected some of {','.join(OBJECTIVES)}, each once, separated by commas"
        )
    if args.links and len(args.links) != len(args.train):
        raise InputError(f"--links: {len(args.links)} files for {len(args.train)} of --train; expected one for each")
    if args.links and "so" not in asked:
        raise InputError(f"--links: is for the objective so, which --objectives {args.objectives} lacks")
    args.output = args.output.rstrip("/")
    check_writable(checkpoints.path_of(args.output))
    if os.path.exists(args.output) and not os.path.isdir(args.output):
        raise InputError(f"{args.output}: is a file; expected the name of a folder to write")
    if os.path.realpath(args.output) == os.getcwd() or os.path.ismount(args.output):
        raise InputError(f"{args.output}: cannot be replaced by the written folder; expected one below it")
    own = os.path.isfile(os.path.join(args.output, "finetuning.json"))
    if os.path.isdir(args.output) and os.listdir(args.output) and not own:
        raise InputError(f"{args.output}: a folder that this script did not write; expected a new folder")
    for path in (args.output, args.output + ".old", checkpoints.path_of(args.output)):
        checkpoints.sweep(path)
    return args


def main():
    args = parse_arguments()
    config, tokenizer, device = common.load_config(args.model), common.load_tokenizer(args.model), common.pick_device()
    rank, world = common.start_distributed(device)
    if args.batch_size % world:
        raise InputError(
            f"--batch-size {args.batch_size}: does not divide by {world} processes; expected a multiple of {world}"
        )
    asked, depth = set(args.objectives.split(",")), config.num_hidden_layers
    masked = bool(asked & {"mlm", "tlm"})
    if masked and tokenizer.mask_token_id is None:
        raise InputError(f"{args.model}: its tokenizer has no mask, which mlm and tlm need; expected another model")
    layer = args.layer or align.align_layer(align.read_align_json(args.model, depth), depth)
    if layer > depth:
        raise InputError(f"--layer {layer}: {args.model} has {depth} layers")
    precision = args.precision or common.pick_precision(device)
    limit = min(MAX_LENGTH, common.piece_limit(tokenizer, config))
    training.seed_everything(args.seed)

    # Data, and the links that so trains on.
    files = read_files(args.train, tokenizer, limit, args.max_steps, args.batch_size, args.seed, world)
    if "so" in asked and (args.links or args.similarity == "cosine"):
        load = functools.partial(load_aligner, args.model, tokenizer, layer, limit, precision, device, rank, world)
        add_links(files, args.max_steps, args.seed, args.links, load)

    # Model.
    sides = [side.ids for file in files for side in file["sides"]]
    used = {tokenizer.pad_token_id, *np.unique(np.concatenate([np.unique(ids) for ids in sides])).tolist()}
    deepest = depth if masked else min(layer + ("psi" in asked), depth)
    model, new_id = load_model(args.model, deepest, masked, used)
    pad_id = tokenizer.pad_token_id
    if new_id is not None:
        pad_id = int(new_id[pad_id])
        for file in files:
            file["sides"] = [side._replace(ids=new_id[side.ids]) for side in file["sides"]]
    encoder = model.base_model
    encode = encoder, common.final_norm(args.model, encoder), precision
    modules = {"model": model} | ({"psi_head": objectives.identification_head(config)} if "psi" in asked else {})
    common.release_memory()
    losses_of = []  # of one objective after the other, so that each graph is freed before the next is built
    if asked & {"so", "co", "contrast"}:
        losses_of.append(
            functools.partial(objectives.alignment_losses, encode, asked, layer, args.similarity, pad_id, device, rank)
        )
    predict = functools.partial(objectives.predict_masked, encode, model, tokenizer.mask_token_id, pad_id, device)
    losses_of += [functools.partial(objectives.monolingual_losses, predict, limit)] * ("mlm" in asked)
    losses_of += [functools.partial(objectives.translation_losses, predict, limit)] * ("tlm" in asked)
    if "psi" in asked:
        head = modules["psi_head"].to(device)
        above = min(layer + 1, depth)
        losses_of.append(
            functools.partial(objectives.identification_losses, encode, head, above, pad_id, device, limit)
        )
    parameters = [parameter for module in modules.values() for parameter in module.to(device).parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=args.lr, weight_decay=0.0, fused=True)

    # Training, from where a killed run of the same code, settings, data and model stood.
    found = [file["links"] or {} for file in files]
    links = [np.array([(pair, *link) for pair in of for link in of[pair]]) for of in found]
    options = {**vars(args), "precision": precision, "layer": layer}
    crc = checkpoints.training_crc(__file__, options, [*sides, *links, *checkpoints.weights(model)])
    path = checkpoints.path_of(args.output)
    state = {"history": [], "loss": 0.0, "steps": 0, **checkpoints.load(path, crc, modules, optimizer)}
    for file in files if rank == 0 else ():
        if file["size"] < args.batch_size:
            less = f"its batches are of {file['size']}"
            warn(f"{file['path']}: has fewer pairs than --batch-size {args.batch_size}; {less}")
    started = saved = time.perf_counter()
    with tqdm(total=args.max_steps, initial=state["step"], unit=" steps", disable=None if rank == 0 else True) as bar:
        for step in range(state["step"], args.max_steps):
            training.seed_step(args.seed, step, rank)
            file, batch = training_batch(files, step, args.seed)
            size, loss = len(batch), torch.zeros((), device=device)
            local_batch = batch[rank * size // world : (rank + 1) * size // world]
            generators = [np.random.default_rng([args.seed, step, pair]) for pair in local_batch]
            for losses in (function(file, local_batch, generators) for function in losses_of):
                (losses.sum() / size).backward()
                loss += losses.detach().sum() / size
            if world > 1:
                dist.all_reduce(loss)
            training.update(optimizer, parameters, args.lr * training.linear_schedule(step, args.max_steps, WARMUP))
            state |= {"step": step + 1, "steps": state["steps"] + 1, "loss": state["loss"] + float(loss)}
            if (step + 1) % -(-args.max_steps // 5) == 0 or step + 1 == args.max_steps:
                record_loss(state, bar)
            bar.update()
            if rank == 0 and time.perf_counter() - saved >= 60 * args.save_every:
                saved = time.perf_counter()
                seconds = state["seconds"] + saved - started
                checkpoints.save(path, crc, modules, optimizer, {**state, "seconds": seconds})
    seconds = state["seconds"] + time.perf_counter() - started
    if not math.isfinite(state["history"][-1]["train_loss"]):
        raise InputError(f"--lr {args.lr}: the loss is no number any more; expected a lower rate")

    if rank == 0:
        contents = describe(args, files, state["history"], layer, seconds)
        weights = {key: value.detach().cpu() for key, value in model.state_dict().items()}
        del optimizer, files
        save_aligner(args.model, weights, new_id, contents, args.output)
        if os.path.exists(path):
            os.remove(path)
        report = contents["finetuning.json"]
        print(json.dumps({key: report[key] for key in ("steps", "seconds", "pairs_per_second")} | state["history"][-1]))
    if world > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    run_script(main)
