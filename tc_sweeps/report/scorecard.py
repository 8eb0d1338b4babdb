"""The scorecard of the paper's four claims: what the sweeps at hand say of each, in the terminal and as a page."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tc_sweeps.config import ConfigError
from tc_sweeps.report.claims import Finding
from tc_sweeps.report.figures import Drawing, draw_experiment, figure_module
from tc_sweeps.report.frame import Sweep, find_sweep, names_sweep, own_figure
from tc_sweeps.report.table import WIDTH
from tc_sweeps.store.files import replace
from tc_sweeps.store.folder import OUTPUTS
from tc_sweeps.store.sweep_folder import SweepFolder

CLAIMS = {letter: f"claim_{letter}" for letter in "abcd"}  # the experiment that tests each


class _Answer(NamedTuple):
    """What one sweep says of a claim."""

    claim: str
    sweep: SweepFolder
    drawing: Drawing
    findings: list[Finding]

    @property
    def conclusion(self) -> str:
        """The verdict on the claim as a whole: the first line of what its figure's module says."""
        return self.drawing.verdict.splitlines()[0]


class Scorecard(NamedTuple):
    """What is known of the claims: the text for the terminal, the page (None: none has runs)."""

    text: str
    path: Path | None
    sweeps: list[SweepFolder]


def write_scorecard(sweeps: Sequence[Sweep] = (), *, every: bool = False) -> Scorecard:
    """Judge the claims, draw their figures and write `claims.md` beside the sweeps.

    `sweeps` are those of the experiments claim_a to claim_d, by default the ones of these names under outputs/ that
    exist; `every` as in `find_sweep`. A claim without runs is named with the command that makes them. Raises
    `ConfigError` for a sweep of no claim.
    """
    chosen = [find_sweep(name, every=every) for name in sweeps or filter(names_sweep, CLAIMS.values())]
    answers, silent = [], []
    for sweep in chosen:
        experiment = own_figure(sweep)
        letter = next((letter for letter, name in CLAIMS.items() if name == experiment), None)
        if letter is None:
            raise ConfigError(
                f"The sweep '{sweep.name}' tests none of the paper's claims: name one of experiment=claim_a to claim_d."
            )
        try:
            module = figure_module(CLAIMS[letter])
            answers.append(_Answer(letter, sweep, draw_experiment(sweep, CLAIMS[letter]), module.findings(sweep)))
        except ConfigError as error:
            silent.append(f"Claim ({letter}), sweep {sweep.name}: {error}")
    answers.sort(key=lambda answer: answer.claim)
    judged = {answer.claim for answer in answers}
    if not sweeps:
        silent += [
            f"Claim ({letter}) has no runs yet: {_command(letter)}"
            for letter, name in CLAIMS.items()
            if letter not in judged and not names_sweep(name)
        ]
    if not answers:
        return Scorecard("\n".join(["No claim can be judged.", *silent]), None, chosen)
    path = (chosen[0].path.parent if sweeps else OUTPUTS) / "claims.md"
    page = _page(answers, silent, path.parent)
    replace(path, lambda new: new.write_text(page, encoding="utf-8"))
    written = [path, *(answer.drawing.paths[0] for answer in answers)]
    parts = [*map(_text, answers), *silent, "Written: " + "\n         ".join(map(str, written))]
    return Scorecard("\n\n".join(parts), path, chosen)


def _command(letter: str) -> str:
    return f"python -m tc_sweeps -m experiment={CLAIMS[letter]}"


def _text(answer: _Answer) -> str:
    """Return what is known of a claim for the terminal: the claim, the verdict, and a row for each finding."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for name, side in (("part", "left"), ("effect", "right"), ("", "left"), ("n", "right"), ("verdict", "left")):
        table.add_column(name, justify="right" if side == "right" else "left", no_wrap=name in ("effect", "n"))
    for finding in answer.findings:
        verdict = finding.verdict if finding.decides else f"({finding.verdict})"
        cells = [finding.part, finding.interval, finding.unit, str(finding.seeds), verdict]
        table.add_row(*map(Text, cells))
    stream = StringIO()
    Console(file=stream, width=shutil.get_terminal_size((WIDTH, 24)).columns, color_system=None).print(table)
    rows = "\n".join(line.rstrip() for line in stream.getvalue().splitlines() if line.strip())
    told = [f"Claim ({answer.claim}): {answer.drawing.claim}", f"Verdict: {answer.conclusion}", answer.drawing.left_out]
    return "\n".join([*filter(None, told), rows])


def _page(answers: Sequence[_Answer], silent: Sequence[str], home: Path) -> str:
    """Return the page: per claim its verdict, its figure, its command, and question, test and effect of each part."""
    parts = [
        "# The paper's claims",
        "Effects are with 95 % bootstrap intervals. What is in brackets stands beside a claim and does not decide it. "
        "Made by `tc-sweeps claims`; the questions and rules, fixed before the data, stand in `conf/experiment`.",
        "\n".join(
            [
                "| claim | verdict |",
                "|---|---|",
                *(f"| ({a.claim}) {a.drawing.claim} | {a.conclusion} |" for a in answers),
            ]
        ),
        *silent,
    ]
    for answer in answers:
        figure = Path(os.path.relpath(answer.drawing.paths[0], home)).as_posix()
        rows = [
            f"| {f.part} | {f.interval} {f.unit} | {f.units} | "
            f"{f.verdict if f.decides else f'({f.verdict})'} | {f.question} | {f.test} |"
            for f in answer.findings
        ]
        table = ["| part | effect | of | verdict | question | test |", "|---|---|---|---|---|---|", *rows]
        parts += [
            f"## Claim ({answer.claim})",
            f"*{answer.drawing.claim}*",
            f"**{answer.conclusion}**",
            *filter(None, [answer.drawing.left_out]),
            f"![Claim ({answer.claim})]({figure})",
            f"`{_command(answer.claim)}`",
            "\n".join(table),
        ]
    return "\n\n".join(parts) + "\n"
