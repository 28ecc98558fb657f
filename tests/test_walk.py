"""Every family that transformers' AutoModelForTokenClassification knows goes through the scripts, and ends as the table
in docs/experiment.md says: it works, or is refused in one line.

FULL=1 walks through all of them, so that those of a new release of transformers are tried too; else a few are tried that
are built otherwise than BERT.
"""

import collections
import json
import os
import re
import shutil

import pytest
import torch
from conftest import ROOT, SHAPE
from families import FAMILIES, NAMES, tokenizer_of
from test_families import data, predict_again, script_of  # noqa: F401
from transformers.models.auto.modeling_auto import MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES

from evaluation.runs import read_tag_predictions

WHOLE = os.environ.get("FULL") == "1"
FEW = ["albert", "flaubert", "longformer", "gpt2", "t5", "bros"]
STAGES = ["align, so", "mlm", "tagging", "pairs", "questions"]
TASKS = {"tagging": "udpos", "pairs": "xnli", "questions": "xquad"}
REASONS = {  # what the line of a refusal says: how the table says it
    "an encoder and a decoder": "encoder-decoders",
    "do not depend on the subwords that follow": "decoders, whose states do not depend on the words that follow",
    "has no hidden state for each subword": "no hidden state for each subword from text alone",
}
BEGIN, END = "<!-- made by tests/test_walk.py -->\n", "<!-- end -->\n"
LARGEST = 5_000_000  # weights of a model that is tiny
# Settings that make a family tiny where SHAPE does not.
# fmt: off
TINY = {
    "albert": {"embedding_size": 16},
    "flaubert": {"emb_dim": 32, "n_layers": 3, "n_heads": 4},
    "funnel": {
        "block_sizes": [1, 1, 1], "num_hidden_layers": None, "d_model": 32, "n_head": 4, "d_head": 8,
        "architectures": ["FunnelModel"],
    },
    "longformer": {"attention_window": [8, 8, 8]},
    "luke": {"entity_vocab_size": 50, "entity_emb_size": 16},
    "megatron-bert": {"max_position_embeddings": 130},
    "mobilebert": {"embedding_size": 16, "intra_bottleneck_size": 32, "true_hidden_size": 32},
    "roc_bert": {"pronunciation_vocab_size": 20, "shape_vocab_size": 20},
    "squeezebert": {"embedding_size": 32},
    "xlm": {"emb_dim": 32, "n_layers": 3, "n_heads": 4},
    "xlnet": {"d_inner": 64, "d_head": 8, "max_position_embeddings": None},
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
    "yoso": {"num_hash": 4},
}
# fmt: on


def build(family, folder):
    """Write a tiny model of a family, of random weights; returns the folder, None where none of this size is built."""
    from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

    import training

    kind, differences = FAMILIES.get(family, ("unigram", {}))
    tokenizer, names = tokenizer_of(kind) if family in FAMILIES else (tokenizer_of("unigram")[0], NAMES)
    named = {name + "_token": token for name, token in names.items()}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=128, **named).save_pretrained(folder)
    sizes = {"vocab_size": tokenizer.get_vocab_size(), "max_position_embeddings": 130, **SHAPE}
    sizes["num_key_value_heads"] = 4
    sizes |= {f"{name}_token_id": tokenizer.token_to_id(token) for name, token in names.items()}
    sizes = {**sizes, **differences, **TINY.get(family, {})}
    for more in ({"head_dim": 8}, {}):
        try:
            settings = {name: value for name, value in {**sizes, **more}.items() if value is not None}
            config = AutoConfig.for_model(family, **settings)
            with torch.device("meta"):
                if sum(p.numel() for p in AutoModel.from_config(config).parameters()) > LARGEST:
                    return None
            torch.manual_seed(0)
            kinds = (training.auto_class_for(config, name) for name in ("PreTraining", "MaskedLM"))
            next(filter(None, kinds), AutoModel).from_config(config).save_pretrained(folder)
            return folder
        except Exception:  # each family has its own conditions
            continue
    return None


def walk(run, folder, data, output):  # noqa: F811
    """Return how each of STAGES ends for a model: 'yes', 'no' where it is refused in one line, else what went wrong;
    and the reason that all of them are refused for, or None."""
    pairs, ends, lines = data / "pairs.txt", {}, []
    tune = ["finetune_aligner", "--model", folder, "--train", pairs, "--output", output / "tuned", "--layer", "2"]
    tune += ["--max-steps", "2", "--batch-size", "4", "--objectives"]
    commands = {"align, so": [[*tune, "so,psi,contrast"]], "mlm": [[*tune, "mlm"]]}
    commands["align, so"] += [
        ["align", "--model", model, "--input", pairs, "--output", output / "links"]
        for model in (folder, output / "tuned")
    ]
    for stage, task in TASKS.items():
        commands[stage] = [[*script_of(task, data), "--model", folder, "--output", output / task]]
    for stage in STAGES:
        ends[stage] = "yes"
        for script, *options in commands[stage]:
            try:
                done = run(script, *options)
            except Exception as error:
                ends[stage] = f"{type(error).__name__}: {str(error)[-100:]}"
                break
            errors = [line for line in done.err.splitlines() if "error: " in line]
            if done.code == 2 and len(errors) == 1:
                ends[stage] = "no"
                lines += errors
                break
            if done.code or "Traceback" in done.err:
                ends[stage] = f"ends with {done.code}: {done.err[-100:]}"
        shutil.rmtree(output / "tuned", ignore_errors=True) if stage == "mlm" else None
        if stage in TASKS and ends[stage] == "yes":
            task = TASKS[stage]
            again, path = predict_again(task, output / task / "model", data), output / task
            if task == "xquad":
                same = again == json.loads((path / "dev-zh.json").read_text())
            else:
                read = read_tag_predictions if task == "udpos" else lambda file: open(file).read().split()
                same = again == read(str(path / "dev-zh.tsv"))
            ends[stage] = "yes" if same else "other predictions from the saved model"
    known = {next((said for what, said in REASONS.items() if what in line), "other") for line in lines} - {"other"}
    return ends, known.pop() if len(known) == 1 and set(ends.values()) == {"no"} else None


def documented():
    """The lines of the table in docs/experiment.md: {family: the rest of its line}."""
    with open(os.path.join(ROOT, "docs", "experiment.md"), encoding="utf-8") as stream:
        table = stream.read().split(BEGIN)[1].split(END)[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    return {family: rest for families, *rest in rows for family in re.findall(r"[\w-]+", families.replace("*", ""))}


def table(found):
    """The lines of the table. found: {family: the rest of its line}."""
    groups = collections.defaultdict(list)
    for family in sorted(found):
        groups[tuple(found[family])].append(family)
    rows = [["families", *STAGES], ["---"] * (1 + len(STAGES))]
    rows += [[", ".join(families), *rest] for rest, families in sorted(groups.items(), key=lambda row: -len(row[1]))]
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


@pytest.mark.skipif(not (WHOLE or os.environ.get("WALK")), reason="FULL=1 walks through a hundred families")
def test_every_family_ends_as_the_table_says(run, tmp_path, data):  # noqa: F811
    chosen, found = os.environ.get("WALK", "").split(), {}
    for family in chosen or sorted(MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES):
        folder = build(family, tmp_path / family)
        found[family] = ["not tried"] * len(STAGES)
        if folder:
            ends, reason = walk(run, folder, data, tmp_path / f"{family}-out")
            found[family] = [f"no: {reason}"] + ["no"] * (len(STAGES) - 1) if reason else [ends[s] for s in STAGES]
        shutil.rmtree(tmp_path / family, ignore_errors=True)
        shutil.rmtree(tmp_path / f"{family}-out", ignore_errors=True)
        if os.environ.get("WALK_LOG"):
            with open(os.environ["WALK_LOG"], "a") as log:
                log.write(f"{family}\t{found[family]}\n")
    wrong = {family: rest for family, rest in found.items() if documented().get(family) != rest}
    assert not wrong, "the table in docs/experiment.md should be:\n" + table({**documented(), **found})


@pytest.mark.parametrize("family", FEW)
def test_a_family_ends_as_the_table_says(run, tmp_path, data, family):  # noqa: F811
    ends, reason = walk(run, build(family, tmp_path / family), data, tmp_path / "out")
    assert documented()[family] == ([f"no: {reason}"] + ["no"] * 4 if reason else [ends[stage] for stage in STAGES])
