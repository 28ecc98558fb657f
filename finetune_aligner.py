"""Fine-tune an encoder so that it aligns words better: awesome-align's objectives on plain parallel text, no gold links needed.

In:   one or several files of `source words ||| target words` lines, tokenised by spaces
Out:  OUTPUT/                 a Hugging Face folder for `align.py --model` and for every train script
      OUTPUT/align.json       the layer, method, similarity, temperature and threshold that align.py takes from it
      OUTPUT/finetuning.json  how it was made

    python finetune_aligner.py --model models/multilingual-e5-small --train en-fr.txt --output aligners/fr          # separate
    python finetune_aligner.py --model M --train en-fr.txt en-de.txt en-hi.txt en-zh.txt --output aligners/joint   # joint
    python finetune_aligner.py --model M --train enfr.src-tgt --gold enfr.gold --output aligners/supervised
    torchrun --nproc_per_node 4 finetune_aligner.py ...      # the same batches, shared out over four GPUs

Of several files each gets the same number of batches, taken in turn, however large it is; a small one is begun again the sooner.
A killed run goes on from OUTPUT.checkpoint when it is started again and ends with the same weights.

Sources: Dou and Neubig 2021 (awesome-align) for so, co, psi, mlm, tlm, tlm-full; Khattab and Zaharia 2020 (ColBERT's similarity of
sentences) with van den Oord et al. 2018 (InfoNCE) for contrast.
"""

import json
import os
import shutil
import time
from types import SimpleNamespace

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from tqdm import tqdm

from align import (
    BUDGET,
    METHODS,
    Pieces,
    SIMILARITIES,
    align_pairs,
    alignment_scores,
    both_directions,
    check_gold,
    entmax15,
    flatten,
    link_counts,
    pick_links,
    similarity_matrix,
    align_layer,
    read_align_json,
)
import common
import heads
import subwords
import training
from data.cli import (
    Arguments,
    InputError,
    check_writable,
    fraction,
    open_output,
    positive,
    positive_float,
    random_seed,
    run_script,
    warn,
)
from data.files import read_gold, read_parallel

OBJECTIVES = ["so", "co", "psi", "contrast", "mlm", "tlm", "tlm-full"]
LM = {"mlm", "tlm", "tlm-full"}
HEADS = ("cls.predictions", "lm_head")  # names of masked-language-model heads in BERT and in XLM-R
CONTRAST_TEMPERATURE = 0.05
# How align.py finds links after training: awesome-align's rule for dot products, else what was measured to be best (see the README).
EXTRACTION = {
    "dot": {"method": "softmax", "similarity": "dot", "temperature": 1.0, "threshold": 1e-3, "diagonal": 0.0},
    "cosine": {"method": "softmax", "similarity": "csls", "temperature": 0.05, "threshold": 0.45, "diagonal": 0.1},
}
WARMUP = 0.1  # share of the steps in which the rate rises
MASKED = 0.15  # share of the pieces that masked language modelling predicts (Devlin et al. 2019)
HELD_OUT = (
    0.05,
    100,
)  # share of a file's pairs that is held out for validation where none is given, and the most of them
READ = 20_000  # pairs that are tokenised at a time


# ---- objectives: each returns the losses of a batch's B pairs, (B,). S and T are the numbers of source and target pieces.


def self_training(forward, backward, targets, cells):
    """SO: the links that the model finds itself get more probable in both directions (Dou and Neubig 2021, section 2.2).

    - sum_ij targets_ij * (forward_ij / S + backward_ij / T). forward, backward: (B, S, T) probabilities of a target piece given
    the source piece and the other way round, 0 outside `cells`, (B, S, T) bool; targets: (B, S, T) bool, the links.
    """
    source, target = cells.any(2).sum(1), cells.any(1).sum(1)  # (B,) pieces
    return -(forward * targets).sum((1, 2)) / source - (backward * targets).sum((1, 2)) / target


def consistency(forward, backward, cells):
    """CO: both directions agree: - trace(forward^T backward) / min(S, T) (Dou and Neubig 2021). Shapes as in self_training."""
    size = torch.minimum(cells.any(2).sum(1), cells.any(1).sum(1))
    return -(forward * backward).sum((1, 2)) / size


def sentence_identification(scores, labels):
    """PSI: are the two sentences of an input translations of each other? (Dou and Neubig 2021).

    scores: (2 B, 2) of `psi_head`, a parallel (label 1) and a random (label 0) input for each pair; labels: (2 B,).
    """
    return F.cross_entropy(scores, labels, reduction="none").view(-1, 2).mean(1)


def contrast(source, target, source_mask, target_mask, temperature):
    """Each sentence finds its translation among those of the batch, by the cosines of their pieces.

    The score of a sentence with another is the mean over its pieces of their highest cosine with a piece of the other (ColBERT);
    the loss is the cross-entropy of scores / temperature over the batch (InfoNCE), averaged over the two directions. A piece that
    is near to everything scores nothing here, so pieces come to tell their translations from other words.
    source: (B, S, H), target: (B, T, H), masks: (B, S) and (B, T) bool; sentences of one row are translations.
    """
    cosine = torch.einsum("ash,bth->abst", F.normalize(source, dim=2), F.normalize(target, dim=2))
    there = cosine.masked_fill(~target_mask[None, :, None, :], -1.0).amax(3)  # (B sources, B targets, S)
    back = cosine.masked_fill(~source_mask[:, None, :, None], -1.0).amax(2)  # (B sources, B targets, T)
    there = (there * source_mask[:, None, :]).sum(2) / source_mask.sum(1)[:, None]
    back = (back * target_mask[None, :, :]).sum(2) / target_mask.sum(1)[None, :]
    own = torch.arange(len(source), device=source.device)
    return sum(F.cross_entropy(score / temperature, own, reduction="none") for score in (there, back.T)) / 2


def masked_language_model(scores, labels, row, rows):
    """MLM and TLM: cross-entropy of the masked pieces, averaged within each of the `rows` inputs (Devlin et al. 2019).

    scores: (M, vocabulary) of the masked pieces; labels: (M,) their true ids; row: (M,) the inputs they stand in.
    """
    losses = F.cross_entropy(scores, labels, reduction="none")
    count = torch.bincount(row, minlength=rows).clamp(min=1)
    return losses.new_zeros(rows).index_add(0, row, losses / count[row])


# ---- batches --------------------------------------------------------------------------------------


def read_training(path, tokenizer, settings, gold_path, gold_index):
    """The pairs of a training file as flat arrays: a dict with 'sides' (source and target), 'pairs', 'lengths' and 'links'.

    A side is align's Pieces; 'lengths' are the pieces of both sides of a pair; 'links' is None or the list of the pairs' gold
    links; 'pairs' numbers the pairs to use. Pairs with an empty side are left out. Raises InputError.
    """
    gold = read_gold(gold_path, gold_index) if gold_path else None
    parts, links, empty, chunk = ([], []), [], 0, ([], [])

    def tokenize():
        for side, sentences in enumerate(chunk):
            if sentences:
                parts[side].append(flatten(tokenizer, sentences, settings)[0])
            sentences.clear()

    number = 0
    for number, pair in enumerate(read_parallel(path), 1):
        if gold is not None:
            if number > len(gold):
                raise InputError(
                    f"{gold_path}: {len(gold)} lines, but {path} has more; expected one line for each pair"
                )
            check_gold(gold_path, number, gold[number - 1], pair, gold_index)
        if not all(pair):
            empty += 1
            continue
        for side, sentence in enumerate(pair):
            chunk[side].append(sentence)
        if gold is not None:
            links.append(sorted(gold[number - 1][1]))
        if len(chunk[0]) == READ:
            tokenize()
    tokenize()
    if gold is not None and number != len(gold):
        raise InputError(f"{gold_path}: {len(gold)} lines, but {path} has {number}; expected one line for each pair")
    if empty:
        warn(f"{path}: {empty} lines have an empty side and are left out")
    if not parts[0]:
        raise InputError(f"{path}: no pairs; expected `source words ||| target words` a line")
    sides = []
    for part in parts:
        ids, word, keep, _, lengths = (np.concatenate(arrays) for arrays in zip(*part))
        sides.append(Pieces(ids, word, keep, np.cumsum(lengths) - lengths, lengths))
    units = [np.add.reduceat(side.keep.astype(int), side.first) for side in sides]
    pairs = np.flatnonzero(np.minimum(*units))  # without those all of whose characters the tokenizer drops
    if not len(pairs):
        raise InputError(
            f"{path}: the model's tokenizer drops every character of a side in every pair; expected another model"
        )
    return {"sides": sides, "lengths": sides[0].lengths + sides[1].lengths, "links": links or None, "pairs": pairs}


def hold_out(file, generator):
    """Take the validation pairs out of file['pairs'] and return them, shortest first."""
    order = generator.permutation(file["pairs"])
    count = min(round(HELD_OUT[0] * len(order)), HELD_OUT[1])
    file["pairs"] = np.sort(order[count:])
    return sorted(order[:count].tolist(), key=file["lengths"].__getitem__)


def training_batch(files, number, size, seed):
    """Batch `number` of the training, from 0: (file, pairs). It depends on the seed alone, so a run can go on from any step.

    Files take turns. Within a file an epoch's batches are of like length and in random order; each has `size` pairs, the last
    ones of an epoch, too few for a batch, being left out.
    """
    turn, which = divmod(number, len(files))
    file = files[which]
    epoch, place = divmod(turn, len(file["pairs"]) // size)
    if file.get("epoch") != epoch:
        batches = common.shuffled_batches(
            file["lengths"][file["pairs"]], size, np.random.default_rng([seed, which, epoch])
        )
        file["epoch"], file["batches"] = epoch, [batch for batch in batches if len(batch) == size]
    return file, file["pairs"][file["batches"][place]].tolist()


def tensors(side, batch, pad_id, device):
    """(ids, mask, units) of sentences of a side, (B, L) each: pieces, where they are, and which of them are compared."""
    index, inside = common.place_batch(side, batch)
    arrays = np.where(inside, side.ids[index], pad_id), inside, inside & side.keep[index]
    return [torch.from_numpy(array).to(device) for array in arrays]


def gold_targets(file, batch):
    """Piece links, (B, S, T) bool, of the gold word links of a batch of pairs."""
    words = []
    for side in file["sides"]:
        index, inside = common.place_batch(side, batch)
        words.append(np.where(inside, side.word[index], -1))
    found = np.zeros((len(batch), words[0].shape[1], words[1].shape[1]), bool)
    for row, pair in enumerate(batch):
        for i, j in file["links"][pair]:
            found[row] |= (words[0][row] == i)[:, None] & (words[1][row] == j)[None, :]
    return torch.from_numpy(found)


def joined(file, pair, order, limit):
    """Both sentences of (pair, pair) numbers as one input, each cut to half of `limit` pieces, the way awesome-align joins them.

    order: (0, 1) puts the source first. Returns (ids, side): <s> a </s> <s> b </s>, and of each piece the side it is of (0 or 1),
    -1 for special ones.
    """
    ids, sides = [], []
    for side in order:
        pieces = file["sides"][side]
        place = np.arange(pieces.lengths[pair[side]]) + pieces.first[pair[side]]
        place = np.append(place[: limit // 2 - 1], place[-1])
        ids += pieces.ids[place].tolist()
        sides += np.where(pieces.word[place] < 0, -1, side).tolist()
    return ids, sides


def mask_pieces(ids, allowed, mask_piece, vocabulary, generator):
    """Draw MASKED of the allowed pieces of an input: 80 % become the mask, 10 % a random piece, 10 % stay (Devlin et al. 2019).

    ids: list of int; allowed: list of bool. Returns (ids, chosen), chosen being what is to be predicted, a list of bool.
    """
    ids, draws = np.array(ids), generator.random((2, len(ids)))
    chosen = (draws[0] < MASKED) & np.array(allowed)
    random = generator.integers(vocabulary, size=len(ids))
    replaced = np.where(draws[1] < 0.8, mask_piece, np.where(draws[1] < 0.9, random, ids))
    return np.where(chosen, replaced, ids).tolist(), chosen.tolist()


class Gather(torch.autograd.Function):
    """The rows of every process, (world * B, ...); a row's gradient is the sum of what all processes want of it."""

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
    """A float (B, L, ...) tensor of every process, (world * B, longest L, ...), gradients included. One process: the same."""
    if not dist.is_initialized() or not torch.is_grad_enabled():
        return tensor
    length = torch.tensor(tensor.shape[1], device=tensor.device)
    dist.all_reduce(length, dist.ReduceOp.MAX)
    return Gather.apply(F.pad(tensor, (0, 0) * (tensor.dim() - 2) + (0, int(length) - tensor.shape[1])))


# ---- model and losses -----------------------------------------------------------------------------


def hidden_states(model, depth, ids, mask):
    """Hidden states after the first `depth` layers, (B, L, H) float32; the layers above do not run."""
    model.encoder.encoder.layer = model.layers[:depth]
    with common.autocast(ids.device, model.precision):
        return model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state.float()


def alignment_losses(model, options, file, batch):
    """The sum of SO, CO and contrast for a batch of pairs, (B,). In data-parallel training contrast sees all processes' sentences."""
    (ids, mask, source_units), (other_ids, other_mask, target_units) = (
        tensors(side, batch, model.pad_id, model.device) for side in file["sides"]
    )
    cells = source_units[:, :, None] & target_units[:, None, :]

    def states():
        return hidden_states(model, options.layer, ids, mask), hidden_states(
            model, options.layer, other_ids, other_mask
        )

    source, target = states()
    losses = source.new_zeros(len(batch))
    if options.objectives & {"so", "co"}:
        similarity = similarity_matrix(source, target, cells, options.similarity)
        probabilities = entmax15 if options.method == "entmax" else torch.softmax
        forward, backward = both_directions(similarity / options.temperature, cells, probabilities)
    if "so" in options.objectives:
        if file["links"]:
            targets = gold_targets(file, batch).to(cells.device) & cells
        else:
            chosen_by = similarity.detach()
            if options.dropout and model.encoder.training:  # the links are those of the model without dropout
                with torch.no_grad():
                    model.encoder.eval()
                    chosen_by = similarity_matrix(*states(), cells, options.similarity)
                    model.encoder.train()
            targets = pick_links(chosen_by, cells, options.method, options.threshold, options.temperature)
        losses = losses + self_training(forward, backward, targets, cells)
    if "co" in options.objectives:
        losses = losses + consistency(forward, backward, cells)
    if "contrast" in options.objectives:
        masks = (gather(units.float()).bool() for units in (source_units, target_units))
        everyone = contrast(gather(source), gather(target), *masks, CONTRAST_TEMPERATURE)
        first = model.rank * len(batch) if torch.is_grad_enabled() else 0  # validation is one process's work
        losses = losses + everyone[first : first + len(batch)]
    return losses


def language_model_losses(model, inputs, generators):
    """MLM losses of (ids, allowed) inputs, (B,): masked pieces are predicted by the checkpoint's own head."""
    made = [
        mask_pieces(*item, model.mask_id, model.vocabulary, generator) for item, generator in zip(inputs, generators)
    ]
    ids = common.pad([ids for ids, _ in made], model.pad_id).to(model.device)
    labels = common.pad([ids for ids, _ in inputs], model.pad_id).to(model.device)
    chosen = common.pad([chosen for _, chosen in made], False).bool().to(model.device)
    mask = common.pad([[True] * len(ids) for ids, _ in made], False).bool().to(model.device)
    hidden = hidden_states(model, len(model.layers), ids, mask)
    row, _ = chosen.nonzero(as_tuple=True)
    with common.autocast(ids.device, model.precision):
        scores = model.head(hidden[chosen]).float()
    return masked_language_model(scores, labels[chosen], row, len(inputs))


def identification_losses(model, options, file, batch, generators):
    """PSI losses of a batch, (B,): each pair, and one of its sentences with a random pair's other one, in random order."""
    inputs = []
    for pair, generator in zip(batch, generators):
        other = int(generator.choice(file["pairs"]))
        while other == pair and len(file["pairs"]) > 1:
            other = int(generator.choice(file["pairs"]))
        mixed = [(pair, other), (other, pair)][generator.integers(2)]
        for numbers in ((pair, pair), mixed):
            order = [(0, 1), (1, 0)][generator.integers(2)]
            inputs.append(joined(file, numbers, order, options.limit)[0])
    ids = common.pad(inputs, model.pad_id).to(model.device)
    mask = common.pad([[True] * len(ids) for ids in inputs], False).bool().to(model.device)
    hidden = hidden_states(model, min(options.layer + 1, len(model.layers)), ids, mask)
    labels = torch.tensor([1, 0] * len(batch), device=model.device)
    return sentence_identification(model.psi_head(hidden[:, 0]), labels)


def batch_losses(model, options, file, batch, number):
    """Yield the losses, (B,), of one objective after the other, so that each graph can be freed before the next is built.

    Masks and negative examples depend on the seed, the batch's number and the pair alone.
    """
    generators = [np.random.default_rng([options.seed, number, pair]) for pair in batch]
    if options.objectives & {"so", "co", "contrast"}:
        yield alignment_losses(model, options, file, batch)
    if "mlm" in options.objectives:
        for side in (0, 1):
            inputs = [joined(file, (pair, pair), (side,), 2 * options.limit) for pair in batch]
            yield language_model_losses(
                model, [(ids, [of == side for of in sides]) for ids, sides in inputs], generators
            )
    if options.objectives & {"tlm", "tlm-full"}:
        both = [(0, 1), (1, 0)]
        drawn = [
            both if "tlm-full" in options.objectives else [both[generator.integers(2)]] for generator in generators
        ]
        for orders in zip(*drawn):
            for masked in (0, 1):  # the language that is masked; the other one is whole
                inputs = [joined(file, (pair, pair), order, options.limit) for pair, order in zip(batch, orders)]
                yield language_model_losses(
                    model, [(ids, [of == masked for of in sides]) for ids, sides in inputs], generators
                )
    if "psi" in options.objectives:
        yield identification_losses(model, options, file, batch, generators)


def language_model_head(whole):
    """The masked-language-model head of a BERT or XLM-R type of model."""
    return whole.cls.predictions if hasattr(whole, "cls") else whole.lm_head


def load_model(name, options, used):
    """The encoder, cut to the layers and embedding rows that the training can change, and the heads of the objectives.

    Masked language modelling predicts any piece of the vocabulary, so there all rows stay. Raises InputError for a checkpoint
    without the head that it needs, and for one that is not built like BERT.
    """
    model = SimpleNamespace(new_id=None, head=None, psi_head=None)
    depth = options.layer + ("psi" in options.objectives)
    if options.objectives & LM:
        whole, missing = heads.load_whole(name)
        model.head = language_model_head(whole)
        if any(key.startswith(HEADS) for key in missing):
            raise InputError(
                f"{name}: has no masked-language-model head, which mlm and tlm need; expected a checkpoint with one, such as "
                "bert-base-multilingual-cased or xlm-roberta-base, or --objectives of so, co, psi and contrast, which work with this one"
            )
        model.encoder = whole.base_model
        model.encoder.pooler = None
    else:
        model.encoder = common.load_encoder(
            name, min(depth, common.load_config(name).num_hidden_layers), options.attention
        )
        model.new_id = common.trim_embeddings(model.encoder, used)
    if not hasattr(getattr(model.encoder, "encoder", None), "layer"):
        raise InputError(
            f"{name}: a model of type {model.encoder.config.model_type}; expected a BERT or XLM-R type of encoder"
        )
    model.layers = model.encoder.encoder.layer
    model.vocabulary = model.encoder.config.vocab_size
    if "psi" in options.objectives:
        size = model.encoder.config.hidden_size
        model.psi_head = torch.nn.Sequential(torch.nn.Linear(size, size), torch.nn.Tanh(), torch.nn.Linear(size, 2))
        for layer in (model.psi_head[0], model.psi_head[2]):
            torch.nn.init.normal_(layer.weight, std=model.encoder.config.initializer_range)
            torch.nn.init.zeros_(layer.bias)
    for module in model.encoder.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = options.dropout
    return model


def trained_modules(model):
    """The encoder and the heads by name."""
    model.encoder.encoder.layer = model.layers
    modules = {"encoder": model.encoder, "head": model.head, "psi_head": model.psi_head}
    return {name: module for name, module in modules.items() if module is not None}


def snapshot(model):
    """A copy of all weights on the CPU, {module: {name: tensor}}; the head's output matrix is the encoder's embedding."""
    return {
        name: {key: value.cpu().clone() for key, value in module.state_dict().items() if key != "decoder.weight"}
        for name, module in trained_modules(model).items()
    }


# ---- validation and output --------------------------------------------------------------------------


def validate(model, options, valid, files, held_out):
    """{'aer', 'precision', 'recall', 'f1'} on the gold file, else {'loss'}: the objectives on the pairs held out of every file."""
    for module in trained_modules(model).values():
        module.eval()
    with torch.inference_mode():
        if valid:
            pairs, gold = valid
            model.encoder.encoder.layer = model.layers[: options.layer]
            full = [n for n, pair in enumerate(pairs) if all(pair)]
            [links], *_ = align_pairs(model.encoder, model.tokenizer, [pairs[n] for n in full], options.align)
            found = dict(zip(full, links))
            counts = sum(link_counts(found.get(n, []), gold[n]) for n in range(len(pairs)))
            return alignment_scores(counts.tolist())
        total, count = 0.0, 0
        for file, pairs in zip(files, held_out):
            for start in range(0, len(pairs), options.batch_size):
                batch = pairs[start : start + options.batch_size]
                total += sum(float(losses.sum()) for losses in batch_losses(model, options, file, batch, 0))
                count += len(batch)
    return {"loss": total / max(1, count)}


def save_folder(name, weights, new_id, align, report, folder):
    """Write a whole Hugging Face folder: the checkpoint `name` with what was trained put in its place."""
    whole, missing = heads.load_whole(name)
    heads.put_weights(whole, weights["encoder"], new_id)
    if "head" in weights:
        language_model_head(whole).load_state_dict(weights["head"], strict=False)
    headless = any(key.startswith(HEADS) for key in missing)
    target = whole.base_model if headless else whole
    prefix = f"{whole.base_model_prefix}."
    absent = {key.removeprefix(prefix) if headless else key for key in missing}
    temporary = f"{folder}.{os.getpid()}.tmp"
    try:
        target.save_pretrained(
            temporary, state_dict={key: value for key, value in target.state_dict().items() if key not in absent}
        )
        common.load_tokenizer(name).save_pretrained(temporary)
        for file, content in (("align.json", align), ("finetuning.json", report)):
            with open_output(os.path.join(temporary, file)) as stream:
                json.dump(content, stream, indent=1)
        training.replace_folder(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def parse_arguments():
    """The command line. Raises InputError for options that do not go together."""
    parser = Arguments(__doc__)
    parser.add_argument(
        "--model", required=True, help="Hugging Face folder or hub name of a BERT or XLM-R type encoder"
    )
    parser.add_argument(
        "--train",
        required=True,
        nargs="+",
        metavar="FILE",
        help="`source ||| target` a line; several files: a joint aligner",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="model folder to write")
    parser.add_argument(
        "--objectives",
        default="so,contrast",
        help="what is trained, a sum of: so (self-training), co (consistency of the two directions), psi (parallel sentence "
        "identification), contrast (the same within the batch, by word similarities), mlm, tlm, tlm-full (masked language models; for "
        "checkpoints with such a head)",
    )
    parser.add_argument("--max-steps", type=positive, default=500, metavar="N", help="steps of the optimizer")
    parser.add_argument("--batch-size", type=positive, default=32, help="pairs in a batch, over all processes")
    parser.add_argument(
        "--accumulate", type=positive, default=1, metavar="N", help="batches whose gradients are added up for a step"
    )
    parser.add_argument("--lr", type=positive_float, default=3e-5, help="highest learning rate of AdamW")
    parser.add_argument(
        "--layer",
        type=positive,
        metavar="N",
        help="hidden layer to train for (default: the model's align.json, else 8 of 12)",
    )
    parser.add_argument("--method", choices=METHODS, default="argmax", help="how so picks the links that it trains on")
    parser.add_argument("--threshold", type=positive_float, help="of --method softmax (default: 0.001, for entmax 0)")
    parser.add_argument(
        "--similarity",
        choices=SIMILARITIES,
        default="cosine",
        help="of so and co; dot is awesome-align's, with --temperature 1 by default",
    )
    parser.add_argument("--temperature", type=positive_float, help="divides the similarity (default: 0.05, for dot 1)")
    parser.add_argument("--dropout", type=fraction, default=0.0, help="of the encoder while it is trained")
    parser.add_argument(
        "--gold",
        nargs="+",
        metavar="FILE",
        help="gold alignments of the --train files: so trains on these links instead",
    )
    parser.add_argument(
        "--gold-index", type=int, choices=[0, 1], default=1, help="number of the first word in gold files"
    )
    parser.add_argument(
        "--valid",
        metavar="FILE",
        help="pairs to choose the best weights by (default: the objective on pairs held out of --train)",
    )
    parser.add_argument(
        "--valid-gold", metavar="FILE", help="gold alignments of --valid: the weights with the lowest AER are kept"
    )
    parser.add_argument(
        "--evaluate-every", type=positive, metavar="N", help="steps between validations (default: a fifth of all)"
    )
    parser.add_argument(
        "--save-every",
        type=positive,
        default=200,
        metavar="N",
        help="steps between checkpoints, from which a killed run goes on",
    )
    parser.add_argument(
        "--max-length",
        type=positive,
        default=128,
        help="most pieces of a sentence, special ones included; the rest is cut off",
    )
    parser.add_argument(
        "--seed", type=random_seed, default=1, help="of the batches, masks, negative examples and dropout"
    )
    parser.add_argument(
        "--precision", choices=["bf16", "f32"], help="of matrix products (default: bf16 where the machine has it)"
    )
    args = parser.parse_args()

    objectives = args.objectives.split(",")
    if not set(objectives) <= set(OBJECTIVES) or len(set(objectives)) < len(objectives):
        raise InputError(
            f"--objectives {args.objectives}: expected some of {','.join(OBJECTIVES)}, each once, separated by commas"
        )
    if args.gold and len(args.gold) != len(args.train):
        raise InputError(f"--gold: {len(args.gold)} files for {len(args.train)} of --train; expected one for each")
    if args.gold and "so" not in objectives:
        raise InputError(f"--gold: is for the objective so, which --objectives {args.objectives} lacks")
    if bool(args.valid) != bool(args.valid_gold):
        raise InputError(
            "--valid and --valid-gold belong together; give both, or neither to validate on pairs held out of --train"
        )
    args.output = args.output.rstrip("/")
    check_writable(training.checkpoint_path(args.output))
    if os.path.exists(args.output) and not os.path.isdir(args.output):
        raise InputError(f"{args.output}: is a file; expected the name of a folder to write")
    if (
        os.path.isdir(args.output)
        and os.listdir(args.output)
        and not os.path.isfile(os.path.join(args.output, "finetuning.json"))
    ):
        raise InputError(f"{args.output}: a folder that this script did not write; expected a new folder")
    args.temperature = args.temperature or (1.0 if args.similarity == "dot" else 0.05)
    args.threshold = args.threshold or (0.0 if args.method == "entmax" else 1e-3)
    return args


def read_validation(args):
    """([(source words, target words)], [(sure, possible)]) of --valid, None without it. Raises InputError."""
    if not args.valid:
        return None
    pairs, gold = list(read_parallel(args.valid)), read_gold(args.valid_gold, args.gold_index)
    if len(pairs) != len(gold):
        raise InputError(
            f"{args.valid_gold}: {len(gold)} lines, but {args.valid} has {len(pairs)}; expected one line for each pair"
        )
    for number, (pair, links) in enumerate(zip(pairs, gold), 1):
        check_gold(args.valid_gold, number, links, pair, args.gold_index)
    return pairs, gold


def main():
    args = parse_arguments()
    config, tokenizer, device = common.load_config(args.model), common.load_tokenizer(args.model), common.pick_device()
    rank, world = common.start_distributed(device)
    if args.batch_size % world:
        raise InputError(
            f"--batch-size {args.batch_size}: does not divide by {world} processes; expected a multiple of {world}"
        )
    args.layer = args.layer or align_layer(
        read_align_json(args.model, config, METHODS, SIMILARITIES), config
    )
    if args.layer > config.num_hidden_layers:
        raise InputError(f"--layer {args.layer}: {args.model} has {config.num_hidden_layers} layers")
    args.precision = args.precision or common.pick_precision(device)
    align = {"layer": args.layer, **EXTRACTION["dot" if args.similarity == "dot" else "cosine"]}

    # Data.
    limit = min(args.max_length, common.piece_limit(tokenizer, config))
    if limit < 8:
        raise InputError(f"--max-length {limit}: leaves no room for a sentence; expected 8 or more")
    settings = SimpleNamespace(
        ways=[align],
        level="subword",
        centre=False,
        budget=BUDGET[device.type],
        precision=args.precision,
        special=subwords.special_pieces(tokenizer),
        limit=limit,
        bare=subwords.bare_piece(tokenizer),
    )
    golds = args.gold or [None] * len(args.train)
    files = [read_training(path, tokenizer, settings, gold, args.gold_index) for path, gold in zip(args.train, golds)]
    valid = read_validation(args)
    training.seed_everything(args.seed)
    generator = np.random.default_rng(args.seed)
    held_out = [[] if valid else hold_out(file, generator) for file in files]
    size = min(args.batch_size, min(len(file["pairs"]) for file in files)) // world * world
    if not size:
        raise InputError(f"{args.train[0]}: fewer pairs than the {world} processes; expected more, or fewer processes")

    # Model.
    options = SimpleNamespace(
        **{**vars(args), "objectives": set(args.objectives.split(",")), "limit": limit, "batch_size": size}
    )
    if options.objectives & LM and tokenizer.mask_token_id is None:
        raise InputError(
            f"{args.model}: its tokenizer has no mask, which mlm and tlm need; expected another model, or other --objectives"
        )
    options.align, options.attention = (
        settings,
        "eager" if device.type == "cpu" else None,
    )  # the faster one on short inputs
    sides = [side.ids for file in files for side in file["sides"]]
    if valid:
        sides += [
            flatten(tokenizer, [pair[side] for pair in valid[0] if all(pair)], settings)[0].ids for side in (0, 1)
        ]
    used = np.unique(np.concatenate([np.unique(ids) for ids in sides])).tolist()
    model = load_model(args.model, options, {*used, tokenizer.pad_token_id})
    model.device, model.precision, model.rank, model.tokenizer = device, args.precision, rank, tokenizer
    model.mask_id, model.pad_id, settings.new_id = tokenizer.mask_token_id, tokenizer.pad_token_id, model.new_id
    if model.new_id is not None:  # ids up to the pad id keep their number
        for file in files:
            file["sides"] = [side._replace(ids=model.new_id[side.ids]) for side in file["sides"]]
    common.release_memory()
    for module in trained_modules(model).values():
        module.to(device)
    parameters = list({id(p): p for module in trained_modules(model).values() for p in module.parameters()}.values())
    optimizer = torch.optim.AdamW(parameters, lr=args.lr, weight_decay=0.0, fused=True)

    # Where a killed run of the same settings, data and model stood.
    crc = training.training_crc(__file__, vars(args), [*sides, *(p.detach().cpu().numpy() for p in parameters)])
    checkpoint = training.checkpoint_path(args.output), crc, trained_modules(model), optimizer
    state = {"history": [], "best": None, **training.load_checkpoint(*checkpoint)}

    # Training. Every process takes its share of each batch; the gradients of all are added up.
    every = args.evaluate_every or -(-args.max_steps // 5)
    history, best, started, total, count = (
        state["history"],
        state["best"],
        time.perf_counter() - state["seconds"],
        0.0,
        0,
    )
    pairs_per_step = size * args.accumulate
    with tqdm(
        total=args.max_steps * pairs_per_step,
        initial=state["step"] * pairs_per_step,
        unit=" pairs",
        disable=None if rank == 0 else True,
    ) as bar:
        for step in range(state["step"], args.max_steps):
            for module in trained_modules(model).values():
                module.train()
            training.seed_step(args.seed, step, rank)
            for number in range(step * args.accumulate, (step + 1) * args.accumulate):
                file, batch = training_batch(files, number, size, args.seed)
                mine = batch[rank * size // world : (rank + 1) * size // world]
                for losses in batch_losses(model, options, file, mine, number):
                    (losses.sum() / pairs_per_step).backward()
                    total = total + losses.detach().sum()
            training.update(optimizer, parameters, args.lr * training.linear_schedule(step, args.max_steps, WARMUP))
            count += pairs_per_step
            bar.update(pairs_per_step)
            done = step + 1
            if done % every == 0 or done == args.max_steps:
                if world > 1:
                    total = torch.as_tensor(total)
                    dist.all_reduce(total)
                if rank == 0:
                    scores = validate(model, options, valid, files, held_out)
                    history.append({"step": done, "train_loss": float(total) / count, **scores})
                    bar.set_postfix(
                        {
                            "loss": f"{float(total) / count:.3f}",
                            **{key: f"{scores[key]:.3f}" for key in ("aer", "loss") if key in scores},
                        }
                    )
                    score = scores["aer"] if valid else scores["loss"]
                    if best is None or score <= best["score"]:
                        best = {"score": score, "step": done, "weights": snapshot(model)}
                total, count = 0.0, 0
            if rank == 0 and done % args.save_every == 0 and done < args.max_steps:
                seconds = time.perf_counter() - started
                state = {"step": done, "history": history, "best": best, "seconds": seconds}
                training.save_checkpoint(*checkpoint, state)
            if done % args.save_every == 0:  # so that a run that goes on from here reports the same mean loss
                total, count = 0.0, 0
    seconds = time.perf_counter() - started

    if rank == 0:
        report = {
            "model": args.model,
            "pairs": [len(file["pairs"]) for file in files],
            "steps": args.max_steps,
            "kept_step": best["step"],
            "history": history,
            "seconds": seconds,
            "pairs_per_second": args.max_steps * pairs_per_step / seconds,
            "args": vars(args),
        }
        weights, name, new_id = best["weights"], args.model, model.new_id
        del model, optimizer, parameters, best, files
        save_folder(name, weights, new_id, align, report, args.output)
        if os.path.exists(training.checkpoint_path(args.output)):
            os.remove(training.checkpoint_path(args.output))
        print(
            json.dumps(
                {key: report[key] for key in ("steps", "kept_step", "seconds", "pairs_per_second")} | history[-1]
            )
        )
    if world > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    run_script(main)
