"""The artifacts of a run, read back: what is printed is what the model left behind holds, by brute force in float64."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
import torch

import tc_sweeps
from tc_sweeps import cli
from tests.artifacts.brute_force import considered, probabilities, rows_of
from tests.behaviour.conftest import Launch

NAMES = ["\x1b[31mred", "New York", "b\u202eack", *(f"t{place}" for place in range(5))]  # a colour, a space, a turn
SPELLED = ["\\x1b[31mred", '"New York"', "b\\u202eack", *NAMES[3:]]


class Artifact(NamedTuple):
    tokens: str
    probability: float
    label: str
    context: str
    right: str = "-"  # the column is left out where it is empty in every row


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on facts of named tokens: some contexts have several answers, some are held out."""
    generator = torch.Generator().manual_seed(0)
    facts = torch.unique(torch.randint(8, (40, 3), generator=generator), dim=0).tolist()
    lines = ["\t".join(NAMES[token] for token in fact) for fact in facts]
    settings = ["data=triples", "data.path=facts.tsv", "data.held_out_fraction=0.4", "artifacts.threshold=0.2"]
    quick = ["training.steps=200", "training.evaluations=1", "model.width=8", "tracking=none", "sweep=named"]
    folder = tmp_path_factory.mktemp("named")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["tc-sweeps", "run", *settings, *quick])
        Path("facts.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        cli.main()
    [status] = folder.glob("outputs/named/*/status.json")
    return status.parent


@pytest.fixture(scope="module")
def expected(trained: Path) -> list[Artifact]:
    """Every artifact of the run by sets alone, most confident first."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(trained.parents[2])  # where its file of facts is
        run = tc_sweeps.load_run(trained)
        corpus, model = run.corpus, run.model
    names = [SPELLED[NAMES.index(name)] for name in corpus.tokens or ()]
    train, truth = rows_of(corpus.sentences, 3), rows_of(corpus.truth, 3)
    seen, labelled = {ngram[:-1] for ngram in train}, {ngram[:-1] for ngram in truth}
    found = []
    for context, row in probabilities(model, 0, considered(corpus, 3, "all")).items():
        for token, p in enumerate(row):
            ngram = (*context, token)
            if p > 0.2 and ngram not in train:
                label = "hallucination" if context in labelled else "unlabelled"
                found.append(
                    Artifact(
                        tokens=" ".join(names[t] for t in ngram),
                        probability=p,
                        label="generalization" if ngram in truth else label,
                        context="seen" if context in seen else "unseen",
                        right=" ".join(names[fact[-1]] for fact in sorted(truth) if fact[:-1] == context) or "-",
                    )
                )
    return sorted(found, key=lambda artifact: -artifact.probability)


def read(text: str) -> dict[int, Artifact]:
    """The rows of the printed table by rank; its columns end where their names end."""
    lines = text.splitlines()
    [head] = [line for line in lines if line.split()[:2] == ["rank", "tokens"]]
    ends = [head.index(name) + len(name) for name in head.split()]
    rows = {}
    for line in lines[lines.index(head) + 1 :]:
        if not line:
            break
        rank, tokens, p, *others = (
            line[begin:end].strip() for begin, end in zip([0, *ends[:-1]], [*ends[:-1], None], strict=True)
        )
        rows[int(rank)] = Artifact(tokens, float(p), *others)
    return rows


def test_what_is_printed_is_what_brute_force_finds(
    launch: Launch, trained: Path, expected: list[Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = launch("artifacts", str(trained), "--top", "1000")
    assert code == 0
    assert out.isascii()
    assert out.replace("\n", "").isprintable()
    labels = [artifact.label for artifact in expected]
    right, wrong = labels.count("generalization"), labels.count("hallucination")
    blank = len(labels) - right - wrong
    assert min(right, wrong, blank) > 0
    assert out.startswith(
        f"named/{trained.name}: {len(expected)} artifacts at P > 0.2: "
        f"{right} generalization{'s' * (right != 1)}, {wrong} hallucinations and {blank} unlabelled.\n"
        f"All are kept by name.\nShown: all {len(expected)}.\n"
    )
    shown = read(out)
    assert list(shown) == list(range(1, len(expected) + 1))
    for row, artifact in zip(shown.values(), expected, strict=True):
        assert row.probability == pytest.approx(artifact.probability, abs=6e-7)
        assert row._replace(probability=0) == artifact._replace(probability=0)


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        (["--label", "hallucination"], lambda tokens, label: label == "hallucination"),
        (["--label", "generalization,unlabelled"], lambda tokens, label: label != "hallucination"),
        (["--label", "generalization", "--label", "hallucination"], lambda tokens, label: label != "unlabelled"),
        (["--containing", "New York"], lambda tokens, label: '"New York"' in tokens),
        (["--containing", "\\x1b[31mred"], lambda tokens, label: "red" in tokens),
        (["--containing", "t1", "--label", "unlabelled"], lambda tokens, label: "t1" in tokens and label[0] == "u"),
    ],
)
def test_options_choose_among_the_artifacts(
    launch: Launch,
    trained: Path,
    expected: list[Artifact],
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    kept: Callable[[str, str], bool],
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    chosen = {rank: row.tokens for rank, row in enumerate(expected, 1) if kept(row.tokens, row.label)}
    assert 3 < len(chosen) < len(expected)
    out = launch("artifacts", str(trained.parent / trained.name[:5]), *options)[1]
    assert {rank: row.tokens for rank, row in read(out).items()} == chosen
    few = launch("artifacts", str(trained), *options, "--top", "2")[1]
    assert f"Shown: the first 2 of {len(chosen)} with " in few
    assert {rank: row.tokens for rank, row in read(few).items()} == dict(list(chosen.items())[:2])


def test_no_line_of_the_table_is_longer_than_the_terminal(
    launch: Launch, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    table = launch("artifacts", str(trained))[1].split("\n\n", 1)[1].rsplit("\n\nright:", 1)[0]
    assert max(map(len, table.splitlines())) <= 60
    assert table.count("rank") > 1


SMALL = [
    "data.num_sentences=30",
    "data.vocab_size=12",
    "model.width=8",
    "training.steps=100",
    "training.evaluations=1",
    "tracking=none",
]


def test_of_a_longer_list_the_head_says_how_many_are_kept_by_name(launch: Launch) -> None:
    assert launch("run", *SMALL, "artifacts.kept=10")[0] == 0
    [table] = Path("outputs/scratch").glob("*/artifacts.parquet")
    count = int(pd.read_csv(table.parent / "metrics.csv")["artifacts/count"].iloc[-1])
    out = launch("artifacts", f"scratch/{table.parent.name}")[1]
    assert launch("artifacts", "scratch")[1] == out, "it is the sweep's only run"
    assert f"{count} artifacts at P > 0.5, all unlabelled: nothing says what is true.\n" in out
    assert "Kept by name are the 10 most confident: 0 generalizations, 0 hallucinations and 10 unlabelled.\n" in out
    assert "Shown: all 10.\n" in out
    token = pd.read_parquet(table)["tokens"].iloc[0][0]
    assert launch("artifacts", f"scratch/{table.parent.name}", "--containing", str(token))[0] == 0
    refused = launch("artifacts", f"scratch/{table.parent.name}", "--containing", "12")
    assert refused[0] == 1
    assert refused[2] == "--containing 12 is no token of this run: its tokens are the numbers 0 to 11."


@pytest.mark.parametrize("keep", ["top-k", "all", "sample"])
def test_a_run_keeps_the_artifacts_that_it_is_asked_to(launch: Launch, keep: str) -> None:
    assert launch("run", *SMALL, f"artifacts.keep={keep}", "artifacts.kept=10")[0] == 0
    [path] = Path("outputs/scratch").glob("*/artifacts.parquet")
    run = tc_sweeps.load_run(path.parent)
    train = rows_of(run.corpus.sentences, 3)
    expected = {
        (*context, token): p
        for context, row in probabilities(run.model, 0, considered(run.corpus, 3, "all")).items()
        for token, p in enumerate(row)
        if p > 0.5 and (*context, token) not in train
    }
    assert len(expected) == run.metrics["artifacts/count"].iloc[-1] > 20
    table = pd.read_parquet(path)
    found = [tuple(tokens) for tokens in table["tokens"]]
    assert table["probability"].tolist() == pytest.approx([expected[ngram] for ngram in found], rel=1e-12)
    assert list(table.columns) == ["tokens", "probability", "label", "seen", "right"]
    out = launch("artifacts", "scratch", "--top", "3")[1]
    if keep == "all":
        assert found == sorted(expected)
        assert "All are kept by name.\n" in out
    elif keep == "top-k":
        assert found == sorted(expected, key=lambda ngram: (-expected[ngram], ngram))[:10]
        assert "Kept by name are the 10 most confident: " in out
    else:
        assert len(set(found)) == 10
        assert found == sorted(found)
        assert f"Kept by name is a sample of 10 of {len(expected)} artifacts: " in out
    best = sorted(found, key=lambda ngram: (-expected[ngram], ngram))[:3]
    assert [row.tokens for row in read(out).values()] == [" ".join(map(str, ngram)) for ngram in best]
