"""Texts: what is a token, which windows are trained on, held out and true, and what is refused."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tc_sweeps.config import ConfigError, resolve
from tc_sweeps.corpus import Corpus, build_corpus
from tc_sweeps.corpus.text import byte_name, tokenized

tokenizers = pytest.importorskip("tokenizers")  # the extra `text`

ROOT = Path(__file__).parents[2]
CAT = "the cat sees the dog and the cat sees a fly"
PROSE = (ROOT / "LICENSE").read_text(encoding="utf-8") + (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def read(tmp_path):
    """Write a text and return the function that builds its corpus."""

    def build(content: str | bytes, **data) -> Corpus:
        path = tmp_path / "book.txt"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return build_corpus(
            resolve({"data": {"name": "text", "path": str(path), "held_out_fraction": 0.0, **data}}).data
        )

    return build


def named(corpus: Corpus, ngrams: torch.Tensor | None) -> list[tuple[str, ...]]:
    assert corpus.tokens is not None
    return [] if ngrams is None else [tuple(corpus.tokens[token] for token in row) for row in ngrams.tolist()]


# ------------------------------------------------------------------------------------------------- by brute force


def split(text: str) -> list[str]:
    """Words letter by letter: letters, digits and underscores run together, an apostrophe between two of them too."""
    words: list[str] = []
    grows = False
    for place, letter in enumerate(text):
        if letter.isalnum() or letter == "_":
            words[-1:] = [words[-1] + letter] if grows else [*words[-1:], letter]
            grows = True
        elif (
            letter in "'\u2019"
            and grows
            and (text[place + 1 : place + 2].isalnum() or text[place + 1 : place + 2] == "_")
        ):
            words[-1] += letter
        else:
            grows = False
            words += [] if letter.isspace() else [letter]
    return words


def windows(text: str, vocab_size: int, order: int) -> list[tuple[str, ...] | None]:
    """Every window in its order, None where a word is not among the most frequent ones."""
    words = split(text)
    count = Counter(words)
    kept = sorted(count, key=lambda word: (-count[word], word))[:vocab_size]
    found = [tuple(words[place : place + order]) for place in range(len(words) - order + 1)]
    return [window if set(window) <= set(kept) else None for window in found]


texts = st.lists(
    st.sampled_from(
        ["the", "cat", "can't", "Dog's", "x_1", "été", "it\u2019s", ".", "'", "''", "—", " ", "\n", "\t", "  "]
    ),
    min_size=3,
    max_size=60,
).map("".join)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts, st.integers(2, 12), st.integers(2, 4))
def test_words_are_split_counted_and_windowed_as_by_hand(read, text, vocab_size, order):
    wanted = [window for window in windows(text, vocab_size, order) if window]
    if not wanted or len(set(split(text))) < 2:
        with pytest.raises(ConfigError):
            read(text, vocab_size=vocab_size, order=order)
        return
    corpus = read(text, vocab_size=vocab_size, order=order)
    assert named(corpus, corpus.sentences) == wanted
    assert sorted(named(corpus, corpus.truth)) == sorted(set(wanted))
    assert corpus.vocab_size == len(corpus.tokens) == min(vocab_size, len(set(split(text))))
    assert corpus.held_out is None
    assert (corpus.contexts, corpus.labelled) == ("all", "truth")


def test_the_example_of_the_docstring(read):
    corpus = read(CAT, vocab_size=5)
    assert [" ".join(window) for window in named(corpus, corpus.sentences)] == [
        "the cat sees", "cat sees the", "and the cat", "the cat sees", "cat sees a",
    ]  # fmt: skip
    [remark] = corpus.remarks
    assert "book.txt: 4 of 9 windows (44.4%) have a word that is not among the 5 most frequent" in remark


def test_the_most_frequent_words_come_first_and_equals_by_their_letters(read):
    assert read("b a b c a b d", order=2).tokens == ("b", "a", "c", "d")


def test_case_is_kept_unless_asked_otherwise(read):
    assert set(read("The cat the Cat", order=2).tokens) == {"The", "the", "cat", "Cat"}
    assert set(read("The cat the Cat", order=2, lowercase=True).tokens) == {"the", "cat"}


def test_a_byte_order_mark_is_no_letter(read):
    assert read("\ufeffa b a", order=2).tokens == ("a", "b")


# ---------------------------------------------------------------------------------------------------- what is held out


def parts(corpus: Corpus) -> tuple[Counter, set, set]:
    return (
        Counter(named(corpus, corpus.sentences)),
        set(named(corpus, corpus.held_out)),
        set(named(corpus, corpus.truth)),
    )


@pytest.mark.parametrize("order", [2, 3, 5])
@pytest.mark.parametrize("length", [1200, 1234, 30_001])
def test_the_text_is_cut_into_equal_blocks_and_windows_that_straddle_two_parts_belong_to_neither(read, order, length):
    words = [f"w{place}" for place in range(length)]  # every window names its place
    corpus = read(" ".join(words), vocab_size=length, order=order, held_out_fraction=0.3)
    trained, held_out, truth = parts(corpus)
    places = {"held out": {window[0] for window in held_out}, "trained": {window[0] for window in trained}}
    assert places["held out"].isdisjoint(places["trained"])
    assert len(truth) == length - order + 1, "W is every n-gram of the text"
    hidden = {word for window in held_out for word in window}
    assert hidden.isdisjoint(word for window in trained for word in window)
    assert len(hidden) / length == pytest.approx(0.3, abs=0.01)
    # Blocks as the hidden words show them: runs of whole blocks, all of about a hundred tokens or a hundredth.
    block = min(100, max(2 * order, length // 100))
    runs = re.findall("1+", "".join("01"[word in hidden] for word in words))
    for run in runs:
        blocks = round(len(run) / (length / (length // block)))
        assert abs(len(run) - blocks * length / (length // block)) < 2
    # Exactly the windows with tokens of both parts are in neither.
    both = sum(len({word in hidden for word in words[p : p + order]}) == 2 for p in range(length - order + 1))
    assert both == length - order + 1 - len(held_out) - sum(trained.values())
    assert both == (order - 1) * (2 * len(runs) - (words[0] in hidden) - (words[-1] in hidden))


def test_held_out_ngrams_do_not_occur_in_the_training_part(read):
    corpus = read(PROSE, vocab_size=300, held_out_fraction=0.2)
    trained, held_out, truth = parts(corpus)
    assert held_out
    assert held_out.isdisjoint(trained)
    assert held_out | set(trained) <= truth
    assert truth == {window for window in windows(PROSE, 300, 3) if window}


def test_a_larger_share_holds_out_a_superset_of_blocks(read):
    words = [f"w{place}" for place in range(3000)]
    before: set = set()
    for fraction in (0.02, 0.1, 0.35, 0.8):
        corpus = read(" ".join(words), vocab_size=3000, held_out_fraction=fraction, seed=4)
        _, held_out, _ = parts(corpus)
        assert before < held_out
        before = held_out


def test_a_larger_number_of_sentences_trains_on_a_superset_and_leaves_held_out_and_truth_alone(read):
    every = [read(PROSE, vocab_size=300, held_out_fraction=0.2, num_sentences=n) for n in (100, 900, None)]
    counts, held_out, truth = zip(*map(parts, every), strict=True)
    assert [sum(count.values()) for count in counts[:2]] == [100, 900]
    assert counts[0] <= counts[1] <= counts[2]
    assert held_out[0] == held_out[1] == held_out[2]
    assert truth[0] == truth[1] == truth[2]


def test_the_seed_chooses_blocks_and_sentences(read):
    one, same, other = (read(PROSE, held_out_fraction=0.1, num_sentences=500, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.sentences, same.sentences)
    assert torch.equal(one.held_out, same.held_out)
    assert not torch.equal(one.sentences, other.sentences)
    assert set(named(one, one.held_out)) != set(named(other, other.held_out))
    assert one.tokens == other.tokens, "the vocabulary is that of the text"


# -------------------------------------------------------------------------------------------------------------- bpe


def unread(name: str) -> bytes:
    """The bytes of a token by its name."""
    escape = re.compile(r"\\x(..)|\\u(....)|\\U(.{8})|\\(.)|(.)", re.DOTALL)
    found = b""
    for byte, short, long, marked, plain in escape.findall(name):
        if byte:
            found += bytes([int(byte, 16)])
        elif short or long:
            found += chr(int(short or long, 16)).encode()
        elif marked:
            found += {"n": b"\n", "r": b"\r", "t": b"\t", "_": b"_", "\\": b"\\"}[marked]
        else:
            found += b" " if plain == "_" else plain.encode()
    return found


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(min_size=2, max_size=200), st.integers(0, 60))
def test_a_bpe_decodes_back_to_the_text_by_the_names_of_its_tokens(text, merges):
    number = len(set(text.encode())) + merges
    token_T, names = tokenized(text, "bpe", number)
    assert b"".join(unread(names[token]) for token in token_T) == text.encode()
    assert len(set(names)) == len(names) <= number


def test_every_byte_has_a_name_of_its_own():
    letters = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    assert len({byte_name(letter) for letter in letters}) == 256
    assert byte_name("Ġthe") == "_the"
    assert byte_name("a_b") == r"a\_b"
    assert byte_name("Ċ") == r"\n"
    assert byte_name("Ã©") == "é", "the two bytes of one letter"
    assert byte_name("Ã") == r"\xc3"


def test_pieces_are_cut_where_the_whole_text_is_cut():
    """The tokens of a text in pieces are those of the text in one."""
    whole = tokenizers.Tokenizer(tokenizers.models.BPE())
    whole.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    whole.train_from_iterator([PROSE], tokenizers.trainers.BpeTrainer(vocab_size=400, show_progress=False))
    assert tokenized(PROSE, "bpe", 400).token_T.tolist() == whole.encode(PROSE).ids
    assert len(PROSE) > 5000, "several pieces"


def test_the_tokens_of_a_smaller_vocabulary_begin_those_of_a_larger_one():
    small, large = tokenized(PROSE, "bpe", 300), tokenized(PROSE, "bpe", 500)
    assert large.names[:300] == small.names
    assert len(large.token_T) < len(small.token_T)


def test_windows_of_a_bpe_leave_nothing_out(read):
    corpus = read(PROSE, tokenizer="bpe", vocab_size=400, order=4)
    assert corpus.vocab_size == 400
    assert len(corpus.sentences) == len(tokenized(PROSE, "bpe", 400).token_T) - 3
    assert not corpus.remarks


DIGEST = """
import hashlib, json, sys
from tc_sweeps.corpus.text import tokenized
text = open(sys.argv[1], encoding="utf-8").read()
for tokenizer in ("words", "bpe"):
    token_T, names = tokenized(text, tokenizer, 500)
    print(hashlib.sha256(json.dumps([token_T.tolist(), names]).encode()).hexdigest())
"""


def test_tokens_are_the_same_in_every_process_and_with_any_number_of_threads(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text(PROSE * 3, encoding="utf-8")
    here = [tokenized(PROSE * 3, tokenizer, 500) for tokenizer in ("words", "bpe")]
    wanted = [hashlib.sha256(json.dumps([t.token_T.tolist(), t.names]).encode()).hexdigest() for t in here]
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "true", "RAYON_NUM_THREADS": "4"}
    command = [sys.executable, "-c", DIGEST, str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == wanted
    assert os.environ["TOKENIZERS_PARALLELISM"] == "false", "here it was one thread"


# ------------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize("tokenizer", ["words", "bpe"])
@pytest.mark.parametrize(
    ("content", "data", "fragment"),
    [
        ("", {}, "book.txt, line 1: the text has 0 tokens"),
        ("a b", {"order": 5}, "at least data.order=5 and 2 distinct ones are needed"),
        (b"fine\nbad \xff\n", {}, "book.txt, line 2: the file is not UTF-8 (byte 0xff)"),
        (CAT, {"num_sentences": 1000}, "data.num_sentences=1000 is more than the"),
        (CAT, {"held_out_fraction": 0.01}, "data.held_out_fraction=0.01 of the"),
        (CAT, {"held_out_fraction": 0.99}, "data.held_out_fraction=0.99 and data.vocab_size=1000 leave no window"),
    ],
)
def test_a_text_that_cannot_be_used_is_refused(read, tmp_path, tokenizer, content, data, fragment):
    with pytest.raises(ConfigError) as refusal:
        read(content, tokenizer=tokenizer, **data)
    assert fragment in str(refusal.value)
    assert str(tmp_path / "book.txt") in str(refusal.value)


@pytest.mark.parametrize(
    ("data", "fragment"),
    [
        ({}, "data.path is missing"),
        ({"path": "b", "vocab_size": 1}, "data.vocab_size=1 must be at least 2."),
        ({"path": "b", "tokenizer": "bpr"}, "data.tokenizer=bpr is not one of words, bpe; did you mean 'bpe'?"),
        ({"path": "b", "order": 1}, "data.order=1 must be at least 2"),
        ({"path": "b", "held_out_fraction": 1.0}, "data.held_out_fraction=1.0 must lie in [0, 1)."),
    ],
)
def test_settings_that_cannot_be_used_are_refused_before_the_file_is_read(data, fragment):
    with pytest.raises(ConfigError) as refusal:
        resolve({"data": {"name": "text", **data}})
    assert fragment in str(refusal.value)


def test_a_missing_file_is_refused_with_its_path(tmp_path):
    data = resolve({"data": {"name": "text", "path": str(tmp_path / "no.txt")}}).data
    with pytest.raises(ConfigError, match=r"data\.path=.*no\.txt cannot be read: No such file or directory\."):
        build_corpus(data)


def test_one_word_alone_is_refused(read):
    with pytest.raises(ConfigError, match="the text has 4 tokens, 1 of them distinct"):
        read("no no no no")


def test_a_vocabulary_without_a_single_window_is_refused(read):
    with pytest.raises(ConfigError, match=r"data\.vocab_size=2 leave no window of 3 tokens of .* to train on"):
        read("a b c a b d a b e", vocab_size=2)


def test_fewer_words_than_asked_for_are_accepted_and_said(read):
    corpus = read(CAT)
    assert corpus.vocab_size == 7
    [remark] = corpus.remarks
    assert "has only 7 different tokens, fewer than data.vocab_size=1000" in remark


def test_a_bpe_of_fewer_tokens_than_bytes_is_refused(read):
    with pytest.raises(ConfigError, match=r"data\.vocab_size=5 is less than the 14 different bytes of"):
        read(CAT, tokenizer="bpe", vocab_size=5)


@pytest.mark.parametrize("tokenizer", ["words", "bpe"])
def test_without_the_extra_the_sentence_says_what_to_install(read, monkeypatch, tokenizer):
    tokenized.cache_clear()
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ConfigError, match=re.escape("pip install -e '.[text]'")):
        read("neither read nor cached before", tokenizer=tokenizer)


# ---------------------------------------------------------------------------------------------------------- large texts


@pytest.mark.slow
def test_ten_megabytes_load_in_half_a_minute_and_two_gibibytes():
    command = [sys.executable, str(ROOT / "benchmarks" / "text_loading.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    header, _, *rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("|")]
    assert [row[0] for row in rows] == ["words", "bpe"]
    for row in rows:
        assert float(row[header.index("seconds of CPU")]) < 30
        assert int(row[header.index("peak, MiB")].replace(",", "")) < 2048
