"""Files of facts: what is read, and what is refused with path and line number."""

from __future__ import annotations

import re

import pytest

from tc_sweeps.config import ConfigError, data_file, resolve
from tc_sweeps.corpus import build_corpus


@pytest.fixture
def read(tmp_path):
    """Write a file and return the function that builds its corpus."""

    def build(content: str | bytes, *, name: str = "facts.tsv", **data):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return build_corpus(resolve({"data": {"name": "triples", "path": str(path), **data}}).data)

    return build


def facts(corpus):
    return [tuple(corpus.tokens[token] for token in row) for row in corpus.sentences.tolist()]


WANTED = [("mouse", "eats", "cheese"), ("cat", "eats", "fish")]

# ------------------------------------------------------------------------------------------------- what is understood


@pytest.mark.parametrize(
    ("content", "data"),
    [
        ("mouse\teats\tcheese\ncat\teats\tfish\n", {}),
        ("mouse\teats\tcheese\ncat\teats\tfish", {}),
        ("mouse\teats\tcheese\r\ncat\teats\tfish\r\n", {}),
        ("\ufeffmouse\teats\tcheese\ncat\teats\tfish\n", {}),
        ("\n\nmouse\teats\tcheese\n   \ncat\teats\tfish\n\n", {}),
        (" mouse \teats\t cheese\ncat\teats \tfish\n", {}),
        ("mouse,eats,cheese\ncat,eats,fish\n", {"name": "facts.csv"}),
        ('"mouse","eats","cheese"\n"cat",eats,"fish"\n', {"name": "facts.csv"}),
        ("mouse;eats;cheese\ncat;eats;fish\n", {"delimiter": ";"}),
        ("mouse,eats,cheese\ncat,eats,fish\n", {"delimiter": ","}),
        ("mouse\teats\tcheese\ncat\teats\tfish\n", {"name": "facts.csv", "delimiter": "\t"}),
        ("who\tdoes\twhat\nmouse\teats\tcheese\ncat\teats\tfish\n", {"header": True}),
        ("\ufeffwho\tdoes\twhat\nmouse\teats\tcheese\ncat\teats\tfish\n", {"header": True, "columns": ["who", 1, 2]}),
        ("what\twho\tdoes\ncheese\tmouse\teats\nfish\tcat\teats", {"header": True, "columns": ["who", "does", "what"]}),
        ("cheese\tmouse\teats\nfish\tcat\teats\n", {"columns": [1, 2, 0]}),
        ("1\tmouse\t\teats\tcheese\n2\tcat\t\teats\tfish\n", {"columns": [1, 3, 4]}),
    ],
    ids=[
        "tabs", "no newline at the end", "Windows line ends", "byte order mark", "blank lines", "spaces around",
        "commas", "quotes", "another delimiter", "commas in a .tsv", "tabs in a .csv", "header",
        "byte order mark before a header", "names reorder", "positions reorder", "an empty column that is not chosen",
    ],
)  # fmt: skip
def test_a_file_is_read_as_its_facts(read, content, data):
    assert facts(read(content, **data)) == WANTED


def test_quotes_in_a_csv_protect_commas_quotes_and_line_breaks(read):
    corpus = read('"a, b","say ""x""","two\nlines"\nc,d,e\n', name="facts.csv")
    assert facts(corpus) == [("a, b", 'say "x"', "two\nlines"), ("c", "d", "e")]


def test_quotes_in_a_tsv_are_letters(read):
    assert facts(read('"a\tb\'\tc\nd\te\tf"\n')) == [('"a', "b'", "c"), ("d", "e", 'f"')]


def test_tokens_need_not_be_ascii(read):
    assert facts(read("Mäuse\tfressen\tKäse\n猫\t食べる\t魚\n")) == [
        ("Mäuse", "fressen", "Käse"),
        ("猫", "食べる", "魚"),
    ]


@pytest.mark.parametrize("order", [2, 4])
def test_the_order_is_the_number_of_columns(read, order):
    line = "\t".join("abcd"[:order])
    assert read(f"{line}\n", order=order).order == order
    assert read("a\tb\tc\td\te\n", columns=list(range(order))).order == order


def test_nothing_is_held_out_unless_it_is_asked_for_and_all_contexts_are_considered(read):
    corpus = read("a\tb\tc\nd\te\tf\n")
    assert corpus.held_out is None
    assert corpus.contexts == "all"
    assert corpus.truth_ngrams(3).tolist() == sorted(corpus.sentences.tolist())
    assert not corpus.remarks


def test_duplicate_lines_are_counted_and_remarked(read):
    corpus = read("a\tb\tc\nd\te\tf\na\tb\tc\n\na\tb\tc\n")
    assert facts(corpus).count(("a", "b", "c")) == 3
    assert sorted(corpus.tensor(3).count_G.tolist()) == [1, 3]
    [remark] = corpus.remarks
    assert re.search(r"facts\.tsv: 2 of 4 lines repeat another line", remark)


def test_lines_that_are_alike_in_the_chosen_columns_are_duplicates(read):
    corpus = read("a\tb\tc\t1\na\tb\tc\t2\n", columns=[0, 1, 2])
    assert corpus.tensor(3).count_G.tolist() == [2]
    assert "1 of 2 lines repeat" in corpus.remarks[0]


def test_held_out_fraction_and_num_sentences_reach_the_facts(read):
    lines = "".join(f"s{i}\to{i}\tr\n" for i in range(10))
    corpus = read(lines, held_out_fraction=0.3, num_sentences=5)
    assert len(corpus.held_out) == 3
    assert len(corpus.sentences) == 5


def test_the_shipped_example_has_the_papers_sentences():
    corpus = build_corpus(resolve({"data": {"name": "triples", "path": data_file("eats.tsv")}}).data)
    assert ("mouse", "eats", "cheese") in facts(corpus)
    assert ("mice", "eat", "cheese") in facts(corpus)


# --------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("content", "data", "line", "fragment"),
    [
        ("", {}, 1, "no sentences"),
        ("\n \n\t\t\n", {}, 1, "no sentences"),
        ("who\tdoes\twhat\n", {"header": True}, 1, "no sentences"),
        (b"a\tb\tc\nd\t\xff\tf\n", {}, 2, "not UTF-8 (byte 0xff)"),
        ("a\tb\tc\n".encode("utf-16"), {}, 1, "not UTF-8"),
        (b"a\tb\tc\r\nd\te\tf\r\n\r\nf\xfcr\tx\ty\r\n", {}, 4, "not UTF-8 (byte 0xfc)"),
        ("a\tb\tc\nd\te\n", {}, 2, "2 columns where 3 are expected"),
        ("a\tb\tc\n\n\nd\te\tf\tg\n", {}, 4, "4 columns where 3 are expected"),
        ("a\tb\n", {}, 1, "2 columns where 3 are expected"),
        ("a\tb\tc\td\na\tb\tc\n", {"columns": [0, 1, 2]}, 2, "3 columns where 4 are expected"),
        ("who\tdoes\twhat\na\tb\tc\td\n", {"header": True}, 2, "4 columns where 3 are expected"),
        ("who\tdoes\twhat\twhen\na\tb\tc\td\n", {"header": True}, 1, "4 columns where data.order=3"),
        ("a\tb\tc\nd\t\tf\n", {}, 2, "column 1 is empty"),
        ("a\tb\tc\nd\te\t \n", {}, 2, "column 2 is empty"),
        ("a\tb\tc\td\n\td\te\tf\n", {"columns": [2, 1, 0]}, 2, "column 0 is empty"),
        ("a\ta\ta\na\ta\ta\n", {}, 1, "only one distinct token, 'a'"),
        ("a\tb\tc\n", {"columns": [0, 1, 3]}, 1, "data.columns=3 is not a position in 0..2"),
        ("a\tb\tc\n", {"columns": [-1, 1, 0]}, 1, "data.columns=-1 is not a position in 0..2"),
        (
            "who\tdoes\twhat\na\tb\tc\n",
            {"header": True, "columns": ["who", "is", "what"]},
            1,
            "=is must name one column of the header: who, does, what",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_path_and_line(read, tmp_path, content, data, line, fragment):
    with pytest.raises(ConfigError) as refusal:
        read(content, **data)
    sentence = str(refusal.value)
    assert sentence.startswith(f"{tmp_path / 'facts.tsv'}, line {line}: "), sentence
    assert fragment in sentence


def test_a_missing_file_is_refused_with_its_path(tmp_path):
    path = tmp_path / "nowhere.tsv"
    with pytest.raises(ConfigError) as refusal:
        build_corpus(resolve({"data": {"name": "triples", "path": str(path)}}).data)
    assert f"data.path={path} cannot be read: No such file or directory." in str(refusal.value)


def test_a_folder_in_place_of_a_file_is_refused_with_its_path(tmp_path):
    with pytest.raises(ConfigError, match=re.escape(f"data.path={tmp_path} cannot be read")):
        build_corpus(resolve({"data": {"name": "triples", "path": str(tmp_path)}}).data)


def test_more_sentences_than_the_file_has_is_refused(read):
    with pytest.raises(ConfigError, match=r"data\.num_sentences=3 is more than the 2 sentences"):
        read("a\tb\tc\nd\te\tf\n", num_sentences=3)


def test_holding_out_the_whole_file_is_refused(read):
    with pytest.raises(ConfigError, match=r"data\.held_out_fraction=0\.99 leaves no sentence"):
        read("a\tb\tc\nd\te\tf\n", held_out_fraction=0.99)


@pytest.mark.parametrize("letter", ["\u2028", "\x85", "\x1c", "\x0b"])
def test_only_line_ends_end_a_line(read, letter):
    assert facts(read(f"a\tb{letter}x\tc\nd\te\tf\n")) == [("a", f"b{letter}x", "c"), ("d", "e", "f")]


def test_the_line_of_a_bad_byte_is_right_after_a_byte_order_mark(read):
    with pytest.raises(ConfigError, match=r"line 2: the file is not UTF-8 \(byte 0xff\)"):
        read(b"\xef\xbb\xbfa\tb\tc\n\xff\te\tf\n")


@pytest.mark.parametrize("name", ["facts.csv", "facts.tsv"])
def test_a_cell_longer_than_the_csv_module_allows_is_refused_with_path_and_line(read, name):
    delimiter = "," if name.endswith("csv") else "\t"
    quote = '"' if name.endswith("csv") else ""
    with pytest.raises(ConfigError, match=r"facts\.[ct]sv, line "):
        read(f"a{delimiter}b{delimiter}{quote}" + "x" * 140_000 + "\n", name=name)


@pytest.mark.parametrize(("header", "columns"), [("s\to\tr", ["s", 0, 2]), ("s\ts\tr", ["s", "r", 0])])
def test_a_column_that_is_chosen_twice_or_not_at_all_is_refused(tmp_path, header, columns):
    path = tmp_path / "facts.tsv"
    path.write_text(f"{header}\na\tb\tc\n", encoding="utf-8")
    data = {"name": "triples", "path": str(path), "header": True, "columns": columns}
    with pytest.raises(ConfigError, match=r"data\.columns"):
        build_corpus(resolve({"data": data}).data)
