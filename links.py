"""Sentence pairs to word links: subword vectors, their similarity, the evidence that is added to it, and grow-diag.

What align.py and finetune_aligner.py share. S and T are the numbers of source and target units (subwords or words) of a
pair, padded over a batch of B pairs; `cells`, (B, S, T) bool, is True inside each pair.

Sources: Conneau et al. 2018 (csls); Koehn et al. 2003 (grow-diag); Brown et al. 1993 (a lexicon by expectation
maximisation). The evidence of neighbours and lexicon is ours; its constants were chosen on en-fr, zh-en and PUD
(docs/methods.md).
"""

import collections
import functools
import itertools
import json
import os
import zlib

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F

import common
from data.files import InputError

CHUNK = 1024  # lines in memory at a time, over all processes; the lexicon makes it part of the method
CELLS, PAIRS = 1 << 20, 128  # cells of similarity matrices and pairs in a batch
BUDGET = {"cpu": 1024, "cuda": 65536}  # padded subwords in a batch; on a CPU more than this leaves the caches
SIMILARITIES = ["csls", "cosine", "dot"]
EVIDENCE = ("neighbours", "lexicon")
HUBS = 5  # nearest units whose mean similarity csls takes off
TEMPERATURE = 0.075  # of the probabilities that evidence is computed from, and of grow-diag
THRESHOLD, MUTUAL, GROWN = 0.45, 0.8, 0.9  # of grow-diag: of a link, for mutually best cells, of cells grown to
ROUNDS = 2  # of evidence: the second one's is computed from what the first one's made of the similarity
NEIGHBOURS, NEIGHBOUR_FLOOR = 1.8, 0.01  # weight of the neighbours' evidence, and the agreement at which it begins
REACH, DECAY = 6, 3.0  # how far neighbours are seen, and the distance over which they count e times less
LEXICON, PRIOR = 0.3, 20.0  # weight of the lexicon's evidence, and expected counts that it takes to matter
PREFIX = 4  # letters that tell words apart in the lexicon, which so needs no stemmer
SLOTS, TYPES = 1 << 22, 1 << 20  # cells of the lexicon's tables, of pairs of types and of types
QUANTUM = 1024  # units in a count of 1: sums of integers are exact, whatever processes and batches they come from
CARRIED = 0.5  # fraction of the lexicon's counts that goes over to the next chunk

# Subwords of many sentences in flat arrays. ids, word, keep: a subword's id, its word's index in the sentence (-1 for
# special ones), whether it is compared. first, lengths: where a sentence begins and how many subwords it has.
FlatSubwords = collections.namedtuple("FlatSubwords", "ids word keep first lengths")


# ---- vectors ---------------------------------------------------------------------------------------


def flatten(tokenizer, sentences, limit, keep_bare=False):
    """Return (FlatSubwords, truncated, dropped) of sentences with at most `limit` subwords each, special ones included.

    truncated, dropped, (sentences,): whether a sentence is longer than that, and how many of its words have no subword.
    Bare subwords are compared only where they are all that their word has, or with keep_bare.
    """
    before, after = common.special_subwords(tokenizer)
    room = limit - len(before) - len(after)
    found = common.words_to_subwords(tokenizer, sentences)
    truncated = np.array([len(ids) > room for ids, _ in found])
    dropped = np.array([len(sentence) - len(set(word)) for sentence, (_, word) in zip(sentences, found)])
    lengths = np.array([min(len(ids), room) + len(before) + len(after) for ids, _ in found])
    ids = np.concatenate([before + ids[:room] + after for ids, _ in found])
    word = np.concatenate([[-1] * len(before) + word[:room] + [-1] * len(after) for _, word in found])
    sentence = np.repeat(np.arange(len(found)), lengths)
    keep, bare = word >= 0, ids == (None if keep_bare else common.bare_subword(tokenizer))
    unique_word = np.cumsum((np.diff(word, prepend=-1) != 0) | (np.diff(sentence, prepend=0) != 0))
    keep &= ~bare | ~np.isin(unique_word, unique_word[keep & ~bare])
    return FlatSubwords(ids, word, keep, np.cumsum(lengths) - lengths, lengths), truncated, dropped


def encode(model, flat, pad_id, precision):
    """Return the vectors of the subwords that are compared, the units: (vectors, start, word).

    vectors (units of all sentences + 1, H): float32 on the model's device, the last row zero; sentence n has the rows
    start[n] up to start[n + 1]; word (units): a unit's word index in its sentence.
    """
    common.check_fits(model, flat.ids.max())
    row = np.append(0, np.cumsum(flat.keep))  # of each subword that is compared
    vectors = torch.zeros(row[-1] + 1, model.config.hidden_size, device=model.device)
    for batch in common.length_sorted(flat.lengths, BUDGET[model.device.type]):
        index, inside = common.place_batch(flat, batch)
        ids = torch.from_numpy(np.where(inside, flat.ids[index], pad_id)).to(model.device)
        mask = torch.from_numpy(inside).long().to(model.device)  # DeBERTa subtracts it
        with common.autocast(model.device, precision):
            hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
        taken = inside & flat.keep[index]
        rows, taken = (torch.from_numpy(array).to(model.device) for array in (row[index[taken]], taken))
        vectors[rows] = hidden[taken].float()
    return vectors, row[np.append(flat.first, len(flat.ids))], flat.word[flat.keep]


# ---- similarity and probabilities ------------------------------------------------------------------


def csls(cosine, cells):
    """Return cosines (B, S, T) less half the mean of the HUBS highest of their row and of their column (Conneau et al.
    2018, halved). A unit that is near to every unit of the other side so loses to one that is near to few."""
    inside = cosine.masked_fill(~cells, -1.0)
    for dim in (1, 2):
        nearest = inside.topk(min(HUBS, inside.shape[dim]), dim).values
        rank = torch.arange(nearest.shape[dim], device=cells.device)
        count = cells.sum(dim, keepdim=True).clamp(1, len(rank))
        real = (rank[:, None] if dim == 1 else rank) < count  # a short side has fewer neighbours
        cosine = cosine - (nearest * real).sum(dim, keepdim=True) / count / 2
    return cosine


def similarity_matrix(source, target, cells, kind):
    """Return how alike the units of each pair are, (B, S, T). source, target: vectors, (B, S, H) and (B, T, H); kind:
    of SIMILARITIES."""
    if kind != "dot":
        source, target = F.normalize(source, dim=2), F.normalize(target, dim=2)
    similarity = source @ target.transpose(1, 2)
    return csls(similarity, cells) if kind == "csls" else similarity


def both_directions(scores, cells, probabilities=torch.softmax):
    """Return the probabilities of the target units for each source unit and the other way round, two (B, S, T), 0
    outside `cells`. probabilities: torch.softmax or align.py's entmax15."""
    masked = scores.masked_fill(~cells, -1e4)
    return probabilities(masked, 2) * cells, probabilities(masked, 1) * cells


def agreement(similarity, cells):
    """Return how sure a link is, from 0 to 1, (B, S, T): the geometric mean of both directions' probabilities at
    TEMPERATURE."""
    forward, backward = both_directions(similarity / TEMPERATURE, cells)
    return (forward * backward).sqrt()


# ---- evidence of neighbours ------------------------------------------------------------------------


@functools.cache
def kernel_factors():
    """Return U, V, two (R, 2 REACH + 1): the kernel of neighbours is sum_r U[r, a] V[r, b] for offsets -REACH <= a, b
    <= REACH. As products of matrices, exact to a thousandth, it costs a fraction of a convolution.

    The kernel is exp(-(|a| + |b| + |a - b|) / DECAY), 0 at its centre, of sum 1: near cells support a cell, most those
    on the diagonal through it, but also across, so that clauses in another order do no harm.
    """
    offset = torch.arange(-REACH, REACH + 1.0)
    a, b = offset[:, None], offset[None, :]
    kernel = torch.exp(-(a.abs() + b.abs() + (a - b).abs()) / DECAY)
    kernel[REACH, REACH] = 0
    u, scale, v = torch.linalg.svd(kernel / kernel.sum())
    rank = int((scale > 1e-3 * scale[0]).sum())
    return (u * scale).T[:rank], v[:rank]


def banded(factors, size):
    """Return (R, size, size) matrices with factors[r, j - i + REACH] at (i, j), 0 beyond REACH from the diagonal."""
    place = torch.arange(size, device=factors.device)
    offset = place[None, :] - place[:, None]
    return factors[:, offset.clamp(-REACH, REACH) + REACH] * (offset.abs() <= REACH)


def neighbour_evidence(agreed):
    """Return the evidence (B, S, T) that a cell's neighbours give it: log(1 + K * agreed / NEIGHBOUR_FLOOR), K the
    kernel. agreed: (B, S, T), agreement(). Repeated words are told apart by what stands beside them."""
    left, right = (factors.to(agreed.device, agreed.dtype) for factors in kernel_factors())
    sides = zip(banded(left, agreed.shape[1]), banded(right, agreed.shape[2]))
    near = sum(rows @ agreed @ columns.T for rows, columns in sides)
    return torch.log1p(near.clamp(min=0) / NEIGHBOUR_FLOOR)


# ---- evidence of a lexicon -------------------------------------------------------------------------


@functools.lru_cache(1 << 16)
def word_type(word):
    """Return the number of a word's type in the lexicon: words are one type if their first PREFIX letters are alike."""
    return zlib.crc32(word.lower()[:PREFIX].encode()) % TYPES


def new_lexicon(device):
    """Return an empty lexicon: counts, times QUANTUM, of pairs of types, source and target types, and in total. Types
    share cells of the tables by chance, so that its memory does not grow with the text."""
    sizes = {"pairs": SLOTS, "source": TYPES, "target": TYPES, "total": 1}
    return {name: torch.zeros(size, dtype=torch.int32, device=device) for name, size in sizes.items()}


def type_pairs(source, target):
    """Return the cells (B, S, T) of a lexicon's table of pairs. source, target: types, (B, S) and (B, T) int64."""
    return (source[:, :, None] * 1_000_003 + target[:, None, :] * 7_919) % SLOTS


def count_links(lexicon, agreed, source, target):
    """Add a batch's expected links to a lexicon. agreed: (B, S, T), agreement(); source, target: as in type_pairs."""
    units = (agreed * QUANTUM).round().int()
    some = units > 0
    lexicon["pairs"].index_add_(0, type_pairs(source, target)[some], units[some])
    lexicon["total"] += units.sum()
    lexicon["source"].index_add_(0, source.flatten(), units.sum(2, dtype=torch.int32).flatten())
    lexicon["target"].index_add_(0, target.flatten(), units.sum(1, dtype=torch.int32).flatten())


def lexicon_evidence(lexicon, agreed, source, target):
    """Return the evidence (B, S, T) that the types of two words are linked elsewhere, the mean over both directions of

        log((c(e, f) / p(f) + PRIOR) / (c(e) + PRIOR)),

    which is log(p(f | e) / p(f)) where there are counts and 0 where there are none. c: expected counts without those of
    the own sentence pair; p(f): c(f) over all counts. The batch has been counted in `lexicon` by count_links.
    """
    own = (agreed * QUANTUM).round() / QUANTUM
    same_source = (source[:, :, None] == source[:, None, :]).float()  # (B, S, S)
    same_target = (target[:, :, None] == target[:, None, :]).float()
    total = lexicon["total"] / QUANTUM - own.sum((1, 2)).view(-1, 1, 1)
    pairs = lexicon["pairs"][type_pairs(source, target)] / QUANTUM - same_source @ own @ same_target
    sources = lexicon["source"][source][:, :, None] / QUANTUM - same_source @ own.sum(2, keepdim=True)
    targets = lexicon["target"][target][:, None, :] / QUANTUM - own.sum(1, keepdim=True) @ same_target
    pairs, sources, targets = (count.clamp(min=0) for count in (pairs, sources, targets))
    forward = torch.log((pairs * total / targets.clamp(min=0.01) + PRIOR) / (sources + PRIOR))
    backward = torch.log((pairs * total / sources.clamp(min=0.01) + PRIOR) / (targets + PRIOR))
    return (forward + backward) / 2


def add_evidence(batches, kinds, lexicon):
    """Return the evidence for a chunk's batches, a list of {kind: (B, S, T)} on the scale of the similarity.

    batches: similarity_batches'; kinds: of EVIDENCE; lexicon: the counts of the text so far, to which those of this
    chunk, of all processes, are added. ROUNDS times agreement() gives neighbours and expected counts, and these an
    agreement.
    """
    evidence = [{} for _ in batches]
    for _ in range(ROUNDS if kinds else 0):
        supported = [batch["similarity"] + sum(found.values()) for batch, found in zip(batches, evidence)]
        agreed = [agreement(similarity, batch["cells"]) for similarity, batch in zip(supported, batches)]
        if "lexicon" in kinds:
            counts = new_lexicon(lexicon["pairs"].device)
            for batch, links in zip(batches, agreed):
                count_links(counts, links, *batch["types"])
            for name, table in counts.items():
                if dist.is_initialized():
                    dist.all_reduce(table)
                table += lexicon[name]
        for batch, links, found in zip(batches, agreed, evidence):
            if "neighbours" in kinds:
                found["neighbours"] = NEIGHBOURS * TEMPERATURE * neighbour_evidence(links)
            if "lexicon" in kinds:
                found["lexicon"] = LEXICON * TEMPERATURE * lexicon_evidence(counts, links, *batch["types"])
    for name, table in counts.items() if "lexicon" in kinds else ():
        lexicon[name].copy_((table * CARRIED).int())
    return evidence


# ---- links -----------------------------------------------------------------------------------------


def mutual_argmax(similarity, cells):
    """Return links, (B, S, T) bool, where each unit is the other's most similar one (SimAlign's argmax)."""
    similarity = similarity.masked_fill(~cells, float("-inf"))
    forward = torch.zeros_like(cells).scatter_(2, similarity.argmax(2, keepdim=True), True)
    backward = torch.zeros_like(cells).scatter_(1, similarity.argmax(1, keepdim=True), True)
    return forward & backward & cells


def grow_diag(similarity, cells, threshold=THRESHOLD, temperature=TEMPERATURE):
    """Return links, (B, S, T) bool, where both directions agree, grown to neighbouring cells for units that have none.

    A cell is linked where the geometric mean of the probabilities at `temperature` is above `threshold`, or above
    MUTUAL times it in a cell that is the best of its row and column. A unit without a link then takes a cell beside,
    above, below or diagonal to a link (Koehn et al. 2003) if that is more probable than GROWN for it.
    """
    forward, backward = both_directions(similarity / temperature, cells)
    agreed = (forward * backward).sqrt()
    links = (agreed > threshold) | (mutual_argmax(agreed, cells) & (agreed > MUTUAL * threshold))
    beside = F.max_pool2d(links[:, None].float(), 3, stride=1, padding=1)[:, 0] > 0
    free_source, free_target = ~links.any(2, keepdim=True), ~links.any(1, keepdim=True)
    return links | (beside & (free_source & (forward > GROWN) | free_target & (backward > GROWN)))


# ---- a chunk of pairs ------------------------------------------------------------------------------


def like_sized(sizes):
    """Yield pair numbers in batches of like size, of at most CELLS padded cells and PAIRS pairs. sizes: (pairs, 2)."""
    order, batch, width = np.lexsort((sizes[:, 1], sizes[:, 0])), [], 0
    for pair in order[sizes[order].min(1) > 0]:  # where the tokenizer drops all characters of a side there is no unit
        wider = np.maximum(width, sizes[pair])
        if batch and (len(batch) == PAIRS or wider.prod() * (len(batch) + 1) > CELLS):
            yield np.array(batch)
            batch, wider = [], sizes[pair]
        batch.append(pair)
        width = wider
    if batch:
        yield np.array(batch)


def similarity_batches(vectors, start, word, types, sides, kind):
    """Yield batches of pairs: dicts of 'pairs' (B,), their numbers, 'similarity' and 'cells' (B, S, T), 'words' and
    'types', the words' indices and types, [(B, S), (B, T)] each.

    vectors, start, word: encode's; types: (units + 1,) a unit's type; sides: (pairs, 2) sentence numbers.
    """
    sizes = np.diff(start)[sides]
    for batch in like_sized(sizes):
        rows, masks = [], []
        for side in (0, 1):
            place = np.arange(sizes[batch, side].max())[None, :]
            mask = place < sizes[batch, side][:, None]
            rows.append(np.where(mask, start[sides[batch, side]][:, None] + place, len(word)))
            masks.append(torch.from_numpy(mask).to(vectors.device))
        source, target = (vectors[torch.from_numpy(row).to(vectors.device)] for row in rows)
        cells = masks[0][:, :, None] & masks[1][:, None, :]
        yield {
            "pairs": batch, "similarity": similarity_matrix(source, target, cells, kind), "cells": cells,
            "words": [np.append(word, -1)[row] for row in rows],
            "types": [torch.from_numpy(types[row]).to(vectors.device) for row in rows],
        }  # fmt: skip


def word_links(linked, words):
    """Return the links of words that links of their units make: (links, place).

    linked: (B, S, T) bool; words: [(B, S), (B, T)]. links: (L, 3) numpy, pair, source word and target word, sorted,
    each once; place: the pair, row and column of the first unit link of each, three (L,).
    """
    pair, i, j = linked.nonzero().cpu().numpy().T
    links, first = np.unique(np.stack([pair, words[0][pair, i], words[1][pair, j]], 1), axis=0, return_index=True)
    return links, (pair[first], i[first], j[first])


def align_pairs(model, tokenizer, pairs, ways, lexicons, similarity, limit, precision, keep_bare=False, pool=None):
    """Return what is found for each of a chunk's (source words, target words) pairs without empty sides, a list of
    {'links': for each of `ways` a sorted list of (i, j), 'evidence': for each link of the first way a dict of
    'similarity' and EVIDENCE, 'truncated': bool, 'dropped': number of words without a subword}.

    ways: dicts of 'pick', a function from (similarity, cells) to links, (B, S, T) bool, and the kinds of 'evidence';
    lexicons: {kinds: that of the text so far}, {} at first, which is carried on; similarity, limit, keep_bare: as in
    similarity_matrix and flatten; pool: takes encode's results and returns those to use instead.
    """
    pairs = [(tuple(source), tuple(target)) for source, target in pairs]
    distinct, sentences = list(dict.fromkeys(pairs)), list(dict.fromkeys(itertools.chain.from_iterable(pairs)))
    results, batches, added = {}, [], {}
    if pairs:
        flat, truncated, dropped = flatten(tokenizer, list(map(list, sentences)), limit, keep_bare)
        vectors, start, word = encode(model, flat, tokenizer.pad_token_id, precision)
        if pool:
            vectors, start, word = pool(vectors, start, word)
        owners = np.repeat(np.arange(len(sentences)), np.diff(start)).tolist()
        types = np.array([word_type(sentences[n][k]) for n, k in zip(owners, word.tolist())] + [0])
        number = {sentence: n for n, sentence in enumerate(sentences)}
        sides = np.array([(number[source], number[target]) for source, target in distinct])
        batches = list(similarity_batches(vectors, start, word, types, sides, similarity))
        for pair, side in zip(distinct, sides):
            lost = {"truncated": bool(truncated[side].any()), "dropped": int(dropped[side].sum())}
            results[pair] = {"links": [[] for _ in ways], "evidence": [], **lost}
    for kinds in dict.fromkeys(way["evidence"] for way in ways):
        if "lexicon" in kinds and kinds not in lexicons:  # each has its own: counts are added to it
            lexicons[kinds] = new_lexicon(model.device)
        added[kinds] = add_evidence(batches, kinds, lexicons.get(kinds))
    for n, batch in enumerate(batches):
        for number, way in enumerate(ways):
            parts = {"similarity": batch["similarity"], **added[way["evidence"]][n]}
            links, place = word_links(way["pick"](sum(parts.values()), batch["cells"]), batch["words"])
            values = zip(*(part[place].tolist() for part in parts.values()))
            for (pair, i, j), numbers in zip(links.tolist(), values):
                result = results[distinct[batch["pairs"][pair]]]
                result["links"][number].append((i, j))
                if number == 0:
                    result["evidence"].append({name: round(value, 3) for name, value in zip(parts, numbers)})
    return [results[pair] for pair in pairs]


def align_shared(align, pairs):
    """Return align(pairs), a list, with the pairs shared out over all processes; each one returns all results."""
    if not dist.is_initialized():
        return align(pairs)
    world = dist.get_world_size()
    parts = [None] * world
    dist.all_gather_object(parts, align(pairs[dist.get_rank() :: world]))
    return [parts[n % world][n // world] for n in range(len(pairs))]


# ---- a model's own settings ------------------------------------------------------------------------


def read_align_json(name, layers):
    """Return what a model folder's align.json says of aligning with it, {} where it has none. Raises InputError.

    layers: how many the model has. What it says beside these keys is not used.
    """

    def number(least, most):
        return lambda value: type(value) in (int, float) and least <= value < most

    path = os.path.join(name, "align.json")
    known = {"similarity": SIMILARITIES, "evidence": EVIDENCE}
    fits = {
        "layer": lambda value: type(value) is int and 1 <= value <= layers,
        "method": lambda value: type(value) is str, "similarity": SIMILARITIES.__contains__,
        "threshold": number(0, 1), "temperature": number(1e-6, 1e6),
        "evidence": lambda value: type(value) is list and all(kind in EVIDENCE for kind in value),
    }  # fmt: skip
    if not os.path.isfile(path):
        return {}
    try:
        with open(path, encoding="utf-8") as stream:
            own = json.load(stream)
        wrong = [key for key, value in own.items() if key in fits and not fits[key](value)]
    except (ValueError, AttributeError):
        wrong = ["content"]
    if wrong:
        common.check_fetched(name)
        names = ", ".join(f"{key} of {'/'.join(names)}" for key, names in known.items())
        example = f'such as {{"layer": 7, "method": "grow-diag"}}, layer from 1 to {layers}, {names}'
        raise InputError(f"{path}: expected a JSON object {example}; wrong is its {wrong[0]}")
    return own


def align_layer(own, layers):
    """Return the layer whose states are compared by default: align.json's (own), else 8 of 12, 2 of 3 and so on."""
    return own.get("layer", max(1, round(layers * 8 / 12)))
