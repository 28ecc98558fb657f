"""Words and texts to the pieces of a model's vocabulary. Tokenizers are common.load_tokenizer's; sentences are lists of
words."""


def encode(tokenizer, texts, words=False):
    """Return the pieces of texts, or of lists of `words`, without special ones: a list of tokenizers.Encoding and of
    their ids.

    Text stays text: `</s>` in it is never the special piece of that name. A unigram vocabulary holds such names, so
    that it would still find them; they become their letters, see spell_out.
    """
    encoded = tokenizer(
        texts, is_split_into_words=words, add_special_tokens=False, split_special_tokens=True, verbose=False
    )
    return encoded.encodings


def spell_out(tokenizer, ids, *others):
    """Replace special pieces among the ids of a text by the pieces of their letters.

    others: lists beside `ids`, such as the words of its pieces, whose values are repeated. Returns all these lists.
    """
    special = {id for id, token in tokenizer.added_tokens_decoder.items() if token.special} - {tokenizer.unk_token_id}
    if special.isdisjoint(ids):
        return (ids, *others)
    lists = [[] for _ in range(1 + len(others))]
    for id, *values in zip(ids, *others):
        letters = tokenizer.convert_tokens_to_ids(list(tokenizer.convert_ids_to_tokens(id))) if id in special else [id]
        lists[0].extend(unknown_piece(tokenizer) if letter is None else letter for letter in letters)
        for made, value in zip(lists[1:], values):
            made.extend([value] * len(letters))
    return tuple(lists)


def words_to_pieces(tokenizer, sentences):
    """Return for each sentence (a list of words, at least one) its pieces without special ones: (ids, word), two lists.

    word[k] is the index of the word that piece k belongs to. Characters that the tokenizer drops have no piece.
    Byte-level tokenizers, which know a word's beginning by the space before it, are given that space.
    """
    spaced = encode(tokenizer, ["a a"])[0].ids != encode(tokenizer, [["a", "a"]], words=True)[0].ids
    if spaced:
        sentences = [[" " + word for word in words] for words in sentences]
    return [spell_out(tokenizer, part.ids, part.word_ids) for part in encode(tokenizer, sentences, words=True)]


def text_pieces(tokenizer, texts):
    """Return for each text the ids of its pieces without special ones."""
    return [spell_out(tokenizer, part.ids)[0] for part in encode(tokenizer, texts)]


def special_pieces(tokenizer):
    """Return the special pieces before and after a single sentence, two lists of ids: ([CLS], [SEP]) or (<s>, </s>)."""
    encoded = tokenizer([["a"]], is_split_into_words=True, verbose=False)
    inside = [k for k, index in enumerate(encoded.word_ids(0)) if index is not None]
    ids = encoded["input_ids"][0]
    return ids[: inside[0]], ids[inside[-1] + 1 :]


def special_pair_pieces(tokenizer):
    """Return what the tokenizer puts before, between and after two sentences, lists of ids, and the second one's token
    type."""
    encoded = tokenizer("a", "b", return_token_type_ids=True)
    sequence, ids = encoded.sequence_ids(0), encoded["input_ids"]
    a, b = ([k for k, of in enumerate(sequence) if of == side] for side in (0, 1))
    return ids[: a[0]], ids[a[-1] + 1 : b[0]], ids[b[-1] + 1 :], encoded["token_type_ids"][b[0]]


def bare_piece(tokenizer):
    """Return the id of the bare `▁` that XLM-R's tokenizers put before a word they have no joined piece for, or
    None."""
    index = tokenizer.convert_tokens_to_ids("\u2581")
    return None if index is None or index == tokenizer.unk_token_id else index


def unknown_piece(tokenizer):
    """Return the piece of a text that the tokenizer has no piece for: <unk>, or <mask> in byte-level vocabularies
    without it."""
    return tokenizer.mask_token_id if tokenizer.unk_token_id is None else tokenizer.unk_token_id
