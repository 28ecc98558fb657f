"""The command line of every script: arguments, errors of one line, files that are written whole.

Only the standard library is used here.
"""

import argparse
import contextlib
import os
import platform
import re
import signal
import sys


class InputError(Exception):
    """What the user gave cannot be used. The message is one line: FILE:LINE: what is wrong, what was expected."""


def error_at(path, line, message):
    """Return the InputError for a line (1 is the first) of a file."""
    return InputError(f"{path}:{line}: {message}")


class Arguments(argparse.ArgumentParser):
    """An argument parser whose help shows defaults and whose errors are one line."""

    def __init__(self, description):
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)

    def add_argument(self, *names, **settings):
        default = settings.get("default")
        if (
            "help" in settings
            and default not in (None, argparse.SUPPRESS)
            and default is not False
            and "%(default)s" not in settings["help"]
        ):
            settings["help"] += " (default: %(default)s)"
        return super().add_argument(*names, **settings)

    def error(self, message):
        self.exit(2, f"{self.prog}: error: {one_line(message)} (--help explains every option)\n")


def one_line(text):
    """Return a text, in which a name with line ends may stand, as one line."""
    return " ".join(str(text).splitlines())


def positive(text):
    """Read an integer of 1 or more, that a list could have as its length; a type for argparse."""
    if not text.isascii() or not text.isdigit() or len(text) > 18 or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more, of 18 digits at most")
    return int(text)


def positive_float(text):
    """Read a finite number above 0; a type for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def random_seed(text):
    """Read a seed of random numbers, an integer from 0 to 2^32 - 1; a type for argparse."""
    value = 0 if text == "0" else positive(text)
    if value >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is not below 2^32")
    return value


def fraction(text):
    """Read a number from 0 to 1; a type for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value


def non_negative(text):
    """Read a number of 0 or more; a type for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 0 or more")
    return value


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


def run_script(main):
    """Run a script's main(); what the user can mend ends as one line on stderr and exit code 2."""
    name = os.path.basename(sys.argv[0])
    # A plain kill must unwind, so that temporary files are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        main()
        sys.stdout.flush()
    except InputError as error:
        print(f"{name}: error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # `... | head` closed our stdout; there is nobody left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        where = one_line(error.filename or "standard output")
        print(f"{name}: error: {where}: {error.strerror or error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        sys.exit(130)
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        # Of tokenizers, which prints lines of its own and is no Exception.
        print(f"{name}: error: the model's tokenizer.json is damaged ({one_line(error)}); get it anew", file=sys.stderr)
        sys.exit(2)


def temporary_name(path, host, process):
    """Return the name of the file that a process on a host writes in place of `path`, beside it."""
    return os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.{host}.{process}.tmp")


def is_running(process):
    """Tell whether this machine has a process of this number."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def sweep(path):
    """Remove the temporary files that processes of this machine which are gone left beside `path`."""
    first, last = os.path.basename(temporary_name(path, platform.node(), "\0")).split("\0")
    with contextlib.suppress(OSError):
        for name in os.listdir(os.path.dirname(path)):
            process = name[len(first) : -len(last)]
            whole = name == first + process + last
            if whole and process.isascii() and process.isdigit() and not is_running(int(process)):
                os.remove(os.path.join(os.path.dirname(path), name))


@contextlib.contextmanager
def naming(path):
    """Add the name to an OSError that comes without one, such as a full disk's, and to text that is not Unicode."""
    try:
        yield
    except UnicodeEncodeError as error:
        character = error.object[error.start]
        raise InputError(
            f"{path}: {character!r}, half a surrogate pair, cannot be written; correct the input that holds it"
        ) from None
    except BrokenPipeError:
        raise
    except OSError as error:
        error.filename = error.filename or path
        raise


@contextlib.contextmanager
def open_output(path):
    """Open a text file to write that appears under `path` only when it is whole ('-' is stdout).

    The temporary file lies beside it (a rename is atomic only within a file system) and is removed on any error; those
    of killed runs are removed first.
    """
    if path == "-":
        yield sys.stdout
        return
    if found := re.fullmatch(r"/dev/stdout|(?:/dev|/proc/self)/fd/(\d+)", path):  # which may be a file's that goes on
        sys.stdout.flush()
        with naming(path), open(os.dup(int(found[1] or 1)), "w", encoding="utf-8", newline="\n") as stream:
            yield stream
        return
    path = os.path.realpath(path)  # a link's target is written, not the link
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        with naming(path), open(path, "w", encoding="utf-8", newline="\n") as stream:  # a device or a pipe: /dev/null
            yield stream
        return
    temporary = temporary_name(path, platform.node(), os.getpid())
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if os.path.isdir(path):
            raise InputError(f"{path}: is a folder, a file name was expected")
        sweep(path)
        stream = open(temporary, "w", encoding="utf-8", newline="\n")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None
    try:
        with naming(path), stream:
            yield stream
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        raise


def warn(message):
    """Print a line for the person at the terminal, on stderr."""
    print(f"{os.path.basename(sys.argv[0])}: {message}", file=sys.stderr)
