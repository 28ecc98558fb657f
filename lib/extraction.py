"""Similarity matrices to word links: evidence that is added to a similarity, and the methods that pick links from it.

S and T are the numbers of source and target units (pieces, or words) of a pair, padded over a batch of B pairs;
`cells`, (B, S, T) bool, is what lies inside each pair.

Sources: Jalili Sabet et al. 2020 (SimAlign: argmax, itermax, match); Dou and Neubig 2021 (awesome-align: softmax,
entmax); Peters et al. 2019 (entmax); Conneau et al. 2018 (csls); Koehn et al. 2003 (grow-diag); Brown et al. 1993 (a
lexicon by expectation maximisation). The evidence of neighbours and lexicon is ours; its constants were chosen on
en-fr, zh-en and PUD (docs/methods.md).
"""

import functools
import zlib

import torch
import torch.nn.functional as F

from data.cli import InputError

METHODS = ["argmax", "itermax", "match", "softmax", "entmax", "grow-diag"]
SIMILARITIES = ["csls", "cosine", "dot"]
HUBS = 5  # nearest units whose mean similarity csls takes off
TEMPERATURE = 0.075  # of the probabilities that evidence is computed from, and of grow-diag
ROUNDS = 2  # of evidence: the second one's is computed from what the first one's made of the similarity
NEIGHBOURS, NEIGHBOUR_FLOOR = 1.8, 0.01  # weight of the neighbours' evidence, and the agreement at which it begins
REACH, DECAY = 6, 3.0  # how far neighbours are seen, and the distance over which they count e times less
LEXICON, PRIOR = 0.3, 20.0  # weight of the lexicon's evidence, and expected counts that it takes to matter
PREFIX = 4  # letters that tell words apart in the lexicon, which so needs no stemmer
SLOTS, TYPES = 1 << 22, 1 << 20  # cells of the lexicon's tables, of pairs of types and of types
QUANTUM = 1024  # units in a count of 1: sums of integers are exact, whatever processes and batches they come from
CARRIED = 0.5  # share of the lexicon's counts that goes over to the next chunk
MUTUAL, GROWN = 0.8, 0.9  # of grow-diag: relative threshold of mutually best cells, probability of cells grown to


# ---- similarity ----------------------------------------------------------------------------------


def csls(cosine, cells):
    """Return cosines less half the mean of the HUBS highest of their row and of their column (Conneau et al. 2018,
    halved).

    A piece that is near to every piece of the other side loses to one that is near to few. cosine and result: (B, S,
    T).
    """
    inside = cosine.masked_fill(~cells, -1.0)
    for dim in (1, 2):
        nearest = inside.topk(min(HUBS, inside.shape[dim]), dim).values
        count = cells.sum(dim, keepdim=True).clamp(1, nearest.shape[dim])
        shape = [-1 if d == dim else 1 for d in range(3)]
        rank = torch.arange(nearest.shape[dim], device=cells.device).view(shape)
        real = rank < count  # a short side has fewer neighbours
        cosine = cosine - (nearest * real).sum(dim, keepdim=True) / count / 2
    return cosine


def similarity_matrix(source, target, cells, kind):
    """Return how alike the units of each pair are, (B, S, T). source: (B, S, H) float, target: (B, T, H).

    kind: 'dot' products of the vectors as they are, 'cosine', or 'csls'.
    """
    if kind != "dot":
        source, target = F.normalize(source, dim=2), F.normalize(target, dim=2)
    similarity = source @ target.transpose(1, 2)
    return csls(similarity, cells) if kind == "csls" else similarity


def both_directions(scores, cells, probabilities=torch.softmax):
    """Return probabilities of the target units for each source unit, and the other way round, 0 outside the pairs: two
    (B, S, T).

    probabilities: torch.softmax or entmax15.
    """
    masked = scores.masked_fill(~cells, -1e4)
    return probabilities(masked, 2) * cells, probabilities(masked, 1) * cells


def agreement(similarity, cells):
    """Return the geometric mean of both directions' probabilities at TEMPERATURE, (B, S, T): how sure a link is,
    from 0 to 1.
    """
    forward, backward = both_directions(similarity / TEMPERATURE, cells)
    return (forward * backward).sqrt()


# ---- evidence of neighbours -------------------------------------------------------------------------


@functools.cache
def kernel_factors():
    """Return U, V, two (R, 2 REACH + 1): the kernel of neighbours is sum_r U[r, a] V[r, b] for offsets a, b from -REACH
    to REACH.

    The kernel is exp(-(|a| + |b| + |a - b|) / DECAY), 0 at its centre, of sum 1: what lies on the diagonal through a
    cell supports it, and near cells more than far ones, also across the diagonal, so that clauses in another order do
    no harm. As a sum of products of matrices, exact to a thousandth, it costs a fraction of a convolution.
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
    kernel.

    agreed: (B, S, T), agreement(). Repeated words are told apart by what stands beside them.
    """
    left, right = (factors.to(agreed.device, agreed.dtype) for factors in kernel_factors())
    sides = zip(banded(left, agreed.shape[1]), banded(right, agreed.shape[2]))
    near = sum(rows @ agreed @ columns.T for rows, columns in sides)
    return torch.log1p(near.clamp(min=0) / NEIGHBOUR_FLOOR)


# ---- evidence of a lexicon -----------------------------------------------------------------------------


@functools.lru_cache(1 << 16)
def word_type(word):
    """Return the number of a word's type in the lexicon: words are one type if their first PREFIX letters are alike."""
    return zlib.crc32(word.lower()[:PREFIX].encode()) % TYPES


def new_lexicon(device):
    """Return an empty lexicon: counts, times QUANTUM, of pairs of types, source and target types, and in total.

    Types share cells of the tables by chance, so that its memory does not grow with the text.
    """
    sizes = {"pairs": SLOTS, "source": TYPES, "target": TYPES, "total": 1}
    return {name: torch.zeros(size, dtype=torch.int32, device=device) for name, size in sizes.items()}


def type_pairs(source, target):
    """Return the cells (B, S, T) of a lexicon's table of pairs. source, target: types, (B, S) and (B, T) int64."""
    return (source[:, :, None] * 1_000_003 + target[:, None, :] * 7_919) % SLOTS


def count_links(lexicon, agreed, source, target):
    """Add a batch's expected links to a lexicon. agreed: (B, S, T), agreement(); source, target: types, (B, S) and
    (B, T).
    """
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
    the own sentence pair; p(f): c(f) over all counts. Shapes as in count_links, by which this batch has been counted in
    `lexicon`.
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


def add_evidence(batches, kinds, lexicon=None, sum_counts=None):
    """Return the evidence of a chunk's batches, a list of {kind: (B, S, T)} on the scale of the similarity it is to be
    added to.

    batches: dicts with 'similarity' and 'cells', (B, S, T), and 'types', the words' types (B, S) and (B, T). kinds: of
    'neighbours' and 'lexicon'. lexicon: the counts of the text so far, to which this chunk's are added; sum_counts,
    where given, adds a tensor up over all processes. ROUNDS times agreement() gives neighbours and expected counts, and
    these an agreement.
    """
    weights = {"neighbours": NEIGHBOURS * TEMPERATURE, "lexicon": LEXICON * TEMPERATURE}
    evidence = [{} for _ in batches]
    for _ in range(ROUNDS if kinds else 0):
        supported = [batch["similarity"] + sum(found.values()) for batch, found in zip(batches, evidence)]
        agreed = [agreement(similarity, batch["cells"]) for similarity, batch in zip(supported, batches)]
        if "lexicon" in kinds:
            counts = new_lexicon(lexicon["pairs"].device)
            for batch, links in zip(batches, agreed):
                count_links(counts, links, *batch["types"])
            for name, table in counts.items():
                if sum_counts:
                    sum_counts(table)
                table += lexicon[name]
        for batch, links, found in zip(batches, agreed, evidence):
            if "neighbours" in kinds:
                found["neighbours"] = weights["neighbours"] * neighbour_evidence(links)
            if "lexicon" in kinds:
                found["lexicon"] = weights["lexicon"] * lexicon_evidence(counts, links, *batch["types"])
    if "lexicon" in kinds:
        for name, table in counts.items():
            lexicon[name].copy_((table * CARRIED).int())
    return evidence


# ---- links -------------------------------------------------------------------------------------------


def mutual_argmax(similarity, cells):
    """Return links, (B, S, T) bool, where each unit is the other's most similar one (SimAlign's argmax). similarity:
    (B, S, T).
    """
    similarity = similarity.masked_fill(~cells, float("-inf"))
    forward = torch.zeros_like(cells).scatter_(2, similarity.argmax(2, keepdim=True), True)
    backward = torch.zeros_like(cells).scatter_(1, similarity.argmax(1, keepdim=True), True)
    return forward & backward & cells


def itermax(similarity, cells, alpha=0.9):
    """Return mutual argmax and one more round over what it left (SimAlign's itermax with two iterations).

    In the second round a cell counts in full where neither unit has a link, `alpha` times where one has, not where both
    have. There is none in pairs with two units or fewer on a side, nor where one side is linked throughout. Shapes as
    in mutual_argmax.
    """
    links = mutual_argmax(similarity, cells)
    free_source = ~links.any(2, keepdim=True) & cells.any(2, keepdim=True)  # (B, S, 1)
    free_target = ~links.any(1, keepdim=True) & cells.any(1, keepdim=True)  # (B, 1, T)
    size = torch.minimum(cells.any(2).sum(1), cells.any(1).sum(1))
    again = (size > 2) & free_source.any(1)[:, 0] & free_target.any(2)[:, 0]
    weight = torch.where(free_source & free_target, 1.0, torch.where(free_source | free_target, alpha, 0.0))
    return links | (mutual_argmax(similarity * weight, cells) & (free_source | free_target) & again[:, None, None])


def maximum_match(similarity, cells):
    """Return the one-to-one links of greatest total similarity (SimAlign's match). Shapes as in mutual_argmax.
    Raises InputError.
    """
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError:
        raise InputError(
            "--method match: needs scipy, which is not installed; pip install scipy, or use --method itermax"
        ) from None
    links = torch.zeros_like(cells)
    for pair, (matrix, inside) in enumerate(zip(similarity.cpu().numpy(), cells.cpu().numpy())):
        source, target = inside.any(1).sum(), inside.any(0).sum()
        rows, columns = linear_sum_assignment(matrix[:source, :target], maximize=True)
        links[pair, torch.from_numpy(rows), torch.from_numpy(columns)] = True
    return links


def entmax15(scores, dim):
    """Return 1.5-entmax along `dim`, exact, by sorting: max(x / 2 - tau, 0)^2 with tau such that the sum is 1
    (Peters et al. 2019).
    """
    x = scores / 2
    x = x - x.amax(dim, keepdim=True)
    top = x.sort(dim, descending=True).values
    shape = [1] * x.dim()
    shape[dim] = -1
    k = torch.arange(1, x.shape[dim] + 1, device=x.device, dtype=x.dtype).view(shape)
    mean = top.cumsum(dim) / k
    variance = (top**2).cumsum(dim) / k - mean**2  # k times this is the sum of squared distances from the mean
    tau = mean - ((1 - k * variance) / k).clamp(min=0).sqrt()
    support = (tau <= top).sum(dim, keepdim=True)
    return (x - tau.gather(dim, support - 1)).clamp(min=0) ** 2


def grow_diag(forward, backward, cells, threshold):
    """Return links, (B, S, T) bool, where both directions agree, grown to neighbouring cells for units that have none.

    A cell is linked where the geometric mean of the probabilities is above `threshold`, or above MUTUAL times it in a
    cell that is the best of its row and column. A unit without a link then takes a cell beside, above, below or
    diagonal to a link (Koehn et al. 2003) if that is more probable than GROWN for it. forward, backward: (B, S, T),
    both_directions().
    """
    agreed = (forward * backward).sqrt()
    links = (agreed > threshold) | (mutual_argmax(agreed, cells) & (agreed > MUTUAL * threshold))
    beside = F.max_pool2d(links[:, None].float(), 3, stride=1, padding=1)[:, 0] > 0
    free_source, free_target = ~links.any(2, keepdim=True), ~links.any(1, keepdim=True)
    return links | (beside & (free_source & (forward > GROWN) | free_target & (backward > GROWN)))


def pick_links(similarity, cells, method, threshold, temperature):
    """Return the links of a batch of pairs, (B, S, T) bool, by one of METHODS.

    softmax and entmax link where the probability exceeds `threshold` in both directions (awesome-align), grow-diag by
    grow_diag; the probabilities are those of similarity / `temperature`.
    """
    if method in ("softmax", "entmax", "grow-diag"):
        probabilities = entmax15 if method == "entmax" else torch.softmax
        forward, backward = both_directions(similarity / temperature, cells, probabilities)
        if method == "grow-diag":
            return grow_diag(forward, backward, cells, threshold)
        return (forward > threshold) & (backward > threshold)
    # SimAlign's scale, in which nothing that itermax weighs is negative
    return {"argmax": mutual_argmax, "itermax": itermax, "match": maximum_match}[method]((similarity + 1) / 2, cells)
