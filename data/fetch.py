"""Fetch files of known size and sum by curl; what was cut off is gone on with.

data/sources.tsv: a file a line, its name, bytes, sha256 and the addresses that have it, tabs between.
"""

import contextlib
import hashlib
import os
import subprocess
import sys
import time

from data.cli import InputError
from data.files import read_lines

SOURCES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sources.tsv")

RETRIES = 3  # attempts that bring nothing new before an address is given up
PAUSE = 2.0  # seconds between attempts that bring nothing new
TIMEOUT = 30  # seconds without a byte


def known_files():
    """Return every file that can be fetched: {name: (bytes, sha256, addresses)}."""
    rows = [line.split("\t") for line in read_lines(SOURCES) if not line.startswith("#")]
    return {name: (int(size), sha256, addresses) for name, size, sha256, *addresses in rows}


def flaw(path, size, sha256):
    """Return what is wrong with a file, in words; None where it has the size and sum."""
    if size_of(path) != size:
        return f"it has {size_of(path):,} bytes, not {size:,}"
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return None if digest.hexdigest() == sha256 else f"it has another sha256 than the known {sha256[:16]}..."


def size_of(path):
    """Return a file's bytes, 0 where there is none."""
    return os.path.getsize(path) if os.path.exists(path) else 0


def curl(addresses, jobs):
    """Bring files on, {path: address}, each from where it ends, `jobs` at a time. An attempt each.

    Returns {path: (HTTP status, curl's exit code, its message)}. Raises InputError where there is no curl.
    """
    meter, errors = ([], None) if sys.stderr.isatty() else (["--silent"], subprocess.DEVNULL)
    options = [*meter, "--fail", "--location", "--continue-at", "-", "--connect-timeout", str(TIMEOUT)]
    options += ["--speed-time", str(TIMEOUT), "--speed-limit", "1", "--write-out"]
    options += ["%{filename_effective}\\t%{http_code}\\t%{exitcode}\\t%{errormsg}\\n"]
    for path, address in addresses.items():
        options += ["--output", path, address]
    try:
        for parallel in (["--parallel", "--parallel-max", str(jobs)], []):  # before curl 7.66 one at a time
            done = subprocess.run(["curl", *parallel, *options], stdout=subprocess.PIPE, stderr=errors, text=True)
            if done.returncode != 2:  # an option that it does not know
                break
    except FileNotFoundError:
        raise InputError("curl: not found; install it, or put the files that --list names there by hand") from None
    lines = (line.split("\t") for line in done.stdout.splitlines())
    return {path: (int(status), int(code or -1), message) for path, status, code, message in lines}


def fetch_all(names, archives, jobs):
    """Fetch files into the archives folder, with the known sizes and sums. Returns {name: why} of those not to be had.

    A cut connection is taken up where it was cut. An address is given up when RETRIES attempts brought nothing new, or
    one shows that it has no such file or another one.
    """
    known, reasons, left = known_files(), {}, {}  # left: {name: the address of each attempt to come}
    for name in names:
        path = os.path.join(archives, name)
        wrong = flaw(path, *known[name][:2]) if os.path.exists(path) else "it is not there"
        if wrong:
            left[name] = [address for address in known[name][2] for _ in range(RETRIES)]
            reasons[name] = [f"the file there is wrong, {wrong}"] if os.path.exists(path) else []
    while left:
        parts = {name: os.path.join(archives, name + ".part") for name in left}
        before = {name: size_of(part) for name, part in parts.items()}
        answers = curl({part: left[name][0] for name, part in parts.items()}, jobs)
        for name, part in parts.items():
            reason, final = judge(part, before[name], answers.get(part, (0, -1, "")), *known[name][:2])
            if reason is None:
                os.replace(part, os.path.join(archives, name))
                del left[name], reasons[name]
            elif final or size_of(part) <= before[name]:
                reasons[name].append(reason)
                address, *others = left[name]
                left[name] = [other for other in others if not final or other != address]
        left = {name: attempts for name, attempts in left.items() if attempts}
        if any(size_of(parts[name]) <= before[name] for name in left):
            time.sleep(PAUSE)
    return {name: ", ".join(dict.fromkeys(why)) for name, why in reasons.items()}


def judge(part, before, answer, size, sha256):
    """Return (why a file is not whole or None, whether to give up the address). Removes what is wrong.

    before: the bytes that were there before the attempt; answer: what curl() returned of it.
    """
    (status, code, message), reached = answer, size_of(part)
    if reached < size and code:
        if code == 33 or status == 416:  # no ranges there, or a shorter file: from its start
            with contextlib.suppress(FileNotFoundError):
                os.remove(part)
        return message or f"curl ended with code {code}", 400 <= status < 500 and status not in (408, 416, 429)
    wrong = flaw(part, size, sha256)
    if wrong:
        os.remove(part)
    return wrong, before == 0 or reached < size  # else its beginning may have been of another file
