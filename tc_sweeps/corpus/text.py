"""Any text: it is cut into tokens, and the windows of n tokens that slide over it are the sentences.

Letters: `T` token of the text, `K` window, `n` order, `V` vocabulary.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tc_sweeps.config import ConfigError, TextData
from tc_sweeps.corpus.corpus import Corpus
from tc_sweeps.corpus.randomness import random_order
from tc_sweeps.corpus.reading import utf8_text
from tc_sweeps.corpus.tensor import distinct_rows, find_rows

# About a paragraph: long enough that few windows straddle two blocks (n - 1 at each end), short enough that a text of
# 10,000 tokens has a hundred blocks, a share of which can be held out to within one percent.
_BLOCK = 100

# An apostrophe inside, straight or curly, is part of a word; every other mark is a word of its own.
_WORD = "\\w+(?:['\u2019]\\w+)*|[^\\w\\s]"
_NO_WORD = " "  # what the tokenizer calls a word outside the vocabulary; no word has a space in it
_ESCAPES = {" ": "_", "_": r"\_", "\\": r"\\", "\n": r"\n", "\r": r"\r", "\t": r"\t"}


class Tokenized(NamedTuple):
    """A text as tokens."""

    token_T: Tensor  # int64; -1 for a word outside the vocabulary
    names: tuple[str, ...]  # [V]; no two are the same


def text_corpus(data: TextData) -> Corpus:
    """Return the windows of `order` tokens of a text as a corpus, [N, n], in their order in the text.

    The text is cut into equal blocks of about a hundred tokens. A share of the blocks, chosen by the seed (a larger
    share holds out a superset), is the held-out part, the others are the training part; a window that has tokens of
    both belongs to neither. Sentences are the windows of the training part, or `num_sentences` of them (a larger number
    trains on a superset). W is every n-gram of the text, also those that are not trained on; held out are the n-grams
    of the held-out part that do not occur in the training part. Windows with a word outside the vocabulary are left
    out everywhere.

    Raises `ConfigError` for a file that is missing, empty or not UTF-8, for a text too short for a single window, a
    `vocab_size` that no tokenizer of the text can have, and where nothing remains to train on.

    Example (n = 3, V = 5, nothing held out): in 'the cat sees the dog and the cat sees a fly' the most frequent words
    are the, cat, sees, and of those that occur once a, and. It is trained on as (the cat sees) twice, (cat sees the),
    (and the cat), (cat sees a); the four windows with 'dog' or 'fly' are left out.
    """
    assert data.path is not None
    assert data.order is not None
    assert data.seed is not None
    text = utf8_text(Path(data.path))
    token_T, names = tokenized(text.lower() if data.lowercase else text, data.tokenizer, data.vocab_size)
    if len(names) < 2 or len(token_T) < data.order:
        raise ConfigError(
            f"{data.path}, line 1: the text has {len(token_T)} tokens, {len(names)} of them distinct; at least "
            f"data.order={data.order} and 2 distinct ones are needed."
        )
    if len(names) > data.vocab_size:  # a BPE begins with bytes
        raise ConfigError(
            f"data.vocab_size={data.vocab_size} is less than the {len(names)} different bytes of {data.path}; raise it "
            "or use data.tokenizer=words."
        )
    window_Kn = token_T.unfold(0, data.order, 1)
    held_out_T = _held_out(len(token_T), data)
    held_out_Kn = held_out_T.unfold(0, data.order, 1)
    known_K = (window_Kn >= 0).all(1)
    rest = window_Kn[known_K & ~held_out_Kn.any(1)]
    hidden = distinct_rows(window_Kn[known_K & held_out_Kn.all(1)])[0]
    held_out = hidden[find_rows(hidden, distinct_rows(rest)[0]) < 0]
    if len(rest) == 0:
        raise ConfigError(
            f"data.held_out_fraction={data.held_out_fraction} and data.vocab_size={data.vocab_size} leave no window of "
            f"{data.order} tokens of {data.path} to train on; lower the first or raise the second."
        )
    return Corpus(
        vocab_size=len(names),
        sentences=_chosen(rest, data),
        held_out=held_out if len(held_out) else None,
        truth=distinct_rows(window_Kn[known_K])[0],
        tokens=names,
        remarks=_remarks(data, len(names), left_out=int((~known_K).sum()), windows=len(window_Kn)),
    )


def _held_out(length: int, data: TextData) -> Tensor:
    """Return which tokens of the text belong to the held-out part, [T]; a short text has a hundred shorter blocks."""
    assert data.order is not None
    assert data.seed is not None
    blocks = max(1, length // max(2 * data.order, min(_BLOCK, length // 100)))
    count = round(data.held_out_fraction * blocks)
    if data.held_out_fraction > 0 and count == 0:
        raise ConfigError(
            f"data.held_out_fraction={data.held_out_fraction} of the {blocks} blocks of {data.path} rounds to none; "
            "raise it or set it to 0."
        )
    is_held_out = torch.zeros(blocks, dtype=torch.bool)
    is_held_out[random_order(data.seed, "held out", blocks)[:count]] = True
    return is_held_out[torch.arange(length) * blocks // length]


def _chosen(rest_Kn: Tensor, data: TextData) -> Tensor:
    """Return the windows to train on of those that are not held out, [N, n]."""
    assert data.seed is not None
    if data.num_sentences is None:
        return rest_Kn
    if data.num_sentences > len(rest_Kn):
        raise ConfigError(
            f"data.num_sentences={data.num_sentences} is more than the {len(rest_Kn)} windows of {data.path} that are "
            "not held out; lower it or data.held_out_fraction."
        )
    return rest_Kn[random_order(data.seed, "training", len(rest_Kn))[: data.num_sentences]]


def _remarks(data: TextData, vocab_size: int, *, left_out: int, windows: int) -> tuple[str, ...]:
    """Return what a user should be told."""
    remarks = []
    if left_out:
        remarks.append(
            f"{data.path}: {left_out} of {windows} windows ({left_out / windows:.1%}) have a word that is not among "
            f"the {vocab_size} most frequent and are left out; a larger data.vocab_size keeps more."
        )
    if vocab_size < data.vocab_size:
        remarks.append(
            f"{data.path}: the text has only {vocab_size} different tokens, fewer than data.vocab_size="
            f"{data.vocab_size}; the vocabulary is these."
        )
    return tuple(remarks)


# ------------------------------------------------------------------------------------------------------------- tokens


@lru_cache(maxsize=1)  # the runs of a sweep share their text
def tokenized(text: str, tokenizer: str, vocab_size: int) -> Tokenized:
    """Return a text as tokens: a function of its arguments alone, whatever process and however many threads.

    `words`: the most frequent words, among equally frequent ones the first in the order of their letters; numbered by
    frequency. `bpe`: byte-level pairs trained on the text; bytes first, then merges in the order in which they are
    learnt, so that the tokens of a smaller vocabulary begin those of a larger one. A text with fewer words or merges
    has a smaller vocabulary, a BPE of more bytes than `vocab_size` a larger one.
    """
    library = _library()
    pieces = [piece[0] for piece in re.finditer(r"[\s\S]{1,1000}\s*\S*", text)]  # cut in front of white space
    made, trainer = (_words if tokenizer == "words" else _pairs)(library, vocab_size)
    made.train_from_iterator(pieces, trainer)
    number = made.get_vocab()
    if tokenizer == "words":
        made.model = library.models.WordLevel(number | {_NO_WORD: len(number)}, unk_token=_NO_WORD)
    parts = [
        torch.tensor(encoding.ids, dtype=torch.int64)
        for begin in range(0, len(pieces), 1000)  # an encoding takes a hundred times the memory of its tokens
        for encoding in made.encode_batch_fast(pieces[begin : begin + 1000])
    ]
    token_T = torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64)
    token_T[token_T == len(number)] = -1
    names = sorted(number, key=number.__getitem__)
    return Tokenized(token_T, tuple(names if tokenizer == "words" else map(byte_name, names)))


def _library() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise ConfigError("data=text needs tokenizers: install the extra with pip install -e '.[text]'.") from error
    # Cores serve as workers, and threads that outlive a fork are a danger; tokens do not depend on it.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    return tokenizers


def _words(library: Any, vocab_size: int) -> tuple[Any, Any]:
    """Return an untrained tokenizer of words, and its trainer."""
    made = library.Tokenizer(library.models.WordLevel())
    made.pre_tokenizer = library.pre_tokenizers.Split(library.Regex(_WORD), "removed", invert=True)
    return made, library.trainers.WordLevelTrainer(vocab_size=vocab_size, special_tokens=[], show_progress=False)


def _pairs(library: Any, vocab_size: int) -> tuple[Any, Any]:
    """Return an untrained byte-level BPE, and its trainer."""
    made = library.Tokenizer(library.models.BPE())
    made.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    return made, library.trainers.BpeTrainer(vocab_size=vocab_size, show_progress=False)


def byte_name(letters: str) -> str:
    """Return a token of a byte-level BPE as people read it: text, with a space as '_'.

    What cannot be read is escaped (a line end as '\\n', a byte that is no character as '\\xe2'), and so are '_' and
    backslashes, so that different tokens have different names. Example: 'Ġthe', as GPT-2 writes it, is '_the'.
    """
    token = bytes(_BYTES[letter] for letter in letters).decode("utf-8", "surrogateescape")
    return "".join(_ESCAPES.get(c) or (c if c.isprintable() else _escaped(ord(c))) for c in token)


def _escaped(point: int) -> str:
    if 0xDC80 <= point <= 0xDCFF:  # a byte that is no character, as surrogateescape keeps it
        return f"\\x{point - 0xDC00:02x}"
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"


def _byte_letters() -> dict[str, int]:
    """Return the byte that each letter of a byte-level BPE stands for: itself, or where unprintable the next free."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + place): byte for place, byte in enumerate(others)}


_BYTES = _byte_letters()
