"""Published tokenizers take the place of our own pieces, and our own pieces become a published tokenizer."""

import itertools
import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from d2v_core.errors import UserError
from stages import readers, tokenizer, vocabulary
from stages.symbols import read_symbols
from tests.stages.test_prepare import rows
from tests.tiny import SENTENCE

SIZE = 320
FOLDER = Path("data/vocabulary/text")
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]


def train_bytes(folder: Path, special: list[str] | None = None) -> Path:
    """Train byte-level pieces on one sentence and save them as RoBERTa's tokenizer is: vocab.json and merges.txt."""
    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE - 1, special_tokens=special or SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    pieces.train_from_iterator([SENTENCE, SENTENCE.title()], trainer)
    folder.mkdir(parents=True)
    pieces.model.save(str(folder))
    numbers = json.loads((folder / "vocab.json").read_text())
    (folder / "vocab.json").write_text(json.dumps(numbers | {"<mask>": len(numbers)}))
    return folder


@pytest.fixture
def published(project):
    """A project whose text uses byte-level pieces."""
    path = train_bytes(project.folder / "roberta")
    size = len(json.loads((path / "vocab.json").read_text()))
    project.set(modalities__text__vocabulary={"kind": "tokenizer", "path": "roberta"})
    project.set(modalities__text__table__vocabulary=size)
    project.write("text")
    return project


def test_byte_level_pieces_make_a_table_that_spells_the_text(published):
    published.done("vocabulary", "text")
    published.done("prepare", "text")
    symbols = read_symbols("text")
    assert (symbols[:4], symbols[-1]) == (SPECIAL, "<mask>")
    found = [row["tokens"].tolist() for row in rows("text") if row["id"] == "train/0"]
    ids = [token for block in found for token in block[1:]]
    assert all(block[0] == 0 for block in found)
    reader, ends = tokenizer.load(FOLDER / "tokenizer.json"), [-1, *np.flatnonzero(np.array(ids) == 2)]
    paragraphs = [reader.decode(ids[start + 1 : end]) for start, end in itertools.pairwise(ends)]
    assert paragraphs == Path("data/raw/text/train/0.txt").read_text().strip().split("\n\n")


def test_any_text_survives_byte_level_pieces(published):
    published.done("vocabulary", "text")
    pieces = tokenizer.load(FOLDER / "tokenizer.json")

    @settings(max_examples=50)
    @given(st.text(st.characters(codec="utf-8")) | st.sampled_from(["<s>", "a <mask> b", "</s><pad>", "ÄÖ漢😀"]))
    def survives(text):
        (ids,) = readers.encode([text], FOLDER)
        assert all(token >= 4 and token < pieces.get_vocab_size() - 1 for token in ids)  # no special one
        assert pieces.decode(ids) == text

    survives()


def test_byte_level_pieces_are_those_of_roberta(published, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    transformers = pytest.importorskip("transformers", reason="the real classes come with the extra `dev`")
    published.done("vocabulary", "text")
    roberta = transformers.RobertaTokenizer.from_pretrained("roberta")
    for text in (SENTENCE, SENTENCE.title(), " The  cat's\nhill,1234 ÄÖ漢😀 don't "):
        assert roberta(text)["input_ids"] == [0, *readers.encode([text], FOLDER)[0], 2]


def test_a_tokenizer_file_and_the_pair_it_came_from_cut_alike(published):
    published.done("vocabulary", "text")
    first = readers.encode([SENTENCE], FOLDER)
    (published.folder / "one.json").write_bytes((FOLDER / "tokenizer.json").read_bytes())
    published.set(modalities__text__vocabulary__path="one.json")
    published.done("vocabulary", "text")
    assert readers.encode([SENTENCE], FOLDER) == first


def test_a_file_that_cuts_off_and_pads_does_neither_here(published):
    published.done("vocabulary", "text")
    pieces = tokenizer.load(FOLDER / "tokenizer.json")
    pieces.enable_truncation(4)
    pieces.enable_padding(length=9)
    pieces.save("roberta/tokenizer.json")
    published.done("vocabulary", "text")
    assert len(readers.encode([SENTENCE], FOLDER)[0]) > 9
    assert len(readers.encode(["a"], FOLDER)[0]) == 1


def test_sentences_are_cut_to_a_row(published):
    published.done("vocabulary", "text")
    ids = readers.encode_sentence(SENTENCE, 8, FOLDER)
    assert len(ids) == 7
    assert ids[-1] == 2


def test_other_numbers_of_special_symbols_are_one_sentence(published):
    train_bytes(published.folder / "bert", ["<pad>", "<s>", "</s>", "<unk>"])
    published.set(modalities__text__vocabulary__path="bert")
    assert "bert must number <s>, <pad>, </s>, <unk> from 0 and <mask> last" in published.refused("vocabulary", "text")
    assert not FOLDER.exists()


def test_another_size_is_one_sentence(published):
    published.set(modalities__text__table__vocabulary=99)
    assert "set table.vocabulary to that, it is 99" in published.refused("vocabulary", "text")


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("none", None, "none holds neither tokenizer.json nor vocab.json and merges.txt"),
        ("bad.json", "{}", "bad.json is not a tokenizer"),
    ],
)
def test_what_is_no_tokenizer_is_one_sentence(published, name, content, sentence):
    if content is not None:
        Path(name).write_text(content)
    published.set(modalities__text__vocabulary__path=name)
    assert sentence in published.refused("vocabulary", "text")


def test_a_damaged_pair_is_one_sentence(published):
    Path("roberta/merges.txt").write_text("one two three four\n")
    with pytest.raises(UserError, match="no byte-level pieces"):
        vocabulary.main("text")


@pytest.mark.parametrize("block", [{"kind": "tokenizer"}, {"kind": "pieces", "path": "roberta"}])
def test_a_path_belongs_to_a_tokenizer(published, block):
    published.set(modalities__text__vocabulary=block)
    assert "vocabulary.path must be given for a tokenizer" in published.refused("vocabulary", "text")


@pytest.mark.parametrize("lowercase", [True, False])
def test_our_pieces_as_a_tokenizer_cut_every_sentence_alike(project, lowercase):
    project.set(modalities__text__vocabulary__lowercase=lowercase)
    project.write("text")
    project.done("vocabulary", "text")
    pieces = readers.pieces(FOLDER)
    theirs = Tokenizer.from_str(tokenizer.from_pieces(FOLDER / "pieces.model"))
    draw = random.Random(0)
    signs = [*"abcdefghiABCDEF'-.,?  \t\n\u00a0\u200b", *"éßÄ½①ﬁ…“”жщ漢字😀▁", "e\u0301", "  "]
    texts = ["".join(draw.choice(signs) for _ in range(draw.randint(0, 40))) for _ in range(2000)]
    texts += [" ".join(draw.choice(SENTENCE.split()) for _ in range(30)) for _ in range(200)]
    assert any(3 in pieces.encode(text) for text in texts)
    for text in texts:
        assert theirs.encode(text, add_special_tokens=False).ids == pieces.encode(text), text
    begin, end = 0, 2
    assert theirs.encode("a cat").ids == [begin, *pieces.encode("a cat"), end]
    pair = [begin, *pieces.encode("a cat"), end, end, *pieces.encode("sat"), end]
    assert theirs.encode("a cat", "sat").ids == pair
    assert theirs.token_to_id("<mask>") == pieces.get_piece_size()
    assert theirs.decode(theirs.encode("the cat sat").ids) == "the cat sat"
