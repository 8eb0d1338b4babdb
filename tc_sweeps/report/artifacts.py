"""The artifacts of one run, read as sentences: what the model is sure of that its data do not hold."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from tc_sweeps.config import ConfigError
from tc_sweeps.report import kept
from tc_sweeps.report.frame import find_run, hint, listed
from tc_sweeps.report.status import LONGEST_REASON
from tc_sweeps.report.table import columns_text
from tc_sweeps.store.folder import RunFolder
from tc_sweeps.store.lease import standing

LABELS = ("generalization", "hallucination", "unlabelled")
LONGEST_NAME = 40  # characters of a token's name: a table of text may hold any
MOST_RIGHT = 4  # last tokens that are right in a context; a closed world may have a hundred


def artifacts_text(run: str | Path, *, top: int = 50, labels: Sequence[str] = (), containing: str | None = None) -> str:
    """Return as text the most confident artifacts of a run, one a line, and how many there are of each label in all.

    `run` is as in `find_run`. Of the artifacts kept by name, `labels` chooses those with one of these labels (none:
    all) and `containing` those with this token; `rank` is a place among all of them. `context` says whether the context
    is in the data, `right` which last tokens are right in it. The table is as wide as the terminal at most, and no
    character of a token's name that a terminal would obey is in it. Raises `ConfigError` where there is no such run,
    where it has not finished, for an unknown label or token, and for `top` below 1.
    """
    if top < 1:
        raise ConfigError(f"--top {top} must be at least 1.")
    for label in labels:
        if label not in LABELS:
            raise ConfigError(f"--label {label} is no label{hint(label, LABELS, f'there are {listed(LABELS)}')}")
    folder = find_run(run)
    _require_finished(folder)
    spelled = _speller(folder.read_vocabulary())
    token = None if containing is None else _token(containing, folder)

    def meant(table: pa.Table) -> np.ndarray:
        is_meant = np.ones(len(table), dtype=bool)
        if labels:
            is_meant &= kept.with_labels(table, labels)
        return is_meant if token is None else is_meant & kept.with_token(table, token)

    found = kept.surest(folder, top, meant if labels or containing is not None else None)
    has_truth = not math.isnan(folder.read_last()["generalization/count"])
    filters = [f"label {' or '.join(labels)}"] if labels else []
    filters += [] if containing is None else [f"the token {printable(containing)}"]
    head = "\n".join(filter(None, [_headline(folder, found.kept), _shown(found.meant, top, filters)]))
    if not found.meant:
        return head
    chosen = found.table.to_pandas().assign(rank=kept.ranks(folder, found))
    probability = "{:.4g}" if _is_joint(folder) else "{:.6f}"
    return f"{head}\n\n{_rows(chosen, spelled, probability, has_truth=has_truth)}"


def _require_finished(folder: RunFolder) -> None:
    run = standing(folder)
    name = f"The run {folder.sweep}/{folder.run_id}"
    if run["state"] == "finished":
        return
    reason = printable(textwrap.shorten(str(run["reason"] or ""), LONGEST_REASON, placeholder=" ...")).rstrip(".")
    if run["state"] == "failed":
        why = f": {reason}" if reason else ""
        raise ConfigError(f"{name} has failed at step {run['step']}{why}; it has no list of artifacts.")
    raise ConfigError(
        f"{name} has not finished (it is {run['state']}, at step {run['step']}): its artifacts are listed when it has."
    )


def _headline(folder: RunFolder, named: int) -> str:
    """Return how many artifacts the run has, and which of them are kept by name, `named` in all."""
    last, config = folder.read_last(), folder.read_config()
    count = int(last["artifacts/count"])
    right, wrong = last["generalization/count"], last["hallucination/count"]
    above = f"P > {config['artifacts']['threshold']:g}"
    if _is_joint(folder):
        above = f"P(sentence) > {folder.read_facts()['corpus/epsilon']:g}"
    low, high = (last.get(f"artifacts/count_{end}", math.nan) for end in ("low", "high"))
    is_estimate = high > low  # neither is there where artifacts are counted
    about = f"about {_counted(count)} (95 % interval {low:,.0f} to {high:,.0f})" if is_estimate else _counted(count)
    start = f"{folder.sweep}/{folder.run_id}: {about} at {above}"
    if not count:
        return f"{start}."
    if math.isnan(right):
        labels = ", all unlabelled: nothing says what is true"
    else:
        numbers = (int(right), int(wrong), count - int(right) - int(wrong))
        labels = f": {_by_label(dict(zip(LABELS, numbers, strict=True)))}"
    if named >= count and not is_estimate:
        return f"{start}{labels}.\nAll are kept by name."
    which = f"are the {named:,} most confident"
    if kept.keeps_sample(config):
        which = f"is a sample of {named:,} of {count:,} artifacts"
    elif config["artifacts"].get("keep") == "all":
        which = f"are all {named:,}"
    among = " of those in the contexts looked at" if is_estimate else ""
    return f"{start}{labels}.\nKept by name {which}{among}: {_by_label(kept.labels(folder))}."


def _is_joint(folder: RunFolder) -> bool:
    """Whether probabilities are those of sentences; runs of older versions have no measure to choose."""
    measure: str | None = folder.read_config()["artifacts"].get("measure")
    return measure == "joint"


def _by_label(counts: Mapping[str, int]) -> str:
    numbers = [counts.get(label, 0) for label in LABELS]
    names = [f"generalization{'s' * (numbers[0] != 1)}", f"hallucination{'s' * (numbers[1] != 1)}", "unlabelled"]
    return listed([f"{number:,} {name}" for number, name in zip(numbers, names, strict=True)])


def _counted(count: int) -> str:
    return f"{count:,} artifact{'s' * (count != 1)}" if count else "no artifact"


def _shown(meant: int, top: int, filters: Sequence[str]) -> str:
    such = f" with {' and '.join(filters)}" if filters else ""
    if not meant:
        return f"None is kept{such}." if such else ""
    if meant <= top:
        return f"Shown: all {meant:,}{such}."
    return f"Shown: the first {top:,} of {meant:,}{such}."


def _rows(chosen: pd.DataFrame, spelled: Callable[[int], str], probability: str, *, has_truth: bool) -> str:
    cells = {
        "rank": [str(rank) for rank in chosen["rank"]],
        "tokens": [" ".join(map(spelled, tokens)) for tokens in chosen["tokens"]],
        "probability": [probability.format(p) for p in chosen["probability"]],
        "label": chosen["label"].tolist(),
        "context": ["seen" if seen else "unseen" for seen in chosen["seen"]],
    }
    note = ""
    if "right" in chosen and chosen["right"].map(len).any():  # runs of older versions have no such column
        cells["right"] = [_few(tokens, spelled) for tokens in chosen["right"]]
        what = "are true" if has_truth else "the data hold"
        note = f"\n\nright: the last tokens that {what} in that context; - for none."
    return columns_text(cells, repeated=2) + note


def _few(tokens: Iterable[int], spelled: Callable[[int], str]) -> str:
    """Return the names of the first few tokens and how many more there are."""
    names = list(map(spelled, tokens))
    more = [f"+{len(names) - MOST_RIGHT}"] if len(names) > MOST_RIGHT else []
    return " ".join([*names[:MOST_RIGHT], *more]) or "-"


# --------------------------------------------------------------------------------------------------------------- tokens


def printable(text: str) -> str:
    """Return a text with everything escaped that a terminal would obey or not show: `\\x1b` for an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def short_name(name: str) -> str:
    """Return a token's name as it is shown: printable, and no longer than `LONGEST_NAME`."""
    name = printable(name)
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 3]}..."


def printable_lines(text: str) -> str:
    """Return a text of several lines, each of them `printable`."""
    return "\n".join(map(printable, text.split("\n")))


def _speller(names: Sequence[str] | None) -> Callable[[int], str]:
    """Return what spells a token: its name, in quotes where it would not read as one word; or its number."""

    def spelled(token: int) -> str:
        if names is None:
            return str(token)
        name = short_name(names[token])
        return name if name and " " not in name else f'"{name}"'

    return spelled


def _token(containing: str, folder: RunFolder) -> int:
    """Return the token that is named, by its name as it is or as it is printed; raises `ConfigError` if none is."""
    names = folder.read_vocabulary()
    if names is not None:
        for token, name in enumerate(names):
            if containing in (name, printable(name)):
                return token
        known = list(map(printable, names))
        said = hint(containing, known, f"there are {listed(known, 10)}")
        raise ConfigError(f"--containing {printable(containing)} is no token of this run{said}")
    size = int(folder.read_facts()["corpus/vocab_size"] or 0)
    if not (containing.isdecimal() and int(containing) < size):
        raise ConfigError(
            f"--containing {containing} is no token of this run: its tokens are the numbers 0 to {size - 1}."
        )
    return int(containing)
