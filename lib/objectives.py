"""Objectives that teach an encoder to align words, each beside its formula.

Each returns the losses of a batch's B pairs, (B,). S and T are the numbers of source and target pieces.

Sources: Dou and Neubig 2021 (awesome-align) for so, co, psi, mlm, tlm; Khattab and Zaharia 2020 (ColBERT's similarity
of sentences) with van den Oord et al. 2018 (InfoNCE) for contrast.
"""

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F

import common
from lib import extraction, heads

TEMPERATURE = {"cosine": 0.05, "dot": 1.0}  # divides the similarity in so and co; 0.05 also in contrast
MASKED = 0.15  # fraction of the pieces that masked language modelling predicts (Devlin et al. 2019)


def self_training(forward, backward, targets, cells):
    """Return SO: the links that the model finds itself get more probable in both directions (Dou and Neubig 2021,
    section 2.2).

    - sum_ij targets_ij * (forward_ij / S + backward_ij / T). forward, backward: (B, S, T) probabilities of a target
    piece given the source piece and the other way round, 0 outside `cells`, (B, S, T) bool; targets: (B, S, T) bool,
    the links.
    """
    source, target = cells.any(2).sum(1), cells.any(1).sum(1)  # (B,) pieces
    return -(forward * targets).sum((1, 2)) / source - (backward * targets).sum((1, 2)) / target


def consistency(forward, backward, cells):
    """Return CO: both directions agree: - trace(forward^T backward) / min(S, T) (Dou and Neubig 2021). Shapes as in
    self_training.
    """
    size = torch.minimum(cells.any(2).sum(1), cells.any(1).sum(1))
    return -(forward * backward).sum((1, 2)) / size


def sentence_identification(scores, labels):
    """Return PSI, the loss of telling whether the two sentences of an input are translations (Dou and Neubig 2021).

    scores: (2 B, 2) of `psi_head`, a parallel (label 1) and a random (label 0) input for each pair; labels: (2 B,).
    """
    return F.cross_entropy(scores, labels, reduction="none").view(-1, 2).mean(1)


def contrast(source, target, source_mask, target_mask, temperature):
    """Return the loss of finding each sentence's translation among those of the batch, by the cosines of their pieces.

    The score of a sentence with another is the mean over its pieces of their highest cosine with a piece of the other
    (ColBERT); the loss is the cross-entropy of scores / temperature over the batch (InfoNCE), averaged over the two
    directions. A piece that is near to everything scores nothing here, so pieces come to tell their translations from
    other words. source: (B, S, H), target: (B, T, H), masks: (B, S) and (B, T) bool; sentences of one row are
    translations.
    """
    cosine = torch.einsum("ash,bth->abst", F.normalize(source, dim=2), F.normalize(target, dim=2))
    there = cosine.masked_fill(~target_mask[None, :, None, :], -1.0).amax(3)  # (B sources, B targets, S)
    back = cosine.masked_fill(~source_mask[:, None, :, None], -1.0).amax(2)  # (B sources, B targets, T)
    there = (there * source_mask[:, None, :]).sum(2) / source_mask.sum(1)[:, None]
    back = (back * target_mask[None, :, :]).sum(2) / target_mask.sum(1)[None, :]
    own = torch.arange(len(source), device=source.device)
    return sum(F.cross_entropy(score / temperature, own, reduction="none") for score in (there, back.T)) / 2


def masked_language_model(scores, labels, row, rows):
    """Return MLM or TLM: cross-entropy of the masked pieces, averaged within each of the `rows` inputs (Devlin et al.
    2019).

    scores: (M, vocabulary) of the masked pieces; labels: (M,) their true ids; row: (M,) the inputs they stand in.
    """
    losses = F.cross_entropy(scores, labels, reduction="none")
    count = torch.bincount(row, minlength=rows).clamp(min=1)
    return losses.new_zeros(rows).index_add(0, row, losses / count[row])


def mask_pieces(ids, allowed, mask_piece, vocabulary, generator):
    """Draw MASKED of the allowed pieces of an input: 80 % become the mask, 10 % a random piece, 10 % stay (Devlin et
    al. 2019).

    ids: list of int; allowed: list of bool. Returns (ids, chosen), chosen being what is to be predicted, a list of
    bool.
    """
    ids, draws = np.array(ids), generator.random((2, len(ids)))
    chosen = (draws[0] < MASKED) & np.array(allowed)
    random = generator.integers(vocabulary, size=len(ids))
    replaced = np.where(draws[1] < 0.8, mask_piece, np.where(draws[1] < 0.9, random, ids))
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


# ---- parts of a batch. A file is read_training's dict, a batch a list of pair numbers -----------------------------


def link_targets(file, batch):
    """Return the piece links, (B, S, T) bool, of the word links of a batch of pairs: those of all pieces of two
    linked words.
    """
    words = []
    for side in file["sides"]:
        index, inside = common.place_batch(side, batch)
        words.append(np.where(inside, side.word[index], -1))
    found = np.zeros((len(batch), words[0].shape[1], words[1].shape[1]), bool)
    for row, pair in enumerate(batch):
        for i, j in file["links"][pair]:
            found[row] |= (words[0][row] == i)[:, None] & (words[1][row] == j)[None, :]
    return torch.from_numpy(found)


def padded_side(side, batch, pad_id, device):
    """Return (ids, mask, units) of sentences of a side, (B, L) each: pieces, where they are, and which of them are
    compared.
    """
    index, inside = common.place_batch(side, batch)
    arrays = np.where(inside, side.ids[index], pad_id), inside, inside & side.keep[index]
    return [torch.from_numpy(array).to(device) for array in arrays]


def join_sides(file, pair, order, limit):
    """Return both sentences of (pair, pair) numbers as one input, each cut to half of `limit` pieces, as awesome-align
    joins them.

    order: (0, 1) puts the source first. Returns (ids, sides): <s> a </s> <s> b </s>, and of each piece the side it is
    of (0 or 1), -1 for special ones.
    """
    ids, sides = [], []
    for side in order:
        pieces = file["sides"][side]
        place = np.arange(pieces.lengths[pair[side]]) + pieces.first[pair[side]]
        place = np.append(place[:-1][: limit // 2 - 1], place[-1])
        ids += pieces.ids[place].tolist()
        sides += np.where(pieces.word[place] < 0, -1, side).tolist()
    return ids, sides


# ---- losses of a batch, (B,). What comes before file, batch and generators is fixed by functools.partial ---------


def hidden_states(encode, depth, ids, mask):
    """Return hidden states after the first `depth` layers, (B, L, H) float32; the layers above do not run.

    encode: (encoder, the path of its final norm, the precision of products).
    """
    encoder, norm, precision = encode
    with common.first_layers(encoder, depth, norm), common.autocast(ids.device, precision):
        return encoder(input_ids=ids, attention_mask=mask.long()).last_hidden_state.float()


def alignment_losses(encode, asked, layer, similarity, pad_id, device, rank, file, batch, _):
    """Return the sum of so, co and contrast. In data-parallel training contrast sees all processes' sentences."""
    sides = [padded_side(side, batch, pad_id, device) for side in file["sides"]]
    source, target = (hidden_states(encode, layer, ids, mask) for ids, mask, _ in sides)
    units = [units for *_, units in sides]
    cells = units[0][:, :, None] & units[1][:, None, :]
    losses = source.new_zeros(len(batch))
    if asked & {"so", "co"}:
        scores = extraction.similarity_matrix(source, target, cells, similarity) / TEMPERATURE[similarity]
        forward, backward = extraction.both_directions(scores, cells)
    if "so" in asked and file["links"] is not None:
        losses = losses + self_training(forward, backward, link_targets(file, batch).to(device) & cells, cells)
    elif "so" in asked:  # awesome-align's: the links that the model finds at this step
        losses = losses + self_training(forward, backward, (forward > 1e-3) & (backward > 1e-3), cells)
    if "co" in asked:
        losses = losses + consistency(forward, backward, cells)
    if "contrast" in asked:
        masks = (gather(side.float()).bool() for side in units)
        everyone = contrast(gather(source), gather(target), *masks, TEMPERATURE["cosine"])
        losses = losses + everyone[rank * len(batch) : (rank + 1) * len(batch)]
    return losses


def predict_masked(encode, whole, mask_id, pad_id, device, inputs, generators):
    """Return masked-language-model losses of (ids, allowed) inputs, (B,), by the checkpoint's own head."""
    vocabulary = whole.config.vocab_size
    made = [mask_pieces(*item, mask_id, vocabulary, generator) for item, generator in zip(inputs, generators)]
    ids = common.pad([ids for ids, _ in made], pad_id).to(device)
    labels = common.pad([ids for ids, _ in inputs], pad_id).to(device)
    chosen = common.pad([chosen for _, chosen in made], False).bool().to(device)
    mask = common.pad([[True] * len(ids) for ids, _ in made], False).bool().to(device)
    hidden = hidden_states(encode, whole.config.num_hidden_layers, ids, mask)
    row, _ = chosen.nonzero(as_tuple=True)
    with common.autocast(device, encode[-1]):
        scores = heads.apply_head(whole, hidden[chosen]).float()
    return masked_language_model(scores, labels[chosen], row, len(inputs))


def monolingual_losses(predict, limit, file, batch, generators):
    """Return mlm: each sentence alone. predict: predict_masked of inputs and generators."""
    losses = 0.0
    for side in (0, 1):
        inputs = [join_sides(file, (pair, pair), (side,), 2 * limit) for pair in batch]
        losses = losses + predict([(ids, [of == side for of in sides]) for ids, sides in inputs], generators)
    return losses


def translation_losses(predict, limit, file, batch, generators):
    """Return tlm: both sentences in random order, one language masked, then the other. predict: as above."""
    orders = [[(0, 1), (1, 0)][generator.integers(2)] for generator in generators]
    losses = 0.0
    for masked in (0, 1):
        inputs = [join_sides(file, (pair, pair), order, limit) for pair, order in zip(batch, orders)]
        losses = losses + predict([(ids, [of == masked for of in sides]) for ids, sides in inputs], generators)
    return losses


def identification_losses(encode, head, depth, pad_id, device, limit, file, batch, generators):
    """Return psi: each pair, and one of its sentences with a random pair's other one, in random order."""
    inputs = []
    for pair, generator in zip(batch, generators):
        other = int(generator.choice(file["pairs"]))
        while other == pair and len(file["pairs"]) > 1:
            other = int(generator.choice(file["pairs"]))
        mixed = [(pair, other), (other, pair)][generator.integers(2)]
        for numbers in ((pair, pair), mixed):
            order = [(0, 1), (1, 0)][generator.integers(2)]
            inputs.append(join_sides(file, numbers, order, limit)[0])
    ids = common.pad(inputs, pad_id).to(device)
    mask = common.pad([[True] * len(ids) for ids in inputs], False).bool().to(device)
    labels = torch.tensor([1, 0] * len(batch), device=device)
    return sentence_identification(head(hidden_states(encode, depth, ids, mask)[:, 0]), labels)


def identification_head(config):
    """Return psi's classifier of the first position's state: two layers, new."""
    size = config.hidden_size
    head = torch.nn.Sequential(torch.nn.Linear(size, size), torch.nn.Tanh(), torch.nn.Linear(size, 2))
    for layer in (head[0], head[2]):
        torch.nn.init.normal_(layer.weight, std=getattr(config, "initializer_range", 0.02))
        torch.nn.init.zeros_(layer.bias)
    return head
