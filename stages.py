"""Run the stages of an experiment, each unless it is done.

    python stages.py runs/sample [--dry-run] [--only N] [--jobs 4] [--fresh] < plan

A line of the plan is a stage: its output and the words of its command, separated by \\x1f. Of lines with the same
output the first counts. A stage writes its output and the arguments that start with OUTPUT's path minus its extension
(train-hi.tsv.json). It reads the other arguments that are files or folders (of --data-dir, the dev files), its script
with the project's modules that this imports, and requirements.txt. It runs when the stages that make what it reads are
done, and it is done when what it wrote is as it was left, by the same command from the same contents. Comments and
docstrings of Python files do not count. RUNS/.stages keeps a record of every stage, RUNS/logs what it printed.

Importing torch and transformers takes longer than many a stage, so stages are forked from this process, which imports
them once; --fresh starts a new Python for each. On a cluster, job N of an array runs --only N.
"""

import argparse
import collections
import contextlib
import fcntl
import hashlib
import json
import os
import re
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import time
import traceback

import versions

TRIES = 3  # of a stage whose input or script changes while it runs
GRACE = 10  # seconds that a stage has to end after a signal
FRESH = 2.0  # seconds; a younger file may change once more within the resolution of its times
DEV_FILE = re.compile(r"(?!.*train).+\.(tsv|json)")  # what a train script reads of --data-dir


def fail(message):
    """End with one line on stderr."""
    print(f"stages.py: error: {message}", file=sys.stderr)
    sys.exit(2)


# ---- contents ----------------------------------------------------------------------------------------


def content(path, kept):
    """Return the digest of a file or folder, None where there is none. kept: {path: [size and times, digest]}."""
    if os.path.isdir(path):
        return hashed(json.dumps([(name, content(f"{path}/{name}", kept)) for name in files_below(path)]).encode())
    try:
        state = os.stat(path)
        mark = [state.st_size, state.st_mtime_ns, state.st_ctime_ns]
        if kept.get(path, [None])[0] != mark:
            with open(path, "rb") as stream:
                digest = hashed(iter(lambda: stream.read(1 << 20), b""))
            if time.time() - state.st_ctime < FRESH:
                return digest
            kept[path] = [mark, digest]
        return kept[path][1]
    except OSError:
        return None


def files_below(folder):
    """Return the names of the files below a folder, sorted, without hidden ones. Links are followed, a folder once."""
    found, seen = [], set(map(os.path.realpath, ("runs", "report")))  # no data, even in a folder around this one
    for top, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if os.path.realpath(top) in seen:
            folders.clear()
            continue
        seen.add(os.path.realpath(top))
        found += [os.path.relpath(os.path.join(top, name), folder) for name in names if not name.startswith(".")]
    return sorted(found)


def hashed(parts):
    """Return the digest of bytes, or of an iterable of them."""
    found = hashlib.blake2b(digest_size=16)
    for part in [parts] if isinstance(parts, bytes) else parts:
        found.update(part)
    return found.hexdigest()


def read_json(path):
    """Return what a JSON file holds, {} where it cannot be read: a killed run may have written half of it."""
    try:
        with open(path, encoding="utf-8") as stream:
            return dict(json.load(stream))
    except (OSError, ValueError):
        return {}


# ---- stages ------------------------------------------------------------------------------------------


def read_plan(lines, runs):
    """Return the stages of a plan in its order, dicts: 'output', 'command', 'script', 'writes' and 'reads', lists of
    arguments, 'after', the earlier stages that make what it reads, its 'number' from 1, and its 'log' and 'record'."""
    stages, made = [], {}
    for output, *command in (line.split("\x1f") for line in lines):
        if output in made:
            continue
        beside, name = os.path.splitext(output)[0] + ".", output.replace("/", ",")
        writes = list(dict.fromkeys([output, *(word for word in command if word.startswith(beside))]))
        reads = [word for word in command[1:] if word not in writes]
        before = {id(made[path]): made[path] for word in reads for path in around(word) if path in made}
        stage = {
            "output": output, "command": command, "writes": writes, "reads": reads, "after": list(before.values()),
            "script": next((word for word in command if word.endswith(".py")), ""), "number": len(stages) + 1,
            "log": f"{runs}/logs/{name}.log", "record": f"{runs}/.stages/{name}.json",
        }  # fmt: skip
        stages.append(stage)
        made.update(dict.fromkeys(writes, stage))
    return stages


def around(path):
    """Yield a path and the folders that it lies in."""
    while path:
        yield path
        path = os.path.dirname(path) if path != os.path.dirname(path) else ""


def inputs(stage, kept):
    """Return {path: digest} of all that a stage reads."""
    dev = dict(zip(stage["command"], stage["command"][1:])).get("--data-dir")
    paths = {word for word in stage["reads"] if os.path.exists(word)} - {dev} | {"requirements.txt"}
    paths |= {f"{dev}/{name}" for name in (files_below(dev) if dev else ()) if DEV_FILE.fullmatch(name)}
    return {path: content(path, kept) for path in sorted(paths)} | versions.code_digests(stage["script"])


def why_not_done(stage, kept):
    """Return why a stage has to run: "" where it is done, "new" where it never ran, else what has changed."""
    record = read_json(stage["record"])
    if not record:
        return "new"
    if record.get("command") != stage["command"]:
        return "its command has changed"
    for kind, now in (("reads", inputs(stage, kept)), ("writes", {p: content(p, kept) for p in stage["writes"]})):
        then = record.get(kind, {})
        if changed := sorted(path for path in {*then, *now} if then.get(path) != now.get(path)):
            what = "is new" if changed[0] not in then else "is gone" if now.get(changed[0]) is None else "has changed"
            return f"{changed[0]} {what}"
    return ""


def undone(stages, kept):
    """Return {output: why} of the stages that are not done, or that read what one of these makes."""
    left = {}
    for stage in stages:
        made = next((earlier["output"] for earlier in stage["after"] if earlier["output"] in left), None)
        why = f"{made} runs again" if made and os.path.exists(stage["record"]) else why_not_done(stage, kept)
        if why or made:
            left[stage["output"]] = why or "new"
    return left


# ---- processes ---------------------------------------------------------------------------------------


def warm_up():
    """Import what most stages import. Nothing here may start a thread, or a fork would hang: no tensor product, no
    tokenizer, no CUDA."""
    sys.modules.setdefault("sklearn", None)  # as common.py does
    import torch  # noqa: F401
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertModel  # noqa: F401
    from transformers import PreTrainedTokenizerFast, XLMRobertaModel  # noqa: F401


def start(stage, environment, fresh):
    """Start a stage's command in a process of its own, whose number is returned."""
    command, python = stage["command"], os.path.abspath(stage["command"][0]) == os.path.abspath(sys.executable)
    heavy = python and "common.py" in versions.code_digests(stage["script"])
    if heavy and not fresh:
        warm_up()
    sys.stdout.flush()
    number = os.fork()
    if number:
        return number
    code = 1
    try:
        os.setsid()
        log = os.open(stage["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for descriptor, source in ((0, os.open(os.devnull, os.O_RDONLY)), (1, log), (2, log)):
            os.dup2(source, descriptor)
        os.environ.update(environment)
        if fresh or not python:
            os.execvp(command[0], command)
        if heavy:
            import torch

            torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))  # the variable was read long ago
        sys.argv, sys.path[0] = command[1:], os.path.dirname(os.path.abspath(stage["script"]))
        runpy.run_path(stage["script"], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def stop(running):
    """End the stages that run, {process: stage}, whatever signals come meanwhile."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    for kind, seconds in ((signal.SIGTERM, GRACE), (signal.SIGKILL, GRACE)):
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process, kind)
        end = time.monotonic() + seconds
        while running and time.monotonic() < end:
            with contextlib.suppress(ChildProcessError):
                running = [process for process in running if os.waitpid(process, os.WNOHANG) == (0, 0)]
            time.sleep(0.05)


def slots(jobs):
    """Return the environment of each of the stages that run side by side: a GPU, or a share of the cores."""
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "").replace(",", " ").split()
    if "CUDA_VISIBLE_DEVICES" not in os.environ and shutil.which("nvidia-smi"):
        command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
        gpus = re.findall(r"^\d+$", subprocess.run(command, capture_output=True, text=True).stdout, re.MULTILINE)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    jobs = jobs or len(gpus) or min(2, cores)
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, cores // jobs)))
    gpu = [{"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]} if gpus else {} for slot in range(jobs)]
    return [{"OMP_NUM_THREADS": threads, **own} for own in gpu]


def lock(path, kind):
    """Lock a file until this process and the stages that it started have ended, even if it is killed before them."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    os.set_inheritable(descriptor, True)
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        runs = os.path.dirname(os.path.dirname(path))
        fail(f"another run, or a stage that outlived one, is at work in {runs}; wait for it, or stop it")
    except OSError:
        pass  # a file system without locks


# ---- the run -----------------------------------------------------------------------------------------


def kind_of(stage):
    """Return what stages have in common that take about as long: script and task."""
    return stage["script"], dict(zip(stage["command"], stage["command"][1:])).get("--task")


def time_left(stages, times, jobs):
    """Return ", about 9 min left" by the mean time of each kind of stage; "" while many are of unknown kinds."""
    known = [sum(times[kind]) / len(times[kind]) for kind in map(kind_of, stages) if times[kind]]
    if not known or len(known) < 0.8 * len(stages):
        return ""
    minutes = sum(known) / len(known) * len(stages) / jobs / 60
    return f", about {minutes + 1:.0f} min left" if minutes < 90 else f", about {minutes / 60:.1f} h left"


def finish(stage, code, kept):
    """Record a stage that has ended; return why it failed, or None. It stays undone if what it reads has changed."""
    if code:
        return f"ended with code {code}" if code > 0 else f"was ended by signal {-code}"
    writes = {path: content(path, kept) for path in stage["writes"]}
    if writes[stage["output"]] is None:
        return "ended without writing it"
    if inputs(stage, kept) != stage["inputs"]:
        if stage["tries"] >= TRIES:
            return "changes its own inputs, or another stage changes them"
        print(f"{stage['output']}: its script or input changed while it ran, it runs again", file=sys.stderr)
        return None
    seconds = time.monotonic() - stage["began"]
    with open(stage["record"], "w", encoding="utf-8") as stream:
        json.dump({"command": stage["command"], "reads": stage["inputs"], "writes": writes, "seconds": seconds}, stream)
    return None


def run_stages(stages, left, kept, environments, fresh):
    """Run the stages that are `left`, undone's, and return [(stage, what went wrong)]. After a failure none begins."""
    times, began, started, running, failed = collections.defaultdict(list), time.monotonic(), 0, {}, []
    for stage in stages:
        if seconds := read_json(stage["record"]).get("seconds"):
            times[kind_of(stage)].append(seconds)
    todo = [stage for stage in stages if stage["output"] in left]
    print(f"{len(stages)} stage{'s' * (len(stages) != 1)}, {len(todo)} to do, {len(environments)} at a time", end="")
    print(time_left(todo, times, len(environments)), flush=True)
    again = collections.Counter(why for why in left.values() if why != "new" and "runs again" not in why)
    for why, count in again.most_common(5):  # before it is done, so that it can be stopped
        print(f"{count} {'stages run' if count > 1 else 'stage runs'} again: {why}", flush=True)
    try:
        while todo or running:
            for stage in [] if failed else list(todo):
                if any(earlier["output"] in left for earlier in stage["after"]):
                    continue
                if not why_not_done(stage, kept):  # what it reads came out as it was
                    todo.remove(stage)
                    del left[stage["output"]]
                elif free := [n for n in range(len(environments)) if n not in [s["slot"] for s in running.values()]]:
                    todo.remove(stage)
                    started, clock = started + 1, divmod(int(time.monotonic() - began), 60)
                    rest = time_left([stage, *todo], times, len(environments))
                    number = f"{started} of {started + len(todo)}, {clock[0]}:{clock[1]:02d}{rest}"
                    print(f"[{number}] {shlex.join(stage['command'])}", flush=True)
                    stage |= {"inputs": inputs(stage, kept), "began": time.monotonic(), "slot": free[0]}
                    stage["tries"] = stage.get("tries", 0) + 1
                    running[start(stage, environments[free[0]], fresh)] = stage
            if running:
                process, status = os.waitpid(-1, 0)
                stage = running.pop(process, None)
                wrong = stage and finish(stage, os.waitstatus_to_exitcode(status), kept)
                if wrong:
                    failed.append((stage, wrong))
                elif stage and why_not_done(stage, kept):
                    todo.insert(0, stage)
                elif stage:
                    times[kind_of(stage)].append(time.monotonic() - stage["began"])
                    del left[stage["output"]]
            elif failed:
                break
    finally:
        stop(running)
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = lambda message: fail(f"{message} (--help explains every option)")
    parser.add_argument("runs", help="folder of the results, the logs and the records")
    parser.add_argument("--dry-run", action="store_true", help="print the commands that are left and run none")
    parser.add_argument("--only", type=int, metavar="N", help="run stage N alone: line N of the plan, from 1 on")
    parser.add_argument("--jobs", type=int, help="stages at a time (default: one for each GPU, else two)")
    parser.add_argument("--fresh", action="store_true", help="start a new Python for every stage, in place of a fork")
    args = parser.parse_args()
    stages, records = read_plan(sys.stdin.read().splitlines(), args.runs), f"{args.runs}/.stages"
    if not stages:
        fail("standard input holds no plan; expected a line for each stage, as run_all.sh writes them")
    if args.jobs is not None and args.jobs < 1:
        fail(f"--jobs {args.jobs}: expected 1 or more")
    if args.only is not None and not 0 < args.only <= len(stages):
        fail(f"--only {args.only}: the plan has the stages 1 to {len(stages)}")
    kept = read_json(f"{records}/contents.json")
    if args.dry_run:
        left = undone(stages, kept)
        print("".join(shlex.join(stage["command"]) + "\n" for stage in stages if stage["output"] in left), end="")
        return
    for folder in (records, f"{args.runs}/logs"):
        os.makedirs(folder, exist_ok=True)
    lock(f"{records}/lock", fcntl.LOCK_SH if args.only else fcntl.LOCK_EX)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs do not have
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    left = undone(stages, kept)
    if args.only:
        stages = stages[args.only - 1 : args.only]
        for earlier in stages[0]["after"]:
            if earlier["output"] in left:
                fail(f"stage {args.only} needs {earlier['output']}; run --only {earlier['number']} before it")
        lock(stages[0]["record"].removesuffix("json") + "lock", fcntl.LOCK_EX)
        left = {output: why for output, why in left.items() if output == stages[0]["output"]}
    try:
        failed = run_stages(stages, left, kept, slots(args.jobs or (1 if args.only else None)), args.fresh)
    finally:
        with open(f"{records}/contents.json", "w", encoding="utf-8") as stream:
            json.dump(kept, stream)
    for stage, wrong in failed:
        with open(stage["log"], encoding="utf-8", errors="replace") as stream:
            print(*collections.deque(stream, 5), sep="", end="", file=sys.stderr)
        print(f"stages.py: error: {stage['output']} {wrong}; its output is in {stage['log']}", file=sys.stderr)
    if failed:
        sys.exit(2)
    print(f"Done. The results are in {stages[-1]['output']}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("stages.py: interrupted", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        fail(f"{error.filename or 'a log or record'}: {error.strerror or error}")
