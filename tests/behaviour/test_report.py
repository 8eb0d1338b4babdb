"""The report as a reader sees it: opened in a real Chromium, with the mouse, by keys alone, on a phone, on paper."""

from __future__ import annotations

import csv
import math
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from tc_sweeps.config import METRICS
from tests.report import made

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed (pip install playwright).")
Browser, Page, expect = sync_api.Browser, sync_api.Page, sync_api.expect
PATIENCE = 30  # seconds, for a machine that does much else
expect.set_options(timeout=1000 * PATIENCE)

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="No Chromium is installed (Debian: apt install chromium).")

EVIL = "<img src=x onerror=alert(1)>"
NAMES = [EVIL, "</script><script>alert(2)</script>", "b\u202eack", "=1+1", "New York", "&lt;b&gt;"]
FRACTIONS, WIDTHS, SEEDS = (0.1, 0.4, 0.9), (32, 64), (0, 1, 2)


def kinships_sweep(outputs: Path) -> None:
    """Six groups of three seeds, but for one with a single seed; one more run has failed, for a reason of markup."""
    for fraction in FRACTIONS:
        for width in WIDTHS:
            for seed in SEEDS[:1] if (fraction, width) == (0.9, 64) else SEEDS:
                overrides = {"data.held_out_fraction": fraction, "model.width": width, "seed": seed}
                recall = 0.8 - 0.5 * fraction + 0.03 * (width == 64)
                made.finished_kinships_run(outputs, "kinships", overrides, recall=recall)
    settings = {"data.name": "kinships", "artifacts.threshold": 0.5, "data.held_out_fraction": 0.4, "model.width": 32}
    failed = made.begin(outputs, "kinships", {**settings, "seed": 9})
    failed.write_facts(made.random_facts({"data.num_sentences": 10_686 - round(10_686 * 0.4)}), None)
    failed.set_state("failed", reason=f"{EVIL} became non-finite at step 37.", step=37)


def hostile_sweep(outputs: Path) -> None:
    """One run whose sweep and tokens are named by someone who means ill, with four artifacts of three labels."""
    size = len(NAMES)
    overrides = {"data.vocab_size": size, "data.num_sentences": 5, "model.width": 4, "model.heads": 1}
    run = made.begin(outputs, EVIL, overrides)
    run.write_facts(made.random_facts(overrides), NAMES)
    data = {(0, 1): 2, (1, 1): 3, (2, 3): 4}
    artifacts = {(0, 0): 1, (3, 3): 2, (4, 5): 0, (5, 5): 5}
    said = data | artifacts
    rows = []
    for first in range(size):
        for second in range(size):
            for third in range(size):
                sure = said.get((first, second)) == third
                held = int(data.get((first, second)) == third)
                rows.append(([first, second], third, held, 0.75 if sure else 0.05))
    run.write_table("fibers", pd.DataFrame(rows, columns=["context_tokens", "token", "data_count", "probability"]))
    table = {
        "tokens": [[*context, token] for context, token in artifacts.items()],
        "probability": [0.75, 0.74, 0.73, 0.72],
        "label": ["generalization", "hallucination", "unlabelled", "unlabelled"],
        "seen": [True, False, False, False],
        "right": [[1], [0, 1], [], []],
    }
    run.write_table("artifacts", pd.DataFrame(table))
    run.add_row(1000, dict.fromkeys(METRICS, float("nan")) | {"artifacts/count": 4, "train/accuracy": 1.0})
    run.finish({})


def half_sweep(outputs: Path) -> None:
    """Of width 8 a run that has finished, one that was interrupted, one that failed; of width 16 one that waits."""
    made.finished_random_run(outputs, "half", {"model.width": 8, "seed": 0}, ratio=lambda _: 18)
    made.begun_run(outputs, "half", {"model.width": 8, "seed": 1}, "artifacts/per_ngram", {50: 3, 100: 9})
    run = made.begun_run(outputs, "half", {"model.width": 8, "seed": 2}, "artifacts/per_ngram", {50: 1000})
    run.set_state("failed", reason="The loss became non-finite at step 60.", step=60)
    made.queued_run(outputs, "half", {"model.width": 16})


def two_sweeps(outputs: Path) -> None:
    """One of two held-out fractions, one of two sizes for each of two objectives, to be told in one report."""
    for fraction in (0.1, 0.7):
        made.finished_kinships_run(outputs, "facts", {"data.held_out_fraction": fraction}, recall=0.5)
    for size in (500, 1000):
        for positions in ("all", "last"):
            overrides = {"data.num_sentences": size, "objective.positions": positions}
            made.finished_random_run(outputs, "triples", overrides, ratio=lambda _: 18)


def sampled_sweep(outputs: Path) -> None:
    """One run that keeps two of its thousands of artifacts, drawn at random; the first one kept is the less sure."""
    run = made.finished_random_run(
        outputs, "sampled", {"artifacts.keep": "sample", "artifacts.kept": 2}, ratio=lambda _: 9
    )
    row = {"label": "unlabelled", "seen": False, "right": []}
    found = [{"tokens": [0, 1, 2], "probability": 0.6, **row}, {"tokens": [3, 4, 5], "probability": 0.9, **row}]
    run.write_table("artifacts", pd.DataFrame(found))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the user stands, with all reports."""
    from tc_sweeps.report import write_report

    folder = tmp_path_factory.mktemp("reports")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        kinships_sweep(Path("outputs"))
        hostile_sweep(Path("outputs"))
        half_sweep(Path("outputs"))
        two_sweeps(Path("outputs"))
        sampled_sweep(Path("outputs"))
        for sweeps in (["kinships"], [EVIL], ["half"], ["facts", "triples"], ["sampled"]):
            write_report(sweeps)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def test_open_hands_the_report_to_the_browser(folder: Path, tmp_path: Path) -> None:
    browser = tmp_path / "browser"
    browser.write_text('#!/bin/sh\nprintf %s "$1" > "$0.opened"\n')
    browser.chmod(0o755)
    command = [sys.executable, "-c", "from tc_sweeps.cli import main; main()", "report", "kinships", "--open"]
    subprocess.run(command, cwd=folder, env=os.environ | {"BROWSER": str(browser)}, check=True)
    written = (folder / "outputs" / "kinships" / "report.html").resolve().as_uri()
    assert browser.with_name("browser.opened").read_text() == written


Open = Callable[..., Page]


@pytest.fixture
def opened(browser: Browser, folder: Path) -> Iterator[Open]:
    """Return a function that opens a sweep's report; whatever a test does, the page logs no error and asks nobody."""
    wrong: list[str] = []
    contexts = []

    def open_report(sweep: str = "kinships", view: str = "", width: int = 1280, **options: object) -> Page:
        context = browser.new_context(viewport={"width": width, "height": 900}, accept_downloads=True, **options)
        contexts.append(context)
        [path] = (folder / "outputs" / sweep).glob("report*.html")
        address = path.as_uri()

        def judge(route: sync_api.Route) -> None:
            if route.request.url.split("#")[0] == address:
                route.continue_()
            else:
                wrong.append(f"asked for {route.request.url}")
                route.abort()

        context.route(re.compile(r"^(?!data:|blob:)"), judge)
        page: Page = context.new_page()
        page.on("console", lambda message: message.type == "error" and wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: (wrong.append(f"said {dialog.message}"), dialog.dismiss()))
        page.goto(f"{address}{view and '#' + view}")
        if options.get("java_script_enabled", True):
            expect(page.locator("body")).to_have_attribute("data-state", "ready")
        return page

    yield open_report
    for context in contexts:
        context.close()
    assert wrong == []


def saved(page: Page, button: str) -> list[dict[str, str]]:
    """The rows of the CSV file that a button hands out."""
    with page.expect_download() as download:
        page.locator(button).click()
    with Path(download.value.path()).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def point_of(page: Page, chart: str = "#chart", nth: int = 0) -> tuple[float, float]:
    """The middle of a marker of a chart, in pixels of the window."""
    marker = page.locator(f"{chart} .scatterlayer .points path").nth(nth)
    marker.scroll_into_view_if_needed()
    box = marker.bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def until(page: Page, condition: str) -> None:
    """Wait for a condition; `wait_for_function` would evaluate strings inside the page, which refuses that."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"It never came true that {condition}.")


def open_first_run(page: Page) -> None:
    page.locator("#runs tbody tr button").first.click()
    page.locator("#run-config").wait_for()


# ------------------------------------------------------------------------------------------------------------- summary


def test_summary_stands_without_scripts(opened: Open) -> None:
    page = opened(java_script_enabled=False)
    summary = page.locator("#summary")
    expect(summary).to_contain_text("Claim")
    expect(summary).to_contain_text("1 failed")
    expect(summary).to_contain_text(EVIL)
    expect(page.locator("noscript")).to_be_visible()
    expect(page.locator("#main")).to_be_hidden()


# -------------------------------------------------------------------------------------------------------------- curves


def test_curves_are_means_over_seeds(opened: Open, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tc_sweeps.report import load_sweep, over_seeds

    page = opened(view="y=generalization/recall&x=data.held_out_fraction")
    expect(page.locator("#chart .scatterlayer .trace")).to_have_count(2)  # a line for each width
    expect(page.locator("#drawn")).to_contain_text("95 % Student t interval; 1 to 3 runs a point")
    rows = {
        (float(row["data.held_out_fraction"]), int(row["model.width"])): row for row in saved(page, "#download-curves")
    }
    monkeypatch.chdir(folder)
    by = ["data.held_out_fraction", "model.width"]
    expected = over_seeds(load_sweep("kinships"), by, ["generalization/recall"])
    assert len(rows) == len(expected) == 6
    for fraction, width, _, mean, low, high, runs in expected.itertuples(index=False):
        row = rows[fraction, width]
        assert float(row["generalization/recall"]) == pytest.approx(mean, rel=1e-4)
        assert int(row["runs"]) == runs
        if math.isnan(low):
            assert row["low"] == row["high"] == ""
        else:
            assert [float(row["low"]), float(row["high"])] == pytest.approx([low, high], rel=1e-3)


def test_steps_have_a_line_per_group_and_a_ceiling(opened: Open) -> None:
    page = opened()
    expect(page.locator("#y")).to_have_value("artifacts/per_ngram")
    expect(page.locator("#legend")).to_contain_text("ceiling")
    rows = saved(page, "#download-curves")
    assert len(rows) == 6 * len(made.STEPS)
    held_out = round(10_686 * 0.4)
    ceilings = [float(row["ceiling"]) for row in rows if row["data.held_out_fraction"] == "0.4"]
    assert ceilings == pytest.approx([held_out / (10_686 - held_out)] * len(ceilings), rel=1e-4)
    page.select_option("#y", "generalization/recall")
    expect(page.locator("#legend")).not_to_contain_text("ceiling")
    page.locator("#chart-numbers summary").click()  # the same numbers, for who does not see the chart
    expect(page.locator("#chart-numbers tbody tr")).to_have_count(len(saved(page, "#download-curves")))


def test_filters_act_on_charts_and_table(opened: Open) -> None:
    page = opened()
    expect(page.locator("#count")).to_have_text(
        "Shown: 17 runs, in 6 groups. Runs of one group differ in the seed alone."
    )
    page.locator('fieldset[data-axis="model.width"]').get_by_label("64").uncheck()
    expect(page.locator("#count")).to_contain_text("Shown: 10 of 17 runs, in 3 of 6 groups.")
    expect(page.locator("#runs tbody tr")).to_have_count(10)
    assert {row["model.width"] for row in saved(page, "#download-table")} == {"32"}
    assert {row["model.width"] for row in saved(page, "#download-curves")} == {"32"}
    assert {row["model.width"] for row in saved(page, "#download-tradeoff")} == {"32"}
    page.locator('fieldset[data-axis="model.width"] button[data-none]').click()
    expect(page.locator("#chart-empty")).to_have_text("The filters leave no run.")
    page.locator("#reset").click()
    expect(page.locator("#count")).to_have_text(
        "Shown: 17 runs, in 6 groups. Runs of one group differ in the seed alone."
    )
    expect(page.locator("#chart")).to_be_visible()


@pytest.mark.slow
def test_address_keeps_the_view(opened: Open) -> None:
    page = opened()
    page.select_option("#y", "hallucination/share")
    page.select_option("#x", "model.width")
    page.check("#log-x")
    page.locator('fieldset[data-axis="data.held_out_fraction"]').get_by_label("0.9").uncheck()
    page.locator('#runs th[data-column="artifacts/count"] button').click()
    again = opened(view=page.url.partition("#")[2])
    expect(again.locator("#y")).to_have_value("hallucination/share")
    expect(again.locator("#x")).to_have_value("model.width")
    expect(again.locator("#log-x")).to_be_checked()
    expect(again.locator('fieldset[data-axis="data.held_out_fraction"]').get_by_label("0.9")).not_to_be_checked()
    expect(again.locator('#runs th[data-column="artifacts/count"]')).to_have_attribute("aria-sort", "ascending")
    nonsense = opened(view="y=nothing&x=%3Cb%3E&hide:model.width=oops&page=99&sort=-nothing&run=none")
    expect(nonsense.locator("#y")).to_have_value("artifacts/per_ngram")


@pytest.mark.slow
def test_generalization_against_hallucination(opened: Open) -> None:
    page = opened()
    over_training = saved(page, "#download-tradeoff")
    assert len(over_training) == 6 * len(made.STEPS)
    page.select_option("#tradeoff-when", "end")
    ends = saved(page, "#download-tradeoff")
    assert len(ends) == 6
    assert "step" not in ends[0]
    last = next(row for row in over_training if row["step"] == str(made.STEPS[-1]))
    page.select_option("#x", "data.held_out_fraction")  # lines that join groups: here each has a look of its own
    expect(page.locator("#tradeoff-drawn")).not_to_contain_text("as above")
    expect(page.locator("#tradeoff-legend li").first).to_have_text("data.held_out_fraction0.10.40.9")
    first = next(row for row in ends if all(row[key] == last[key] for key in ("data.held_out_fraction", "model.width")))
    assert float(first["generalization/recall"]) == pytest.approx(float(last["generalization/recall"]), rel=1e-4)


def test_every_chart_says_which_runs_it_leaves_out_and_why(opened: Open) -> None:
    page = opened("half")
    drawn, survival = page.locator("#drawn"), page.locator("#survival-drawn")
    expect(drawn).to_contain_text("1 to 2 runs a point. 1 run was interrupted: drawn as far as it has come.")
    expect(drawn).to_contain_text("1 run is queued, 1 failed: not drawn.")
    expect(survival).to_contain_text("1 run is queued, 1 failed, 1 was interrupted: not drawn.")
    rows = saved(page, "#download-curves")
    assert [row["runs"] for row in rows] == ["2", "2", *["1"] * (len(made.STEPS) - 2)]
    assert float(rows[1]["artifacts/per_ngram"]) < 20  # without the run that failed
    expect(page.locator("#legend")).to_contain_text("faint: of fewer runs than the rest of the line")
    page.select_option("#x", "model.width")
    expect(drawn).to_contain_text("1 run is queued, 1 failed, 1 was interrupted: not drawn.")
    expect(drawn).to_contain_text("Each point is one run, hence without an interval.")
    expect(page.locator("#legend")).not_to_contain_text("faint")
    page.locator('fieldset[data-axis="model.width"]').get_by_label("8").uncheck()
    expect(page.locator("#chart-empty")).to_have_text("No run shown has finished: 1 run is queued.")
    page.select_option("#x", "step")
    expect(page.locator("#chart-empty")).to_have_text("No run shown has been evaluated: 1 run is queued.")
    expect(page.locator("#survival-empty")).to_have_text("No run shown has finished: 1 run is queued.")
    expect(drawn).not_to_contain_text("a point")


LOOKS = """[...document.querySelectorAll('#chart .scatterlayer .trace .js-line')]
  .map((line) => [line.style.stroke, line.style.strokeDasharray, line.style.strokeWidth])
  .filter(([, , width]) => width === '2px').map(String)"""


def test_lines_of_several_sweeps_are_told_apart_and_named_under_their_sweep(opened: Open) -> None:
    page = opened("facts")
    looks = page.evaluate(LOOKS)
    assert len(looks) == len(set(looks)) == 6
    facts, triples, _ = page.locator("#legend li").all()
    expect(facts).to_have_text("factsdata.held_out_fraction 0.1data.held_out_fraction 0.7")
    expect(triples.locator(".entry").nth(1)).to_have_text("data.num_sentences 500, objective.positions last")
    for told in ("#legend", "#filters", "#runs"):
        expect(page.locator(told)).not_to_contain_text("null")
    sizes = page.locator('fieldset[data-axis="data.num_sentences"]')
    sizes.get_by_label("500").uncheck()  # which says nothing of the facts
    expect(page.locator("#count")).to_contain_text("Shown: 4 of 6 runs, in 4 of 6 groups.")
    page.locator("#reset").click()
    page.select_option("#x", "data.num_sentences")
    expect(page.locator("#drawn")).to_contain_text(
        "2 runs with no artifacts/per_ngram or no data.num_sentences: not drawn."
    )
    assert {row["sweep"] for row in saved(page, "#download-curves")} == {"triples"}
    page.select_option("#y", "generalization/recall")
    expect(page.locator("#chart-empty")).to_have_text(
        "No run shown that has finished has both generalization/recall and data.num_sentences."
    )
    page.select_option("#x", "step")
    page.select_option("#colour", "data.held_out_fraction")
    expect(page.locator("#drawn")).to_contain_text("4 runs with no generalization/recall: not drawn.")
    expect(page.locator("#legend li").first).to_have_text("data.held_out_fraction0.10.7without")


# --------------------------------------------------------------------------------------------------------- hover, click


def test_hover_tells_the_group_and_click_lists_its_runs(opened: Open) -> None:
    page = opened(view="y=generalization/recall&x=model.width")  # which has no ceiling beside it, a pixel away
    page.mouse.move(*point_of(page))
    told = page.locator("#chart .hoverlayer .hovertext")
    for words in ("generalization/recall", "data.held_out_fraction 0.1", "model.width 32", "(seed 2)", "3 runs"):
        expect(told).to_contain_text(words)
    page.mouse.click(*point_of(page))
    expect(page.locator("#group-title")).to_have_text("3 runs with data.held_out_fraction 0.1, model.width 32")
    buttons = page.locator("#group-runs button")
    expect(buttons).to_have_count(3)
    buttons.nth(1).click()
    expect(page.locator("#run-title")).to_contain_text("(seed 1)")
    page.locator("#run-close").click()
    expect(page.locator("#run")).to_be_hidden()
    expect(buttons.nth(1)).to_be_focused()


# --------------------------------------------------------------------------------------------------------------- table


def test_table_sorts_numbers_as_numbers_and_nothing_last(opened: Open) -> None:
    page = opened()
    header = page.locator('#runs th[data-column="artifacts/count"]')

    def counts() -> list[float]:
        return [float(row["artifacts/count"] or "nan") for row in saved(page, "#download-table")]

    header.locator("button").click()
    expect(header).to_have_attribute("aria-sort", "ascending")
    *rising, last = counts()
    assert rising == sorted(rising)
    assert math.isnan(last)  # the failed run, which has no count
    expect(page.locator("#runs tbody tr").last).to_contain_text("failed")
    header.locator("button").press("Enter")
    expect(header).to_have_attribute("aria-sort", "descending")
    expect(header.locator("button")).to_be_focused()
    *falling, last = counts()
    assert falling == sorted(falling, reverse=True)
    assert math.isnan(last)


def test_table_as_csv_has_the_columns_shown(opened: Open, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tc_sweeps.report import load_sweep

    page = opened()
    page.locator("#columns summary").click()
    page.locator("#columns").get_by_label("reason").check()
    page.locator("#columns").get_by_label("train/accuracy").uncheck()
    rows = {row["run_id"]: row for row in saved(page, "#download-table")}
    monkeypatch.chdir(folder)
    runs = load_sweep("kinships").set_index("run_id")
    assert set(rows) == set(runs.index)
    for run_id, row in rows.items():
        assert "train/accuracy" not in row
        assert row["state"] == runs.at[run_id, "state"]
        assert float(row["data.held_out_fraction"]) == runs.at[run_id, "data.held_out_fraction"]
        if row["state"] == "finished":
            recall = float(row["generalization/recall"])
            assert recall == pytest.approx(runs.at[run_id, "generalization/recall"], rel=1e-4)
        else:
            assert row["generalization/recall"] == ""
            assert EVIL in row["reason"]


# -------------------------------------------------------------------------------------------------------------- one run


def test_a_run_in_full(opened: Open) -> None:
    page = opened(EVIL)
    open_first_run(page)
    expect(page.locator("#run-command")).to_contain_text(f"python -m tc_sweeps 'sweep=\"{EVIL}\"'")
    expect(page.locator("#run-config tr", has_text="model.width")).to_contain_text("4")
    expect(page.locator("#run-body")).to_contain_text("keeps: 1 generalization, 1 hallucination and 2 unlabelled.")
    rows = page.locator("#run-artifacts tbody tr")
    expect(rows).to_have_count(4)
    for row, words in enumerate(["generalization", "hallucination", "unlabelled"]):
        expect(rows.nth(row)).to_contain_text(words)
    colours = [rows.nth(row).locator(".dot").evaluate("dot => getComputedStyle(dot).backgroundColor") for row in (0, 1)]
    assert colours == ["rgb(0, 114, 178)", "rgb(213, 94, 0)"]
    page.select_option('#fiber [data-place="0"]', label=NAMES[1])
    page.select_option('#fiber [data-place="1"]', label=NAMES[1])
    expect(page.locator("#fiber-drawn")).to_contain_text(
        "the model's first choice is =1+1, at 0.75; the data hold 1 sentence"
    )
    page.locator("#fiber-chart-numbers summary").click()
    expect(page.locator("#fiber-chart-numbers tbody tr").first).to_have_text("=1+10.7511")
    page.select_option('#fiber [data-place="0"]', label=NAMES[4])
    expect(page.locator("#fiber-drawn")).to_contain_text("it is not in the data")
    drawn = page.locator("#tensor-drawn")
    expect(drawn).to_contain_text("0.50: 4 artifacts above it, 3 n-grams of the data")
    page.locator("#tensor-threshold").fill("0.8")
    expect(drawn).to_contain_text("0.80: 0 artifacts above it, 3 n-grams of the data")
    expect(page.locator("#tensor canvas, #tensor-empty:not([hidden])").first).to_be_visible()


def test_a_sample_of_artifacts_is_called_one(opened: Open) -> None:
    page = opened("sampled")
    open_first_run(page)
    part = page.locator("section", has=page.locator("#run-artifacts"))
    expect(part.get_by_role("heading")).to_have_text("Most confident artifacts of a sample")
    expect(part).to_contain_text(re.compile(r"The 2 most confident artifacts of a sample of 2 of 4,\d\d\d artifacts: "))
    expect(page.locator("#run-artifacts tbody tr .ngram")).to_have_text(["3 4 5 ", "0 1 2 "])


@pytest.mark.slow
def test_copy_hands_out_the_command(opened: Open) -> None:
    page = opened(permissions=["clipboard-read", "clipboard-write"])
    open_first_run(page)
    page.locator("#copy").click()
    expect(page.locator(".command [role=status]")).to_have_text("Copied.")
    assert page.evaluate("navigator.clipboard.readText()") == page.locator("#run-command").inner_text()


def test_what_users_typed_is_text(opened: Open) -> None:
    page = opened(EVIL)  # nothing is asked for, no dialog opens: the fixture says so in the end
    assert page.title() == EVIL
    expect(page.locator("h1")).to_have_text(EVIL)
    open_first_run(page)
    assert page.locator("main img, main script, dialog img, dialog script").count() == 0
    tokens = page.locator("#run-artifacts tbody tr .ngram")
    expect(tokens.nth(0)).to_have_text(f"{EVIL} {EVIL} {NAMES[1]} ")
    expect(tokens.nth(1)).to_have_text("=1+1 =1+1 b\\u202eack ")  # what would turn the line is spelled out
    expect(tokens.nth(3)).to_contain_text("&lt;b&gt;")
    page.select_option('#fiber [data-place="0"]', label=NAMES[0])
    page.select_option('#fiber [data-place="1"]', label=NAMES[0])
    expect(page.locator("#fiber-chart .ytick text").first).to_have_text("</script><script>alert(…")
    rows = saved(page, "#download-artifacts")
    assert rows[0]["token 1"] == EVIL
    assert rows[1]["token 1"] == "'=1+1"  # no formula where a spreadsheet opens it
    assert [row["label"] for row in rows] == ["generalization", "hallucination", "unlabelled", "unlabelled"]


@pytest.mark.slow
def test_hovering_shows_markup_as_text(opened: Open) -> None:
    page = opened()
    page.locator('#runs tbody tr:has-text("failed") button').click()
    expect(page.locator("#run-body .note")).to_have_text(f"{EVIL} became non-finite at step 37.")
    page.keyboard.press("Escape")
    page = opened(EVIL)
    page.mouse.move(*point_of(page))
    expect(page.locator("#chart .hoverlayer .hovertext")).to_contain_text("1 run:")


# ---------------------------------------------------------------------------------------------------- keys, eyes, paper


def test_keys_alone_open_a_run_and_come_back(opened: Open) -> None:
    page = opened()
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    run = "document.activeElement.closest('#runs tbody tr')"
    for _ in range(100):
        page.keyboard.press("Tab")
        if page.evaluate(f"Boolean({run})"):
            break
        assert page.evaluate("document.activeElement.matches(':focus-visible')")
    row = page.evaluate(f"{run}.dataset.run")
    page.keyboard.press("Enter")
    expect(page.locator("#run")).to_be_visible()
    page.locator("#run-config").wait_for()
    assert page.evaluate("document.activeElement.closest('#run') !== null")
    page.keyboard.press("Tab")
    expect(page.locator("#run-close")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#run")).to_be_hidden()
    assert page.evaluate(f"{run}.dataset.run") == row


def test_every_control_and_chart_has_a_name(opened: Open) -> None:
    page = opened()
    nameless = page.evaluate(
        """[...document.querySelectorAll('button, select, input')]
             .filter((one) => !(one.labels?.length || one.textContent.trim() || one.getAttribute('aria-label')))
             .map((one) => one.outerHTML)"""
    )
    assert nameless == []
    for chart in ("#chart", "#tradeoff"):
        assert page.locator(chart).evaluate(
            "one => document.getElementById(one.getAttribute('aria-describedby')).textContent"
        )
        expect(page.locator(f"{chart}-numbers summary")).to_be_visible()
    expect(page.locator("#count")).to_have_attribute("aria-live", "polite")


CONTRAST = """() => {
  const canvas = Object.assign(document.createElement('canvas'), { width: 1, height: 1 }).getContext('2d');
  const light = (colour) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    const parts = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((part) => part / 255);
    const [r, g, b] = parts.map((part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (one) => {
    for (let at = one; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (colour !== 'rgba(0, 0, 0, 0)') return colour;
    }
    return 'white';
  };
  const poor = [];
  for (const one of document.querySelectorAll('body *')) {
    const own = [...one.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || !one.checkVisibility() || one.matches('script, style, option, :disabled')) continue;
    const style = getComputedStyle(one);
    const ink = one instanceof SVGElement ? style.fill : style.color;
    const [dark, bright] = [light(ink), light(behind(one))].sort((a, b) => a - b);
    if ((bright + 0.05) / (dark + 0.05) < 4.5) poor.push([one.tagName, one.textContent, ink, behind(one)].join(' '));
  }
  return poor;
}"""


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(opened: Open, scheme: str) -> None:
    page = opened(color_scheme=scheme)
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(14, 18, 23)"
    assert dark == (scheme == "dark")
    assert page.evaluate(CONTRAST) == []
    open_first_run(page)
    assert page.evaluate(CONTRAST) == []


@pytest.mark.slow
def test_charts_follow_the_scheme(opened: Open) -> None:
    page = opened(color_scheme="light")
    ink = "getComputedStyle(document.querySelector('#chart .xtitle')).fill"
    light = page.evaluate(ink)
    page.emulate_media(color_scheme="dark")
    until(page, f"{ink} !== '{light}'")
    assert page.evaluate(CONTRAST) == []


@pytest.mark.slow
def test_on_paper(opened: Open) -> None:
    page = opened(color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    until(page, "document.querySelector('#chart .main-svg').clientWidth < 700")
    for gone in ("#y", "#filters", "#download-table", "#pager button"):
        expect(page.locator(gone).first).to_be_hidden()
    for kept in ("#summary", "#chart .main-svg", "#tradeoff", "#runs tbody tr", "#runs th", "#legend"):
        expect(page.locator(kept).first).to_be_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate(CONTRAST) == []
    page.emulate_media(media="screen", color_scheme="dark")
    until(page, "document.querySelector('#chart .main-svg').clientWidth > 700")


@pytest.mark.slow
@pytest.mark.parametrize("sweep", ["kinships", EVIL, "half", "facts"])
def test_a_phone_shows_all_of_it(opened: Open, sweep: str) -> None:
    page = opened(sweep, width=360)
    wide = "document.documentElement.scrollWidth > innerWidth"
    assert not page.evaluate(wide)
    for chart in page.locator(".js-plotly-plot:visible").all():
        box = chart.locator(".main-svg").first.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 360
    open_first_run(page)
    assert not page.evaluate(wide)
    assert not page.evaluate("document.getElementById('run').scrollWidth > document.getElementById('run').clientWidth")
