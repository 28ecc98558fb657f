"""Fine-tune an encoder so that it aligns words better, on plain parallel text: no gold links needed.

In:   one or several files of `source words ||| target words` lines, tokenised by spaces
Out:  OUTPUT/                 a Hugging Face folder for `align.py --model` and for every train script
      OUTPUT/align.json       how align.py finds links with it: layer, method, similarity, evidence, threshold
      OUTPUT/finetuning.json  how it was made

    python finetune_aligner.py --model models/multilingual-e5-small --train en-fr.txt --output aligners/fr   # separate
    python finetune_aligner.py --model M --train en-fr.txt en-de.txt en-zh.txt --output aligners/joint      # joint
    python finetune_aligner.py --model M --train en-fr.txt corpus.txt --output aligners/corpus   # also on its own text
    torchrun --nproc_per_node 4 finetune_aligner.py ...      # the same batches, shared out over four GPUs

Self-training (so) makes links more probable that the model itself finds before the training, as align.py does: with the
evidence of neighbours and of a lexicon, which the encoder so learns to need less. Of several files each gets the same
number of batches, taken in turn; a small one is begun again the sooner. A killed run goes on from OUTPUT.checkpoint
when it is started again and ends with the same weights.

S and T are the numbers of source and target subwords. A file is read_training's dict, a batch a list of pair numbers.

Sources: Dou and Neubig 2021 (awesome-align) for so, co, psi, mlm, tlm; Khattab and Zaharia 2020 (ColBERT's similarity
of sentences) with van den Oord et al. 2018 (InfoNCE) for contrast.
"""

import collections
import functools
import itertools
import json
import os
import time

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from tqdm import tqdm

import common
import links
import training
import versions
from data.files import (
    Arguments, InputError, check_writable, file_style, positive, positive_float, random_seed, read_parallel, remove,
    run_script, warn,
)  # fmt: skip

OBJECTIVES = ["so", "co", "psi", "contrast", "mlm", "tlm"]
# How align.py finds links after training: with our evidence, or, after training dot products, as awesome-align does.
EXTRACTION = {
    "cosine": {
        "similarity": "csls", "method": "grow-diag", "evidence": links.EVIDENCE, "threshold": links.THRESHOLD,
        "temperature": links.TEMPERATURE,
    },
    "dot": {"similarity": "dot", "method": "softmax", "evidence": (), "threshold": 1e-3, "temperature": 1.0},
}  # fmt: skip
TEMPERATURE = {"cosine": 0.05, "dot": 1.0}  # divides the similarity in so and co; 0.05 also in contrast
MASKED = 0.15  # fraction of the subwords that masked language modelling predicts (Devlin et al. 2019)
WARMUP = 0.1  # fraction of the steps in which the rate rises
MAX_LENGTH = 128  # most subwords of a sentence, special ones included; the rest is cut off
READ = 20_000  # pairs that are tokenised at a time


# ---- objectives: each returns the losses of a batch's B pairs, (B,) ----------------------------------------------


def self_training(forward, backward, targets, cells):
    """Return SO, by which links that were found get more probable in both directions (Dou and Neubig 2021, 2.2):
    - sum_ij targets_ij * (forward_ij / S + backward_ij / T).

    forward, backward: (B, S, T), links.both_directions; targets: (B, S, T) bool, the links; cells: (B, S, T) bool.
    """
    source, target = cells.any(2).sum(1), cells.any(1).sum(1)  # (B,) subwords
    return -(forward * targets).sum((1, 2)) / source - (backward * targets).sum((1, 2)) / target


def consistency(forward, backward, cells):
    """Return CO, by which both directions agree: - trace(forward^T backward) / min(S, T). Shapes as in SO."""
    size = torch.minimum(cells.any(2).sum(1), cells.any(1).sum(1))
    return -(forward * backward).sum((1, 2)) / size


def sentence_identification(scores, labels):
    """Return PSI, the loss of telling whether the two sentences of an input are translations. scores: (2 B, 2), of a
    parallel (label 1) and a random (label 0) input for each pair; labels: (2 B,)."""
    return F.cross_entropy(scores, labels, reduction="none").view(-1, 2).mean(1)


def contrast(source, target, source_mask, target_mask, temperature):
    """Return the loss of finding each sentence's translation among those of the batch.

    The score of a sentence with another is the mean over its subwords of their highest cosine with a subword of the
    other (ColBERT); the loss is the cross-entropy of scores / temperature over the batch (InfoNCE), averaged over the
    two directions. So subwords come to tell their translations from other words. source: (B, S, H), target: (B, T, H),
    masks: (B, S) and (B, T) bool; sentences of one row are translations.
    """
    cosine = torch.einsum("ash,bth->abst", F.normalize(source, dim=2), F.normalize(target, dim=2))
    there = cosine.masked_fill(~target_mask[None, :, None, :], -1.0).amax(3)  # (B sources, B targets, S)
    back = cosine.masked_fill(~source_mask[:, None, :, None], -1.0).amax(2)  # (B sources, B targets, T)
    there = (there * source_mask[:, None, :]).sum(2) / source_mask.sum(1)[:, None]
    back = (back * target_mask[None, :, :]).sum(2) / target_mask.sum(1)[None, :]
    own = torch.arange(len(source), device=source.device)
    return sum(F.cross_entropy(score / temperature, own, reduction="none") for score in (there, back.T)) / 2


def masked_language_model(scores, labels, row, rows):
    """Return MLM or TLM: cross-entropy of the M masked subwords, averaged within each of the `rows` inputs. scores:
    (M, vocabulary); labels: (M,) true ids; row: (M,) the inputs they stand in."""
    losses = F.cross_entropy(scores, labels, reduction="none")
    count = torch.bincount(row, minlength=rows).clamp(min=1)
    return losses.new_zeros(rows).index_add(0, row, losses / count[row])


def mask_subwords(ids, allowed, mask_id, vocabulary, generator):
    """Draw MASKED of the `allowed` (list of bool) among the ids of an input: 80 % become the mask, 10 % a random id,
    10 % stay (Devlin et al. 2019). Return (ids, chosen), two lists; chosen: bool, what is to be predicted."""
    ids, draws = np.array(ids), generator.random((2, len(ids)))
    chosen = (draws[0] < MASKED) & np.array(allowed)
    random = generator.integers(vocabulary, size=len(ids))
    replaced = np.where(draws[1] < 0.8, mask_id, np.where(draws[1] < 0.9, random, ids))
    return np.where(chosen, replaced, ids).tolist(), chosen.tolist()


class Gather(torch.autograd.Function):
    """Gather (B, ...) from all processes as (world * B, ...); backward sums the gradients of all processes."""

    @staticmethod
    def forward(ctx, tensor):
        parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, gradient):
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient.chunk(dist.get_world_size())[dist.get_rank()]


def gather(tensor):
    """Gather a float (B, L, ...) tensor of every process as (world * B, longest L, ...), gradients included."""
    if not dist.is_initialized():
        return tensor
    length = torch.tensor(tensor.shape[1], device=tensor.device)
    dist.all_reduce(length, dist.ReduceOp.MAX)
    return Gather.apply(F.pad(tensor, (0, 0) * (tensor.dim() - 2) + (0, int(length) - tensor.shape[1])))


# ---- the text --------------------------------------------------------------------------------------


def read_training(path, tokenizer, limit, most, generator):
    """Return the pairs of a training file, of more than `most` that many, drawn: a dict of 'path', 'sides' (two
    FlatSubwords), 'lengths' (subwords of both sides of a pair), 'lines' (the pairs' line numbers from 0) and 'pairs'
    (numbers of those to use). Raises InputError."""
    file_style(path)  # it is read more than once
    empty = np.array([not all(pair) for pair in read_parallel(path)])
    if empty.all():
        raise InputError(f"{path}: no pairs; expected `source words ||| target words` a line")
    if empty.any():
        warn(f"{path}: {empty.sum()} lines have an empty side and are left out")
    lines, parts, cut = np.sort(generator.permutation(np.flatnonzero(~empty))[:most]), ([], []), 0
    wanted = set(lines.tolist())
    chosen = (pair for number, pair in enumerate(read_parallel(path)) if number in wanted)
    while chunk := list(itertools.islice(chosen, READ)):
        for part, sentences in zip(parts, zip(*chunk)):
            flat, truncated, _ = links.flatten(tokenizer, sentences, limit)
            part.append(flat)
            cut += int(truncated.sum())
    sides = []
    for part in parts:
        ids, word, keep, _, lengths = (np.concatenate(arrays) for arrays in zip(*part))
        sides.append(links.FlatSubwords(ids, word, keep, np.cumsum(lengths) - lengths, lengths))
    units = [np.add.reduceat(side.keep.astype(int), side.first) for side in sides]
    pairs = np.flatnonzero(np.minimum(*units))  # without those all of whose characters the tokenizer drops
    dropped = "the tokenizer drops every character of a side"
    if not len(pairs):
        raise InputError(f"{path}: {dropped} of every pair; expected another model")
    if len(pairs) < len(lines):
        warn(f"{path}: {dropped} of {len(lines) - len(pairs)} pairs, which are left out")
    if cut:
        warn(f"{path}: {cut} sentences have more than {limit} subwords and are cut")
    lengths = sides[0].lengths + sides[1].lengths
    return {"path": path, "sides": sides, "lengths": lengths, "lines": lines, "pairs": pairs}


def read_files(args, tokenizer, limit, world):
    """Return read_training's files, each with no more pairs than can be drawn, and the 'size' of its batches."""
    files, most = [], -(-args.max_steps // len(args.train)) * args.batch_size
    for which, path in enumerate(args.train):
        file = read_training(path, tokenizer, limit, most, np.random.default_rng([args.seed, which]))
        file["size"] = min(args.batch_size, len(file["pairs"])) // world * world
        if not file["size"]:
            raise InputError(f"{path}: fewer pairs than the {world} processes; expected more of them")
        files.append(file)
    return files


def training_batch(files, number, seed):
    """Return batch `number` of the training, from 0: (file, pairs). It depends on the seed alone, so a run can go on.

    Files take turns. An epoch's batches are of like length and in random order; each has file["size"] pairs. The last
    pairs of an epoch, too few for a batch, are left out.
    """
    turn, which = divmod(number, len(files))
    file, size = files[which], files[which]["size"]
    epoch, place = divmod(turn, len(file["pairs"]) // size)
    if file.get("epoch") != epoch:
        generator = np.random.default_rng([seed, which, epoch])
        batches = common.shuffled_batches(file["lengths"][file["pairs"]], size, generator)
        file["epoch"], file["batches"] = epoch, [batch for batch in batches if len(batch) == size]
    return file, file["pairs"][file["batches"][place]].tolist()


def find_links(find, file, pairs):
    """Return {pair: links} of `pairs` of a file, in the order of the file. find: links.align_pairs of a chunk."""
    wanted = dict(zip(file["lines"][pairs].tolist(), pairs))
    chosen = ((wanted[n], pair) for n, pair in enumerate(read_parallel(file["path"])) if n in wanted)
    found = {}
    with torch.inference_mode(), tqdm(total=len(pairs), unit=" pairs", desc="links", disable=None) as bar:
        while chunk := list(itertools.islice(chosen, links.CHUNK)):
            results = links.align_shared(find, [pair for _, pair in chunk])
            found |= {number: result["links"][0] for (number, _), result in zip(chunk, results)}
            bar.update(len(chunk))
    return found


def add_links(files, args, tokenizer, limit, device):
    """Put into each file its 'links', those of the pairs that the training draws, found as align.py does by default."""
    model = common.load_encoder(args.model, args.layer).to(device)
    common.store_linear(model, args.precision)
    find = functools.partial(
        links.align_pairs, model, tokenizer, ways=[{"pick": links.grow_diag, "evidence": links.EVIDENCE}], lexicons={},
        similarity="csls", limit=limit, precision=args.precision,
    )  # fmt: skip
    drawn = [training_batch(files, step, args.seed) for step in range(args.max_steps)]
    for file in files:
        file["links"] = find_links(find, file, sorted({pair for of, batch in drawn if of is file for pair in batch}))


def link_targets(file, batch):
    """Return the links, (B, S, T) bool, of all subwords of two words that are linked, for a batch of pairs."""
    words = []
    for side in file["sides"]:
        index, inside = common.place_batch(side, batch)
        words.append(np.where(inside, side.word[index], -1))
    found = np.zeros((len(batch), words[0].shape[1], words[1].shape[1]), bool)
    for row, pair in enumerate(batch):
        for i, j in file["links"][pair]:
            found[row] |= (words[0][row] == i)[:, None] & (words[1][row] == j)[None, :]
    return torch.from_numpy(found)


def join_sides(file, pair, order, most):
    """Return the sentences of (pair, pair) numbers as one input, each of `most` subwords or fewer: (ids, sides).

    order: (0, 1) puts the source first, (1,) is the target alone. ids: <s> a </s> <s> b </s>, as awesome-align joins
    them; sides: of each subword the side it is of (0 or 1), -1 for special ones.
    """
    ids, sides = [], []
    for side in order:
        flat = file["sides"][side]
        place = np.arange(flat.lengths[pair[side]]) + flat.first[pair[side]]
        place = np.append(place[:-1][: most - 1], place[-1])
        ids += flat.ids[place].tolist()
        sides += np.where(flat.word[place] < 0, -1, side).tolist()
    return ids, sides


# ---- the model -------------------------------------------------------------------------------------


def load_whole(name, masked=False):
    """Return (model, missing): the model in float32 with all that its folder holds, or, `masked`, with its MLM head.

    missing: the names of the weights that the class has and the folder lacks; these are random. Raises InputError.
    """
    from transformers import AutoModel

    config = common.load_config(name)
    classes = [training.auto_class_for(config, kind) for kind in ["PreTraining"] * (not masked) + ["MaskedLM"]]
    if masked and None in classes:
        kind = f"a masked-language-model head for models of type {config.model_type}"
        raise InputError(f"{name}: transformers has no {kind}; {common.ENCODER}")
    for auto_class in filter(None, classes):  # BERT's of pretraining has a second head, which a folder may lack
        model, missing = common.load_weights(name, auto_class)
        if masked or all(key.startswith(model.base_model_prefix + ".") for key in missing):
            return model, missing
    return common.load_weights(name, AutoModel)


def load_model(name, depth, masked, used):
    """Return (model, new_id): what is trained, cut to the first `depth` layers and the embedding rows that are `used`.

    `masked` language modelling predicts any subword, so there everything stays, the head too. new_id: trim_embeddings'
    array, None where all rows stay. Raises InputError for a checkpoint without the head.
    """
    if masked:
        model, missing = load_whole(name, masked=True)
        if any(not key.startswith(model.base_model_prefix + ".") for key in missing):
            wrong = f"{name}: has no masked-language-model head, which mlm and tlm need"
            raise InputError(f"{wrong}; use xlm-roberta-base, for one, or --objectives of so, co, psi and contrast")
        new_id = None
    else:
        model = common.load_encoder(name, depth)
        new_id = common.trim_embeddings(model, used)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # the links are those of a model without dropout; with it no run was better
    return model, new_id


def identification_head(config):
    """Return psi's classifier of the first position's state: two layers, new."""
    size = config.hidden_size
    head = torch.nn.Sequential(torch.nn.Linear(size, size), torch.nn.Tanh(), torch.nn.Linear(size, 2))
    for layer in (head[0], head[2]):
        torch.nn.init.normal_(layer.weight, std=getattr(config, "initializer_range", 0.02))
        torch.nn.init.zeros_(layer.bias)
    return head


def apply_head(model, states):
    """Return a model's scores for hidden states (N, H), (N, scores). They take the encoder's place, whatever the head
    is called."""
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    class Output(BaseModelOutputWithPooling):
        def __getattr__(self, name):  # what some families give besides, such as Longformer's global attentions
            return None

    output = Output(last_hidden_state=states[None], pooler_output=states[:1])
    encoder, forward = model.base_model, model.base_model.forward
    encoder.forward = lambda *_, **__: output
    try:
        made = model(input_ids=torch.zeros(1, len(states), dtype=torch.long, device=states.device))
        return (made.prediction_logits if "prediction_logits" in made else made.logits)[0]
    finally:
        encoder.forward = forward


# ---- the losses of a batch, (B,): each objective of a Setup, a file, a batch and a random generator for each pair ----

# model: load_model's; layers: its common.find_layers; head: psi's; asked: objectives; similarity: of TEMPERATURE;
# layer: the one to train for; limit: most subwords of an input
Setup = collections.namedtuple("Setup", "model layers head asked similarity layer limit precision pad_id mask_id")


def hidden_states(setup, depth, ids, mask):
    """Return hidden states after the first `depth` layers, (B, L, H) float32; the layers above do not run. ids, mask:
    (B, L)."""
    device, encoder = setup.model.device, setup.model.base_model
    undo = common.cut_layers(encoder, depth, setup.layers)
    with common.autocast(device, setup.precision):
        states = encoder(input_ids=ids.to(device), attention_mask=mask.long().to(device)).last_hidden_state.float()
    undo()
    return states


def alignment_losses(setup, file, batch, _):
    """Return the sum of so, co and contrast. In data-parallel training contrast sees all processes' sentences."""
    states, units = [], []
    for side in file["sides"]:
        index, inside = common.place_batch(side, batch)
        ids, mask = torch.from_numpy(np.where(inside, side.ids[index], setup.pad_id)), torch.from_numpy(inside)
        states.append(hidden_states(setup, setup.layer, ids, mask))
        units.append(torch.from_numpy(inside & side.keep[index]).to(states[0].device))
    cells = units[0][:, :, None] & units[1][:, None, :]
    losses = states[0].new_zeros(len(batch))
    if setup.asked & {"so", "co"}:
        scores = links.similarity_matrix(*states, cells, setup.similarity) / TEMPERATURE[setup.similarity]
        forward, backward = links.both_directions(scores, cells)
    if "so" in setup.asked:  # with dot products the links that the model finds at this step, as awesome-align has it
        found = link_targets(file, batch).to(cells.device) & cells if "links" in file else None
        found = (forward > 1e-3) & (backward > 1e-3) if found is None else found
        losses = losses + self_training(forward, backward, found, cells)
    if "co" in setup.asked:
        losses = losses + consistency(forward, backward, cells)
    if "contrast" in setup.asked:
        masks = (gather(side.float()).bool() for side in units)
        everyone = contrast(*map(gather, states), *masks, TEMPERATURE["cosine"])
        rank = dist.get_rank() if dist.is_initialized() else 0
        losses = losses + everyone[rank * len(batch) : (rank + 1) * len(batch)]
    return losses


def padded(inputs, pad_id):
    """Return (ids, mask), (B, L) each, of lists of ids."""
    return common.pad(inputs, pad_id), common.pad([[1] * len(ids) for ids in inputs], 0)


def predict_masked(setup, joined, side, generators):
    """Return masked-language-model losses of join_sides' inputs, masked in one side, by the checkpoint's own head."""
    config, masked = setup.model.config, []
    for (ids, sides), generator in zip(joined, generators):
        allowed = [of == side for of in sides]
        masked.append(mask_subwords(ids, allowed, setup.mask_id, config.vocab_size, generator))
    hidden = hidden_states(setup, config.num_hidden_layers, *padded([ids for ids, _ in masked], setup.pad_id))
    chosen = common.pad([chosen for _, chosen in masked], False).bool()
    labels = common.pad([ids for ids, _ in joined], setup.pad_id)[chosen].to(hidden.device)
    with common.autocast(hidden.device, setup.precision):
        scores = apply_head(setup.model, hidden[chosen.to(hidden.device)]).float()
    return masked_language_model(scores, labels, chosen.nonzero()[:, 0].to(hidden.device), len(joined))


def monolingual_losses(setup, file, batch, generators):
    """Return mlm: each sentence alone."""
    losses = 0.0
    for side in (0, 1):
        joined = [join_sides(file, (pair, pair), (side,), setup.limit) for pair in batch]
        losses = losses + predict_masked(setup, joined, side, generators)
    return losses


def translation_losses(setup, file, batch, generators):
    """Return tlm: both sentences in random order, one language masked, then the other."""
    orders = [[(0, 1), (1, 0)][generator.integers(2)] for generator in generators]
    joined = [join_sides(file, (pair, pair), order, setup.limit // 2) for pair, order in zip(batch, orders)]
    return sum(predict_masked(setup, joined, side, generators) for side in (0, 1))


def identification_losses(setup, file, batch, generators):
    """Return psi: each pair, and one of its sentences with a random pair's other one, in random order."""
    inputs = []
    for pair, generator in zip(batch, generators):
        other = int(generator.choice(file["pairs"]))
        while other == pair and len(file["pairs"]) > 1:
            other = int(generator.choice(file["pairs"]))
        mixed = [(pair, other), (other, pair)][generator.integers(2)]
        for numbers in ((pair, pair), mixed):
            order = [(0, 1), (1, 0)][generator.integers(2)]
            inputs.append(join_sides(file, numbers, order, setup.limit // 2)[0])
    depth = min(setup.layer + 1, setup.model.config.num_hidden_layers)
    states = hidden_states(setup, depth, *padded(inputs, setup.pad_id))[:, 0]
    return sentence_identification(setup.head(states), torch.tensor([1, 0] * len(batch), device=states.device))


# ---- the training ----------------------------------------------------------------------------------


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
    add("--similarity", choices=["cosine", "dot"], default="cosine", help="of so and co; dot is awesome-align's, "
        "whose links so then finds anew at each step")  # fmt: skip
    add("--max-steps", type=positive, default=500, metavar="N", help="steps of the optimizer")
    add("--batch-size", type=positive, default=32, help="pairs in a batch, over all processes")
    add("--lr", type=positive_float, default=3e-5, help="highest learning rate of AdamW")
    add("--layer", type=positive, metavar="N", help="hidden layer to train for (default: align.json's, else 8 of 12)")
    add("--seed", type=random_seed, default=1, help="of the batches, masks, negative examples and new layers")
    training.add_machine_options(parser)
    args = parser.parse_args()

    asked = args.objectives.split(",")
    if not set(asked) <= set(OBJECTIVES) or len(set(asked)) < len(asked):
        expected = f"expected some of {','.join(OBJECTIVES)}, each once, separated by commas"
        raise InputError(f"--objectives {args.objectives}: {expected}")
    args.output = args.output.rstrip("/")
    common.check_name(args.output)
    check_writable(training.checkpoint_path(args.output))
    if os.path.exists(args.output) and not os.path.isdir(args.output):
        raise InputError(f"{args.output}: is a file; expected the name of a folder to write")
    if os.path.realpath(args.output) == os.getcwd() or os.path.ismount(args.output):
        raise InputError(f"{args.output}: cannot be replaced by the written folder; expected one below it")
    own = os.path.isfile(os.path.join(args.output, "finetuning.json"))
    if os.path.isdir(args.output) and os.listdir(args.output) and not own:
        raise InputError(f"{args.output}: a folder that this script did not write; expected a new folder")
    return args


def main():
    args = parse_arguments()
    config, tokenizer, device = common.load_config(args.model), common.load_tokenizer(args.model), common.pick_device()
    rank, world = common.start_distributed(device)
    if args.batch_size % world:
        cure = f"expected a multiple of {world}"
        raise InputError(f"--batch-size {args.batch_size}: does not divide by {world} processes; {cure}")
    asked, depth = set(args.objectives.split(",")), config.num_hidden_layers
    masked, mask_id = bool(asked & {"mlm", "tlm"}), tokenizer.mask_token_id
    if masked and mask_id is None:
        raise InputError(f"{args.model}: its tokenizer has no mask, which mlm and tlm need; expected another model")
    args.layer = args.layer or links.align_layer(links.read_align_json(args.model, depth), depth)
    if args.layer > depth:
        raise InputError(f"--layer {args.layer}: {args.model} has {depth} layers")
    args.precision = args.precision or common.pick_precision(device, args.model)
    limit = min(MAX_LENGTH, common.subword_limit(tokenizer, config))
    training.seed_everything(args.seed)

    # Text, and the links that so trains on.
    files = read_files(args, tokenizer, limit, world)
    common.check_known(args.model, tokenizer)
    if "so" in asked and args.similarity == "cosine":
        add_links(files, args, tokenizer, limit, device)
    data = [side.ids for file in files for side in file["sides"]]
    used = {tokenizer.pad_token_id, *np.unique(np.concatenate(data)).tolist()}
    found = [file.get("links", {}) for file in files]
    data += [np.array([(pair, *link) for pair in of for link in of[pair]]) for of in found]

    # Model.
    model, new_id = load_model(args.model, depth if masked else min(args.layer + ("psi" in asked), depth), masked, used)
    pad_id = tokenizer.pad_token_id
    if new_id is not None:
        pad_id = int(new_id[pad_id])
        for file in files:
            file["sides"] = [side._replace(ids=new_id[side.ids]) for side in file["sides"]]
    layers, modules = common.find_layers(args.model, model.base_model), {"model": model.to(device).train()}
    if "psi" in asked:
        modules["psi_head"] = identification_head(config).to(device)
    heads = layers, modules.get("psi_head")
    setup = Setup(model, *heads, asked, args.similarity, args.layer, limit, args.precision, pad_id, mask_id)
    # One after the other, so that each graph is freed before the next is built.
    objectives = [alignment_losses] * bool(asked & {"so", "co", "contrast"}) + [monolingual_losses] * ("mlm" in asked)
    objectives += [translation_losses] * ("tlm" in asked) + [identification_losses] * ("psi" in asked)
    common.release_memory()
    parameters = [parameter for module in modules.values() for parameter in module.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=args.lr, weight_decay=0.0, fused=True)

    # Training, from where a killed run of the same code, settings, data and model stood.
    state, save = training.resume(__file__, args, data, modules, optimizer)
    for file in files if rank == 0 else ():
        if file["size"] < args.batch_size:
            less = f"its batches are of {file['size']}"
            warn(f"{file['path']}: has fewer pairs than --batch-size {args.batch_size}; {less}")
    started = saved = time.perf_counter()
    started -= state["seconds"]
    with tqdm(total=args.max_steps, initial=state["step"], unit=" steps", disable=None if rank == 0 else True) as bar:
        for step in range(state["step"], args.max_steps):
            training.seed_step(args.seed, step, rank)
            file, batch = training_batch(files, step, args.seed)
            size, loss = len(batch), torch.zeros((), device=device)
            local_batch = batch[rank * size // world : (rank + 1) * size // world]
            generators = [np.random.default_rng([args.seed, step, pair]) for pair in local_batch]
            for losses in (objective(setup, file, local_batch, generators) for objective in objectives):
                (losses.sum() / size).backward()
                loss += losses.detach().sum() / size
            if world > 1:
                dist.all_reduce(loss)
            rate = args.lr * training.linear_schedule(step, args.max_steps, WARMUP)
            training.update(optimizer, rate)
            state |= {"step": step + 1, "loss": loss, "seconds": time.perf_counter() - started}
            training.record_loss(state, args.max_steps, rate, bar)
            bar.update()
            if rank == 0 and time.perf_counter() - saved >= 60 * args.save_every:
                save()
                saved = time.perf_counter()
    seconds, history = time.perf_counter() - started, state["history"]
    if world > 1:
        dist.destroy_process_group()
    if rank > 0:
        return

    # The whole checkpoint with the trained weights put in their place.
    drawn = sum(files[step % len(files)]["size"] for step in range(args.max_steps))
    report = {
        "model": args.model, "pairs": [len(file["pairs"]) for file in files], "steps": args.max_steps,
        "batch_sizes": [file["size"] for file in files], "history": history, "seconds": seconds,
        "pairs_per_second": drawn / seconds, "commit": versions.commit(), "args": vars(args),
    }  # fmt: skip
    contents = {"align.json": {"layer": args.layer, **EXTRACTION[args.similarity]}, "finetuning.json": report}
    weights = {key: value.detach().cpu() for key, value in model.state_dict().items()}
    del optimizer, files
    full, missing = load_whole(args.model)
    training.put_weights(full, weights, new_id)
    kept = {key: value for key, value in full.state_dict().items() if key not in missing}
    training.save_folder(full, args.model, args.output, contents, state_dict=kept)
    remove(training.checkpoint_path(args.output))
    print(json.dumps({key: report[key] for key in ("steps", "seconds", "pairs_per_second")} | history[-1]))


if __name__ == "__main__":
    run_script(main)
