"""Vocabularies come from the training split alone, with the special symbols where the models expect them."""

from pathlib import Path

import pytest
from sentencepiece import SentencePieceProcessor

from d2v_core.errors import UserError
from d2v_core.modalities import text
from stages import vocabulary
from stages.symbols import read_symbols
from tests.tiny import contents, words, write_audio


def symbols(name: str) -> list[str]:
    vocabulary.main(name)
    return read_symbols(name)


def test_letters_follow_the_special_symbols_the_most_frequent_first(project):
    root = project.folder / "data/raw/speech"
    for split, transcript in (("train", "BAB'S CAB"), ("dev", "XX"), ("test", "YY")):
        write_audio(root / f"{split}/1/2/1-2-{split}.wav", 0.3)
        (root / f"{split}/1/2/1-2.trans.txt").write_text(f"1-2-{split} {transcript}\n")
    assert symbols("speech") == ["<s>", "<pad>", "</s>", "<unk>", "|", "B", "A", "'", "C", "S"]


def test_speech_without_transcripts_has_the_special_symbols_alone(project):
    write_audio(project.folder / "data/raw/speech/train/1/2/1-2-0.wav", 0.3)
    write_audio(project.folder / "data/raw/speech/train/2/2/2-2-0.wav", 0.3)
    write_audio(project.folder / "data/raw/speech/train/3/2/3-2-0.wav", 0.3)
    assert symbols("speech") == vocabulary.SPECIAL


def test_a_modality_without_symbols_needs_no_corpus(project):
    assert symbols("vision") == []


def test_pieces_are_as_many_as_asked_for_with_the_mask_last(project):
    project.write("text")
    found = symbols("text")
    size = project.params["modalities"]["text"]["table"]["vocabulary"]
    assert len(found) == len(set(found)) == size
    assert [found[number] for number in (text.BEGIN, text.PAD, text.END, text.UNKNOWN)] == [
        "<s>",
        "<pad>",
        "</s>",
        "<unk>",
    ]
    assert found[-1] == "<mask>"
    model = SentencePieceProcessor(model_file="data/vocabulary/text/pieces.model")
    assert found[:-1] == [model.id_to_piece(number) for number in range(model.get_piece_size())]
    assert model.get_piece_size() == size - 1


def test_pieces_come_from_the_training_split_alone(project):
    root = project.write("text")
    before = symbols("text")
    (root / "dev/0.txt").write_text("жжж " * 100)
    (root / "test/0.txt").write_text("щщщ " * 100)
    assert symbols("text") == before
    (root / "train/0.txt").write_text("жжж " * 100)
    assert symbols("text") != before


@pytest.mark.parametrize("lowercase", [True, False])
def test_pieces_are_lowercase_when_asked_for(project, lowercase):
    root = project.write("text")
    for path in root.rglob("*.txt"):
        path.write_text(path.read_text().title())
    project.set(modalities__text__vocabulary__lowercase=lowercase)
    assert ("".join(symbols("text")).islower()) == lowercase


def test_every_run_gives_the_same_bytes(project):
    project.write("text")
    vocabulary.main("text")
    before = contents(Path("data/vocabulary"))
    vocabulary.main("text")
    assert contents(Path("data/vocabulary")) == before


def test_a_document_without_line_breaks_is_learnt_from_too(project):
    root = project.write("text")
    (root / "train/0.txt").write_text(" ".join(words(number) for number in range(300)) + " жук" * 100)
    assert set("жук") <= set("".join(symbols("text")))


def test_sentences_in_a_table_give_pieces_too(project):
    project.write("topics")
    project.set(modalities__text__corpus=project.params["labelled"]["topics"]["corpus"])
    project.set(modalities__text__table__vocabulary=34)
    assert len(symbols("text")) == 34


@pytest.mark.parametrize(("size", "reason"), [(2000, "Vocabulary size too high"), (6, "smaller than required_chars")])
def test_a_size_that_the_text_does_not_allow_is_one_sentence(project, size, reason):
    project.write("text")
    project.set(modalities__text__table__vocabulary=size)
    with pytest.raises(UserError, match=rf"no vocabulary of {size - 1} pieces .*{reason}.*change table.vocabulary\.$"):
        vocabulary.main("text")
    assert not Path("data/vocabulary/text").exists()
    assert not project.unfinished


def test_a_corpus_without_a_word_is_one_sentence(project):
    root = project.write("text")
    for path in (root / "train").glob("*.txt"):
        path.write_text("\n")
    with pytest.raises(UserError, match="there is no text"):
        vocabulary.main("text")
