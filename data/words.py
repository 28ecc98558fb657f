"""Split text into words and sentences by one rule for every language, and join words in any order to text again.

- A word is a run of letters, marks and digits. An apostrophe or a hyphen between two of them stays inside, and so does
  a full stop or a comma between two digits: `don't`, `l'homme`, `well-known`, `3.5` and `10,000` are one word each. So
  English keeps its words whole, and a French `l'homme` is linked to both words of `the man`.
- Single letters with full stops are one word: `U.S.`, `p.m.`.
- Scripts without spaces (Chinese, Japanese, Thai, Lao, Burmese, Khmer and their like): every character is a word, with
  the marks upon it and what is stacked below it.
- Any other character is a word of its own, a run of the same one (`...`, `--`) a single word.
- What a reader sees as one character is never cut: emoji with joiners, skin tones and variation selectors, flags,
  accents. Characters without width (soft hyphens, joiners, marks of direction) belong to the word that they touch.
- `|||` would end a side of parallel text, and is written as `|`.

Words that a treebank brings are never touched.
"""

import itertools
import re
import unicodedata

# ---- words ---------------------------------------------------------------------------------------------------


def character_class(kinds, without):
    """Return what matches characters of Unicode categories, such as 'M' or 'Cf', but those of the class `without`,
    within [] of a regular expression.
    """
    found = [n for n in range(0x80, 0x1F000) if unicodedata.category(chr(n)).startswith(kinds)]
    codes = enumerate(n for n in found if not re.match(f"[{without}]", chr(n)))
    runs = [[n for _, n in run] for _, run in itertools.groupby(codes, lambda pair: pair[1] - pair[0])]
    return "".join(f"{chr(run[0])}-{chr(run[-1])}" for run in runs)


# Marks (vowel signs, tones, accents), which Python's \w lacks and Hindi and Thai words are full of; characters without
# width; skin tones; tags of flags; variants of Chinese characters: Unicode's grapheme clusters (UAX 29) go on with
# them, and with Thai and Lao am and half-width voicing marks, which are letters by their category.
NUMBER_SIGNS = "\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd"  # stand before their number
EXTENDING = (
    character_class(("M", "Cf"), NUMBER_SIGNS)
    + "\u0e33\u0eb3\uff9e\uff9f\U0001f3fb-\U0001f3ff\U000e0001\U000e0020-\U000e007f\U000e0100-\U000e01ef"
)

# Thai, Lao, Myanmar, Khmer, Tai scripts, Javanese, Balinese, ideographs and their parts, kana, bopomofo, Yi, Tangut,
# Nushu.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u1950-\u19ff\u1a20-\u1aad\u1b00-\u1b7f\u2e80-\u2fd5\u3005-\u3007"
    "\u3021-\u302f\u3031-\u303c\u3040-\u312f\u3190-\u31ff\u3220-\u325f\u3280-\u4dbf\u4e00-\ua4cf\ua980-\ua9ff"
    "\uaa60-\uaadf\uf900-\ufaff\uff66-\uff9f\U000116d0-\U000116e3\U00011700-\U00011746\U00016fe0-\U00018d08"
    "\U0001aff0-\U0001b2ff\U00020000-\U0003ffff"
)
UNSPACED_CHARACTER = re.compile(f"[{UNSPACED}]")

# What goes on with a character, and what is stacked below it in Burmese, Khmer and Lanna.
STACKING = "\u1039\u17d2\u1a60"
MARK = f"(?![{STACKING}])[{EXTENDING}]"
STACK = f"[{STACKING}][{EXTENDING}]*"
TAIL = f"(?:{MARK})*(?:{STACK}(?![{EXTENDING}])[{UNSPACED}](?:{MARK})*)*(?:{STACK})?"
LETTER = rf"(?:(?![{UNSPACED}])[^\W_]{TAIL})"
INITIALS = rf"(?:(?!\d){LETTER}\.){{2,20}}(?!{LETTER})"
FLAG = "[\U0001f1e6-\U0001f1ff]{2}"
SYMBOL = rf"(?:(?:{FLAG}|\S){TAIL}(?:(?<=\u200d)[^\w\s{NUMBER_SIGNS}]{TAIL})*)"
WORD = re.compile(
    rf"[{EXTENDING}{NUMBER_SIGNS}]*(?:{INITIALS}|{LETTER}(?:(?:['’\-‐‑][{EXTENDING}]*)?{LETTER}|(?<=\d)[.,](?=\d))*"
    rf"|[{UNSPACED}]{TAIL}|(?P<run>{SYMBOL})(?P=run)*(?![{EXTENDING}]))"
)
FIRST = re.compile(rf"[{EXTENDING}]*(.)", re.DOTALL)
FULL = "。！？｡।॥۔؟။።។"  # these end a sentence with or without a space behind them
CLINGING = ",;:.!?…‥،؛՝։፣፤፥፦၊៕៖།" + FULL  # marks that touch whatever word comes before them


def split_text(text):
    """Split a text into words by the rule above."""
    return ["|" if match[0].startswith("|||") else match[0] for match in WORD.finditer(text)]


def split_with_spaces(text):
    """Split a text into words and say how each is written beside others: (words, spacing).

    spacing: (number, before, after) of each word; number is its place in the text, before and after tell what it
    touches there: 0 nothing, 1 the word that it touches in this text, 2 whatever word comes to stand there. So a comma
    stays at the end of the word before it and an opening bracket at the beginning of the word after it wherever words
    move, but a slash or a hyphen leaves those that it stood between.
    """
    matches = list(WORD.finditer(text))
    touching = [0, *(int(one.end() == two.start()) for one, two in zip(matches, matches[1:])), 0]
    words = split_text(text)
    return words, [(k, *cling(word, touching[k], touching[k + 1])) for k, word in enumerate(words)]


def cling(word, before, after):
    """Return (before, after) of split_with_spaces' spacing for a word that touches (1) or not (0) what stands there."""
    sign = FIRST.match(word)[1]
    kind = unicodedata.category(sign)
    wide = kind[0] == "P" and ("\u3000" <= sign <= "\u303f" or "\uff00" <= sign <= "\uff65")
    quotes = sign == '"' or kind in ("Pi", "Pf") and sign != "’"
    if wide or quotes and before != after:
        return 2 * before, 2 * after
    if sign in CLINGING or kind == "Pe":
        return 2 * before, after
    if sign in "¿¡" or kind == "Ps":
        return before, 2 * after
    return before, after


def add_spaces(words, spacing):
    """Return the words, in any order, each with the space before it where it has one; joined they are a text.

    spacing: of each word, from split_with_spaces. The original order gives the original text but for runs of spaces,
    and spaces between characters of scripts without them.
    """
    parts = words[:1]
    for (one, (number, _, after)), (two, (other, before, _)) in zip(zip(words, spacing), zip(words[1:], spacing[1:])):
        touches = max(before, after) > (other != number + 1)
        unspaced = UNSPACED_CHARACTER.match(one) and UNSPACED_CHARACTER.match(two)
        parts.append(two if touches or unspaced else " " + two)
    return parts


# ---- sentences -----------------------------------------------------------------------------------------------

CLOSING = "\"'”’»›)\\]}」』）】》〉］"
OPENING = "\"'“”„‘’‚«»‹›(\\[{「『（【《〈［¿¡•*–—-"
CONTINUING = ",;:.!?…)]}%，、；：）」』】》〉］" + FULL
STOP = re.compile(
    rf"(?P<mark>[.．!?…{FULL}]+)"
    rf"(?:[{CLOSING}]|[“‘«](?=\s|$)|[ \u00a0\u202f]»(?=\s|$)|(?: ?\[\d+\]|\[\w{{1,4}}\])(?::[\d,–-]+)?)*"  # [1]:23–25
    "|[\n\r\u2028\u2029]"
)
AFTER = re.compile(rf"(\s*)[{OPENING}]*(\w+|.?)", re.DOTALL)

LAST_WORD = re.compile(rf"[\w{EXTENDING}]*\Z")
ABBREVIATIONS = (
    "Mr Mrs Ms Messrs Dr Prof Rev Hon Fr Hr Gen Col Lt Capt Cmdr Sgt Maj Adm Gov Sen Rep St Ste Mt Ft "
    "vs cf ca approx av apr bzw डॉ प्रो"
).split()
NUMBERED = "No Nos no Nr Vol vol Fig fig Eq Sec Ch Art p pp Jan Feb Mar Apr Jun Jul Aug Sep Sept Oct Nov Dec".split()
GERMAN_ORDINALS = (
    "Januar Februar März April Mai Juni Juli August September Oktober November Dezember "
    "Jahrhundert Jahrhunderts Weltkrieg Weltkriegs"
).split()


def split_sentences(text):
    """Cut a text into sentences: a list of (start, end); every character but white space between them is in one.

    - A line end always cuts.
    - 。！？ and their like in other scripts (। ॥ ؟ ...) cut, with the closing quotes and brackets that follow them.
    - So do . ! ? … with these and footnote numbers ([3]), before white space and between characters of UNSPACED.
    - Nothing cuts before a small letter or a comma, nor after digits and marks alone (`1.`).
    - A single full stop does not cut after one letter (`J.`, `U.S.`, `e.g.`), after ABBREVIATIONS, before the number
      that it stands for (`No. 5`, `Dec. 10`), or after a German ordinal (`3. Oktober`).

    In doubt two sentences stay together: `in the U.S. He` and `vitamin C. It` are not cut.
    """
    spans, start, seen, letters = [], 0, 0, False
    for match in STOP.finditer(text):
        letters = letters or any(map(str.isalpha, text[seen : match.start()]))
        seen = match.start()
        if not match["mark"] or letters and ends_sentence(text, start, match):
            spans.append((start, match.end()))
            start, seen, letters = match.end(), match.end(), False
    parts = [(begin, text[begin:end]) for begin, end in (*spans, (start, len(text)))]
    return [
        (begin + len(part) - len(part.lstrip()), begin + len(part.rstrip())) for begin, part in parts if part.strip()
    ]


def ends_sentence(text, start, stop):
    """Tell whether a match of STOP ends the sentence that begins at `start` and has letters; see split_sentences."""
    mark = stop["mark"]
    space, follower = AFTER.match(text, stop.end()).groups()
    before = text[max(start, stop.start() - 20) : stop.start()]
    if not follower or follower[0].islower() or follower[0] in CONTINUING:
        return False
    if any(c in FULL for c in mark):
        return True
    if not space:
        return bool(UNSPACED_CHARACTER.match(before[-1]) and UNSPACED_CHARACTER.match(follower))
    if mark != ".":
        return True
    word = LAST_WORD.search(before)[0]
    initial = word.isalpha() and len(word) == 1 or not word.isdigit() and len(word) == 2 and before[-3:-2] == "."
    ordinal = re.fullmatch("[0-9]{1,2}", word) and follower in GERMAN_ORDINALS
    return not (initial or word in ABBREVIATIONS or word in NUMBERED and follower[0].isdigit() or ordinal)
