"""Tidy frames of a sweep: one row per run, per run and evaluation, or per run and threshold; and means over seeds."""

from __future__ import annotations

import difflib
import pkgutil
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tc_sweeps.config import WORLDS, Config, ConfigError, leaves
from tc_sweeps.report.intervals import half_width
from tc_sweeps.report.where import Where, in_order, matching, spell_value, spell_where
from tc_sweeps.store.folder import OUTPUTS, RunFolder
from tc_sweeps.store.sweep_folder import SweepFolder

# Where a run stands; every other column is a result or a key.
STATUS = ["run_id", "state", "reason", "step", "attempt", "seconds_per_step"]

_FACTS = ("corpus/", "model/")
# Keys that say where, how fast or under which name a run happens, never what comes out of it.
_NO_RESULT = {name for name, _, metadata in leaves(Config()) if not metadata["identity"]}
_UNGROUPED = {name for name, _, _ in leaves(Config()) if "." not in name}


# --------------------------------------------------------------------------------------------------------------- sweeps


Sweep = str | Path | SweepFolder
"""A sweep's name under outputs/, its path, or its folder as `find_sweep` returns it."""


def find_sweep(sweep: Sweep, *, every: bool = False) -> SweepFolder:
    """Return the folder of a sweep, named as under outputs/ or by its path.

    Its runs are those of the plan, which each multirun begins anew; `every`: also those of earlier plans. Raises
    `ConfigError` where there is none, with the sweep of a similar name, or else with those that there are.
    """
    if isinstance(sweep, SweepFolder):
        return sweep
    for path in dict.fromkeys([OUTPUTS / sweep, Path(sweep)]):
        if _is_sweep(path):
            return SweepFolder(path, every=every)
    home, name = Path(sweep).parent, Path(sweep).name
    if home == Path():
        home = OUTPUTS
    names = [found.path.name for found in find_sweeps(home)]
    if not names:
        raise ConfigError(f"There is no sweep '{name}': {home.resolve()} holds no sweep yet.")
    raise ConfigError(f"There is no sweep '{name}' in {home.resolve()}{hint(name, names, f'it holds {listed(names)}')}")


def names_sweep(sweep: str | Path) -> bool:
    """Whether `find_sweep` finds a sweep of this name."""
    return any(_is_sweep(path) for path in (OUTPUTS / sweep, Path(sweep)))


def find_sweeps(home: Path = OUTPUTS, *, every: bool = False) -> list[SweepFolder]:
    """Return the sweeps in a folder, by name; `every` as in `find_sweep`."""
    return [SweepFolder(path, every=every) for path in sorted(home.glob("*")) if _is_sweep(path)]


def experiments() -> list[str]:
    """Return the names of the experiments that have a figure of their own, without loading what draws them."""
    return sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).parent / "figures")]))


def own_figure(folder: SweepFolder) -> str | None:
    """Return the experiment whose figure a sweep has, or None.

    It is the one that the sweep was launched as, or else that has its name; a search has a figure of its own, `search`.
    """
    if folder.is_search:
        return "search"
    name = folder.plan["experiment"] or folder.path.name
    return name if name in experiments() and name != "search" else None


def find_run(run: str | Path) -> RunFolder:
    """Return the folder of a run: its path, SWEEP/RUN_ID, or SWEEP/ and the beginning of one run's id.

    SWEEP is as in `find_sweep`; alone it is the run of a sweep that has only one. Raises `ConfigError` where no run or
    several are meant.
    """
    for path in dict.fromkeys([OUTPUTS / run, Path(run)]):
        if (path / "config.yaml").is_file():
            return RunFolder(path.resolve())
    parent, beginning = Path(run).parent, Path(run).name
    if names_sweep(run):
        folder = find_sweep(run, every=True)
        names = [found.run_id for found in folder.runs()]
        if len(names) == 1:
            return RunFolder(folder.path.resolve() / names[0])
        raise ConfigError(
            f"'{run}' does not name a run: it is a sweep of {len(names)}, {listed(names, 5)}; write "
            f"{folder.path.name}/RUN_ID, of which the beginning is enough."
        )
    if parent == Path():
        how = "write SWEEP/RUN_ID, or its path; the beginning of an id is enough"
        names = [found.name for found in find_sweeps()]
        raise ConfigError(f"'{run}' does not name a run{hint(beginning, names, how)}")
    folder = find_sweep(parent, every=True)
    names = [found.run_id for found in folder.runs()]
    meant = [name for name in names if name.startswith(beginning)]
    if len(meant) == 1:
        return RunFolder(folder.path.resolve() / meant[0])
    if meant:
        raise ConfigError(f"'{run}' is the beginning of {len(meant)} runs, {listed(meant, 5)}: write more of the id.")
    raise ConfigError(f"The sweep '{folder.path.name}' has no run '{beginning}'; it has {listed(names, 5)}.")


def hint(name: str, known: Iterable[str], otherwise: str) -> str:
    """Return the end of a sentence about an unknown name: the known one that it is near to, or else `otherwise`.

    `width` is near `model.width`: a key is often named without its group, or with another one.
    """
    last = {full: re.split("[./]", full)[-1] for full in [*known, name]}
    word = last.pop(name)
    same = [full for full in last if last[full] == word]
    near = difflib.get_close_matches(name, same, n=1, cutoff=0.0) or difflib.get_close_matches(name, last, n=1)
    near = near or [full for full in last if last[full] in difflib.get_close_matches(word, last.values(), n=1)]
    return f"; did you mean '{near[0]}'?" if near else f"; {otherwise}."


def listed(names: Sequence[str], most: int = 20) -> str:
    """Return `a, b and c`; where there are more names than one reads, the first ones and how many more."""
    if len(names) > most:
        names = [*names[:most], f"{len(names) - most} more"]
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def counted(count: int, what: str) -> str:
    """Return `1 seed` or `2 seeds`."""
    return f"{count} {what}{'s' * (count != 1)}"


def runs_text(count: int) -> str:
    """Return `1 run` or `2 runs`."""
    return counted(count, "run")


def unseen(sweep: SweepFolder) -> str:
    """Return the sentence that tells of the runs of earlier plans that are not looked at; nothing where none is."""
    count = 0 if sweep.every else len(sweep.earlier())
    return f"Not shown: {runs_text(count)} of earlier commands of '{sweep.name}'; --all adds them." if count else ""


def typed(sweep: Path) -> str:
    """Return how a sweep is named on the command line: its name where it lies under outputs/, else its path."""
    return shlex.quote(sweep.name if sweep.parent == OUTPUTS else str(sweep))


def figure_command(sweep: Path, runs: pd.DataFrame) -> str:
    """Return a command that draws these runs against their first axis."""
    keys = [first for first, *_ in together(runs, swept_keys(runs))]
    x = keys[0] if keys else "step"
    # A second axis gets lines of its own; of more, one must be named and the rest held.
    by = [f"--by {keys[1]}"] if len(keys) > 2 else []
    held = [f"--where {shlex.quote(f'{key}={spell_value(runs[key].iloc[0])}')}" for key in keys[3:]]
    return " ".join([f"tc-sweeps figure {typed(sweep)} --x {x} --y artifacts/per_ngram", *by, *held])


def _is_sweep(path: Path) -> bool:
    return (path / "plan.json").is_file() or any(path.glob("*/config.yaml"))


# --------------------------------------------------------------------------------------------------------------- frames


def load_sweep(sweep: Sweep, *, where: Where | None = None, every: bool = False) -> pd.DataFrame:
    """Return one row per run: where it stands, its config keys, its facts, and the last value of each metric.

    Runs of all states are there, and one in training or that failed has the values of its last evaluation, not of its
    last step: `where={"state": "finished"}` leaves them out. The runs are those of the sweep's plan; `every=True` adds
    those of earlier plans. `sweep` is a name under outputs/ or a path. Lists among the config values come as tuples, so
    that runs can be grouped by them.

    `where` keeps the runs whose config (or `state`) agrees with it in every key: `{"model.width": 32, "seed": [0, 1]}`
    are the runs of width 32 with the seed 0 or 1. Of several values one must hold; a tuple may also be one value that
    is a list, and None matches null, also in runs of a world that does not have the key. Raises `ConfigError` where
    there is no such sweep, for a key that no run has, and where no run is left.
    """
    folder = find_sweep(sweep, every=every)
    results = folder.results()
    if results.empty:
        return pd.DataFrame(columns=STATUS)
    for name in config_keys(results):
        if results[name].map(lambda value: isinstance(value, list)).any():
            results[name] = results[name].map(lambda value: tuple(value) if isinstance(value, list) else value)
    return chosen(results, where or {}, folder)


def chosen(runs: pd.DataFrame, where: Where, sweep: SweepFolder) -> pd.DataFrame:
    """Return the runs that agree with `where`, as `load_sweep` says; `sweep` is whose they are."""
    if not isinstance(where, Mapping):
        raise ConfigError(f"where={where!r} is no dict of keys and values, as in where={{'model.width': [8, 16]}}.")
    keys = [*config_keys(runs), "state"]
    kept = pd.Series(True, index=runs.index)
    for key, wanted in where.items():
        if key not in keys:
            raise ConfigError(f"The sweep '{sweep.name}' has no config key '{key}'{hint(key, keys, differ(runs))}")
        found = matching(runs[key], wanted)
        if not found.any():
            there = listed([spell_value(value) for value in in_order(runs[key])])
            raise ConfigError(
                f"No run of the sweep '{sweep.name}' has {spell_where({key: wanted})}; there are {there}. "
                f"{unseen(sweep)}".rstrip()
            )
        kept &= found
    if not kept.any():
        raise ConfigError(
            f"No run of the sweep '{sweep.name}' has {spell_where(where)} together. {unseen(sweep)}".rstrip()
        )
    return runs[kept].reset_index(drop=True)


def load_finished(sweep: Sweep, where: Where | None = None, columns: Sequence[str] = ()) -> pd.DataFrame:
    """Return `load_sweep` of the finished runs only.

    Raises `ConfigError` where no run has finished, and where the runs lack one of the columns that are needed.
    """
    runs = load_sweep(sweep, where=where)
    finished = runs[runs["state"] == "finished"]
    if finished.empty:
        such = f" with {spell_where(where)}" if where else ""
        raise ConfigError(
            f"No run of the sweep '{find_sweep(sweep).name}'{such} has finished: there is nothing to draw."
        )
    if missing := [name for name in columns if name not in finished]:
        raise ConfigError(
            f"No run of the sweep '{find_sweep(sweep).name}' has {listed(missing)}, of which the figure is made."
        )
    return finished.reset_index(drop=True)


def left_out(sweep: Sweep, where: Where | None = None) -> str:
    """Return in sentences which runs are in no figure, as `load_finished` has it, and in which numbers are estimates.

    Nothing where all have finished and are counted exactly.
    """
    runs = load_sweep(sweep, where=where)
    states = runs["state"]
    others = states[states != "finished"]
    told = ", ".join(f"{count} {state}" for state, count in others.value_counts().sort_index().items())
    are = f"{len(others)} of {len(states)} runs {'is' if len(others) == 1 else 'are'} left out: {told}." if told else ""
    return " ".join(filter(None, [are, estimated(runs)]))


def unfinished(sweep: Sweep, where: Where | None = None) -> bool:
    """Whether some of the runs may still finish: they are queued, running or interrupted."""
    return bool((~load_sweep(sweep, where=where)["state"].isin(["finished", "failed"])).any())


def estimated(runs: pd.DataFrame) -> str:
    """Return a sentence on the runs whose numbers of artifacts are estimates; nothing where there are none."""
    if "artifacts/count_high" not in runs:  # none of these runs is of a version that estimates
        return ""
    count = int((runs["artifacts/count_high"] > runs["artifacts/count_low"]).sum())
    if not count:
        return ""
    return (
        f"In {count} of {runs_text(len(runs))} the numbers of artifacts are estimates. Intervals over seeds do not "
        "hold how far each may be off; artifacts/count_low and artifacts/count_high do."
    )


def load_curves(sweep: Sweep, *, where: Where | None = None) -> pd.DataFrame:
    """Return one row per run and evaluation: `step`, each metric, and the run's id, state, config keys and facts.

    `where` chooses runs as in `load_sweep`.
    """
    runs = load_sweep(sweep, where=where)
    tables = [run.read_metrics().assign(run_id=run.run_id) for run in _folders(sweep, runs)]
    return _join(tables, runs)


def load_survival(
    sweep: Sweep,
    thresholds: Sequence[float] | None = None,
    *,
    where: Where | None = None,
    over_training: bool = False,
) -> pd.DataFrame:
    """Return each run's survival curve at its last evaluation: one row per run and threshold (of those asked for).

    With `over_training` at every evaluation, one row per `step` too; thresholds below 1/2 are read at the last alone.
    `count` is the number of artifacts with a probability above `threshold`, `ratio` that number per distinct training
    n-gram. Beside them stand the run's id, state, config keys and facts. Runs that never got to count are left out.
    `where` chooses runs as in `load_sweep`.
    """
    tables = []
    runs = load_sweep(sweep, where=where)
    for run in _folders(sweep, runs):
        if (run.path / "survival.parquet").exists():
            survival = run.read_table("survival")
            wanted = (survival["step"] == survival["step"].max()) | over_training
            if thresholds is not None:
                wanted &= np.isclose(survival["threshold"].to_numpy()[:, None], thresholds).any(axis=1)
            tables.append(survival[wanted].assign(run_id=run.run_id))
    joined = _join(tables, runs)
    if len(joined):
        joined["ratio"] = joined["count"] / joined["corpus/train_ngrams"].astype(float)
    return joined


def _folders(sweep: Sweep, runs: pd.DataFrame) -> list[RunFolder]:
    path = find_sweep(sweep).path
    return [RunFolder(path / run_id) for run_id in runs["run_id"]]


def _join(tables: Sequence[pd.DataFrame], runs: pd.DataFrame) -> pd.DataFrame:
    filled = [table for table in tables if len(table)]
    about = runs[["run_id", "state", *config_keys(runs), *facts(runs)]]
    if not filled:
        return about.iloc[:0].assign(step=[])
    return pd.concat(filled, ignore_index=True).merge(about, on="run_id", how="left", validate="many_to_one")


# -------------------------------------------------------------------------------------------------------------- columns


def config_keys(frame: pd.DataFrame) -> list[str]:
    """Return the columns that are config keys, in the order of the config."""
    return [name for name in map(str, frame.columns) if name in _UNGROUPED or ("." in name and "/" not in name)]


def facts(frame: pd.DataFrame) -> list[str]:
    """Return the columns that are known of a run before it trains, such as `model/non_embedding_parameters`."""
    return [name for name in map(str, frame.columns) if name.startswith(_FACTS)]


def metric_names(frame: pd.DataFrame) -> list[str]:
    """Return the columns that are metrics, such as `artifacts/per_ngram`."""
    return [name for name in map(str, frame.columns) if "/" in name and not name.startswith(_FACTS)]


def swept_keys(frame: pd.DataFrame) -> list[str]:
    """Return the config keys with more than one value among the runs (null counts as a value), by which runs differ.

    Left out are the seed, keys that cannot change a result (`tracking.mode`), and keys that only follow another one:
    `data.seed` the seed, head widths the width, `artifacts.order` the order, and the own keys of
    a world or a model its name.
    """
    several = [
        key for key in config_keys(frame) if key != "seed" and key not in _NO_RESULT and _distinct(frame[key]) > 1
    ]
    return [key for key in several if not _follows(frame, key)]


def together(frame: pd.DataFrame, keys: Sequence[str], *, searched: bool = False) -> list[list[str]]:
    """Return the keys in groups: those that go along with each other one to one, as axes do that are zipped.

    For the widths 8, 8, 16 the rates 2, 2, 1 go along, and the rates 2, 1, 1 do not. With `searched` every key is a
    group of its own: of what a search draws at random no value comes twice, and all keys would seem to go along.
    """
    if searched:
        return [[key] for key in keys]
    groups: list[list[str]] = []
    for key in keys:
        for group in groups:
            pairs = len(frame[[group[0], key]].drop_duplicates())
            if pairs == _distinct(frame[key]) == _distinct(frame[group[0]]):
                group.append(key)
                break
        else:
            groups.append([key])
    return groups


def differ(runs: pd.DataFrame) -> str:
    """Return `its runs differ in model.width and seed`, for who asks for a key that there is not."""
    keys = [*swept_keys(runs), *(["seed"] if _distinct(runs["seed"]) > 1 else [])]
    return f"its runs differ in {listed(keys)}" if keys else "its runs differ in no key"


def _distinct(values: pd.Series[Any]) -> int:
    return int(values.dropna().nunique() + values.isna().any())


def _follows(frame: pd.DataFrame, key: str) -> bool:
    """Whether `key` has the value that another key gives it in every run."""
    leaders = {
        "data.seed": ["seed"],
        "model.qk_width": ["model.width", "model.heads"],
        "model.vo_width": ["model.width", "model.heads"],
        "artifacts.order": ["data.order"],
        "artifacts.contexts": ["data.name"],
    }.get(key, [])
    if not leaders or not set(leaders) <= set(frame):
        # Between worlds (or models) a key may differ only because each has its own value of it, or none at all.
        name = f"{key.partition('.')[0]}.name"
        if name not in ("data.name", "model.name") or name not in frame or key == name or _distinct(frame[name]) == 1:
            return False
        return all(_distinct(choice[key]) == 1 for _, choice in frame.groupby(name))
    first = frame[leaders[0]]
    if key.startswith("model."):
        led: pd.Series[Any] = first // frame[leaders[1]]
    elif key == "artifacts.contexts":
        led = first.map({name: world.contexts for name, world in WORLDS.items()})
    else:
        led = first
    return bool(((frame[key] == led) | (frame[key].isna() & led.isna())).all())


# ----------------------------------------------------------------------------------------------------------- statistics


def last_evaluations(curves: pd.DataFrame) -> pd.DataFrame:
    """Return the last row of each run in `load_curves`."""
    return curves[curves["step"] == curves.groupby("run_id")["step"].transform("max")]


def under_fitted(frame: pd.DataFrame) -> pd.Series[bool]:
    """Return whether train/accuracy is known and does not reach what a full fit does, row by row."""
    return frame["train/accuracy"].notna() & ~fully_fitted(frame)


def fully_fitted(frame: pd.DataFrame) -> pd.Series[bool]:
    """Return whether train/accuracy reaches `corpus/fully_fitted_accuracy`, row by row; false where undefined."""
    # Accuracy is a quotient of whole numbers, perhaps kept in float32: an equal one must not fall short by rounding.
    return frame["train/accuracy"].astype(float) >= frame["corpus/fully_fitted_accuracy"].astype(float) - 1e-6


def split(frame: pd.DataFrame, keys: Sequence[str]) -> list[tuple[dict[str, Any], pd.DataFrame]]:
    """Return the groups of rows that agree in `keys`: each one's values by key (None for null) and its rows."""
    if not keys:
        return [({}, frame)]
    groups: Any = frame.groupby(list(keys), dropna=False)
    return [
        ({key: None if value != value else value for key, value in zip(keys, values, strict=True)}, part)
        for values, part in groups
    ]


def to_the_end(curves: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Return curves in which a finished run also stands at each later step of its group, with what it has come to.

    A run that has reached `training.target_excess_loss` is evaluated no more, and a mean over the runs that go on would
    be one of other runs from step to step. `curves` has the columns `run_id`, `state` and `step`, as that of
    `load_curves`, and `by` are the columns in which the runs of a group agree.
    """
    curves = curves.reset_index(drop=True)
    keys = [curves[name] for name in by] or [pd.Series(0, index=curves.index)]
    group = curves.groupby(keys, dropna=False).ngroup()
    last = curves.groupby("run_id")["step"].transform("max")
    before = last < curves.groupby(group)["step"].transform("max")
    ends = curves.index[before & (curves["step"] == last) & (curves["state"] == "finished")]
    steps_of = {name: np.unique(steps) for name, steps in curves["step"].groupby(group)}
    rows, steps = [*curves.index], curves["step"].tolist()
    for row, place, end in zip(ends, group[ends], last[ends], strict=True):
        later = steps_of[place][steps_of[place] > end].tolist()
        rows += [row] * len(later)
        steps += later
    return curves.iloc[rows].assign(step=steps).reset_index(drop=True)


def over_seeds(frame: pd.DataFrame, by: Sequence[str], metrics: Sequence[str]) -> pd.DataFrame:
    """Return the mean of each metric over the finished runs that agree in the columns `by`.

    One row per group and metric, with the columns `by`, `metric`, `mean`, `low`, `high` and `runs`. `low` and `high`
    bound the 95 % Student t interval, and are NaN for fewer than two runs. Undefined values (NaN) are left out, and
    `runs` counts the others. Null is a value of `by` like any other: no run is dropped for it.
    """
    by = list(dict.fromkeys(by))
    finished = frame[frame["state"] == "finished"] if "state" in frame else frame
    parts = []
    for metric in metrics:
        # `by` may hold the metric itself, hence a frame of keys that is not the frame of values.
        keys = [finished[name] for name in by] or [pd.Series(0, index=finished.index, name="all")]
        part = finished[metric].astype(float).groupby(keys, dropna=False).agg(["mean", "std", "count"])
        part.index.names = [f"key {place}" for place in range(len(keys))]
        parts.append(part.reset_index().assign(metric=metric))
    table = pd.concat(parts, ignore_index=True)
    half = half_width(table["std"].to_numpy(float), table["count"].to_numpy(float))
    table["low"], table["high"] = table["mean"] - half, table["mean"] + half
    tidy = table[[*(f"key {place}" for place in range(len(by))), "metric", "mean", "low", "high", "count"]]
    tidy.columns = pd.Index([*by, "metric", "mean", "low", "high", "runs"])
    return tidy.astype({"runs": np.int64})
