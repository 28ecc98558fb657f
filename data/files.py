"""Read and write every file of the experiment: XTREME's TSV, parallel text, alignments, predictions.

Readers return plain lists; writers write whole files (a temporary file, then a rename).
A malformed line raises InputError, whose text names file, line, and what was expected there.
Text is UTF-8. Lines end at "\\n" and columns at "\\t", words at a plain space, and nowhere else:
the words of XTREME hold characters that Python's str.split() and str.splitlines() would cut at.
CoNLL-U is read in conllu.py. Only the standard library is used here.
"""

import itertools
import os
import re
import sys

from data.cli import InputError, error_at, open_output

UPOS = "ADJ ADP ADV AUX CCONJ DET INTJ NOUN NUM PART PRON PROPN PUNCT SCONJ SYM VERB X".split()

# The labels of XTREME's tasks, in the order of the classifier's outputs.
# MultiNLI's original files write 'contradictory' for the last one of XNLI.
PAIR_LABELS = {"xnli": ["entailment", "neutral", "contradiction"], "pawsx": ["0", "1"]}
LABELS = {"udpos": UPOS, **PAIR_LABELS}
PAIR_LABEL_ALIASES = {"contradictory": "contradiction"}


def list_files(folder, without=()):
    """Return the sorted paths of the files below a folder, at any depth, but not of those below the folders `without`.

    Links are followed, each folder once; what is no regular file is passed over.
    """
    paths, seen = [], {os.path.realpath(path) for path in without}
    for top, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        if os.path.realpath(top) in seen:
            folders.clear()
            continue
        seen.add(os.path.realpath(top))
        paths += [path for name in names if os.path.isfile(path := os.path.join(top, name))]
    return sorted(paths)


# ---- lines in, lines out ----------------------------------------------------------------------


def read_lines(path):
    """Yield the lines of a UTF-8 file ('-' is stdin) without their '\\n'; one line at a time is in memory.

    A byte order mark at the start is dropped. Raises InputError for a missing file and for bytes that are not UTF-8.
    """
    if path == "-":
        stream, path = sys.stdin.buffer, "<stdin>"
    else:
        try:
            stream = open(path, "rb")
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    number = 0
    with stream:
        try:
            for number, raw in enumerate(stream, 1):
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                yield line[:-1] if line.endswith("\n") else line
        except UnicodeDecodeError as error:
            raise error_at(
                path,
                number,
                f"byte 0x{error.object[error.start]:02x} at column {error.start + 1} is not UTF-8; "
                "convert the file, for example with iconv -t UTF-8",
            ) from None


def file_style(path):
    """Return how a file ends its lines and itself: (newline, tail), the tail being the run of line ends after its text.

    A writer that is given the style of the file which was read writes the same bytes again. Raises InputError where it
    is no regular file: it is read more than once.
    """
    if os.path.exists(path) and not os.path.isfile(path) or path == "-":
        raise InputError(f"{path}: is no regular file; expected one, since it is read more than once")
    try:
        with open(path, "rb") as stream:
            newline = "\r\n" if stream.readline().endswith(b"\r\n") else "\n"
            end = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, end - 8))
            last = stream.read().decode("utf-8", "ignore")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    return newline, last[len(last.rstrip("\r\n")) :]


def read_styled_lines(path):
    """Yield (number, line) of a file whose lines all end like the first, "\\n" or "\\r\\n". Raises InputError."""
    newline, _ = file_style(path)
    for number, line in enumerate(read_lines(path), 1):
        if newline == "\r\n":
            line = line.removesuffix("\r")
        elif line.endswith("\r"):
            raise error_at(
                path, number, "a carriage return at the end, unlike line 1; expected one kind of line end throughout"
            )
        yield number, line


def write_lines(path, lines):
    """Write an iterable of lines, each ended by '\\n'."""
    with open_output(path) as stream:
        for line in lines:
            stream.write(line + "\n")


# ---- XTREME's udpos: word<TAB>TAG a line, a blank line after each sentence ------------------------


def read_udpos(path, task="udpos"):
    """Read the sentences of a udpos file: a list of (words, tags); tags is None in test files, of words alone.

    task: whose tags (LABELS). Blank lines separate sentences, however many there are; a line of tabs and spaces is
    blank.
    Raises InputError for a wrong number of columns, an empty word, a space in a word, a tag that is not the task's, and
    a file without sentences.
    """
    sentences, columns = [], None
    for blank, rows in itertools.groupby(read_styled_lines(path), lambda row: not row[1].strip(" \t")):
        if blank:
            continue
        words, tags = [], []
        for number, line in rows:
            fields = line.split("\t")
            columns = columns or len(fields)
            check_tagged_word(path, number, fields, columns, LABELS[task])
            words.append(fields[0])
            tags += fields[1:]
        sentences.append((words, tags if columns == 2 else None))
    if not sentences:
        raise InputError(f"{path}: no sentences; expected word<TAB>TAG a line, a blank line after each sentence")
    return sentences


def check_tagged_word(path, number, fields, columns, labels):
    """Raise InputError for a line's fields that are not a word, and its tag where the file has 2 columns."""
    if len(fields) != columns or columns > 2:
        expected = "word<TAB>TAG" if columns != 1 else "one word, as in the lines before"
        raise error_at(path, number, f"{len(fields)} columns; expected {expected}")
    if not fields[0] or " " in fields[0]:
        raise error_at(path, number, f"the word {fields[0]!r} is empty or holds a space; expected word<TAB>TAG")
    if columns == 2 and fields[1] not in labels:
        raise error_at(path, number, f"unknown tag {fields[1]!r}; expected one of {' '.join(labels)}")


def write_udpos(path, sentences, style=("\n", "\n\n")):
    """Write (words, tags) sentences; tags None writes the words alone. See file_style for `style`."""
    newline, tail = style
    with open_output(path) as stream:
        for i, (words, tags) in enumerate(sentences):
            rows = words if tags is None else [f"{word}\t{tag}" for word, tag in zip(words, tags)]
            stream.write((newline * 2 if i else "") + newline.join(rows))
        stream.write(tail)


# ---- XTREME's xnli and pawsx: sentence1<TAB>sentence2<TAB>label ------------------------------------


def iterate_pairs(path, task, skip=0, translation=False):
    """Yield the rows of an xnli or pawsx file, (sentence1, sentence2, label), one by one; in test files label is None.

    Quotes are text. The spelling 'contradictory' is returned as 'contradiction'. The first `skip` lines are left out.
    In a `translation` a sentence may be empty. Blank lines at the start and at the end are passed over.
    Raises InputError for a wrong number of columns, an empty sentence, an unknown label, and a file without rows.
    """
    columns, blank = None, None
    for number, line in itertools.islice(read_styled_lines(path), skip, None):
        if not line:  # belongs to nothing at the start and at the end of a file
            blank = blank or columns and number
            continue
        if blank:
            raise error_at(path, blank, "a blank line between rows; expected sentence1<TAB>sentence2<TAB>label")
        fields = line.split("\t")
        columns = columns or len(fields)
        if len(fields) != columns or columns not in (2, 3):
            expected = f"sentence1<TAB>sentence2<TAB>label (no label in test files){quotation_hint(fields)}"
            raise error_at(path, number, f"{len(fields)} columns; expected {expected}")
        if not translation and not (fields[0].strip() and fields[1].strip()):
            raise error_at(path, number, "an empty sentence; expected sentence1<TAB>sentence2<TAB>label")
        label = None
        if columns == 3:
            label = PAIR_LABEL_ALIASES.get(fields[2], fields[2])
            if label not in PAIR_LABELS[task]:
                expected = f"one of {' '.join(PAIR_LABELS[task])}{quotation_hint(fields)}"
                raise error_at(path, number, f"unknown label {fields[2]!r}; expected {expected}")
        yield fields[0], fields[1], label
    if columns is None:
        raise InputError(f"{path}: no rows; expected sentence1<TAB>sentence2<TAB>label")


def quotation_hint(fields):
    """Return what an error adds where a field begins or ends with a quotation mark as in CSV files, else nothing."""
    if any(field.startswith('"') != field.endswith('"') or re.fullmatch('".*"', field) for field in fields):
        return ', without quotation marks around a column (CSV quoting: \'"\' before and after, \'""\' for \'"\')'
    return ""


def unquoted(text):
    """Return the text of a column that is quoted as in CSV files, any other text as it is."""
    inner = text[1:-1]
    quoted = len(text) > 1 and text[0] == text[-1] == '"' and '"' not in inner.replace('""', "")
    return inner.replace('""', '"') if quoted else text


def read_pairs(path, task):
    """Return the rows of iterate_pairs as a list."""
    return list(iterate_pairs(path, task))


def write_pairs(path, rows, style=("\n", "\n")):
    """Write (sentence1, sentence2, label) rows; label None writes two columns. See file_style for `style`."""
    newline, tail = style
    with open_output(path) as stream:
        for i, row in enumerate(rows):
            stream.write((newline if i else "") + "\t".join(field for field in row if field is not None))
        stream.write(tail)


# ---- parallel text: `source ||| target` a line -----------------------------------------------------


def split_words(text):
    """Return the words of tokenised text: what stands between plain spaces."""
    return [word for word in text.split(" ") if word]


def read_parallel(path):
    """Yield (source words, target words) of a `source ||| target` file, a line at a time; a side may be empty.

    Raises InputError for a line that does not hold exactly one `|||`.
    """
    for number, line in enumerate(read_lines(path), 1):
        sides = line.removesuffix("\r").split("|||")
        if len(sides) != 2:
            raise error_at(path, number, f"{len(sides) - 1} separators `|||`; expected `source words ||| target words`")
        yield split_words(sides[0]), split_words(sides[1])


def write_parallel(path, pairs):
    """Write (source words, target words) pairs as `source ||| target` lines; three bars or more in a word are one."""

    def side(words):
        return " ".join(re.sub(r"\|{3,}", "|", word) for word in words)

    write_lines(path, (f"{side(source)} ||| {side(target)}" for source, target in pairs))


# ---- alignments --------------------------------------------------------------------------------------


def is_number(text):
    """Tell whether a text is a word's number."""
    return bool(re.fullmatch("[0-9]{1,9}", text))


def parse_links(path, number, text, separator, source_length=None, target_length=None):
    """Return the 0-indexed (source, target) links of one line, `i-j i-j ...` for separator '-'.

    Raises InputError for what is no link, and for a link outside the pair where the lengths are given.
    """
    links = []
    for item in split_words(text):
        i, found, j = item.partition(separator)
        if not (found and is_number(i) and is_number(j)):
            raise error_at(path, number, f"{item!r} is no link; expected pairs like 0{separator}0 2{separator}1")
        i, j = int(i), int(j)
        if source_length is not None and (i >= source_length or j >= target_length):
            outside = f"outside the sentence pair of {source_length} and {target_length} words (the first word is 0)"
            raise error_at(path, number, f"link {item} is {outside}")
        links.append((i, j))
    return links


def read_pharaoh(path):
    """Yield the links of each line of a Pharaoh file (`i-j` pairs, 0-indexed), a line at a time. Raises InputError."""
    for number, line in enumerate(read_lines(path), 1):
        yield parse_links(path, number, line.removesuffix("\r"), "-")


def format_links(links):
    """Return the Pharaoh line of a set of links: sorted, a space between."""
    return " ".join(f"{i}-{j}" for i, j in sorted(links))


def read_permutations(path, lengths):
    """Read the order of each sentence's words that reorder.py --permutations wrote: lists of their numbers, from 0.

    lengths: how many words each sentence has. Raises InputError for a line that is no permutation of them, and too
    few or many lines.
    """
    orders = []
    for number, line in enumerate(read_lines(path), 1):
        order = [int(item) if is_number(item) else -1 for item in split_words(line)]
        if number > len(lengths) or sorted(order) != list(range(lengths[number - 1])):
            expected = (
                f"the numbers 0 to {lengths[number - 1] - 1}, each once"
                if number <= len(lengths)
                else f"{len(lengths)} lines"
            )
            raise error_at(
                path,
                number,
                f"does not fit the sentences; expected {expected}, as reorder.py --permutations writes them",
            )
        orders.append(order)
    if len(orders) != len(lengths):
        raise InputError(f"{path}: {len(orders)} lines for {len(lengths)} sentences; expected one for each")
    return orders


def read_gold(path, index):
    """Read gold alignments as a list of (sure, possible) sets of 0-indexed links; possible includes sure.

    `i-j` is a sure link, `ipj` a possible one; `index` is the number of the first word in the file, 0 or 1.
    Raises InputError for a malformed link and for a 0 in a file that counts from 1.
    """
    gold = []
    for number, line in enumerate(read_lines(path), 1):
        sure, possible = set(), set()
        for item in split_words(line.removesuffix("\r")):
            match = re.fullmatch(r"([0-9]{1,9})([-p])([0-9]{1,9})", item)
            if not match:
                raise error_at(path, number, f"{item!r} is no gold link; expected i-j (sure) or ipj (possible)")
            link = int(match[1]) - index, int(match[3]) - index
            if min(link) < 0:
                raise error_at(path, number, f"link {item} counts words from 0; use --gold-index 0")
            possible.add(link)
            if match[2] == "-":
                sure.add(link)
        gold.append((sure, possible))
    return gold


def links_inside(gold, lengths):
    """Return the (sure, possible) links of one pair that lie inside it. lengths: its source and target words."""
    return tuple({(i, j) for i, j in links if i < lengths[0] and j < lengths[1]} for links in gold)


def fit_gold(path, gold, lengths, index):
    """Leave out gold links outside their pairs, as published data has: (gold, note), a note of how many or None.

    gold: read_gold's; lengths: (source words, target words) of every pair; index: read_gold's. Raises InputError for
    another number of pairs, and where the file is likely not of these pairs: more than 1 in 100 links lie outside (a
    single one may, beside others of its pair that do not), or `index` is 0 and words look counted from 1.
    """
    if len(gold) != len(lengths):
        raise InputError(f"{path}: {len(gold)} lines, but the input has {len(lengths)}; expected one for each pair")
    fitting = [links_inside(*pair) for pair in zip(gold, lengths)]
    outside = [
        (number, link)
        for number, (own, kept) in enumerate(zip(gold, fitting), 1)
        for link in sorted(own[1] - kept[1])
    ]
    if not outside:
        return fitting, None
    number, first = outside[0]
    where = f"link {first[0] + index}-{first[1] + index} is outside the pair of {{}} and {{}} words".format(
        *lengths[number - 1]
    )
    everything = [link for _, possible in gold for link in possible]
    shifted = index == 0 and any(
        all(link[side] for link in everything) and any(link[side] >= lengths[n - 1][side] for n, link in outside)
        for side in (0, 1)
    )
    single = len(outside) == 1 and fitting[number - 1][1]
    if shifted or len(outside) * 100 > len(everything) and not single:
        raise error_at(path, number, f"{where}; expected words numbered from {index} (--gold-index), source first")
    count = f"{len(outside)} of {len(everything)} links"
    return fitting, f"{path}: {count} lie outside their pairs and are left out, the first in line {number}"


# ---- predictions, in XTREME's submission format ---------------------------------------------------


def read_tag_predictions(path, task="udpos"):
    """Read predicted tags as a list of lists: a tag a line, a blank line after each sentence. Raises InputError."""
    sentences, tags = [], []
    for number, line in enumerate(read_lines(path), 1):
        if line:
            if line not in LABELS[task]:
                raise error_at(path, number, f"unknown tag {line!r}; expected one of {' '.join(LABELS[task])}")
            tags.append(line)
        else:
            sentences.append(tags)
            tags = []
    return sentences + [tags] if tags else sentences


def read_label_predictions(path, task):
    """Read predicted labels of an xnli or pawsx file, one a line, as a list. Raises InputError."""
    labels = list(read_lines(path))
    for number, label in enumerate(labels, 1):
        if label not in PAIR_LABELS[task]:
            raise error_at(path, number, f"unknown label {label!r}; expected one of {' '.join(PAIR_LABELS[task])}")
    return labels


def languages_in(folder):
    """Return the languages XX of the dev-XX.tsv files in a folder, sorted. Raises InputError where there is none."""
    if not os.path.isdir(folder):
        raise InputError(f"{folder}: no such folder; expected a folder with dev-XX.tsv files in XTREME's layout")
    found = sorted(name[4:-4] for name in os.listdir(folder) if re.fullmatch(r"dev-[\w-]+\.tsv", name))
    if not found:
        raise InputError(f"{folder}: no dev-XX.tsv in this folder; expected XTREME's layout, such as dev-hi.tsv")
    return found
