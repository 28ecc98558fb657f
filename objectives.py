"""Objectives that teach an encoder to align words, each beside its formula.

Each returns the losses of a batch's B pairs, (B,). S and T are the numbers of source and target pieces.

Sources: Dou and Neubig 2021 (awesome-align) for so, co, psi, mlm, tlm; Khattab and Zaharia 2020 (ColBERT's similarity of sentences)
with van den Oord et al. 2018 (InfoNCE) for contrast.
"""

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F

MASKED = 0.15  # fraction of the pieces that masked language modelling predicts (Devlin et al. 2019)


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
