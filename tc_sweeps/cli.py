"""The verbs of `tc-sweeps`, from run to dashboard. Only runs that start import torch."""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import signal
import sys
import webbrowser
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from tc_sweeps.config import (
    MODELS,
    WORLDS,
    Config,
    ConfigError,
    ModelConfig,
    RunFailed,
    SweepFailed,
    World,
    explain,
    resolve,
)
from tc_sweeps.store import Job, RunFolder, SweepFolder
from tc_sweeps.store.sync import RETRIES, TIMEOUT_SECONDS, Synced, sync_sweep
from tc_sweeps.sweep.engine import COMMAND, LAUNCH, Launch, interrupt, train_sweeps

log = logging.getLogger(__name__)

_MULTIRUN = ("-m", "--multirun")


def _conf() -> Path:
    """Return the folder of the Hydra groups: inside the package in a wheel, beside it in a checkout."""
    packaged = Path(__file__).parent / "conf"
    return packaged if packaged.is_dir() else packaged.parents[1] / "conf"


def _register_schema() -> None:
    store = ConfigStore.instance()
    # A world and a model that every other may replace.
    store.store(name="schema", node=Config(data=World(), model=ModelConfig()))
    for group, choices in (("data", WORLDS), ("model", MODELS)):
        for name, choice in choices.items():
            store.store(group=f"schema/{group}", name=name, node=choice)


_register_schema()


def job(composed: DictConfig) -> dict[str, float]:
    """Run one composed config and return its final metrics: the task function that Hydra's launchers call."""
    settings = HydraConfig.get()
    alone = settings.mode == RunMode.RUN
    try:
        if alone and settings.launcher.get("executor", "local") != "local":
            raise ConfigError(
                f"hydra/launcher={settings.launcher.executor} is for sweeps: add -m (a sweep may have one run)."
            )
        launch = Launch(
            workers=1,
            retry_failed=True,
            experiment=settings.runtime.choices.get("experiment"),
            name=None if alone else os.environ.get(LAUNCH),
            command=os.environ.get(COMMAND),
        )
        config = resolve(composed)
        if alone and (unswept := _axes(settings.sweeper)):
            log.warning("This trains one run: what hydra.sweeper names (%s) makes a sweep only with -m.", unswept)
        try:
            [outcome] = train_sweeps([config], launch)
        finally:
            if alone:  # a multirun does it once, when all jobs have ended
                SweepFolder(RunFolder.of(config).path.parent).remake_results()
        if isinstance(outcome, RunFailed):
            raise outcome
        return outcome
    except (ConfigError, RunFailed, OSError) as error:
        if alone:  # one sentence; Hydra would put its own words in front
            sys.exit(str(error))
        raise


def _axes(sweeper: DictConfig) -> str:
    """Return the names of what a sweeper would sweep, as an experiment's file says."""
    blocks = ["blocks"] if sweeper.get("blocks") else []
    return ", ".join([*map(str, sweeper.get("params") or {}), *blocks])


def check(composed: DictConfig) -> Job:
    """Return the run that a composed config means; raises ConfigError where it cannot be run."""
    planned = Job.of(resolve(_task_of(composed)))
    sweep = SweepFolder(planned.folder.path.parent)
    if sweep.is_search and composed.hydra.runtime.choices["hydra/sweeper"] != "optuna":
        raise ConfigError(
            f"sweep={planned.config.sweep} is a search, whose list of runs another sweep would begin anew: give it "
            "another name."
        )
    return planned


def many(composed: Iterable[DictConfig], settings: Mapping[str, Any]) -> list[dict[str, float] | RunFailed]:
    """Run composed configs together: the form of the task function that the stacked launcher calls."""
    jobs = [(config.hydra.runtime.choices.get("experiment"), resolve(_task_of(config))) for config in composed]
    outcomes: dict[int, dict[str, float] | RunFailed] = {}
    for experiment in dict.fromkeys(name for name, _ in jobs):
        places = [place for place, (name, _) in enumerate(jobs) if name == experiment]
        name, command = os.environ.get(LAUNCH), os.environ.get(COMMAND)
        launch = Launch.of(settings, experiment=experiment, name=name, command=command)
        outcomes |= zip(places, train_sweeps([jobs[place][1] for place in places], launch), strict=True)
    return [outcomes[place] for place in range(len(jobs))]


def require(settings: Mapping[str, Any]) -> None:
    """Raise `ConfigError` where the keys of `hydra.launcher` mean a scheduler that does not answer here."""
    launch = Launch.of(settings)
    if launch.executor != "local":
        from tc_sweeps.sweep.cluster import executor_of

        executor_of(launch.executor).require(launch.scheduler)


job.many, job.check, job.require = many, check, require  # type: ignore[attr-defined]


def _task_of(composed: DictConfig) -> dict[str, Any]:
    """Return a composed config without Hydra's part of it, as a container."""
    parts = {str(name): composed[name] for name in composed if name != "hydra"}
    return {
        name: OmegaConf.to_container(part, resolve=True, throw_on_missing=True) if OmegaConf.is_config(part) else part
        for name, part in parts.items()
    }


def run(arguments: Sequence[str], *, program: str) -> int:
    """Hand the arguments to Hydra; returns the exit code."""
    os.environ[LAUNCH] = datetime.now(UTC).isoformat(timespec="microseconds")
    os.environ[COMMAND] = f"{program} {shlex.join(arguments)}"
    signal.signal(signal.SIGTERM, interrupt)
    with _Answer() as answer:
        try:
            _compose(job, arguments, program)
        finally:
            _close(os.environ[LAUNCH])
    return answer.code


def plan(arguments: Sequence[str]) -> int:
    """Say what a multirun would do, and do nothing; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="tc-sweeps plan",
        description="Say what a sweep would do: runs, axes, what is done of it, stacks, and how long it takes.",
        epilog="All other arguments are those of python -m tc_sweeps -m: tc-sweeps plan experiment=figure2",
    )
    parser.add_argument("--calibrate", action="store_true", help="train and time some steps of each shape of runs")
    options, overrides = parser.parse_known_args(arguments)
    overrides = [argument for argument in overrides if argument not in _MULTIRUN]
    jobs: list[Job] = []
    launches: list[Launch] = []

    def not_planned(_: DictConfig) -> None:
        sys.exit("Only hydra/sweeper=grid can be planned: other sweepers choose their jobs as they go.")

    def collect(composed: DictConfig) -> None:
        jobs.append(check(composed))
        launches[:] = [Launch.of(composed.hydra.launcher)]  # the same in all jobs

    not_planned.check, not_planned.dry_run = collect, True  # type: ignore[attr-defined]
    with _Answer() as answer:
        _compose(not_planned, ["-m", *overrides], "tc-sweeps plan")
        from tc_sweeps.sweep.plan import past_times, plan_text

        [launch] = launches
        if options.calibrate:
            from tc_sweeps.sweep.calibrate import calibrate

            times = calibrate(jobs, launch)
        else:
            times = past_times()
        command = shlex.join(["python", "-m", "tc_sweeps", "-m", *overrides])
        print(plan_text(jobs, times, launch, command=command, measured=options.calibrate))
    return answer.code


def _compose(task: Callable[[DictConfig], object], arguments: Sequence[str], program: str) -> None:
    """Have Hydra compose jobs and run them with a task function."""
    if any(argument in _MULTIRUN for argument in arguments):
        # First: Hydra's parser takes no overrides on both sides of an option.
        arguments = ["-m", *(argument for argument in arguments if argument not in _MULTIRUN)]
    sys.argv = [program, *arguments]
    hydra.main(version_base="1.3", config_path=str(_conf()), config_name="config")(task)()


class _Answer:
    """Turns what ends a command into its exit code, and errors of the user and the system into one sentence."""

    code = 0

    def __enter__(self) -> _Answer:
        self._own_words = "HYDRA_FULL_ERROR" not in os.environ
        os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors, and the sentence can be ours
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        if isinstance(error, KeyboardInterrupt):
            self.code, sentence = 130, "Interrupted. The same command trains what is missing."
        elif isinstance(error, BrokenPipeError):
            return False
        elif self._own_words and isinstance(
            error, ConfigError | RunFailed | SweepFailed | HydraException | OmegaConfBaseException | YAMLError | OSError
        ):
            self.code, sentence = 1, explain(error)
        else:
            return False
        print(sentence, file=sys.stderr)
        return True


def _close(launch: str) -> None:
    """Say where the sweeps of a multirun stand, whatever ended it, and remake their tables."""
    for sweep in SweepFolder.of_launch(launch):
        print(f"\n{_status(sweep, axes=False)}\n", flush=True)
        sweep.remake_results()


def _status(sweep: SweepFolder, *, axes: bool = True) -> str:
    """Return where a sweep stands, with what its schedulers say if it has any."""
    from tc_sweeps.report import sweep_status

    submitted, at_work = _submitted(sweep)
    return sweep_status(sweep, axes=axes, submitted=submitted, at_work=at_work)


def _submitted(sweep: SweepFolder) -> tuple[list[str], bool]:
    """Return how a sweep's schedulers see its workers, if it has any, and whether some have not ended."""
    if not sweep.submissions():
        return [], False
    from tc_sweeps.sweep.cluster import standings

    return standings(sweep)


def status(arguments: argparse.Namespace) -> None:
    """Print where a sweep stands, or all of them in one line each."""
    from tc_sweeps.report import all_sweeps, find_sweep

    every = arguments.all
    print(_status(find_sweep(arguments.sweep, every=every)) if arguments.sweep else all_sweeps(every=every))


def watch(arguments: argparse.Namespace) -> None:
    """Show a sweep in the terminal until it is done."""
    from tc_sweeps.report import find_sweep, parse_where
    from tc_sweeps.report.watch import watch

    sweep = find_sweep(arguments.sweep, every=arguments.all)
    where, metrics = parse_where(arguments.where), _names(arguments.metrics)
    try:
        watch(
            sweep,
            metrics=metrics,
            where=where,
            every=arguments.every,
            workers=lambda: _submitted(sweep)[0],
        )
    except KeyboardInterrupt:
        sys.exit(130)


def compare(arguments: argparse.Namespace) -> None:
    """Print what differs between two sweeps or runs."""
    from tc_sweeps.report import compare_text, parse_where

    where, metrics = parse_where(arguments.where), _names(arguments.metrics)
    text = compare_text(arguments.a, arguments.b, metrics=metrics, where=where, every=arguments.all, file=arguments.csv)
    print(text)


def _names(given: Sequence[str]) -> list[str]:
    """Return the names of an option that may be repeated and holds several, separated by commas."""
    return [name.strip() for names in given for name in names.split(",")]


def cancel(arguments: argparse.Namespace) -> None:
    """End what a scheduler has of a sweep."""
    from tc_sweeps.report import find_sweep
    from tc_sweeps.report.frame import listed
    from tc_sweeps.sweep.cluster import cancel

    cancelled, unanswered = cancel(find_sweep(arguments.sweep))
    for submission in cancelled:
        print(f"{submission} is cancelled.")
    if unanswered:
        raise ConfigError(f"No scheduler answers here for {listed(unanswered)}, which may go on: cancel it from there.")
    if not cancelled:
        print("No scheduler has anything left of this sweep.")


def table(arguments: argparse.Namespace) -> None:
    """Print and write the table of a sweep."""
    from tc_sweeps.report import find_sweep, parse_where, write_table

    print(write_table(find_sweep(arguments.sweep, every=arguments.all), where=parse_where(arguments.where)))


def figure(arguments: argparse.Namespace) -> None:
    """Draw the figure of a sweep."""
    from tc_sweeps.report import draw_experiment, draw_xy, find_sweep, left_out, parse_where

    where = parse_where(arguments.where)
    sweep = find_sweep(arguments.sweep, every=arguments.all)
    given = {name for name in ("experiment", "x", "y", "by") if getattr(arguments, name)}
    if given <= {"experiment"}:
        print(draw_experiment(sweep, arguments.experiment, where=where))
        _tell_unseen([sweep])
        return
    if "experiment" in given:
        raise ConfigError("--as draws the figure of an experiment as it is: leave it out, or --x, --y and --by.")
    if "x" not in given:
        raise ConfigError(
            f"--{'y' if 'y' in given else 'by'} needs --x: a config key, a fact, or step, as in --x step."
        )
    if "y" not in given:
        raise ConfigError("--x needs --y: a metric or a fact, as in --y artifacts/per_ngram.")
    path = draw_xy(sweep, arguments.x, arguments.y, arguments.by, where=where)
    print("\n".join(filter(None, [left_out(sweep, where), str(path)])))
    _tell_unseen([sweep])


def _tell_unseen(sweeps: Iterable[SweepFolder]) -> None:
    """Say of how many runs of earlier plans nothing was made, where there are some."""
    from tc_sweeps.report.frame import unseen

    for sentence in filter(None, dict.fromkeys(map(unseen, sweeps))):
        print(sentence)


def report(arguments: argparse.Namespace) -> None:
    """Write the HTML report of some sweeps."""
    from tc_sweeps.report import find_sweep, parse_where, write_report

    sweeps = [find_sweep(sweep, every=arguments.all) for sweep in arguments.sweeps]
    path, unfinished = write_report(sweeps, where=parse_where(arguments.where))
    print(f"Written: {path} ({path.stat().st_size / 1e6:.1f} MB)")
    if unfinished:
        print(unfinished)
    _tell_unseen(sweeps)
    if arguments.open and not webbrowser.open(path.resolve().as_uri()):
        raise ConfigError(f"No browser was found here: open {path.resolve()} in one yourself.")


def claims(arguments: argparse.Namespace) -> None:
    """Print and write what the sweeps at hand say of the paper's claims."""
    from tc_sweeps.report import find_sweep, write_scorecard

    card = write_scorecard(arguments.sweeps, every=arguments.all)
    if card.path is None:
        raise ConfigError(card.text)
    print(card.text)
    _tell_unseen([find_sweep(sweep, every=arguments.all) for sweep in card.sweeps])


def artifacts(arguments: argparse.Namespace) -> None:
    """Print the most confident artifacts of a run."""
    from tc_sweeps.report import artifacts_text

    labels = _names(arguments.label)
    print(artifacts_text(arguments.run, top=arguments.top, labels=labels, containing=arguments.containing))


def sync(arguments: argparse.Namespace) -> None:
    """Upload the runs of a sweep to W&B that are not there yet."""
    from tc_sweeps.report import find_sweep

    try:
        synced = sync_sweep(
            find_sweep(arguments.sweep, every=arguments.all),
            timeout=arguments.timeout,
            retries=arguments.retries,
            dry_run=arguments.dry_run,
        )
    except KeyboardInterrupt:  # before the first run was sent
        synced = Synced(interrupted=True)
    print("\n".join([*(str(run.path) for run in synced.waiting), f"{synced}."]))
    if synced.interrupted:
        print("Interrupted. The same command uploads what is missing.", file=sys.stderr)
        sys.exit(130)
    sys.exit(synced.complaint)


def dashboard(arguments: argparse.Namespace) -> None:
    """Make or update what W&B shows of a sweep, or write it beside the sweep where there is no account."""
    from tc_sweeps.report import find_sweep
    from tc_sweeps.report.dashboard import command_of, compose, survey, tell
    from tc_sweeps.report.frame import typed
    from tc_sweeps.store.account import REMEDY
    from tc_sweeps.store.views import Server, keep, require_library

    require_library()
    sweep = find_sweep(arguments.sweep)
    shown, story, without = survey(sweep), None, ""
    try:
        story = tell(sweep)
    except ConfigError as error:
        without = f"Report: none. {error}"
    server = Server.reachable(shown.entity)
    if isinstance(server, str):
        path = keep(sweep, compose(shown, story, shown.entity or ""))
        print(f"{server}: {REMEDY}; until then {path} holds what {command_of(sweep)} would show there.")
        return
    published = server.publish(sweep, compose(shown, story, server.entity))
    print(f"View:   {published.view.url} ({published.view.done})")
    print(f"Report: {published.report.url} ({published.report.done})" if published.report else without)
    if waiting := len(sync_sweep(sweep, dry_run=True).waiting):
        are = "run is" if waiting == 1 else "runs are"
        print(f"{waiting} {are} not at W&B yet: tc-sweeps sync {typed(sweep.path)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tc-sweeps", description="Train toy transformers in sweeps and count their artifacts exactly."
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser(
        "run", add_help=False, help="train one run, or a sweep with -m; the same as python -m tc_sweeps [overrides]"
    )
    verbs.add_parser("plan", add_help=False, help="say what a sweep would do, and do nothing")
    sweep = argparse.ArgumentParser(add_help=False)
    sweep.add_argument("sweep", metavar="SWEEP", help="a name under outputs/, or the path of a sweep's folder")
    planned = argparse.ArgumentParser(add_help=False)
    planned.add_argument(
        "--all",
        action="store_true",
        help="also the runs of earlier commands, which the latest -m does not name",
    )
    filtered = argparse.ArgumentParser(add_help=False)
    filtered.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="KEY=VALUE[,VALUE...]",
        help="only runs that have this value, or one of these, as in model.width=8,16; may be given again",
    )
    measured = argparse.ArgumentParser(add_help=False)
    measured.add_argument(
        "--metrics",
        action="append",
        default=[],
        metavar="NAME[,NAME...]",
        help="these instead of the main ones, as in train/loss,artifacts/count",
    )
    stands = verbs.add_parser(
        "status", parents=[planned], help="say what is done, what failed and why, and what to type next"
    )
    stands.add_argument("sweep", nargs="?", metavar="SWEEP", help="as elsewhere; without it, one line for each sweep")
    stands.set_defaults(function=status)
    watched = verbs.add_parser(
        "watch",
        parents=[sweep, planned, filtered, measured],
        help="show a sweep as it trains: states, steps, and the curves of some metrics",
        description="Show a sweep in the terminal until it is done: a row for each run of a small sweep, else for each "
        "group of runs that differ in their seed alone, with the latest value of each metric and its curve (from its "
        "least value to its greatest), means over the runs. Ctrl-C ends it, with exit code 130, and touches no "
        "training. Where standard output is no terminal, one plain table is printed.",
    )
    watched.add_argument(
        "--every",
        type=float,
        default=2.0,
        metavar="SECONDS",
        help="between looks, each of which may take a tenth of it (default: %(default)g)",
    )
    watched.set_defaults(function=watch)
    tabled = verbs.add_parser(
        "table", parents=[sweep, planned, filtered], help="print and write one row per run, and means over seeds"
    )
    tabled.set_defaults(function=table)
    compared = verbs.add_parser(
        "compare",
        parents=[planned, filtered, measured],
        help="say what differs between two sweeps or runs, configs and metrics with intervals; writes nothing",
        description="Print in which config keys two sweeps (or runs) differ, and by how much their metrics: the mean "
        "of B - A over runs matched by seed and all keys that both have, with a 95 % Student t interval, for each "
        "group of shared axes. Where seeds cannot be matched, or draw other data on each side, the difference of the "
        "means (Welch). Writes nothing but the FILE of --csv.",
    )
    for side in ("a", "b"):
        compared.add_argument(side, metavar=side.upper(), help="a SWEEP, as elsewhere, or SWEEP/RUN_ID")
    compared.add_argument("--csv", type=Path, metavar="FILE", help="also write the differences to this file")
    compared.set_defaults(function=compare)
    drawn = verbs.add_parser("figure", parents=[sweep, planned, filtered], help="draw a sweep from its local files")
    drawn.add_argument("--as", dest="experiment", metavar="EXPERIMENT", help="draw it as this experiment's figure")
    drawn.add_argument("--x", metavar="KEY", help="a config key, a fact, or step")
    drawn.add_argument("--y", metavar="METRIC", help="a metric or a fact")
    drawn.add_argument("--by", metavar="KEY", help="one line for each value of this key; a second axis has its own")
    drawn.set_defaults(function=figure)
    reported = verbs.add_parser(
        "report",
        parents=[planned, filtered],
        help="write one HTML page about a sweep, or about several",
        description="Write report.html into the folder of the sweep (of several report+OTHER.html, in the first): one "
        "file that needs no network, with means over seeds, curves, survival curves, a table of all runs and what each "
        "one says.",
    )
    reported.add_argument(
        "sweeps", nargs="+", metavar="SWEEP", help="a name under outputs/, or the path of a sweep's folder"
    )
    reported.add_argument("--open", action="store_true", help="open it in the browser")
    reported.set_defaults(function=report)
    claimed = verbs.add_parser(
        "claims",
        parents=[planned],
        help="say which of the paper's claims hold, with effects and intervals, and write claims.md",
        description="Judge the paper's four claims from the sweeps of experiment=claim_a to claim_d: print a "
        "scorecard, draw their figures, and write claims.md beside the sweeps, with question, test, effect, interval "
        "and verdict of every part. Verdicts in brackets stand beside a claim and do not decide it. A claim without "
        "runs is named with the command that makes them; where none has any the exit code is 1.",
    )
    claimed.add_argument(
        "sweeps",
        nargs="*",
        metavar="SWEEP",
        help="as elsewhere; without any, outputs/claim_a to claim_d, if they exist",
    )
    claimed.set_defaults(function=claims)
    ended = verbs.add_parser("cancel", parents=[sweep], help="end what a scheduler has of a sweep; its runs stay")
    ended.set_defaults(function=cancel)
    listed = verbs.add_parser(
        "artifacts",
        help="print what a run is most confident of that its data do not hold",
        description="Print the most confident artifacts of a finished run, one a line: rank among those kept by name, "
        "tokens, probability of the last one, label, whether the context is in the data, and what is right in it.",
    )
    listed.add_argument(
        "run", metavar="RUN", help="SWEEP/RUN_ID, or the beginning of it, the path of its folder, or a SWEEP of one run"
    )
    listed.add_argument("--top", type=int, default=50, metavar="N", help="how many at most (default: %(default)s)")
    listed.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="LABEL[,LABEL...]",
        help="only generalization (it is true), hallucination (it is not) or unlabelled (nothing says); repeatable",
    )
    listed.add_argument(
        "--containing", metavar="TOKEN", help="only n-grams with this token: its name, or its number where it has none"
    )
    listed.set_defaults(function=artifacts)
    synced = verbs.add_parser(
        "sync",
        parents=[sweep, planned],
        help="upload the offline W&B runs of a sweep that are new or have changed",
        description="Upload the W&B runs of a sweep that are not there as they are on disk: those that are new, were "
        "trained on or made anew. Runs in training are left out. Where something could not be uploaded the exit code "
        "is 1, and the same command tries again.",
    )
    synced.add_argument(
        "--timeout",
        type=float,
        default=TIMEOUT_SECONDS,
        metavar="SECONDS",
        help="how long the server may take from one run to the next (default: %(default)g)",
    )
    synced.add_argument(
        "--retries", type=int, default=RETRIES, metavar="N", help="how often to try again (default: %(default)s)"
    )
    synced.add_argument("--dry-run", action="store_true", help="only name the runs that would be uploaded")
    synced.set_defaults(function=sync)
    shown = verbs.add_parser(
        "dashboard",
        parents=[sweep],
        help="make or update a saved view of a sweep at W&B, and a report where it is of an experiment",
        description="Make or update a saved view of a sweep at Weights & Biases: its runs grouped by the axes, with "
        "seeds averaged. A sweep of an experiment also gets a report with the figure, the claim, the verdict and the "
        "command. The same command again updates both, and leaves them alone where nothing has changed. Without an "
        "account, SWEEP/dashboard.json holds what W&B would show. Needs the extra: pip install -e '.[dashboard]'.",
    )
    shown.set_defaults(function=dashboard)
    return parser


def main() -> None:
    """Run `tc-sweeps VERB ...`."""
    end_by(_answer)


def end_by(answer: Callable[[], int | None]) -> None:
    """Exit with the code that a command returns."""
    try:
        try:
            code = answer()
        finally:
            sys.stdout.flush()  # here, where it can be said what it means that nobody reads
    except BrokenPipeError:
        # The reader, such as head, has what it wants: end as a command does that SIGPIPE ends, without a word.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes on its way out
        code = 128 + signal.SIGPIPE
    if code:
        sys.exit(code)


def _answer() -> int | None:
    """Do what is typed; return the exit code, or end with the sentence that says what is wrong."""
    if sys.argv[1:2] == ["run"]:
        return run(sys.argv[2:], program="tc-sweeps run")
    if sys.argv[1:2] == ["plan"]:
        return plan(sys.argv[2:])
    arguments = _parser().parse_args()
    try:
        arguments.function(arguments)
    except BrokenPipeError:
        raise
    except (ConfigError, OSError) as error:
        sys.exit(str(error))
    return None
