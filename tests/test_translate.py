"""translate.py: lines parallel to the input, each sentence translated once, long ones in parts, bad input one line."""

import json
import os
import re
from types import SimpleNamespace

import pytest
import torch
from conftest import SAMPLE, sample_words

import translate
from data.files import read_pairs, read_udpos, write_pairs, write_udpos
from data.words import split_text

TRAIN = os.path.join(SAMPLE, "udpos", "train-en.tsv")
SMALL = {"cpu": 512, "cuda": 512}  # a budget of a dozen batches
PAIRS = os.path.join(SAMPLE, "xnli", "train-en.tsv")


def save_copier(folder, size, ends=0.0):
    """A Marian folder of `size` subwords, </s> 0, <pad> the last, that copies its input; `ends` is added to </s>'s score.

    Its one cross-attention finds the place that it writes at, and takes the subword there; no other layer does anything.
    """
    from transformers import MarianConfig, MarianMTModel

    ids = {"pad_token_id": size - 1, "decoder_start_token_id": size - 1, "eos_token_id": 0, "forced_eos_token_id": 0}
    shape = {
        f"{side}_{name}": 1 for side in ("encoder", "decoder") for name in ("layers", "attention_heads", "ffn_dim")
    }
    model = MarianMTModel(MarianConfig(vocab_size=size, d_model=64, max_position_embeddings=64, **shape, **ids))
    place = model.model.encoder.embed_positions.weight.detach().clone()
    for name, parameter in model.named_parameters():
        if "norm" not in name and "embed_positions" not in name:
            torch.nn.init.zeros_(parameter)
    generator = torch.Generator().manual_seed(0)
    # Columns that tell places apart, and that hardly depend on them.
    fast, slow = [*range(16), *range(32, 48)], slice(20, 30)
    subword = model.model.shared.weight.data
    subword[:, slow] = torch.nn.functional.normalize(torch.randn(size, 10, generator=generator), dim=1)
    subword[:, 30], subword[:, 31] = 50.0, -50.0  # for all alike, so that layer normalisation divides all alike
    subwords, places = torch.randint(size, (4000,), generator=generator), torch.randint(64, (4000,), generator=generator)
    seen = torch.nn.functional.layer_norm(subword[subwords] + place[places], (64,))
    cross = model.model.decoder.layers[0].encoder_attn
    at, what = 10 * place[places][:, fast], 1000 * subword[subwords][:, slow]
    for projection, wanted in ((cross.q_proj, at), (cross.k_proj, at), (cross.v_proj, what)):
        projection.weight.data[: wanted.shape[1]] = torch.linalg.lstsq(seen, wanted, driver="gelsd").solution.T
    cross.out_proj.weight.data[slow, :10] = torch.eye(10)
    model.generation_config.num_beams = 3
    model.final_logits_bias[0, 0] = ends
    model.save_pretrained(folder)
    return str(folder)


def save_marian(folder, **settings):
    """save_copier with a tokenizer.json in place of sentencepiece's files, which takes another package to read.

    Its decoder writes `le` before every word, which makes a French of the copy: see french().
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = sorted({word for words, _ in read_udpos(TRAIN) for word in words})
    letters = sorted(set("".join(words) + "\u2581|"))
    scores = [
        ("</s>", 0.0),
        ("<unk>", 0.0),
        *((letter, -9.0) for letter in letters),
        *(("\u2581" + word, -5.0) for word in words),
    ]
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=1))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " le "), decoders.Fuse()])
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 0)])
    tokenizer.add_special_tokens(["</s>", "<unk>", "<pad>"])
    names = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=512, **names).save_pretrained(folder)
    return save_copier(folder, tokenizer.get_vocab_size(), **settings)


def french(text):
    """The words of save_marian's translation of a text."""
    return " ".join(split_text(" ".join("le " + word for word in text.split())))


@pytest.fixture(scope="module")
def marian(tmp_path_factory):
    return save_marian(tmp_path_factory.mktemp("marian"))


@pytest.fixture
def udpos(tmp_path):
    """A udpos file of 30 sentences, some of them twice."""
    sentences = read_udpos(TRAIN)
    write_udpos(str(tmp_path / "train-en.tsv"), sentences[:25] + sentences[10:15])
    return tmp_path / "train-en.tsv"


@pytest.fixture(autouse=True)
def one_thread():
    """As torchrun has it, so that sums are the same everywhere."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def batches(monkeypatch):
    """Batches of few sentences; a list of the sizes of those that were translated."""
    sizes, original = [], translate.translate_batch
    monkeypatch.setattr(translate, "BUDGET", SMALL)
    monkeypatch.setattr(translate, "translate_batch", lambda *given: sizes.append(len(given[2])) or original(*given))
    return sizes


def start(run, marian, task, source, output, *options):
    files = ["--input", source, "--output", output, "--model", marian]
    return run("translate", "--task", task, "--lang", "fr", "--precision", "f32", *files, *options)


def sides(path):
    return [line.split(" ||| ") for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    "words, text",
    [
        ("I do n't know , it 's Ann 's .", "I don't know, it's Ann's."),
        ('He said " no " ( twice ) : " Never ! "', 'He said "no" (twice): "Never!"'),
        ("the dogs ' food costs $ 5 , 50 % of it", "the dogs' food costs $5, 50% of it"),
        ("“ Well - known ” and / or 94 / 55 / EC - 3 ...", "“Well-known” and/or 94/55/EC - 3..."),
        ("' Yes ' , - - he said -", "'Yes', - - he said -"),
        ("-", "-"),
    ],
)
def test_words_of_a_treebank_become_natural_text(words, text):
    assert translate.natural_text(words.split()) == text


def test_natural_text_is_the_text_of_pud(shared):
    texts, words, same = [], [], 0
    with open(os.path.join(shared, "pud", "en_pud.conllu"), encoding="utf-8") as stream:
        for line in stream:
            if line.startswith("# text = "):
                texts.append(line[9:].strip())
            elif line[0].isdigit() and line.split("\t")[0].isdigit():
                words.append(line.split("\t")[1])
            elif not line.strip():
                same, words = same + (translate.natural_text(words) == texts[-1]), []
    assert len(texts) == 1000 and same > 970


def test_lines_are_parallel_and_hold_what_the_model_makes_of_each_sentence(run, tmp_path, marian, udpos, batches):
    done = start(run, marian, "udpos", udpos, tmp_path / "new" / "out")
    assert done.code == 0, done.err
    sentences = [words for words, _ in read_udpos(str(udpos))]
    english, made = zip(*sides(tmp_path / "new" / "out"))
    assert list(english) == [" ".join(words) for words in sentences]
    assert list(made) == [french(translate.natural_text(words)) for words in sentences]
    assert len(batches) > 5 and os.listdir(tmp_path / "new") == ["out"]


def test_of_pairs_every_sentence_has_its_line_and_each_distinct_one_is_translated_once(run, tmp_path, marian, batches):
    rows = read_pairs(PAIRS, "xnli")[:15]
    known = {letter for words, _ in read_udpos(TRAIN) for letter in "".join(words)}
    rows = [row for row in rows if set("".join(row[:2])) <= known | {" "}]
    assert len(rows) > 10
    write_pairs(str(tmp_path / "pairs"), rows + rows[:4])
    done = start(run, marian, "xnli", tmp_path / "pairs", tmp_path / "out")
    assert done.code == 0, done.err
    texts = [text for row in rows + rows[:4] for text in row[:2]]
    lines = sides(tmp_path / "out")
    assert [words for words, _ in lines] == [" ".join(split_text(text)) for text in texts]
    assert [words for _, words in lines] == [french(text) for text in texts]
    _, tokenizer = translate.load_translator(marian)
    assert sum(batches) == sum(len(translate.encode(tokenizer, text, "", 21)) for text in set(texts))


def test_text_keeps_blank_lines_and_bars_never_end_a_side(run, tmp_path, marian):
    (tmp_path / "in").write_text("A dog.\r\n\n a ||| b ||||| c\nA dog.")
    assert start(run, marian, "text", tmp_path / "in", tmp_path / "out").code == 0
    lines = (tmp_path / "out").read_text().split("\n")
    assert [line.split(" ||| ")[0] for line in lines] == ["A dog .", "", "a | b | c", "A dog .", ""]
    assert lines[0] == lines[3] == "A dog . ||| le A le dog ." and lines[1] == " ||| "
    assert lines[2] == "a | b | c ||| le a le | le b le | le c"
    write_udpos(str(tmp_path / "in"), [(["a", "|||||", "b"], ["X"] * 3)])
    assert start(run, marian, "udpos", tmp_path / "in", tmp_path / "out").code == 0
    assert (tmp_path / "out").read_text().startswith("a | b ||| ")


def test_long_sentences_are_translated_in_parts_that_leave_nothing_out(run, tmp_path, marian):
    _, tokenizer = translate.load_translator(marian)
    words, word = " ".join(f"bread{'e' * (k % 3)}" for k in range(70)), "bread" * 30
    for text in (words, word):
        parts = translate.encode(tokenizer, text, "", 21)
        assert len(parts) > 4 and all(3 < len(ids) <= 21 and ids[-1] == 0 for ids in parts)
    (tmp_path / "long").write_text(f"{words}\nbread\n{word}\n")
    done = start(run, marian, "text", tmp_path / "long", tmp_path / "out")
    assert done.code == 0 and "2 sentences have more than 21 subwords and were translated in parts" in done.err
    made = [words for _, words in sides(tmp_path / "out")]
    assert made[:2] == [french(words), "le bread"] and made[2].replace("le", "").replace(" ", "") == word


def test_empty_translations_are_told_of(run, tmp_path, udpos):
    silent = save_marian(tmp_path / "model", ends=1e4)
    done = start(run, silent, "udpos", udpos, tmp_path / "out")
    assert done.code == 0 and "30 lines have an empty right side" in done.err
    assert all(made == "" for _, made in sides(tmp_path / "out"))


def test_a_model_that_never_ends_is_stopped_and_told_of(run, tmp_path):
    endless = save_marian(tmp_path / "model", ends=-1e4)
    (tmp_path / "in").write_text("bread\nbread bread\n")
    done = start(run, endless, "text", tmp_path / "in", tmp_path / "out")
    assert done.code == 0 and "2 translations have as many subwords as they may" in done.err
    assert all(20 < len(made.replace("le ", "").split()) <= 26 for _, made in sides(tmp_path / "out"))


def test_the_target_language_of_a_model_of_several_is_named():
    several = SimpleNamespace(get_vocab=lambda: {">>cmn_Hans<<": 5, ">>fr<<": 6, "a": 7})
    assert translate.target_code("m", several, "zh", None) == ">>cmn_Hans<< "
    assert translate.target_code("m", several, "fr", None) == ">>fr<< "
    assert translate.target_code("m", several, "de", "fr") == ">>fr<< "
    with pytest.raises(translate.InputError, match="--lang de: m has no target language .* one of cmn_Hans fr$"):
        translate.target_code("m", several, "de", None)


POS = "I\tPRON\nsee\tVERB\n"
CASES = [
    ("udpos", "", [], "in: no sentences"),
    ("udpos", "I\tPRON\nsee\n", [], "in:2: 1 columns; expected word<TAB>TAG"),
    ("udpos", "I\tPRON\nsee\tWERB\n", [], "in:2: unknown tag 'WERB'"),
    ("udpos", b"\xff\tX\n", [], "in:1: byte 0xff"),
    ("xnli", "A dog.\tIt barks.\tneutral\nA dog.\n", [], "in:2: 1 columns; expected sentence1<TAB>sentence2<TAB>label"),
    ("pawsx", "A dog.\tIt barks.\tneutral\n", [], "in:1: unknown label 'neutral'"),
    ("text", "", [], "in: no sentences"),
    ("text", b"A dog.\n\xc3\n", [], "in:2: byte 0xc3"),
    ("udpos", POS, ["--input", "nowhere"], "nowhere: cannot be read"),
    ("udpos", POS, ["--output", "in/x"], "in/x: cannot be written"),
    ("udpos", POS, ["--beams", "0"], "not a whole number of 1 or more"),
    ("udpos", POS, ["--code", "fra"], "--code fra: MODEL has no target language of this name"),
    ("udpos", POS, ["--model", "./nowhere"], "./nowhere: no such model folder; expected a Marian folder"),
    ("udpos", POS, ["--model", "bert"], "bert: is a model of type bert; expected a Marian folder"),
    ("udpos", POS, ["--model", "broken"], "broken: cannot be loaded as a model"),
    ("udpos", POS, ["--model", "unpacked"], "unpacked: cannot be loaded as a model"),
]


@pytest.mark.parametrize("task, content, options, expected", CASES, ids=[case[3][:50] for case in CASES])
def test_bad_input_ends_in_one_line_and_leaves_nothing(
    run, tmp_path, monkeypatch, marian, task, content, options, expected
):
    monkeypatch.chdir(tmp_path)
    os.symlink(marian, "MODEL")
    (tmp_path / "in").write_bytes(content if isinstance(content, bytes) else content.encode())
    for name, config in (("bert", '{"model_type": "bert"}'), ("broken", "{"), ("unpacked", '{"model_type": "marian"}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(config)
    before = sorted(os.listdir())
    done = start(run, "MODEL", task, "in", "out/x", *options)
    assert done.code == 2 and expected in done.err and len(done.err.strip().splitlines()) == 1, done.err
    assert sorted(os.listdir()) == before and done.out == ""


def test_a_folder_of_sentencepiece_files_is_translated_with(run, tmp_path, udpos):
    """The files that OPUS-MT's folders hold, with a language code as in the models of several languages."""
    sentencepiece = pytest.importorskip("sentencepiece")
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "words").write_text("\n".join(sample_words()), encoding="utf-8")
    for side in ("source", "target"):
        settings = {"vocab_size": 1200, "character_coverage": 1.0, "minloglevel": 2}
        sentencepiece.SentencePieceTrainer.train(
            input=str(tmp_path / "words"), model_prefix=str(folder / side), **settings
        )
        os.rename(folder / f"{side}.model", folder / f"{side}.spm")
    spm = sentencepiece.SentencePieceProcessor(model_file=str(folder / "source.spm"))
    found = [spm.id_to_piece(k) for k in range(len(spm))]
    others = (subword for subword in found if not re.fullmatch("</?s>|<unk>", subword))
    subwords = ["</s>", "<unk>", ">>fr<<", ">>cmn_Hans<<", *others, "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({subword: k for k, subword in enumerate(subwords)}))
    (folder / "tokenizer_config.json").write_text('{"source_lang": "eng", "target_lang": "fra"}')
    save_copier(folder, len(subwords))

    sentences = [translate.natural_text(words) for words, _ in read_udpos(str(udpos))]
    for lang, code in (("fr", ">>fr<<"), ("zh", ">>cmn_Hans<<")):
        done = start(run, folder, "udpos", udpos, tmp_path / lang, "--lang", lang)
        assert done.code == 0, done.err
        made = [words for _, words in sides(tmp_path / lang)]
        mark = " ".join(split_text(code)) + " "
        assert all(
            words.startswith(mark) for words in made
        )  # the copy shows what the model was given: the code, the words
        assert [words.replace(mark, "") for words in made] == [" ".join(split_text(text)) for text in sentences]


def test_text_that_looks_like_a_code_or_a_special_subword_stays_text(run, tmp_path):
    """Marian's own tokenizer takes `>> ... <<` at the start for the code of a language, one unknown subword."""
    spm = pytest.importorskip("sentencepiece")
    from transformers import MarianTokenizer

    words = ">> x << the end of this ship fra cout </s> <pad>".split()
    (tmp_path / "corpus").write_text("\n".join([" ".join(words[:-2])] * 60))
    settings = {"vocab_size": 40, "hard_vocab_limit": False, "minloglevel": 2}
    spm.SentencePieceTrainer.train(input=str(tmp_path / "corpus"), model_prefix=str(tmp_path / "source"), **settings)
    model = spm.SentencePieceProcessor(model_file=str(tmp_path / "source.model"))
    pieces = ["</s>", "<unk>", *(model.id_to_piece(n) for n in range(3, len(model))), ">>fra<<", ">>deu<<", "<pad>"]
    (tmp_path / "vocab.json").write_text(json.dumps({piece: n for n, piece in enumerate(pieces)}))
    for side in ("source", "target"):
        (tmp_path / f"{side}.spm").write_bytes((tmp_path / "source.model").read_bytes())
    tokenizer = MarianTokenizer.from_pretrained(tmp_path)
    [end] = translate.encode(tokenizer, "the end .", "", 64)
    for code in ("", ">>fra<< "):
        for start in (">> x <<", ">> this ship <<", ">>fra<<", "</s>", "<pad>", "x <<"):
            [ids] = translate.encode(tokenizer, f"{start} the end .", code, 64)
            made = tokenizer.convert_ids_to_tokens(ids.tolist())
            assert made[0] == ">>fra<<" if code else made[0].startswith("▁"), made
            text = "".join(made[bool(code) : -1]).replace("▁", " ").replace("<unk>", "?").strip()
            assert text.replace(" ", "").endswith("theend?") and len(text) > len(" the end .") + 2, made
            assert not {"</s>", "<pad>"} & set(made[:-1]), made
        [ids] = translate.encode(tokenizer, "the end .", code, 64)
        assert ids[bool(code) :].tolist() == end.tolist()
