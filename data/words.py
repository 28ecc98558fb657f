"""Text to words and to sentences by one rule for every language, and words in any order back to text.

WORD's alternatives stand in the first lines of data/split.py. Only the standard library is used here.
"""

import re
import unicodedata

# Python's \w lacks the marks (vowel signs, tones, accents) that Hindi and Thai words are full of.
MARKS = (
    "".join(chr(code) for code in range(0x300, 0x1F000) if unicodedata.category(chr(code)).startswith("M"))
    + "\u200c\u200d"
)

UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff々〆"

UNSPACED_CHARACTER = re.compile(f"[{UNSPACED}]")

LETTER = rf"(?:(?![{UNSPACED}])[^\W_][{MARKS}]*)"

INITIALS = rf"(?:(?!\d){LETTER}\.){{2,}}(?!{LETTER})"

WORD = re.compile(rf"{INITIALS}|{LETTER}(?:['’\-‐‑]?{LETTER}|(?<=\d)[.,](?=\d))*|[{UNSPACED}][{MARKS}]*|(\S)\1*")


def split_text(text):
    """The words of a text by the rule above, a list."""
    return [word_of(match) for match in WORD.finditer(text)]


def word_of(match):
    """The word of a match of WORD; three bars or more are written as one."""
    return "|" if match[0].startswith("|||") else match[0]


def split_with_spaces(text):
    """The words of a text, and how to write them again: three lists, words, before and after.

    before[k] tells that word k is a punctuation mark that stood without a space behind the word before it (a comma),
    after[k] that it stood so before the next word (an opening bracket). They belong to the mark and move with it.
    """
    matches = list(WORD.finditer(text))
    words = [word_of(match) for match in matches]
    stuck = [False] + [one.end() == two.start() for one, two in zip(matches, matches[1:])] + [False]
    mark = [not word[0].isalnum() for word in words]
    return words, [a and b for a, b in zip(stuck, mark)], [a and b for a, b in zip(stuck[1:], mark)]


def join_words(words, before, after):
    """Text of words with split_with_spaces' marks, in any order; in the original one it is the text but for runs of spaces."""
    return "".join(joined_parts(words, before, after))


def joined_parts(words, before, after):
    """The words of join_words, each with the space before it where it has one."""
    parts = []
    for k, word in enumerate(words):
        apart = k and not (
            before[k] or after[k - 1] or UNSPACED_CHARACTER.match(word) and UNSPACED_CHARACTER.match(words[k - 1])
        )
        parts.append(" " * bool(apart) + word)
    return parts


FULL = "。！？｡।॥۔؟။។።"  # these end a sentence with or without a space behind them

CLOSING = "\"'”’»›)\\]}」』）】》〉］"

OPENING = "\"'“”„‘’‚«»‹›(\\[{「『（【《〈［¿¡•*–—-"

CONTINUING = ",;:.!?…)]}%，、；：）」』】》〉］" + FULL

STOP = re.compile(
    rf"(?P<mark>[.．!?…{FULL}]+)"
    rf"(?:[{CLOSING}]|[“‘«](?=\s|$)|[ \u00a0\u202f]»(?=\s|$)|(?: ?\[\d+\]|\[\w{{1,4}}\])(?::[\d,–-]+)?)*"  # [1]:23–25
    "|[\n\r\u2028\u2029]"
)

AFTER = re.compile(rf"(\s*)[{OPENING}]*(\w+|.?)", re.DOTALL)

LAST_WORD = re.compile(rf"[\w{MARKS}]*\Z")

ABBREVIATIONS = set(
    "Mr Mrs Ms Messrs Dr Prof Rev Hon Fr Hr Gen Col Lt Capt Cmdr Sgt Maj Adm Gov Sen Rep St Ste Mt Ft vs cf ca approx av apr bzw डॉ प्रो".split()
)

NUMBERED = set(
    "No Nos no Nr Vol vol Fig fig Eq Sec Ch Art p pp Jan Feb Mar Apr Jun Jul Aug Sep Sept Oct Nov Dec".split()
)

GERMAN_ORDINALS = set(
    "Januar Februar März April Mai Juni Juli August September Oktober November Dezember Jahrhundert Jahrhunderts Weltkrieg Weltkriegs".split()
)


def split_sentences(text):
    """The sentences of a text as a list of (start, end); every character but white space between them is in one.

    - A line end always cuts. - 。！？ and their like in other scripts (। ॥ ؟ ...) cut, with the closing quotes and
    brackets that follow them. - So do . ! ? … with these and with footnote numbers ([3]), where white space follows,
    or between characters of scripts
      without spaces.
    - Nothing cuts before what cannot begin a sentence, a small letter or a comma, nor after a piece without any
    letter (`1.`). - A single full stop does not cut after one letter (`J.`, `U.S.`, `e.g.`), after titles and the
    like (ABBREVIATIONS), before
      the number that it stands for (`No. 5`, `Dec. 10`), or after a German ordinal (`3. Oktober`).

    The rule rather leaves two sentences together than cuts one: `in the U.S. He` and `vitamin C. It` stay whole.
    """
    spans, start = [], 0
    for match in STOP.finditer(text):
        if not match["mark"] or ends_sentence(text, start, match):
            spans.append((start, match.end()))
            start = match.end()
    spans.append((start, len(text)))
    pieces = ((start, end, text[start:end]) for start, end in spans)
    return [
        (start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip()))
        for start, end, piece in pieces
        if piece.strip()
    ]


def ends_sentence(text, start, stop):
    """Whether a match of STOP ends the sentence that begins at `start`, by split_sentences' rule."""
    mark = stop["mark"]
    space, follower = AFTER.match(text, stop.end()).groups()
    before = text[start : stop.start()]
    if not follower or follower[0].islower() or follower[0] in CONTINUING or not any(map(str.isalpha, before)):
        return False
    if any(c in FULL for c in mark):
        return True
    if not space:
        return bool(UNSPACED_CHARACTER.match(before[-1]) and UNSPACED_CHARACTER.match(follower))
    if mark != ".":
        return True
    word = LAST_WORD.search(before[-20:])[0]
    initial = word.isalpha() and len(word) == 1 or not word.isdigit() and len(word) == 2 and before[-3:-2] == "."
    ordinal = re.fullmatch("[0-9]{1,2}", word) and follower in GERMAN_ORDINALS
    return not (initial or word in ABBREVIATIONS or word in NUMBERED and follower[0].isdigit() or ordinal)
