"""Checkpoints, from which a killed training goes on, and how a file or folder is written so that it is whole."""

import ast
import contextlib
import glob
import json
import os
import shutil
import socket
import warnings
import zlib

import numpy as np
import torch

import common
from data.cli import InputError, warn

# What a training's numbers depend on beside its script.
SHARED = "heads.py training.py checkpoints.py objectives.py extraction.py encoding.py subwords.py".split()


def path_of(output):
    """Return where the checkpoint of a training lies."""
    return f"{output.rstrip('/')}.checkpoint"


def training_crc(script, options, arrays):
    """Return a number that tells one training from another: its code, options, data and the weights that it begins
    with.

    script: path of the train script; comments in it and in the modules that it shares do not count. options: {name:
    value}. arrays: numpy arrays.
    """
    ignored = ("output", "save_every", "save")
    crc = zlib.crc32(json.dumps({k: v for k, v in options.items() if k not in ignored}, sort_keys=True).encode())
    shared = (os.path.join(os.path.dirname(__file__), name) for name in SHARED)
    for path in (script, common.__file__, *shared):
        with open(path, encoding="utf-8") as stream:
            crc = zlib.crc32(ast.dump(ast.parse(stream.read())).encode(), crc)
    for array in arrays:
        crc = zlib.crc32(np.ascontiguousarray(array), crc)
    return crc


def weights(model):
    """Return a model's configuration and parameters as numpy arrays, for training_crc."""
    config = np.frombuffer(model.config.to_json_string().encode(), np.uint8)
    return [config, *(parameter.detach().cpu().numpy() for parameter in model.parameters())]


def save(path, crc, modules, optimizer, state):
    """Write a training's state whole: the weights of `modules`, {name: module}, the optimizer's, and the numbers in
    `state`.

    crc: training_crc's. Raises InputError.
    """
    weights = {name: module.state_dict() for name, module in modules.items()}
    content = {"crc": crc, "state": {**state, "weights": weights, "optimizer": optimizer.state_dict()}}
    temporary = temporary_path(path)
    try:
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        torch.save(content, temporary)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch.save raises the latter where the disk is full
        reason = getattr(error, "strerror", None) or "is the disk full?"
        raise InputError(f"{path}: cannot be written ({reason}); make room, then start again") from None
    finally:
        with contextlib.suppress(OSError):
            os.remove(temporary)


def load(path, crc, modules, optimizer):
    """Restore modules and optimizer from the checkpoint and return the rest of its state; a new one if there is none.

    A checkpoint of another training is not used. Raises InputError for one that cannot be read.
    """
    new = {"step": 0, "seconds": 0.0}
    if not os.path.exists(path):
        return new
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of another protocol; the error says what is wrong
            saved = torch.load(path, map_location="cpu", weights_only=True)
        if saved["crc"] != crc:
            warn(f"{path}: is of other code, settings, data or another model, and is not used")
            return new
        state = saved["state"]
        for name, module in modules.items():
            module.load_state_dict(state["weights"][name], strict=False)
        optimizer.load_state_dict(state["optimizer"])
        state |= {"step": int(state["step"]), "seconds": float(state["seconds"])}
    except Exception as error:
        reason = " ".join(str(error).split())[:100]
        raise InputError(f"{path}: cannot be read as a checkpoint ({reason}); remove it to start again") from None
    if os.environ.get("RANK", "0") == "0":
        warn(f"goes on after step {state['step']}, from {path}")
    return {key: value for key, value in state.items() if key not in ("weights", "optimizer")}


def temporary_path(path):
    """Return the name under which a file or folder is written before it is whole; it says who writes it."""
    return f"{path}.{socket.gethostname()}.{os.getpid()}.tmp"


def sweep(path):
    """Remove what killed processes of this machine left where `path` was to be written."""
    for left in glob.glob(f"{glob.escape(path)}.{glob.escape(socket.gethostname())}.*.tmp"):
        with contextlib.suppress(ValueError, PermissionError):  # it lives, and is another user's
            try:
                os.kill(int(left.split(".")[-2]), 0)
            except ProcessLookupError:
                shutil.rmtree(left) if os.path.isdir(left) and not os.path.islink(left) else os.remove(left)
