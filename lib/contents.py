"""Digests of what files, folders and scripts contain: stages.py tells by them what has changed.

Only the standard library is used here.
"""

import ast
import contextlib
import hashlib
import json
import os
import time
import uuid

from data.cli import naming
from data.files import list_files

FRESH = 2.0  # seconds; a younger file may change once more within the resolution of its times
OURS = "runs", "report", ".venv", ".git"  # no data, even in a folder around us


def digest(value):
    """Return the digest of bytes, or of a value that JSON can hold."""
    value = value if isinstance(value, bytes) else json.dumps(value).encode()
    return hashlib.blake2b(value, digest_size=16).hexdigest()


def write_json(path, value):
    """Write a JSON file that is never half there, even if another process, of any machine, writes it too."""
    temporary = f"{path}.{uuid.uuid4().hex}.tmp"
    try:
        with naming(path), open(temporary, "w", encoding="utf-8") as stream:
            json.dump(value, stream)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        raise


class Contents:
    """Digests of one moment, which ends with forget(); at `path` those of files are kept until size or times change."""

    def __init__(self, path):
        self.path, self.kept, self.seen = path, {}, {}
        with contextlib.suppress(OSError, ValueError), open(path, encoding="utf-8") as stream:
            self.kept = dict(json.load(stream))  # without it everything is read again, and nothing else

    def forget(self):
        self.seen = {}

    def save(self):
        write_json(self.path, self.kept)

    def of(self, path):
        """Return the digest of a file or folder, None if it is not there."""
        if path not in self.seen:
            self.seen[path] = self._folder(path) if os.path.isdir(path) else self._file(path)
        return self.seen[path]

    def _folder(self, path):
        found = [name for name in list_files(path, OURS) if not name.endswith((".tmp", ".DS_Store"))]
        return digest([(os.path.relpath(name, path), self.of(name)) for name in found])

    def _file(self, path):
        try:
            state, hashed = os.stat(path), hashlib.blake2b(digest_size=16)
            mark = [state.st_size, state.st_mtime_ns, state.st_ctime_ns]
            if self.kept.get(path, [None])[0] == mark:
                return self.kept[path][1]
            with open(path, "rb") as stream:
                while part := stream.read(1 << 20):
                    hashed.update(part)
        except OSError:
            return None
        if time.time() - state.st_ctime > FRESH:
            self.kept[path] = [mark, hashed.hexdigest()]
        return hashed.hexdigest()

    def of_script(self, path):
        """Return {path: digest} of a script and the project's modules that it imports, at any depth."""
        found, todo = {}, [path]
        while todo:
            path = todo.pop()
            if path not in found and os.path.isfile(path):
                if ("script", path) not in self.seen:
                    self.seen["script", path] = parse_script(path)
                found[path], modules = self.seen["script", path]
                todo += modules
        return found


def parse_script(path):
    """Return the digest of a script without comments and docstrings, and the files that its imports may name."""
    with open(path, "rb") as stream:
        text = stream.read()
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return digest(text), []
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            if ast.get_docstring(node, clean=False) is not None:
                node.body[0].value.value = ""
    parts = [name.split(".") for name in names]
    paths = {"/".join(part[: n + 1]) for part in parts for n in range(len(part))}
    return digest(ast.dump(tree)), [path + end for path in sorted(paths) for end in (".py", "/__init__.py")]
