"""Sentences to vectors: the pieces of many sentences in flat arrays, and the encoder's states of them."""

import collections

import numpy as np
import torch

import common
from lib import subwords

BUDGET = {"cpu": 1024, "cuda": 65536}  # padded pieces in a batch; on a CPU more than this leaves the caches


# Pieces of many sentences in flat arrays. ids, word, keep: a piece's id, its word's index in the sentence (-1 for
# special pieces), whether it is compared. first, lengths: where a sentence begins and how many pieces it has.
Pieces = collections.namedtuple("Pieces", "ids word keep first lengths")


def flatten(tokenizer, sentences, limit, keep_bare=False):
    """Return the pieces of all sentences, special ones included, in flat numpy arrays, at most `limit` of each.

    Returns (Pieces, truncated, dropped): of a sentence, whether it is longer than `limit`, and how many of its words
    have no piece. Bare pieces are compared only where they are all that their word has, or with keep_bare.
    """
    before, after = subwords.special_pieces(tokenizer)
    room = limit - len(before) - len(after)
    pieces = subwords.words_to_pieces(tokenizer, sentences)
    truncated = np.array([len(ids) > room for ids, _ in pieces])
    dropped = np.array([len(sentence) - len(set(word)) for sentence, (_, word) in zip(sentences, pieces)])
    lengths = np.array([min(len(ids), room) + len(before) + len(after) for ids, _ in pieces])
    ids = np.concatenate([before + ids[:room] + after for ids, _ in pieces])
    word = np.concatenate([[-1] * len(before) + word[:room] + [-1] * len(after) for _, word in pieces])
    sentence = np.repeat(np.arange(len(pieces)), lengths)
    keep, bare = word >= 0, ids == (None if keep_bare else subwords.bare_piece(tokenizer))
    whole_word = np.cumsum((np.diff(word, prepend=-1) != 0) | (np.diff(sentence, prepend=0) != 0))
    keep &= ~bare | ~np.isin(whole_word, whole_word[keep & ~bare])
    return Pieces(ids, word, keep, np.cumsum(lengths) - lengths, lengths), truncated, dropped


def encode(model, pieces, pad_id, precision):
    """Return vectors of the pieces that are compared: (vectors, start, word).

    vectors (units of all sentences + 1, H): float32 on the model's device, the last row zero; sentence n has the rows
    start[n] up to start[n + 1]; word (units): a unit's word index in its sentence.
    """
    ids, word, keep, _, lengths = pieces
    common.check_fits(model, ids.max())
    unit = np.cumsum(keep) - 1
    device = model.device
    vectors = torch.zeros(keep.sum() + 1, model.config.hidden_size, device=device)
    for batch in common.length_sorted(lengths, BUDGET[device.type]):
        index, inside = common.place_batch(pieces, batch)
        batch_ids = torch.from_numpy(np.where(inside, ids[index], pad_id)).to(device)
        with common.autocast(device, precision):
            mask = torch.from_numpy(inside).long().to(device)  # DeBERTa subtracts it
            hidden = model(input_ids=batch_ids, attention_mask=mask).last_hidden_state
        taken = inside & keep[index]
        vectors[torch.from_numpy(unit[index[taken]]).to(device)] = hidden[torch.from_numpy(taken).to(device)].float()
    sentence = np.repeat(np.arange(len(lengths)), lengths)
    start = np.concatenate([[0], np.cumsum(np.bincount(sentence[keep], minlength=len(lengths)))])
    return vectors, start, word[keep]


def average_words(vectors, start, word):
    """Return the mean vector of each word's pieces: (vectors, start, word) of encode, with words for units."""
    sentence = np.repeat(np.arange(len(start) - 1), np.diff(start))
    new = np.ones(len(word), bool)
    new[1:] = (word[1:] != word[:-1]) | (sentence[1:] != sentence[:-1])
    group = torch.from_numpy(np.cumsum(new) - 1).to(vectors.device)
    total = torch.zeros(int(new.sum()) + 1, vectors.shape[1], device=vectors.device).index_add_(0, group, vectors[:-1])
    count = torch.bincount(group, minlength=len(total)).clamp(min=1)
    starts = np.concatenate([[0], np.cumsum(np.bincount(sentence[new], minlength=len(start) - 1))])
    return total / count[:, None], starts, word[new]
