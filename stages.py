"""Run the stages of an experiment, each unless it is done.

    python stages.py runs/sample --plan "bash run_all.sh --plan" [--dry-run] [--wave train [--share 3/20]] [--jobs 4]

The command after --plan prints the plan, a line for each stage: its wave, its output and the words of its command,
separated by \\x1f (a first line `waves` names the waves in order, a line `note` is a message). It is asked again whenever
a wave is done, as what comes next may depend on what that found.

What a stage reads is found in its command: the words that are files or folders (of --data-dir, the dev files), the script
and the project's modules that it imports, and requirements.txt. It writes its output and the words of its command that
differ from that by their endings (train-hi.tsv.json, hi.html). It is done when what it wrote is as it was left, by the same
command, from the same contents; comments and docstrings are no content. RUNS/.stages remembers this, RUNS/logs what
stages printed. A lock, which the stages inherit, keeps a second run out for as long as one of them is alive.
"""

import ast
import collections
import fcntl
import glob
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

from data.cli import Arguments, InputError, positive, run_script, warn

DEV_FILE = re.compile(r"(?!.*train).+\.(tsv|json)")  # what a train script reads of --data-dir
NOT_INPUT = {os.path.abspath(name) for name in ("runs", "report", ".venv", ".git")}  # in a folder of data around the project
FRESH = 2.0  # seconds: a file as young may change once more within the resolution of its time
TRIES = 3  # of a stage whose inputs change while it runs


def digest(value):
    return hashlib.blake2b(value if isinstance(value, bytes) else json.dumps(value).encode(), digest_size=16).hexdigest()


class Contents:
    """Digests of files and folders; those of files are kept in a file of their own until size or time change."""

    def __init__(self, path):
        self.path, self.kept, self.seen = path, {}, {}
        if os.path.exists(path):
            with open(path, encoding="utf-8") as stream:
                self.kept = json.load(stream)

    def of(self, path):
        """Return the digest of a file or folder as it was when it was first asked for since forget(), None if it is not there."""
        if path not in self.seen:
            self.seen[path] = self.folder(path) if os.path.isdir(path) else self.file(path)
        return self.seen[path]

    def forget(self):
        self.seen = {}

    def folder(self, path):
        found = []
        for top, folders, files in os.walk(path, followlinks=True):
            folders[:] = [name for name in folders if os.path.abspath(os.path.join(top, name)) not in NOT_INPUT]
            found += [os.path.join(top, name) for name in files if not name.endswith(".tmp")]
        return digest([(os.path.relpath(name, path), self.of(name)) for name in sorted(found)])

    def file(self, path):
        try:
            state = os.stat(path)
            mark = [state.st_size, state.st_mtime_ns, state.st_ctime_ns]
            if self.kept.get(path, [None])[0] == mark:
                return self.kept[path][1]
            hashed = hashlib.blake2b(digest_size=16)
            with open(path, "rb") as stream:
                while part := stream.read(1 << 20):
                    hashed.update(part)
        except OSError:
            return None
        if time.time() - state.st_mtime > FRESH:
            self.kept[path] = [mark, hashed.hexdigest()]
        return hashed.hexdigest()

    def script(self, path):
        """Return {path: digest of its syntax} of a script and the project's modules that it imports, at any depth."""
        found, todo = {}, [path]
        while todo:
            path = todo.pop()
            if path not in found and os.path.isfile(path):
                if ("syntax", path) not in self.seen:
                    self.seen["syntax", path] = syntax(path)
                found[path], modules = self.seen["syntax", path]
                todo += modules
        return found

    def save(self):
        write_json(self.path, self.kept)


def syntax(path):
    """Return the digest of a script without comments and docstrings, and where the modules that it imports may lie."""
    with open(path, "rb") as stream:
        text = stream.read()
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return digest(text), []
    names = []
    for node in ast.walk(tree):
        documented = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        if documented and ast.get_docstring(node, clean=False) is not None:
            node.body[0].value.value = ""
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    parts = [name.split(".") for name in names]
    paths = {"/".join(part[: n + 1]) for part in parts for n in range(len(part))}
    return digest(ast.dump(tree)), [path + end for path in sorted(paths) for end in (".py", "/__init__.py")]


def write_json(path, value):
    """Write a file that is whole whenever it is there, even with several runs that write it."""
    temporary = f"{path}.{os.getpid()}.tmp"
    with open(temporary, "w", encoding="utf-8") as stream:
        json.dump(value, stream)
    os.replace(temporary, path)


class Stage:
    """One command of the plan: what it reads and writes, and the earlier stages (`after`) that make what it reads."""

    def __init__(self, runs, wave, output, command, made):
        self.wave, self.output, self.command = wave, output, command
        beside = os.path.splitext(output)[0] + "."
        self.script = next((word for word in command[1:] if word.endswith(".py")), "")
        self.writes = list(dict.fromkeys([output, *(word for word in command[1:] if word.startswith(beside))]))
        self.reads = [word for word in command[1:] if word not in self.writes and not word.startswith(output + "/")]
        self.dev = next((data for name, data in zip(command, command[1:]) if name == "--data-dir"), None)
        self.after = list(dict.fromkeys(made[path] for word in self.reads for path in (word, *parents(word)) if path in made))
        name = output.replace("/", ",")
        self.log, self.record = f"{runs}/logs/{name}.log", f"{runs}/.stages/{name}.json"
        task = next((word for name, word in zip(command, command[1:]) if name == "--task"), "")
        self.kind = f"{os.path.basename(self.script or command[0])}:{task}"  # stages of a kind take about as long

    def key(self, contents):
        """Return the digest of the command and of all that it reads."""
        paths = {word for word in self.reads if word != self.dev and os.path.exists(word)} | {"requirements.txt"}
        if self.dev and os.path.isdir(self.dev):
            paths |= {os.path.join(self.dev, name) for name in os.listdir(self.dev) if DEV_FILE.fullmatch(name)}
        code = contents.script(self.script)
        return digest([self.command, sorted(code.items()), [(path, contents.of(path)) for path in sorted(paths - code.keys())]])

    def written(self, contents):
        return {path: contents.of(path) for path in self.writes}

    def done(self, contents):
        """Whether what it wrote is as it was left, by the same command from the same contents."""
        try:
            with open(self.record, encoding="utf-8") as stream:
                record = json.load(stream)
        except (OSError, ValueError):
            return False
        return record == {"key": self.key(contents), "written": self.written(contents)}

    def start(self, contents, environment, locks):
        """Start the command, once what a killed run left half written is swept away."""
        for path in self.writes:
            folder, name = map(glob.escape, os.path.split(path))
            for rest in glob.glob(f"{folder}/{name}.*.tmp") + glob.glob(f"{folder}/.{name}.*.tmp") + glob.glob(f"{folder}/{name}/.*.tmp"):
                shutil.rmtree(rest) if os.path.isdir(rest) else os.remove(rest)
        contents.forget()
        self.started, self.before = time.monotonic(), self.key(contents)
        with open(self.log, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **environment}, pass_fds=locks
            )

    def finish(self, contents):
        """Record that it is done; return why it failed, None if it did not. A change while it ran leaves it to be done again."""
        contents.forget()
        code, written = self.process.returncode, self.written(contents)
        if code or written[self.output] is None:
            return f"ended with code {code}" if code > 0 else f"was ended by signal {-code}" if code else "ended without writing it"
        if self.key(contents) == self.before:
            write_json(self.record, {"key": self.before, "written": written})
        else:
            warn(f"{self.output}: its script or input changed while it ran; it is made again")


def parents(path):
    """Return the folders that a path lies in, the nearest first."""
    found = []
    while (folder := os.path.dirname(path)) not in ("", path):
        found, path = [*found, folder], folder
    return found


def read_plan(runs, command):
    """Return the stages that a command prints, wave after wave, and the messages among them. Raises InputError."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise InputError(f"{shlex.join(command)} ended with code {done.returncode}; expected the plan")
    waves, notes, lines = [], [], {}
    for line in done.stdout.splitlines():
        wave, *words = line.split("\x1f")
        if wave == "waves":
            waves = words
        elif wave == "note":
            notes += [word for word in words if word not in notes]
        else:
            lines.setdefault(words[0], (wave, words[1:]))
    made, stages = {}, []
    for output, (wave, words) in sorted(lines.items(), key=lambda item: waves.index(item[1][0])):
        stages.append(Stage(runs, wave, output, words, made))
        made.update(dict.fromkeys(stages[-1].writes, stages[-1]))
    return stages, notes


def undone(stages, contents):
    """Return {output: stage} of the stages that are not done, and of those that read what one of these makes."""
    contents.forget()
    left = {}
    for stage in stages:
        if any(earlier.output in left for earlier in stage.after) or not stage.done(contents):
            left[stage.output] = stage
    return left


def lacking(mine, left):
    """Raise InputError if a stage that is asked for needs one that is neither done nor asked for."""
    for stage in mine:
        for earlier in stage.after if stage.output in left else []:
            if earlier.output in left and earlier not in mine:
                raise InputError(
                    f"{stage.output} needs {earlier.output} as these settings make it, which is not there yet; run the wave {earlier.wave} first"
                )


def gpus():
    """Return the GPUs' numbers or names, [] where there is none."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return os.environ["CUDA_VISIBLE_DEVICES"].replace(",", " ").split()
    if not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True).stdout
    return re.findall(r"^\d+$", listed, re.MULTILINE)


def lock(path, exclusive):
    """Return a descriptor that holds the lock of a file until all processes that have it are gone, None if another holds it."""
    stream = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(stream, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    except OSError:
        pass  # a file system without locks
    return stream


class Times:
    """How long stages of each kind took, in this run and earlier ones."""

    def __init__(self, path):
        self.path, self.seconds = path, collections.defaultdict(list)
        if os.path.exists(path):
            with open(path, encoding="utf-8") as stream:
                for kind, seconds in map(str.split, stream):
                    self.seconds[kind].append(float(seconds))

    def add(self, kind, seconds):
        self.seconds[kind].append(seconds)
        with open(self.path, "a", encoding="utf-8") as stream:
            stream.write(f"{kind} {seconds:.2f}\n")

    def left(self, stages, jobs):
        """Return ", about 9 min left"; nothing while more than a fifth of the stages are of kinds not seen yet."""
        known = [sum(times) / len(times) for times in (self.seconds.get(stage.kind) for stage in stages) if times]
        if not known or len(known) < 0.8 * len(stages):
            return ""
        minutes = sum(known) * len(stages) / len(known) / jobs / 60
        return f", about {minutes + 1:.0f} min left" if minutes < 90 else f", about {minutes / 60:.1f} h left"


def clock(seconds):
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def share(text):
    """argparse type: K/N, the Kth of N shares, as two numbers."""
    found = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", text)
    if not found or int(found[1]) > int(found[2]):
        raise ValueError
    return int(found[1]), int(found[2])


def main():
    parser = Arguments(__doc__)
    parser.add_argument("runs", help="folder of the results, logs and records")
    parser.add_argument("--plan", required=True, type=shlex.split, metavar="COMMAND", help="prints the plan")
    parser.add_argument("--dry-run", action="store_true", help="print the commands that are left and run none")
    parser.add_argument("--wave", help="only the stages of this wave")
    parser.add_argument("--share", type=share, default=(1, 1), metavar="K/N", help="every Nth of these, from the Kth")
    parser.add_argument("--jobs", type=positive, help="stages at a time (default: one for each GPU, two without)")
    args = parser.parse_args()
    k, n = args.share
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it

    stages, notes = read_plan(args.runs, args.plan)
    contents = Contents(f"{args.runs}/.stages/contents.json")

    def asked():
        return [stage for stage in stages if args.wave in (None, stage.wave)][k - 1 :: n]

    for note in notes:
        warn(note)
    if args.dry_run:
        left = undone(stages, contents)
        for stage in asked():
            if stage.output in left:
                print(shlex.join(stage.command))
        return
    from tqdm import tqdm

    for folder in (f"{args.runs}/.stages", f"{args.runs}/logs"):
        os.makedirs(folder, exist_ok=True)
    locks = [lock(f"{args.runs}/.stages/lock", n == 1)]
    if n > 1:
        locks.append(lock(f"{args.runs}/.stages/lock-{args.wave}-{k}-{n}", True))
    if None in locks:
        raise InputError(f"another run, or a stage that outlived one, is at work in {args.runs}; wait for it, or stop it")
    devices = gpus()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    jobs = args.jobs or len(devices) or min(2, cores)
    sys.stdout.reconfigure(line_buffering=True)
    times, began, tries = Times(f"{args.runs}/.stages/times"), time.monotonic(), collections.Counter()
    running, failed = [None] * jobs, []

    left = undone(stages, contents)
    mine = [stage for stage in asked() if stage.output in left]
    lacking(asked(), left)
    print(f"{args.runs}: {len(asked())} stages, {len(mine)} to do, {jobs} at a time{times.left(mine, jobs)}; logs in {args.runs}/logs")
    bar = tqdm(total=len(mine), unit=" stages", disable=None, bar_format="{n_fmt} of {total_fmt} {bar} {elapsed}{postfix}")
    try:
        while True:
            busy = {stage.output for stage in running if stage}
            mine = [stage for stage in asked() if stage.output in left and stage.output not in busy]
            ready = [stage for stage in mine if not any(earlier.output in left for earlier in stage.after)]
            for slot in [slot for slot, stage in enumerate(running) if not stage]:
                if ready and not failed:
                    stage = running[slot] = ready.pop(0)
                    mine.remove(stage)
                    tries[stage.output] += 1
                    environment = {} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": str(max(1, cores // jobs))}
                    if devices:
                        environment["CUDA_VISIBLE_DEVICES"] = devices[slot % len(devices)]
                    begun = sum(tries.values())
                    stage.start(contents, environment, locks)
                    rest = times.left([*mine, stage], jobs)
                    tqdm.write(f"[{begun} of {begun + len(mine)}, {clock(time.monotonic() - began)}{rest}] {shlex.join(stage.command)}")
            if not any(running):
                break
            while not (ended := [slot for slot, stage in enumerate(running) if stage and stage.process.poll() is not None]):
                time.sleep(0.05)
            for slot in ended:
                stage, running[slot] = running[slot], None
                why = stage.finish(contents)
                if not why and tries[stage.output] >= TRIES and not stage.done(contents):
                    why = "changes what it reads itself"
                if why:
                    failed.append((stage, why))
                else:
                    times.add(stage.kind, time.monotonic() - stage.started)
            waves = {stage.wave for stage in left.values()}
            left = undone(stages, contents)
            if args.wave is None and waves - {stage.wave for stage in left.values()}:
                stages, _ = read_plan(args.runs, args.plan)
                left = undone(stages, contents)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        for stage in filter(None, running):
            stage.process.terminate()
        for stage in filter(None, running):
            stage.process.wait()
        bar.close()
        contents.save()
    for stage, why in failed:
        with open(stage.log, encoding="utf-8", errors="replace") as stream:
            print("".join(collections.deque(stream, 5)), end="", file=sys.stderr)
        warn(f"error: {stage.output} {why}; its output is in {stage.log}")
    if failed:
        raise SystemExit(2)
    lacking(asked(), left)
    print(f"Done in {clock(time.monotonic() - began)}: {stages[-1].output}")


if __name__ == "__main__":
    run_script(main)
