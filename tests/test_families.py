"""Every family of encoders goes through the scripts; layers, embedding rows and heads are what transformers says they
are."""

import json
import os

import pytest
import torch
from conftest import SAMPLE
from families import FAMILIES, build_family

import common
import finetune_aligner
from data.files import read_pairs, read_parallel, read_udpos, write_pairs, write_udpos
from evaluation.runs import read_tag_predictions

THROUGH_SCRIPTS = [
    "bert", "distilbert", "electra", "xlm-roberta", "camembert", "deberta-v2", "modernbert", "rembert",
]  # fmt: skip


@pytest.fixture(scope="session")
def family_folder(tmp_path_factory):
    """family_folder('bert'): the folder of that tiny model, made once."""
    made = {}

    def folder(family):
        if family not in made:
            made[family] = build_family(family, tmp_path_factory.mktemp("families") / family)
        return made[family]

    return folder


def batch(tokenizer, config):
    """ids and mask of two sentences of unlike length."""
    made = [[*range(5, 12)], [*range(20, 24)]]
    ids = common.pad(made, tokenizer.pad_token_id)
    return ids, (torch.arange(ids.shape[1])[None] < torch.tensor([[len(one)] for one in made])).long()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cut_encoder_gives_the_hidden_state_of_its_layer(family_folder, family):
    folder = family_folder(family)
    tokenizer, whole = common.load_tokenizer(folder), common.load_encoder(folder)
    ids, mask = batch(tokenizer, whole.config)
    layers = common.find_layers(folder, whole)
    assert layers[0] and bool(layers[1]) == (family in ("modernbert", "eurobert", "xlm-roberta-xl", "roberta-prelayernorm"))
    with torch.inference_mode():
        states = whole(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
        for depth in (1, 2, 3):
            cut = common.load_encoder(folder, depth)
            found = cut(input_ids=ids, attention_mask=mask).last_hidden_state
            assert torch.allclose(found[mask.bool()], states[depth][mask.bool()], atol=1e-5), depth
            assert sum(p.numel() for p in cut.parameters()) < sum(p.numel() for p in whole.parameters()) or depth == 3
            undo = common.cut_layers(whole, depth, layers)
            inside = whole(input_ids=ids, attention_mask=mask).last_hidden_state
            undo()
            assert torch.allclose(inside[mask.bool()], states[depth][mask.bool()], atol=1e-5), depth
        after = whole(input_ids=ids, attention_mask=mask).last_hidden_state
    assert torch.equal(after, states[3])


@pytest.mark.parametrize("family", FAMILIES)
def test_trimmed_embeddings_compute_the_same(family_folder, family):
    folder = family_folder(family)
    tokenizer, encoder = common.load_tokenizer(folder), common.load_encoder(folder)
    ids, mask = batch(tokenizer, encoder.config)
    with torch.inference_mode():
        before = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        new_id = common.trim_embeddings(encoder, ids.flatten().tolist())
        rows = encoder.get_input_embeddings().weight
        after = encoder(input_ids=torch.from_numpy(new_id)[ids], attention_mask=mask).last_hidden_state
    assert len(rows) < 20 and torch.allclose(before[mask.bool()], after[mask.bool()], atol=1e-6)


def test_another_pad_id_moves_the_positions(tmp_path):
    """As in an XLM-R trained with a vocabulary of one's own."""
    folder = build_family("xlm-roberta", tmp_path / "model")
    path = os.path.join(folder, "config.json")
    config = {**json.load(open(path)), "pad_token_id": 7}
    json.dump(config, open(path, "w"))
    tokenizer, encoder = common.load_tokenizer(folder), common.load_encoder(folder)
    assert common.subword_limit(tokenizer, encoder.config) == 130 - 8
    ids = torch.tensor([[0, 30, 31, 2, 7, 7]])
    with torch.inference_mode():
        before = encoder(input_ids=ids, attention_mask=ids != 7).last_hidden_state
        new_id = torch.from_numpy(common.trim_embeddings(encoder, [0, 30, 31, 2, 7]))
        after = encoder(input_ids=new_id[ids], attention_mask=ids != 7).last_hidden_state
    assert new_id[7] == 7 and torch.allclose(before[:, :4], after[:, :4], atol=1e-6)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "electra"])
def test_a_head_on_given_states_scores_as_the_whole_model(family_folder, family):
    """The masked-language-model head, for the subwords that are asked for alone. ELECTRA's checkpoints have none."""
    folder = family_folder(family)
    tokenizer, (whole, missing) = common.load_tokenizer(folder), finetune_aligner.load_whole(folder, masked=True)
    assert not [key for key in missing if "pooler" not in key]
    ids, mask = batch(tokenizer, whole.config)
    with torch.inference_mode():
        expected = whole(input_ids=ids, attention_mask=mask).logits[mask.bool()]
        states = whole.base_model(input_ids=ids, attention_mask=mask).last_hidden_state[mask.bool()]
        assert torch.allclose(finetune_aligner.apply_head(whole, states), expected, atol=1e-5)


def test_words_given_one_by_one_get_the_space_before_them(family_folder):
    """Byte-level tokenizers know a word's beginning by it: the subwords are those of the sentence as a text."""
    for family in ("camembert", "xlm-roberta", "distilbert"):
        tokenizer = common.load_tokenizer(family_folder(family))
        words = "the people of the world were in the house".split()
        [(ids, owner)] = common.words_to_subwords(tokenizer, [words])
        text = " " + " ".join(words)
        assert list(ids) == tokenizer(text, add_special_tokens=False)["input_ids"]
        assert sorted(set(owner)) == list(range(9))


def test_special_subwords_in_a_text_stay_text(family_folder):
    for family in ("camembert", "xlm-roberta", "distilbert"):
        tokenizer = common.load_tokenizer(family_folder(family))
        special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
        words = ["</s>", "a<pad>b", "[SEP]", "<mask>", "the"]
        [(ids, owner)] = common.words_to_subwords(tokenizer, [words])
        assert not special & set(ids) and len(ids) == len(owner) and sorted(set(owner)) == list(range(5))
        [ids] = common.texts_to_subwords(tokenizer, [" ".join(words)])
        assert not special & set(ids)


# ---- through the scripts -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with a few examples of every task."""
    folder = tmp_path_factory.mktemp("data")
    for name, count in (("train-en", 12), ("dev-zh", 6)):
        sentences = read_udpos(os.path.join(SAMPLE, "udpos", f"{name}.tsv"))[:count]
        write_udpos(str(folder / "udpos" / f"{name}.tsv"), sentences)
        rows = read_pairs(os.path.join(SAMPLE, "xnli", f"{name}.tsv"), "xnli")[:count]
        write_pairs(str(folder / "xnli" / f"{name}.tsv"), rows)
    (folder / "xquad").mkdir()
    for source, name in (("squad/train-v1.1", "train-en"), ("xquad/xquad.zh", "dev-zh")):
        with open(os.path.join(SAMPLE, f"{source}.json"), encoding="utf-8") as stream:
            document = json.load(stream)
        document["data"] = document["data"][:1]
        document["data"][0]["paragraphs"] = document["data"][0]["paragraphs"][:1]
        (folder / "xquad" / f"{name}.json").write_text(json.dumps(document), encoding="utf-8")
    pairs = list(read_parallel(os.path.join(SAMPLE, "udpos", "train-en-zh.txt")))[:12]
    (folder / "pairs.txt").write_text("".join(f"{' '.join(one)} ||| {' '.join(two)}\n" for one, two in pairs))
    return folder


def script_of(task, data):
    """The command of a train script, without its model and output."""
    kind = "json" if task == "xquad" else "tsv"
    options = ["--train", data / task / f"train-en.{kind}", "--data-dir", data / task]
    options += ["--epochs", "2", "--batch-size", "4", "--lr", "1e-3", "--precision", "f32", "--save", "--max-dev", "6"]
    return ["train_pos", *options] if task == "udpos" else [
        "train_qa" if task == "xquad" else "train_xnli", "--task", task, *options,
    ]  # fmt: skip


def predict_again(task, folder, data):
    """What transformers' own classes predict with a saved model, by our batches of its tokenizer's subwords."""
    import transformers

    import train_pos
    import train_qa
    import train_xnli
    from data.squad import read_squad

    kind = {"udpos": "TokenClassification", "xnli": "SequenceClassification", "xquad": "QuestionAnswering"}[task]
    model = getattr(transformers, f"AutoModelFor{kind}").from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    pad_id = tokenizer.pad_token_id
    if task == "udpos":
        sentences = [words for words, _ in read_udpos(str(data / task / "dev-zh.tsv"))]
        items = train_pos.segments(tokenizer, sentences, 128, "content")
        return train_pos.predict(model, items, len(sentences), pad_id, "f32")
    if task == "xnli":
        inputs = train_xnli.read_inputs(str(data / task / "dev-zh.tsv"), task, tokenizer, 128)
        return [model.config.id2label[n] for n in train_xnli.predict(model, inputs, pad_id, "f32")]
    paragraphs = train_qa.first_questions(read_squad(str(data / task / "dev-zh.json")), 6)
    windows, _ = train_qa.make_windows(tokenizer, paragraphs, 128)
    return train_qa.predict(model, windows, paragraphs, pad_id, "f32")


@pytest.mark.parametrize("task", ["udpos", "xnli", "xquad"])
@pytest.mark.parametrize("family", THROUGH_SCRIPTS)
def test_a_family_is_trained_saved_and_loaded_again(run, tmp_path, family_folder, data, family, task):
    done = run(*script_of(task, data), "--model", family_folder(family), "--output", tmp_path / "run")
    assert done.code == 0, done.err
    found = predict_again(task, tmp_path / "run" / "model", data)
    if task == "udpos":
        assert found == read_tag_predictions(str(tmp_path / "run" / "dev-zh.tsv"))
    elif task == "xnli":
        assert found == (tmp_path / "run" / "dev-zh.tsv").read_text().split()
    else:
        assert found == json.loads((tmp_path / "run" / "dev-zh.json").read_text())


@pytest.mark.parametrize("family", THROUGH_SCRIPTS)
def test_a_family_is_tuned_and_aligns(run, tmp_path, family_folder, data, family):
    options = ["--train", data / "pairs.txt", "--output", tmp_path / "tuned", "--max-steps", "2", "--batch-size", "4"]
    objectives = "so,psi" if family == "electra" else "so,psi,mlm"
    done = run("finetune_aligner", "--model", family_folder(family), *options, "--objectives", objectives)
    assert done.code == 0, done.err
    for model in (family_folder(family), tmp_path / "tuned"):
        done = run("align", "--model", model, "--input", data / "pairs.txt", "--output", tmp_path / "links")
        assert done.code == 0, done.err
        assert len((tmp_path / "links").read_text().splitlines()) == 12


@pytest.mark.parametrize("family, task", [("gte", "xquad"), ("eurobert", "xquad")])
def test_a_head_that_transformers_lacks_is_said_before_the_first_step(run, tmp_path, family_folder, data, family, task):
    done = run(*script_of(task, data), "--model", family_folder(family), "--output", tmp_path / "run")
    assert done.code == 2 and done.err.count("\n") == 1 and "has no model of type" in done.err
    assert not (tmp_path / "run").exists()
