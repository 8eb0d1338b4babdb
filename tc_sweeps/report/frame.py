"""Tidy frames of a sweep: one row per run, per run and evaluation, or per run and threshold; and means over seeds."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tc_sweeps.config import WORLDS, Config, ConfigError, leaves
from tc_sweeps.report.intervals import half_width
from tc_sweeps.store.folder import OUTPUTS
from tc_sweeps.store.sweep_folder import SweepFolder

STATUS = [
    "run_id",
    "state",
    "reason",
    "step",
    "attempt",
    "seconds_per_step",
]  # where a run stands; every other column is a result or a key

_FACTS = ("corpus/", "model/")
# Keys that say where, how fast or under which name a run happens, never what comes out of it.
_NO_RESULT = {name for name, _, metadata in leaves(Config()) if not metadata["identity"]}
_UNGROUPED = {name for name, _, _ in leaves(Config()) if "." not in name}


# --------------------------------------------------------------------------------------------------------------- sweeps


def find_sweep(sweep: str | Path) -> SweepFolder:
    """Return the folder of a sweep, named as under outputs/ or by its path.

    Raises `ConfigError` where there is none, with the nearest sweep that there is.
    """
    for path in dict.fromkeys([OUTPUTS / sweep, Path(sweep)]):
        if _is_sweep(path):
            return SweepFolder(path)
    names = sorted(path.name for path in OUTPUTS.glob("*") if _is_sweep(path))
    if not names:
        raise ConfigError(f"There is no sweep '{sweep}': {OUTPUTS}/ holds no sweep yet.")
    raise ConfigError(f"There is no sweep '{sweep}'; did you mean '{nearest(str(sweep), names)}'?")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the known name that is spelled most like `name`; `width` is near `model.width`."""
    known = list(known)
    # A key is often named without its group: an equal last part beats every other likeness.
    same = [full for full in known if name in (full.rpartition(".")[2], full.rpartition("/")[2])]
    return (same or difflib.get_close_matches(name, known, n=1, cutoff=0.0))[0]


def _is_sweep(path: Path) -> bool:
    return (path / "plan.json").is_file() or any(path.glob("*/config.yaml"))


# --------------------------------------------------------------------------------------------------------------- frames


def load_sweep(sweep: str | Path, *, every: bool = False) -> pd.DataFrame:
    """Return one row per run: where it stands, its config keys, its facts, and the last value of each metric.

    The runs are those of the sweep's plan; `every=True` adds those of earlier plans. `sweep` is a name under outputs/
    or a path. Lists among the config values come as tuples, so that runs can be grouped by them. Raises `ConfigError`
    where there is no such sweep.
    """
    results = find_sweep(sweep).results(every=every)
    if results.empty:
        return pd.DataFrame(columns=STATUS)
    for name in config_keys(results):
        if results[name].map(lambda value: isinstance(value, list)).any():
            results[name] = results[name].map(lambda value: tuple(value) if isinstance(value, list) else value)
    return results


def load_finished(sweep: str | Path) -> pd.DataFrame:
    """Return `load_sweep` of the finished runs only; raises `ConfigError` where no run has finished."""
    runs = load_sweep(sweep)
    finished = runs[runs["state"] == "finished"]
    if finished.empty:
        raise ConfigError(f"No run of the sweep '{Path(sweep).name}' has finished: there is nothing to draw.")
    return finished.reset_index(drop=True)


def load_curves(sweep: str | Path) -> pd.DataFrame:
    """Return one row per run and evaluation: `step`, each metric, and the run's id, state, config keys and facts."""
    tables = [run.read_metrics().assign(run_id=run.run_id) for run in find_sweep(sweep).runs()]
    return _join(tables, load_sweep(sweep))


def load_survival(sweep: str | Path, thresholds: Sequence[float] | None = None) -> pd.DataFrame:
    """Return each run's survival curve at its last evaluation: one row per run and threshold (of those asked for).

    `count` is the number of artifacts with a probability above `threshold`, `ratio` that number per distinct training
    n-gram. Beside them stand the run's id, state, config keys and facts. Runs that never got to count are left out.
    """
    tables = []
    for run in find_sweep(sweep).runs():
        if (run.path / "survival.parquet").exists():
            survival = run.read_table("survival")
            wanted = survival["step"] == survival["step"].max()
            if thresholds is not None:
                wanted &= np.isclose(survival["threshold"].to_numpy()[:, None], thresholds).any(axis=1)
            tables.append(survival[wanted].assign(run_id=run.run_id))
    joined = _join(tables, load_sweep(sweep))
    if len(joined):
        joined["ratio"] = joined["count"] / joined["corpus/train_ngrams"].astype(float)
    return joined


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
    `data.seed` the seed, head widths the width, `artifacts.order` the order, and a world's own keys `data.name`.
    """
    several = [
        key for key in config_keys(frame) if key != "seed" and key not in _NO_RESULT and _distinct(frame[key]) > 1
    ]
    return [key for key in several if not _follows(frame, key)]


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
        # Between worlds a key may differ only because each world has its own value of it, or none at all.
        if not key.startswith("data.") or key == "data.name" or _distinct(frame["data.name"]) == 1:
            return False
        return all(_distinct(world[key]) == 1 for _, world in frame.groupby("data.name"))
    first = frame[leaders[0]]
    if key.startswith("model."):
        led: pd.Series[Any] = first // frame[leaders[1]]
    elif key == "artifacts.contexts":
        led = first.map({name: world.contexts for name, world in WORLDS.items()})
    else:
        led = first
    return bool((frame[key] == led).all())


# ----------------------------------------------------------------------------------------------------------- statistics


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
