"""The command line and the files of every script: options, errors of one line, whole files, XTREME's formats.

Readers return plain lists; writers write whole files (a temporary one, then a rename). A malformed line raises
InputError, whose text names file, line, and what was expected there. Text is UTF-8. Lines end at "\\n" and columns at
"\\t", words at a plain space, and nowhere else: the words of XTREME hold characters that Python's str.split() and
str.splitlines() would cut at. CoNLL-U is read in conllu.py, SQuAD's JSON in squad.py. Standard library only.
"""

import argparse
import contextlib
import itertools
import os
import platform
import re
import shutil
import signal
import sys

UPOS = "ADJ ADP ADV AUX CCONJ DET INTJ NOUN NUM PART PRON PROPN PUNCT SCONJ SYM VERB X".split()
TAGS = {"udpos": UPOS}  # a further task of tagging is a line here and its data
# The labels of XTREME's pair tasks, in the order of the classifier's outputs.
PAIR_LABELS = {"xnli": ["entailment", "neutral", "contradiction"], "pawsx": ["0", "1"]}
PAIR_LABEL_ALIASES = {"contradictory": "contradiction"}  # MultiNLI's original files

BOM = "\ufeff"  # byte order mark
LFS = b"version https://git-lfs"  # how Git LFS's pointers begin
# What files begin with that are not what their names say.
OTHER_FILES = {
    LFS: ("the pointer to a file that Git LFS keeps", "run `git lfs pull` in its folder"),
    b"\x1f\x8b": ("compressed (gzip)", "run `gunzip` on it"), b"BZh": ("compressed (bzip2)", "run `bunzip2` on it"),
    b"\xfd7zXZ\0": ("compressed (xz)", "run `unxz` on it"), b"PK\x03\x04": ("a zip archive", "run `unzip` on it"),
}  # fmt: skip


# ---- errors and the command line -------------------------------------------------------------------


class InputError(Exception):
    """What the user gave cannot be used. The message is one line: FILE:LINE: what is wrong, what was expected."""


def error_at(path, line, message):
    """Return the InputError for a line (1 is the first) of a file."""
    return InputError(f"{path}:{line}: {message}")


def check_content(path, start):
    """Raise InputError where the first bytes of a file are those of another kind of file."""
    for bytes_of, (kind, cure) in OTHER_FILES.items():
        if start.startswith(bytes_of):
            raise InputError(f"{path}: is {kind}; {cure}")


def check_count(path, found, expected, other, unit="lines"):
    """Raise InputError where a file has not as many `unit` as the file `other` needs."""
    if found != expected:
        raise InputError(f"{path}: {found} {unit}, but {other} has {expected}; expected one for each, in its order")


def check_folder(path, what):
    """Raise InputError where `path` is no folder. what: what it is expected to hold."""
    if not os.path.isdir(path):
        raise InputError(f"{path}: no such folder; expected a folder with {what}")


def one_line(text):
    """Return a text, in which a name with line ends may stand, as one line."""
    return " ".join(str(text).split())


def warn(message):
    """Print a line for the person at the terminal, on stderr."""
    print(f"{os.path.basename(sys.argv[0])}: {message}", file=sys.stderr)


class Arguments(argparse.ArgumentParser):
    """An argument parser whose help shows defaults and whose errors are one line."""

    def __init__(self, description):
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)

    def add_argument(self, *names, **settings):
        if "help" in settings and settings.get("default") not in (None, False, argparse.SUPPRESS):
            settings["help"] += " (default: %(default)s)"
        return super().add_argument(*names, **settings)

    def error(self, message):
        self.exit(2, f"{self.prog}: error: {one_line(message)} (--help explains every option)\n")


def number_type(read, fits, what):
    """Return a type for argparse: what `read` makes of a text, if it `fits`. what: the range in words."""

    def parse(text):
        try:
            value = read(text)
        except ValueError:
            value = None
        if value is None or not fits(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
        return value

    return parse


positive = number_type(int, lambda n: 0 < n < 10**18, "a whole number of 1 or more, of 18 digits at most")
random_seed = number_type(int, lambda n: 0 <= n < 2**32, "a whole number from 0 to 2^32 - 1")
positive_float = number_type(float, lambda x: 0 < x < float("inf"), "a number above 0")
non_negative = number_type(float, lambda x: 0 <= x < float("inf"), "a number of 0 or more")
fraction = number_type(float, lambda x: 0 <= x <= 1, "a number from 0 to 1")


def run_script(main):
    """Run a script's main(); what the user can mend ends as one line on stderr and exit code 2."""
    name = os.path.basename(sys.argv[0])
    sys.stdout.reconfigure(encoding="utf-8")  # as all files are, whatever the terminal's language says
    # A plain kill must unwind, so that temporary files are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        main()
        sys.stdout.flush()
        return
    except InputError as error:
        message = one_line(error)
    except BrokenPipeError:  # `... | head` closed our stdout; there is nobody left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        message = f"{one_line(error.filename or 'standard output')}: {error.strerror or error}"
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        sys.exit(130)
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        # Of tokenizers, which prints lines of its own and is no Exception.
        message = f"the model's tokenizer.json is damaged ({one_line(error)}); get it anew"
    print(f"{name}: error: {message}", file=sys.stderr)
    sys.exit(2)


# ---- whole files -----------------------------------------------------------------------------------


def check_writable(path):
    """Raise InputError now where a file could not be written later."""
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path) and os.access(path, os.W_OK):
        return  # a device or a pipe
    folder = os.path.dirname(os.path.abspath(path))
    while not os.path.exists(folder):
        folder = os.path.dirname(folder)
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK) or os.path.isdir(path):
        raise InputError(f"{path}: cannot be written; expected a file name in a folder that can be written to")


def check_outputs(outputs, inputs):
    """Raise InputError now for an output that could not be written later, or only over an input or another output."""
    taken = {os.path.realpath(path): path for path in inputs if path != "-"}
    for path in outputs:
        if path != "-":
            check_writable(path)
        real = path if path == "-" else os.path.realpath(path)
        if real in taken and (path == "-" or os.path.isfile(path) or not os.path.exists(path)):
            raise InputError(f"{path}: is {taken[real]}, which is named too; expected another name for each file")
        taken[real] = path


def temporary_name(path, process):
    """Return the name under which a process of this machine writes a file or folder before it is whole."""
    return os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.{platform.node()}.{process}.tmp")


def remove(path):
    """Remove a file or folder, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.remove(path)


def sweep(path):
    """Remove what killed processes of this machine left where `path` was to be written."""
    first, last = temporary_name(path, "\0").split("\0")
    for name in os.listdir(os.path.dirname(path)) if os.path.isdir(os.path.dirname(path)) else ():
        left = os.path.join(os.path.dirname(path), name)
        process = left[len(first) : -len(last)]
        if left == first + process + last and re.fullmatch("[0-9]{1,9}", process):
            try:
                os.kill(int(process), 0)
            except ProcessLookupError:
                remove(left)
            except PermissionError:  # it lives, and is another user's
                pass


@contextlib.contextmanager
def whole(path):
    """Yield the name of a temporary file or folder that takes the place of `path` at the end, so that `path` is whole
    or not there at any moment. It lies beside it (a rename is atomic only within a file system); an error removes it.
    """
    path = os.path.realpath(path)  # a link's target is written, not the link
    temporary, former = temporary_name(path, os.getpid()), temporary_name(path + ".old", os.getpid())
    os.makedirs(os.path.dirname(path), exist_ok=True)
    sweep(path)
    sweep(path + ".old")
    try:
        yield temporary
        if os.path.isdir(path):
            os.replace(path, former)
        os.replace(temporary, path)
    finally:
        remove(temporary)
        remove(former)


@contextlib.contextmanager
def naming(path):
    """Add the name to an OSError that comes without one, such as a full disk's, and to text that is not Unicode."""
    try:
        yield
    except UnicodeEncodeError as error:
        wrong = f"{error.object[error.start]!r}, half a surrogate pair, cannot be written"
        raise InputError(f"{path}: {wrong}; correct the input that holds it") from None
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            error.filename = error.filename or path
        raise


@contextlib.contextmanager
def open_output(path):
    """Open a text file to write that appears under `path` only when it is whole ('-' is stdout). Raises InputError."""
    text = {"mode": "w", "encoding": "utf-8", "newline": "\n"}
    real = os.path.realpath(path)
    if path == "-":
        with naming("standard output"):
            yield sys.stdout
    elif found := re.fullmatch(r"/dev/stdout|(?:/dev|/proc/self)/fd/(\d+)", path):  # which may be a file's that goes on
        sys.stdout.flush()
        with naming(path), open(os.dup(int(found[1] or 1)), **text) as stream:
            yield stream
    elif os.path.exists(real) and not os.path.isfile(real) and not os.path.isdir(real):  # a device or a pipe: /dev/null
        with naming(path), open(real, **text) as stream:
            yield stream
    else:
        check_writable(path)
        with naming(path), whole(path) as temporary, open(temporary, **text) as stream:
            yield stream


# ---- lines in, lines out ----------------------------------------------------------------------


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


def read_lines(path):
    """Yield the lines of a UTF-8 file ('-' is stdin) without their '\\n'; one line at a time is in memory.

    Byte order marks at the start are dropped. Raises InputError for a missing file, for bytes that are not UTF-8, and
    for a file of another kind: compressed, or with the line ends of another system.
    """
    try:
        stream = sys.stdin.buffer if path == "-" else open(path, "rb")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    number, named = 0, "<stdin>" if path == "-" else path
    with stream:
        try:
            for number, raw in enumerate(stream, 1):
                if number == 1:
                    check_content(named, raw)
                    if b"\r" in raw.removesuffix(b"\r\n") and not stream.peek(1):
                        cure = "expected \\n or \\r\\n; convert it, for example with tr '\\r' '\\n'"
                        raise error_at(named, 1, f"lines end at a carriage return (CR) alone; {cure}")
                line = raw.decode().lstrip(BOM) if number == 1 else raw.decode()
                yield line[:-1] if line.endswith("\n") else line
        except UnicodeDecodeError as error:
            wrong = f"byte 0x{error.object[error.start]:02x} at column {error.start + 1} is not UTF-8"
            cure = "convert the file, for example with iconv -t UTF-8"
            raise error_at(named, number, f"{wrong}; {cure}") from None


def check_mark(path, number, word):
    """Raise InputError where a word begins with a byte order mark, which joined files leave before their first word."""
    if word.startswith(BOM):
        raise error_at(path, number, f"a byte order mark (U+FEFF) before the word {word.lstrip(BOM)!r}; remove it")


def file_style(path):
    """Return how a file ends its lines and itself: (newline, tail), the tail being the run of line ends after its text.

    A writer that is given the style of the file which was read writes the same bytes again. Raises InputError where it
    is no regular file: it is read more than once.
    """
    if os.path.exists(path) and not os.path.isfile(path) or path == "-":
        raise InputError(f"{path}: is no regular file; expected one, since it is read more than once")
    next(read_lines(path), None)  # raises InputError where it cannot be read
    with open(path, "rb") as stream:
        newline = "\r\n" if stream.readline().endswith(b"\r\n") else "\n"
        stream.seek(max(0, stream.seek(0, os.SEEK_END) - 8))
        last = stream.read().decode("utf-8", "ignore")
    return newline, last[len(last.rstrip("\r\n")) :]


def read_styled_lines(path):
    """Yield (number, line) of a file whose lines all end like the first, "\\n" or "\\r\\n". Raises InputError."""
    newline, _ = file_style(path)
    for number, line in enumerate(read_lines(path), 1):
        if newline == "\r\n":
            line = line.removesuffix("\r")
        elif line.endswith("\r"):
            wrong = "a carriage return at the end, unlike line 1"
            raise error_at(path, number, f"{wrong}; expected one kind of line end throughout")
        yield number, line


def write_lines(path, lines):
    """Write an iterable of lines, each ended by '\\n'."""
    with open_output(path) as stream:
        for line in lines:
            stream.write(line + "\n")


# ---- XTREME's udpos: word<TAB>TAG a line, a blank line after each sentence ------------------------


def read_udpos(path, task="udpos", tagged=False):
    """Read the sentences of a udpos file: a list of (words, tags); tags is None in test files, of words alone.

    task: whose TAGS; tagged: test files raise InputError. Blank lines separate sentences, however many there are; a
    line of tabs and spaces is blank. Raises InputError for a wrong number of columns, an empty word, a space in a word,
    a tag that is not the task's, and a file without sentences.
    """
    sentences, columns = [], None
    for blank, rows in itertools.groupby(read_styled_lines(path), lambda row: not row[1].strip(" \t")):
        words, tags = [], []
        for number, line in rows if not blank else ():
            fields = line.split("\t")
            columns = columns or len(fields)
            if len(fields) != columns or columns > 2:
                expected = "word<TAB>TAG" if columns != 1 else "one word, as in the lines before"
                raise error_at(path, number, f"{len(fields)} columns; expected {expected}")
            if not fields[0] or " " in fields[0]:
                wrong = f"the word {fields[0]!r} is empty or holds a space"
                raise error_at(path, number, f"{wrong}; expected word<TAB>TAG")
            check_mark(path, number, fields[0])
            if columns == 1 and tagged:
                raise error_at(path, number, "no tags; expected word<TAB>TAG")
            if columns == 2:
                check_label(path, number, fields[1], TAGS[task], "tag")
            words.append(fields[0])
            tags += fields[1:]
        if not blank:
            sentences.append((words, tags if columns == 2 else None))
    if not sentences:
        raise InputError(f"{path}: no sentences; expected word<TAB>TAG a line, a blank line after each sentence")
    return sentences


def check_label(path, number, label, labels, kind="label", hint=""):
    """Raise InputError where a line's tag or label is none of `labels`."""
    if label not in labels:
        raise error_at(path, number, f"unknown {kind} {label!r}; expected one of {' '.join(labels)}{hint}")


def write_udpos(path, sentences, style=("\n", "\n\n")):
    """Write (words, tags) sentences; tags None writes the words alone. See file_style for `style`."""
    newline, tail = style
    with open_output(path) as stream:
        for i, (words, tags) in enumerate(sentences):
            rows = words if tags is None else [f"{word}\t{tag}" for word, tag in zip(words, tags)]
            stream.write((newline * 2 if i else "") + newline.join(rows))
        stream.write(tail)


# ---- XTREME's xnli and pawsx: sentence1<TAB>sentence2<TAB>label ------------------------------------


def iterate_pairs(path, task, skip=0, translation=False, labelled=False):
    """Yield the rows of an xnli or pawsx file, (sentence1, sentence2, label), one by one; in test files label is None.

    Quotes are text. The spelling 'contradictory' is returned as 'contradiction'. The first `skip` lines are left out.
    In a `translation` a sentence may be empty. Blank lines at the start and at the end are passed over.
    Raises InputError for a wrong number of columns, an empty sentence, an unknown label, a file without rows, and with
    `labelled` for a test file.
    """
    layout = "expected sentence1<TAB>sentence2<TAB>label"
    columns, blank = None, None
    for number, line in itertools.islice(read_styled_lines(path), skip, None):
        if not line:  # belongs to nothing at the start and at the end of a file
            blank = blank or columns and number
            continue
        if blank:
            raise error_at(path, blank, f"a blank line between rows; {layout}")
        fields = line.split("\t")
        columns = columns or len(fields)
        if len(fields) != columns or columns not in (2, 3):
            wrong = f"{len(fields)} columns; {layout} (no label in test files){quotation_hint(fields)}"
            raise error_at(path, number, wrong)
        if not translation and not (fields[0].strip() and fields[1].strip()):
            raise error_at(path, number, f"an empty sentence; {layout}")
        label = None
        if columns == 3:
            label = PAIR_LABEL_ALIASES.get(fields[2], fields[2])
            check_label(path, number, label, PAIR_LABELS[task], hint=quotation_hint(fields))
        elif labelled:
            raise error_at(path, number, f"no label; {layout}")
        yield fields[0], fields[1], label
    if columns is None:
        raise InputError(f"{path}: no rows; {layout}")


def quotation_hint(fields):
    """Return what an error adds where a field begins or ends with a quotation mark as in CSV files, else nothing."""
    if any(field.startswith('"') != field.endswith('"') or re.fullmatch('".*"', field) for field in fields):
        return ', without quotation marks around a column (CSV quoting: \'"\' before and after, \'""\' for \'"\')'
    return ""


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


def dev_files(folder):
    """Find the dev-XX.tsv in a folder: {language: path}, sorted. Raises InputError where there is none."""
    check_folder(folder, "dev-XX.tsv files in XTREME's layout")
    found = sorted(name[4:-4] for name in os.listdir(folder) if re.fullmatch(r"dev-[\w-]+\.tsv", name))
    if not found:
        raise InputError(f"{folder}: no dev-XX.tsv in this folder; expected XTREME's layout, such as dev-hi.tsv")
    return {lang: os.path.join(folder, f"dev-{lang}.tsv") for lang in found}


# ---- parallel text, links and orders ---------------------------------------------------------------


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


def read_pharaoh(path):
    """Yield the links of each line of a Pharaoh file (`i-j` pairs, 0-indexed), a line at a time. Raises InputError."""
    for number, line in enumerate(read_lines(path), 1):
        links = []
        for item in split_words(line.removesuffix("\r")):
            match = re.fullmatch("([0-9]{1,9})-([0-9]{1,9})", item)
            if not match:
                raise error_at(path, number, f"{item!r} is no link; expected pairs like 0-0 2-1")
            links.append((int(match[1]), int(match[2])))
        yield links


def format_links(links):
    """Return the Pharaoh line of a set of links: sorted, a space between."""
    return " ".join(f"{i}-{j}" for i, j in sorted(links))
