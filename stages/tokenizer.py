"""Files ``tokenizer.json``: published ones, checked against our numbering, and our sentencepiece models as one.

Published text models use byte-level pieces (reference 4.1), which are such a file or a ``vocab.json`` with a
``merges.txt``. The library ``tokenizers`` applies them all.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from d2v_core.errors import UserError

FILE, PAIR = "tokenizer.json", ("vocab.json", "merges.txt")
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]  # by number; <mask> is the last one
MASK = "<mask>"
NORMALIZER, CHARACTER_MAP = 3, 2  # fields of sentencepiece's ModelProto and NormalizerSpec


def copy(source: Path, target: Path, size: int) -> list[str]:
    """Write the tokenizer at ``source``, a file or a folder, to ``target`` and return its ``size`` symbols by number.

    Raises UserError when there is none or when its special symbols are not numbered like ours.
    """
    tokenizer = load_published(source)
    numbers = tokenizer.get_vocab(with_added_tokens=True)
    symbols = sorted(numbers, key=numbers.__getitem__)
    if sorted(numbers.values()) != list(range(len(symbols))) or symbols[:4] != SPECIAL or symbols[-1] != MASK:
        raise UserError(f"{source} must number {', '.join(SPECIAL)} from 0 and {MASK} last; use another tokenizer.")
    if len(symbols) != size:
        raise UserError(f"{source} has {len(symbols)} symbols; set table.vocabulary to that, it is {size}.")
    tokenizer.save(str(target))
    return symbols


def load_published(source: Path) -> Any:
    """Return the tokenizer in a file or a folder: tokenizer.json, else byte-level pieces (vocab.json, merges.txt)."""
    if source.is_file() or (source / FILE).is_file():
        return load(source if source.is_file() else source / FILE)
    vocabulary, merges = (source / name for name in PAIR)
    if not (vocabulary.is_file() and merges.is_file()):
        raise UserError(f"{source} holds neither {FILE} nor {' and '.join(PAIR)}; give the folder of a tokenizer.")
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    try:
        tokenizer = Tokenizer(models.BPE.from_file(str(vocabulary), str(merges)))
    except Exception as error:
        raise UserError(f"{source} holds no byte-level pieces ({error}); fetch it again.") from None
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    tokenizer.add_special_tokens([*SPECIAL, AddedToken(MASK, lstrip=True, special=True)])
    return tokenizer


def load(path: Path) -> Any:
    """Return the tokenizer in a file, which takes names of special symbols in a text for plain characters."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise UserError(f"{path} is not a tokenizer ({error}); fetch it again.") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


def from_pieces(model: Path) -> str:
    """Return the content of a ``tokenizer.json`` that cuts text into the same pieces as a sentencepiece unigram model.

    It differs where a text spells out a special symbol, which it takes for that symbol; in marks that combine with no
    letter, of which its library drops some; and in long runs of one character, which have several best ways to be cut
    and get the same pieces in another order.
    """
    from sentencepiece import SentencePieceProcessor
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, processors

    pieces = SentencePieceProcessor(model_file=str(model))
    numbers = range(pieces.get_piece_size())
    scored = [(pieces.id_to_piece(number), pieces.get_score(number)) for number in numbers]
    tokenizer = Tokenizer(models.Unigram(scored, unk_id=SPECIAL.index("<unk>"), byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Precompiled(character_map(pieces.serialized_model_proto())),
            normalizers.Replace(Regex(" +"), " "),
            normalizers.Strip(),
            normalizers.Prepend(" "),
            normalizers.Replace(" ", "▁"),
        ]
    )
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    tokenizer.add_special_tokens([*SPECIAL, AddedToken(MASK, lstrip=True, special=True)])
    return tokenizer.to_str(pretty=True) + "\n"


def character_map(model: bytes) -> bytes:
    """Return sentencepiece's compiled character map, which normalises text, from the bytes of a model."""
    normalizer = next(content for field, content in fields(model) if field == NORMALIZER)
    return next(content for field, content in fields(normalizer) if field == CHARACTER_MAP)


def fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield number and content of the fields of a protocol buffer that hold bytes; others are skipped."""
    place = 0
    while place < len(message):
        key, place = variable_integer(message, place)
        kind = key & 7
        if kind == 2:
            length, place = variable_integer(message, place)
            yield key >> 3, message[place : place + length]
            place += length
        elif kind == 0:
            _, place = variable_integer(message, place)
        else:
            place += {1: 8, 5: 4}[kind]


def variable_integer(message: bytes, place: int) -> tuple[int, int]:
    """Return the integer at ``place``, seven bits a byte, and the place after it."""
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
