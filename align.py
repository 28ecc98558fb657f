"""Word alignment with a multilingual encoder: SimAlign's and awesome-align's extraction, batched from end to end.

In:   `source words ||| target words` a line, tokenised by spaces
Out:  the links of each line as `i-j` pairs, 0-indexed and sorted (Pharaoh format); an empty line where nothing aligns

    python align.py --model models/multilingual-e5-small --input data/sample/udpos/train-en-fr.txt --output fr.align
    python align.py --model M --input enfr.src-tgt --output enfr.align --gold enfr.gold   # prints AER as JSON
    python align.py --model M --input - --output - --method itermax < pairs > links       # a stream of any length
    torchrun --nproc_per_node 4 align.py ...                                              # the pairs shared out over four GPUs

Both sentences go through the first layers of the encoder; the similarity of their pieces is a matrix, and the method picks
links from it. Lines are read in chunks of CHUNK; within a chunk each distinct sentence is encoded once, in batches of like length.

Sources: Jalili Sabet et al. 2020 (SimAlign: argmax, itermax, match); Dou and Neubig 2021 (awesome-align: softmax, entmax);
Peters et al. 2019 (entmax); Conneau et al. 2018 (csls). Where tokenizers of the XLM-R type put a bare `▁` before a word, that
piece says nothing about the word and is left out, which lowers the error rate for every language pair tried.
--keep-bare-pieces keeps it and compares by plain cosine: SimAlign's links. softmax and entmax on a model that brings no
other default compare by raw dot products: awesome-align's links.
"""

import argparse
import collections
import itertools
import json
import os

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from tqdm import tqdm

import common
import subwords
from data.cli import (
    Arguments,
    InputError,
    check_writable,
    error_at,
    fraction,
    open_output,
    positive,
    positive_float,
    run_script,
    warn,
)
from data.files import format_links, parse_links, read_gold, read_parallel
from report import links_page

CHUNK = {"cpu": 512, "cuda": 8192}  # lines in memory at a time
BUDGET = {"cpu": 1024, "cuda": 65536}  # padded pieces in a batch; on a CPU more than this leaves the caches
CELLS, PAIRS = 1 << 20, 128  # cells of similarity matrices and pairs in a batch
CENTRE = 512  # pairs that a language's mean vector is taken from: the first chunk on a CPU
HTML_PAIRS = 200
METHODS = ["argmax", "itermax", "match", "softmax", "entmax"]
SIMILARITIES = ["csls", "cosine", "dot"]
NEIGHBOURS = 5  # of csls


# ---- similarity to links. S and T are the numbers of source and target pieces, padded over a batch of B pairs.


def csls(cosine, cells):
    """Cosines less half the mean of the NEIGHBOURS highest of their row and of their column (Conneau et al. 2018, halved).

    A piece that is near to every piece of the other side loses to one that is near to few. cosine: (B, S, T);
    cells: (B, S, T) bool, what lies inside the pair. Returns (B, S, T).
    """
    inside = cosine.masked_fill(~cells, -1.0)
    for dim in (1, 2):
        nearest = inside.topk(min(NEIGHBOURS, inside.shape[dim]), dim).values
        count = cells.sum(dim, keepdim=True).clamp(1, nearest.shape[dim])
        shape = [-1 if d == dim else 1 for d in range(3)]
        real = (
            torch.arange(nearest.shape[dim], device=cells.device).view(shape) < count
        )  # a short side has fewer neighbours
        cosine = cosine - (nearest * real).sum(dim, keepdim=True) / count / 2
    return cosine


def support(similarity, cells, weight):
    """Each cell plus `weight` times its neighbours on the diagonal, (i - 1, j - 1) and (i + 1, j + 1): what stands beside linked pieces
    is often linked itself, which tells repeated words apart. Shapes as in csls."""
    inside = F.pad(similarity * cells, (1, 1, 1, 1))
    return similarity + weight * (inside[:, :-2, :-2] + inside[:, 2:, 2:])


def similarity_matrix(source, target, cells, kind, diagonal=0.0):
    """How alike the pieces of each pair are. source: (B, S, H) float, target: (B, T, H), cells: (B, S, T) bool. Returns (B, S, T).

    kind: 'dot' products of the vectors as they are, 'cosine', or 'csls'; diagonal: the weight of support.
    """
    if kind != "dot":
        source, target = F.normalize(source, dim=2), F.normalize(target, dim=2)
    similarity = source @ target.transpose(1, 2)
    if kind == "csls":
        similarity = csls(similarity, cells)
    return support(similarity, cells, diagonal) if diagonal else similarity


def mutual_argmax(similarity, cells):
    """Links where each piece is the other's most similar one (SimAlign's argmax).

    similarity: (B, S, T); cells: (B, S, T) bool, what lies inside the pair. Returns (B, S, T) bool.
    """
    similarity = similarity.masked_fill(~cells, float("-inf"))
    forward = torch.zeros_like(cells).scatter_(2, similarity.argmax(2, keepdim=True), True)
    backward = torch.zeros_like(cells).scatter_(1, similarity.argmax(1, keepdim=True), True)
    return forward & backward & cells


def itermax(similarity, cells, alpha=0.9):
    """Mutual argmax, then one more round over what it left (SimAlign's itermax with two iterations).

    In the second round a cell counts in full where neither piece has a link, `alpha` times where one has, not where both
    have. There is none in pairs with two pieces or fewer on a side, nor where one side is linked throughout.
    Shapes as in mutual_argmax.
    """
    links = mutual_argmax(similarity, cells)
    free_source = ~links.any(2, keepdim=True) & cells.any(2, keepdim=True)  # (B, S, 1)
    free_target = ~links.any(1, keepdim=True) & cells.any(1, keepdim=True)  # (B, 1, T)
    size = torch.minimum(cells.any(2).sum(1), cells.any(1).sum(1))
    again = (size > 2) & free_source.any(1)[:, 0] & free_target.any(2)[:, 0]
    weight = torch.where(free_source & free_target, 1.0, torch.where(free_source | free_target, alpha, 0.0))
    return links | (mutual_argmax(similarity * weight, cells) & (free_source | free_target) & again[:, None, None])


def maximum_match(similarity, cells):
    """Links of the one-to-one assignment with the greatest total similarity (SimAlign's match). Shapes as in mutual_argmax."""
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
    """1.5-entmax along `dim`: max(x / 2 - tau, 0)^2 with tau such that it sums to 1; exact, by sorting (Peters et al. 2019, alg. 2)."""
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


def both_directions(scores, cells, probabilities=torch.softmax):
    """Probabilities of the target pieces for each source piece and of the source pieces for each target piece, 0 outside the pairs.

    scores: (B, S, T); probabilities: torch.softmax or entmax15; cells as in mutual_argmax. Returns two (B, S, T).
    """
    masked = scores.masked_fill(~cells, -1e4)
    return probabilities(masked, 2) * cells, probabilities(masked, 1) * cells


def pick_links(similarity, cells, method, threshold, temperature):
    """Links of a batch of pairs from their similarity matrices, (B, S, T) bool. Shapes as in mutual_argmax.

    softmax and entmax link where the probability exceeds `threshold` in both directions (awesome-align); the probabilities are
    those of similarity / `temperature`.
    """
    if method in ("softmax", "entmax"):
        forward, backward = both_directions(
            similarity / temperature, cells, torch.softmax if method == "softmax" else entmax15
        )
        return (forward > threshold) & (backward > threshold)
    # SimAlign's scale, in which nothing that itermax weighs is negative
    return {"argmax": mutual_argmax, "itermax": itermax, "match": maximum_match}[method]((similarity + 1) / 2, cells)


# ---- sentences to vectors -----------------------------------------------------------------------


# Pieces of many sentences in flat arrays. ids, word, keep: a piece's id, its word's index in the sentence (-1 for special pieces),
# whether it is compared. first, lengths: where a sentence begins and how many pieces it has.
Pieces = collections.namedtuple("Pieces", "ids word keep first lengths")


def flatten(tokenizer, sentences, settings):
    """The pieces of all sentences, special ones included, in flat numpy arrays.

    Returns (Pieces, beyond, dropped): of a sentence, whether it is longer than the model, and how many of its words have no
    piece. Bare pieces are compared only where they are all that their word has.
    """
    before, after = settings.special
    room = settings.limit - len(before) - len(after)
    pieces = subwords.words_to_pieces(tokenizer, sentences)
    beyond = np.array([len(ids) > room for ids, _ in pieces])
    dropped = np.array([len(sentence) - len(set(word)) for sentence, (_, word) in zip(sentences, pieces)])
    lengths = np.array([min(len(ids), room) + len(before) + len(after) for ids, _ in pieces])
    ids = np.concatenate([before + ids[:room] + after for ids, _ in pieces])
    word = np.concatenate([[-1] * len(before) + word[:room] + [-1] * len(after) for _, word in pieces])
    sentence = np.repeat(np.arange(len(pieces)), lengths)
    keep, bare = word >= 0, ids == settings.bare
    whole_word = np.cumsum((np.diff(word, prepend=-1) != 0) | (np.diff(sentence, prepend=0) != 0))
    keep &= ~bare | ~np.isin(whole_word, whole_word[keep & ~bare])
    return Pieces(ids, word, keep, np.cumsum(lengths) - lengths, lengths), beyond, dropped


def encode(model, tokenizer, sentences, settings):
    """Vectors of the sentences' units, which are pieces or words by settings.level.

    Returns (vectors, start, word, beyond, dropped): vectors (units of all sentences + 1, H) float32 on the model's device, its
    last row zero; sentence n has the rows start[n] up to start[n + 1]; word (units) is a unit's word index in its sentence;
    beyond and dropped are flatten's.
    """
    pieces, beyond, dropped = flatten(tokenizer, sentences, settings)
    ids, word, keep, _, lengths = pieces
    if settings.new_id is None:
        common.check_fits(model, ids.max())
    else:
        ids = settings.new_id[ids]
    unit = np.cumsum(keep) - 1
    device = model.device
    vectors = torch.zeros(keep.sum() + 1, model.config.hidden_size, device=device)
    for batch in common.length_sorted(lengths, settings.budget):
        index, inside = common.place_batch(pieces, batch)
        batch_ids = torch.from_numpy(np.where(inside, ids[index], tokenizer.pad_token_id)).to(device)
        with common.autocast(device, settings.precision):
            hidden = model(input_ids=batch_ids, attention_mask=torch.from_numpy(inside).to(device)).last_hidden_state
        taken = inside & keep[index]
        vectors[torch.from_numpy(unit[index[taken]]).to(device)] = hidden[torch.from_numpy(taken).to(device)].float()
    sentence = np.repeat(np.arange(len(lengths)), lengths)
    start = np.concatenate([[0], np.cumsum(np.bincount(sentence[keep], minlength=len(lengths)))])
    word = word[keep]
    if settings.level == "word":
        vectors, start, word = average_words(vectors, start, word)
    return vectors, start, word, beyond, dropped


def average_words(vectors, start, word):
    """Mean vector of each word's pieces: (vectors, start, word) of encode, with words for units."""
    sentence = np.repeat(np.arange(len(start) - 1), np.diff(start))
    new = np.ones(len(word), bool)
    new[1:] = (word[1:] != word[:-1]) | (sentence[1:] != sentence[:-1])
    group = torch.from_numpy(np.cumsum(new) - 1).to(vectors.device)
    total = torch.zeros(int(new.sum()) + 1, vectors.shape[1], device=vectors.device).index_add_(0, group, vectors[:-1])
    count = torch.bincount(group, minlength=len(total)).clamp(min=1)
    starts = np.concatenate([[0], np.cumsum(np.bincount(sentence[new], minlength=len(start) - 1))])
    return total / count[:, None], starts, word[new]


def align_pairs(model, tokenizer, pairs, settings):
    """Word links of (source words, target words) pairs without empty sides, found in each of settings.ways.

    A way is a dict of pick_links' method, threshold and temperature and of similarity_matrix's similarity and diagonal.
    Returns (links, beyond, dropped): for each way a list with, for each pair, a sorted list of (i, j); how many pairs have a side
    longer than the model; how many words have no piece.
    """
    index = {}
    for sentence in itertools.chain.from_iterable(pairs):
        index.setdefault(tuple(sentence), len(index))
    vectors, start, word, beyond, dropped = encode(model, tokenizer, [list(sentence) for sentence in index], settings)
    sides = np.array(
        [[index[tuple(source)], index[tuple(target)]] for source, target in pairs]
    )  # (pairs, 2) sentence numbers
    sizes = np.diff(start)[sides]  # (pairs, 2) units
    if settings.centre and settings.means is None:
        rows = [np.concatenate([np.arange(start[n], start[n + 1]) for n in side]) for side in sides[:CENTRE].T]
        settings.means = [vectors[torch.from_numpy(row).to(vectors.device)].mean(0) for row in rows]
    links = [[[] for _ in pairs] for _ in settings.ways]
    order = np.lexsort((sizes[:, 1], sizes[:, 0]))
    order = order[sizes[order].min(1) > 0]  # a sentence all of whose characters the tokenizer drops has no unit
    at = 0
    while at < len(order):
        # Pairs are sorted by size, so a batch of like ones is the longest run that stays under the limit.
        end = at + 1
        width = sizes[order[at]]
        while end < len(order):
            wider = np.maximum(width, sizes[order[end]])
            if wider.prod() * (end + 1 - at) > CELLS or end - at >= PAIRS:
                break
            width, end = wider, end + 1
        batch = order[at:end]
        at = end
        rows, masks = [], []
        for side in (0, 1):
            place = np.arange(width[side])[None, :]
            mask = place < sizes[batch, side][:, None]
            rows.append(np.where(mask, start[sides[batch, side]][:, None] + place, len(word)))
            masks.append(torch.from_numpy(mask).to(vectors.device))
        source, target = (vectors[torch.from_numpy(row).to(vectors.device)] for row in rows)
        if settings.centre:
            source, target = source - settings.means[0], target - settings.means[1]
        cells = masks[0][:, :, None] & masks[1][:, None, :]
        for way, found in zip(settings.ways, links):
            similarity = similarity_matrix(source, target, cells, way["similarity"], way["diagonal"])
            linked = pick_links(similarity, cells, way["method"], way["threshold"], way["temperature"])
            pair, i, j = linked.nonzero().cpu().numpy().T
            # Several links between the pieces of two words are one link between the words.
            triples = np.unique(np.stack([pair, word[rows[0][pair, i]], word[rows[1][pair, j]]], 1), axis=0)
            for pair, i, j in triples.tolist():
                found[batch[pair]].append((i, j))
    return links, beyond[sides].any(1).sum(), dropped[sides].sum()


def align_shared(model, tokenizer, pairs, settings, rank, world):
    """align_pairs, the pairs shared out over `world` processes; every one returns the links of all."""
    if world == 1:
        return align_pairs(model, tokenizer, pairs, settings)
    if settings.centre and settings.means is None:
        align_pairs(model, tokenizer, pairs[:CENTRE], settings)  # finds the means, which all shares have in common
    mine, gathered = pairs[rank::world], [None] * world
    dist.all_gather_object(
        gathered, align_pairs(model, tokenizer, mine, settings) if mine else ([[] for _ in settings.ways], 0, 0)
    )
    links = [[None] * len(pairs) for _ in settings.ways]
    for first, (found, _, _) in enumerate(gathered):
        for way, part in zip(links, found):
            way[first::world] = part
    return links, sum(beyond for _, beyond, _ in gathered), sum(dropped for _, _, dropped in gathered)


def first_occurrences(path):
    """For each line of a parallel file the number, from 0, of the first line with the same pair, a numpy (lines,). Raises InputError.

    Pairs are told apart by 64-bit hashes, so that a million lines take 24 MB.
    """
    keys = np.fromiter((hash((tuple(source), tuple(target))) for source, target in read_parallel(path)), np.int64)
    _, first, which = np.unique(keys, return_index=True, return_inverse=True)
    return first[which.reshape(-1)]


# ---- scores ------------------------------------------------------------------------------


def check_gold(path, number, gold, pair, index):
    """Raise InputError where a link of (sure, possible) lies outside its (source words, target words)."""
    for i, j in gold[1]:
        if i >= len(pair[0]) or j >= len(pair[1]):
            raise error_at(
                path,
                number,
                f"link {i + index}-{j + index} is outside the pair of {len(pair[0])} and {len(pair[1])} words; "
                f"expected words numbered from {index} (--gold-index), source first",
            )


def link_counts(links, gold):
    """|A & S|, |A & P|, |A|, |S| of a pair's links A against its gold links (sure, possible)."""
    return np.array([len(gold[0].intersection(links)), len(gold[1].intersection(links)), len(links), len(gold[0])])


def read_align_json(name, config, methods, similarities):
    """What a model folder's align.json says of aligning with it, {} where it has none. Raises InputError for what cannot be."""
    path = os.path.join(name, "align.json")
    if not os.path.isfile(path):
        return {}
    try:
        with open(path, encoding="utf-8") as stream:
            own = json.load(stream)
        right = all(type(own.get(key, 1)) in (int, float) for key in ("threshold", "temperature", "diagonal"))
        right = right and type(own.get("layer", 1)) is int and 1 <= own.get("layer", 1) <= config.num_hidden_layers
        right = right and own.get("method", "argmax") in methods and own.get("similarity", "dot") in similarities
        right = right and 0.0 < own.get("threshold", 0.1) < 1.0 and 0.0 < own.get("temperature", 1) < float("inf")
        right = right and 0.0 <= own.get("diagonal", 0) <= 1.0
    except (ValueError, TypeError, AttributeError):
        right = False
    if not right:
        raise InputError(
            f'{path}: expected a JSON object such as {{"layer": 7, "method": "argmax", "threshold": 0.001}}, with a layer from 1 to '
            f"{config.num_hidden_layers}, a method of {', '.join(methods)} and a similarity of {', '.join(similarities)}"
        )
    return own


def align_layer(own, config):
    """The layer whose states are compared by default: align.json's, else 8 of 12, or 2 of 3, and so on."""
    return own.get("layer", max(1, round(config.num_hidden_layers * 8 / 12)))


def align_defaults(own, given, config):
    """How align.py finds links: {'layer', 'method', 'threshold', 'similarity', 'temperature', 'diagonal'}.

    `given` has these names as attributes, None where the command line leaves them open. Then they come from `own`, what
    read_align_json returns; else they are argmax, csls (dot for softmax and entmax, cosine where given.keep_bare_pieces), threshold
    0.001 for dot, 0.45 otherwise (entmax: 0), temperature 1 for dot, 0.05 otherwise, diagonal 0.1 for csls, 0 otherwise.
    """
    method = given.method or own.get("method", "argmax")
    similarity = given.similarity or (None if given.keep_bare_pieces else own.get("similarity"))
    if similarity is None:
        similarity = "dot" if method in ("softmax", "entmax") else "cosine" if given.keep_bare_pieces else "csls"
    fitting = (
        own if similarity == own.get("similarity", similarity) else {}
    )  # numbers that fit one similarity say nothing of another
    return {
        "layer": given.layer or align_layer(own, config),
        "method": method,
        "threshold": given.threshold
        or (0.0 if method == "entmax" else fitting.get("threshold", 1e-3 if similarity == "dot" else 0.45)),
        "similarity": similarity,
        "temperature": given.temperature or fitting.get("temperature", 1.0 if similarity == "dot" else 0.05),
        "diagonal": fitting.get("diagonal", 0.1 if similarity == "csls" else 0.0)
        if given.diagonal is None
        else given.diagonal,
    }


def alignment_scores(counts):
    """AER, precision, recall and F1 from |A & S|, |A & P|, |A|, |S| (Och and Ney 2003): AER = 1 - (|A & S| + |A & P|) / (|A| + |S|)."""
    sure_hits, hits, found, sure = counts
    precision, recall = hits / found if found else 0.0, sure_hits / sure if sure else 0.0
    return {
        "aer": 1 - (sure_hits + hits) / (found + sure) if found + sure else 0.0,
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall) if precision + recall else 0.0,
    }


def main():
    parser = Arguments(__doc__)
    parser.add_argument(
        "--model", required=True, help="Hugging Face folder or hub name of a BERT or XLM-R type encoder"
    )
    parser.add_argument("--input", required=True, metavar="FILE", help="`source ||| target` a line; - is stdin")
    parser.add_argument("--output", required=True, metavar="FILE", help="Pharaoh file to write; - is stdout")
    parser.add_argument(
        "--method",
        choices=METHODS,
        help="how links are picked (default: the model's align.json, else argmax)",
    )
    parser.add_argument(
        "--layer",
        type=positive,
        metavar="N",
        help="hidden layer to compare, 1 is the first (default: the model's align.json, else two thirds of the depth: 8 of 12)",
    )
    parser.add_argument(
        "--level", choices=["subword", "word"], default="subword", help="link pieces, or the mean vectors of words"
    )
    parser.add_argument(
        "--threshold",
        type=positive_float,
        help="probability that a link of --method softmax must exceed (default: the model's align.json, else 0.001 for dot and 0.45 for the others; for entmax 0)",
    )
    parser.add_argument(
        "--similarity",
        choices=SIMILARITIES,
        help="what the method compares (default: the model's align.json, else dot for softmax and entmax, cosine with "
        "--keep-bare-pieces, csls otherwise)",
    )
    parser.add_argument(
        "--temperature",
        type=positive_float,
        help="divides the similarity for softmax and entmax (default: the model's align.json, else 1 for dot, 0.05 for the others)",
    )
    parser.add_argument(
        "--diagonal",
        type=fraction,
        metavar="W",
        help="weight of the similarity of the neighbours on both sides, which is added (default: the model's align.json, else 0.1 with csls, 0 otherwise)",
    )
    parser.add_argument(
        "--centre",
        action="store_true",
        help=f"subtract from each side the mean vector of its language, that of the first {CENTRE} pairs",
    )
    parser.add_argument(
        "--keep-bare-pieces", action="store_true", help="compare bare `▁` pieces too and by cosine: what SimAlign gives"
    )
    parser.add_argument(
        "--gold",
        metavar="FILE",
        help="gold alignments, i-j sure and ipj possible; prints AER, precision, recall and F1 as JSON",
    )
    parser.add_argument(
        "--gold-index", type=int, choices=[0, 1], default=1, help="number of the first word in the gold file"
    )
    parser.add_argument(
        "--scores",
        metavar="FILE",
        help="with --gold, also score argmax, itermax and softmax and write a JSON file, for eval.py",
    )
    parser.add_argument("--html", metavar="FILE", help=f"page that shows the first {HTML_PAIRS} alignments")
    parser.add_argument(
        "--precision", choices=["bf16", "f32"], help="of matrix products (default: bf16 where the machine has it)"
    )
    args = parser.parse_args()

    if args.gold and "-" in (args.output, args.gold):
        raise InputError("--gold prints its scores to stdout and is a file; give --output a file too")
    if args.scores and not args.gold:
        raise InputError("--scores needs --gold, the alignments to score against")
    for path in filter(None, (args.output, args.html, args.scores)):
        if path != "-":
            check_writable(path)
    gold = read_gold(args.gold, args.gold_index) if args.gold else None
    # Reading a file once before costs seconds a million lines, and finds a malformed one before hours of work.
    total, earlier = None, None
    if os.path.isfile(args.input):
        earlier = first_occurrences(args.input)
        total = len(earlier)
    if gold is not None and total is not None and total != len(gold):
        raise InputError(
            f"{args.gold}: {len(gold)} lines, but {args.input} has {total}; expected one line for each pair"
        )

    config = common.load_config(args.model)
    settings = argparse.Namespace(**vars(args))
    methods = [None] + ["argmax", "itermax", "softmax"] * bool(
        args.scores
    )  # the one asked for, and those that are scored
    given = [argparse.Namespace(**{**vars(args), "method": method or args.method}) for method in methods]
    own = read_align_json(args.model, config, METHODS, SIMILARITIES)
    settings.ways = [align_defaults(own, asked, config) for asked in given]
    settings.layer = settings.ways[0]["layer"]
    if settings.layer > config.num_hidden_layers:
        raise InputError(f"--layer {settings.layer}: {args.model} has {config.num_hidden_layers} layers")
    tokenizer = common.load_tokenizer(args.model)
    device = common.pick_device()
    rank, world = common.start_distributed(device)
    if world > 1 and args.input == "-":
        raise InputError("--input -: torchrun gives standard input to one process only; expected the name of a file")
    settings.precision = args.precision or common.pick_precision(device)
    settings.special, settings.limit = subwords.special_pieces(tokenizer), common.piece_limit(tokenizer, config)
    settings.bare = None if args.keep_bare_pieces else subwords.bare_piece(tokenizer)
    settings.budget, settings.new_id, settings.means = BUDGET[device.type], None, None
    attention = "eager" if device.type == "cpu" else None  # the faster one on a CPU
    model = common.load_encoder(args.model, settings.layer, attention).to(device)
    if settings.precision == "bf16":
        common.store_linear_in_bf16(model)

    counts, lines, empty, beyond, dropped, shown = np.zeros((len(methods), 4), np.int64), 0, 0, 0, 0, []
    pairs = enumerate(read_parallel(args.input))
    # A pair that stood there before is not aligned again: its line is read back from the output, where that is a file.
    plain = args.output != "-" and (os.path.isfile(args.output) or not os.path.exists(args.output))
    if not plain or gold is not None:
        earlier = None
    place = np.zeros(0 if earlier is None else total, np.int64)  # of a line in the output
    path, quiet = (args.output, None) if rank == 0 else (os.devnull, True)  # the first process writes
    with open_output(path) as stream, torch.inference_mode(), tqdm(total=total, unit=" pairs", disable=quiet) as bar:
        while chunk := list(itertools.islice(pairs, CHUNK[device.type])):
            full = [pair for number, pair in chunk if all(pair) and (earlier is None or earlier[number] == number)]
            empty += sum(not all(pair) for _, pair in chunk)
            found, more_beyond, more_dropped = (
                align_shared(model, tokenizer, full, settings, rank, world) if full else ([[]], 0, 0)
            )
            if rank > 0:
                continue
            found, beyond, dropped = zip(*found), beyond + more_beyond, dropped + more_dropped
            for number, (source, target) in chunk:
                if not source or not target:
                    every = [[]] * len(methods)
                elif earlier is None or earlier[number] == number:
                    every = next(found)
                else:
                    stream.flush()
                    with open(stream.name, encoding="ascii") as written:
                        written.seek(place[earlier[number]])
                        every = [parse_links(args.output, number + 1, written.readline().rstrip("\n"), "-")]
                links = every[0]
                if earlier is not None:
                    place[number] = stream.tell()
                stream.write(format_links(links) + "\n")
                if gold is not None:
                    if lines >= len(gold):
                        raise InputError(
                            f"{args.gold}: {len(gold)} lines, but the input has more; expected one line for each pair"
                        )
                    check_gold(args.gold, lines + 1, gold[lines], (source, target), args.gold_index)
                    counts += [link_counts(links, gold[lines]) for links in every]
                if args.html and len(shown) < HTML_PAIRS:
                    shown.append((source, target, links, gold[lines] if gold is not None else None))
                lines += 1
            bar.update(len(chunk))
        if gold is not None and lines != len(gold) and rank == 0:
            raise InputError(
                f"{args.gold}: {len(gold)} lines, but the input has {lines}; expected one line for each pair"
            )
    if world > 1:
        dist.destroy_process_group()
    if rank > 0:
        return
    if args.html:
        with open_output(args.html) as stream:
            stream.write(links_page(shown, lines, args.input))
    for count, what in (
        (empty, "lines have an empty side and got no links"),
        (beyond, f"lines are longer than the model's {settings.limit} pieces; the words beyond got no links"),
        (dropped, "words hold only characters that the tokenizer drops, and got no links"),
    ):
        if count:
            warn(f"{count} {what}")
    if gold is not None:
        scores = [{**alignment_scores(way), "pairs": lines} for way in counts.tolist()]
        if args.scores:
            with open_output(args.scores) as stream:
                json.dump(
                    {"model": args.model, "input": args.input, "methods": dict(zip(methods[1:], scores[1:]))},
                    stream,
                    indent=1,
                )
        print(json.dumps(scores[0]))


if __name__ == "__main__":
    run_script(main)
