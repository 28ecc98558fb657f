"""Tell one state of the project's code from another. For stages.py and the trainings; standard library only."""

import ast
import functools
import hashlib
import os
import subprocess

ROOT = os.path.dirname(os.path.abspath(__file__))


def code_digests(script):
    """Return {path: digest} of a script and the project's modules that it imports, at any depth. Comments and
    docstrings do not count. Paths are below the project's folder."""
    found, left = {}, [os.path.relpath(os.path.abspath(script), ROOT)]
    while left:
        path = left.pop()
        if path not in found and os.path.isfile(os.path.join(ROOT, path)):
            found[path], modules = parse(path, os.stat(os.path.join(ROOT, path)).st_mtime_ns)
            left += modules
    return found


@functools.cache
def parse(path, _):
    """Return (digest, modules) of one file: its code, and the paths that its imports may name. _: its time."""
    with open(os.path.join(ROOT, path), "rb") as stream:
        text = stream.read()
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return hashlib.sha256(text).hexdigest()[:16], []
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            if ast.get_docstring(node, clean=False) is not None:
                node.body[0].value.value = ""
    digest = hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:16]
    return digest, [name.replace(".", os.sep) + ".py" for name in sorted(filter(None, names))]


def commit():
    """Return the commit of the project's folder, with `-dirty` behind it where files differ; None without git."""
    command = ["git", "-C", ROOT, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
