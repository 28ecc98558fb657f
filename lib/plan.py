"""The plan of an experiment: its stages, what each reads and writes, and which of them are done. For stages.py."""

import glob
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time

from data.cli import InputError, warn
from data.files import list_files
from lib.contents import digest, write_json

DEV_FILE = re.compile(r"(?!.*train).+\.(tsv|json)")  # what a train script reads of --data-dir


class Stage:
    """A command of the plan, with what it writes, reads, and `after`: the earlier stages that make what it reads."""

    def __init__(self, runs, wave, output, command, made):
        self.wave, self.output, self.command, self.process = wave, output, command, None
        words, beside = command[1:], os.path.splitext(output)[0] + "."
        options = dict(zip(words, words[1:]))
        self.script = next((word for word in words if word.endswith(".py")), "")
        self.dev = options.get("--data-dir")
        self.writes = list(dict.fromkeys([output, *(word for word in words if word.startswith(beside))]))
        self.reads = [word for word in words if word not in self.writes]
        self.after = list(dict.fromkeys(made[path] for word in self.reads for path in around(word) if path in made))
        self.kind = os.path.basename(self.script) + ":" + options.get("--task", "")  # which take about as long
        name = output.replace("/", ",")
        self.log, self.record = f"{runs}/logs/{name}.log", f"{runs}/.stages/{name}.json"
        self.lock = f"{runs}/.stages/{name}.lock"

    def key(self, contents):
        """Return the digest of the command and all that it reads."""
        found = contents.of_script(self.script)
        paths = {word for word in self.reads if os.path.exists(word)} - {self.dev, *found} | {"requirements.txt"}
        if self.dev and os.path.isdir(self.dev):
            paths |= {path for path in list_files(self.dev) if DEV_FILE.fullmatch(os.path.relpath(path, self.dev))}
        return digest([self.command, sorted(found.items()), [(path, contents.of(path)) for path in sorted(paths)]])

    def state(self, contents):
        """Return what is recorded of a stage that is done."""
        return {"key": self.key(contents), "written": {path: contents.of(path) for path in self.writes}}

    def done(self, contents):
        try:
            with open(self.record, encoding="utf-8") as stream:
                return json.load(stream) == self.state(contents)
        except (OSError, ValueError):
            return False

    def start(self, contents, environment, locks):
        """Sweep away what a killed run left half written, and start the command."""
        for path in self.writes:
            folder, name = map(glob.escape, os.path.split(path))
            for pattern in (f"{name}.*.tmp", f".{name}.*.tmp", f"{name}/.*.tmp"):
                for rest in glob.glob(os.path.join(folder, pattern)):
                    shutil.rmtree(rest) if os.path.isdir(rest) else os.remove(rest)
        contents.forget()
        self.began, self.before, environment = time.monotonic(), self.key(contents), {**os.environ, **environment}
        with open(self.log, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, pass_fds=locks
            )

    def finish(self, contents):
        """Record that it is done, unless its script or input has changed; return why it failed, or None."""
        code = self.process.returncode
        if code:
            return f"ended with code {code}" if code > 0 else f"was ended by signal {-code}"
        contents.forget()
        state = self.state(contents)
        if state["written"][self.output] is None:
            return "ended without writing it"
        if state["key"] == self.before:
            write_json(self.record, state)
        else:
            warn(f"{self.output}: its script or input changed while it ran, it runs again")


def around(path):
    """Yield a path and the folders that it lies in."""
    while path:
        yield path
        path = os.path.dirname(path) if path != os.path.dirname(path) else ""


def read_plan(runs, command):
    """Return the stages that a command prints, by waves, each once. Raises InputError."""
    printed = subprocess.run(command, capture_output=True, text=True)
    if printed.returncode:
        said = printed.stderr.strip().rpartition("\n")[2]
        raise InputError(f"{shlex.join(command)}: ended with code {printed.returncode}, expected a plan; {said}")
    sys.stderr.write(printed.stderr)
    (_, *waves), *lines = (line.split("\x1f") for line in dict.fromkeys(printed.stdout.rstrip("\n").split("\n")))
    notes, stages, made = [line[1] for line in lines if line[0] == "note"], [], {}
    for wave in waves:
        for _, output, *words in (line for line in lines if line[0] == wave and line[1] not in made):
            stages.append(Stage(runs, wave, output, words, made))
            made.update(dict.fromkeys(stages[-1].writes, stages[-1]))
    return stages, waves, notes


def undone(stages, contents):
    """Return {output: stage} of those that are not done, or that read what one of these makes."""
    contents.forget()
    left = {}
    for stage in stages:
        if any(earlier.output in left for earlier in stage.after) or not stage.done(contents):
            left[stage.output] = stage
    return left


def check_made(mine, left):
    """Raise InputError if a stage needs what neither is there nor is made now."""
    for stage in mine:
        for earlier in stage.after:
            if stage.output in left and earlier.output in left and earlier not in mine:
                where = f"{earlier.output} as these settings make it, which is not there"
                raise InputError(f"{stage.output} needs {where}; run the wave {earlier.wave} before it")
