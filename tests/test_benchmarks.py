"""The benchmark works and is fair: its baseline trains what we train, and its tables have a row per variant."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
import torch

from tc_sweeps.artifacts import count_artifacts
from tc_sweeps.config import resolve
from tc_sweeps.corpus import build_corpus
from tc_sweeps.model import ToyTransformer
from tc_sweeps.model.objectives import loss
from tc_sweeps.model.prefixes import full_batch

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_coverage_has_a_row_for_each_method(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    coverage = load("coverage")
    monkeypatch.setattr(sys, "argv", ["coverage", "--replicates", "25", "--settings", "few tokens seen", "rare"])
    coverage.main()
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if "%" in line and line[0] == "|"]
    assert [row[4] for row in rows] == [*coverage.METHODS, "uniform", "stratified", "importance"]
    assert all(0.8 <= float(row[5].rstrip("%")) / 100 <= 1 for row in rows)


def test_the_baseline_is_the_same_model_with_the_same_loss_and_count(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = load("plain_lightning")
    config = resolve({"seed": 3, "data": {"vocab_size": 12, "num_sentences": 40}, "model": {"width": 8, "heads": 2}})
    corpus = build_corpus(config.data)
    ours = ToyTransformer(config.model, vocab_size=12, max_length=2, seeds=[3]).double()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter *= 3  # some probabilities are above the threshold
    theirs = plain.PlainTransformer(
        vocab_size=12, width=8, heads=2, learning_rate=1e-2, threshold=0.5, triples=corpus.sentences
    ).double()
    weights = {name.removesuffix("0"): value[0].detach() for name, value in ours.named_parameters()}
    theirs.embedding.weight.data = weights.pop("embedding")
    for name, matrix in weights.items():
        getattr(theirs, name).weight.data = matrix.T
    assert sum(p.numel() for p in theirs.parameters()) == ours.num_parameters(embedding=True)

    batch = full_batch(corpus, "all")
    torch.testing.assert_close(theirs.loss(corpus.sentences), loss(ours.logits(batch.prefixes), batch.targets)[0])

    logged: dict[str, torch.Tensor] = {}
    monkeypatch.setattr(theirs, "log_dict", logged.update)
    theirs.validation_step(plain.all_contexts(12))
    count = count_artifacts(ours, corpus).count.item()
    assert count > 0
    assert logged["artifacts/count"] == count


def test_its_corpora_are_functional_triples() -> None:
    triples = load("plain_lightning").random_triples(50, 8)
    assert triples.shape == (50, 3)
    assert len(torch.unique(triples[:, :2], dim=0)) == 50
    assert 0 <= triples.min() <= triples.max() < 8


def test_variants_that_do_not_agree_end_the_benchmark() -> None:
    benchmark = load("sweep_throughput")
    benchmark.gpu_name = lambda: ""
    sweep = benchmark.Sweep(width=8, vocab_size=12, sentences=(30,), seeds=2)

    def measured(variant: str, counts: list[int], state: str = "finished") -> object:
        frame = pd.DataFrame({"run_id": ["a", "b"], "artifacts/count": counts, "state": state})
        return benchmark.Measured(variant, sweep, 2, seconds=[1.0], results=frame)

    benchmark.check_agreement([measured("stacked", [4, 5]), measured("basic", [4, 5])])
    with pytest.raises(SystemExit, match="stacked: b counts 6, basic 5"):
        benchmark.check_agreement([measured("stacked", [4, 6]), measured("basic", [4, 5])])
    with pytest.raises(SystemExit, match="stacked: a is failed"):
        benchmark.check_agreement([measured("stacked", [4, 5], "failed")])


def test_every_table_has_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    benchmark = load("sweep_throughput")
    page = tmp_path / "README.md"
    page.write_text((FOLDER / "README.md").read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(benchmark, "README", page)
    for table in benchmark.TABLES:
        benchmark.write(table, f"first {table}")
        benchmark.write(table, f"again {table}")
    text = page.read_text(encoding="utf-8")
    assert "first small" not in text
    for table in benchmark.TABLES:
        assert f"<!-- {table} -->\nagain {table}\n<!-- /{table} -->" in text


def test_samples_are_spread_evenly_over_the_sizes() -> None:
    medium = load("sweep_throughput").SWEEPS["medium"]
    assert medium.runs == 48
    assert medium.sampled(8).seeds == 2
    assert medium.sampled(3).seeds == 1
    assert medium.sampled(1000) == medium
    assert medium.with_steps(30).evaluations == 15


@pytest.mark.slow
def test_the_baseline_runs_alone(tmp_path: Path) -> None:
    command = [sys.executable, str(FOLDER / "plain_lightning.py"), "--seed", "1", "--sentences", "30"]
    short = ["--vocab-size", "12", "--width", "8", "--steps", "100", "--evaluations", "4"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    done = subprocess.run(
        [*command, *short], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    [line] = [line for line in done.stdout.splitlines() if line.startswith('{"')]
    numbers = json.loads(line)
    assert numbers["train/accuracy"] > 0.9
    assert numbers["artifacts/per_ngram"] == pytest.approx(numbers["artifacts/count"] / 30)
    assert len(list(tmp_path.glob("wandb/offline-run-*/*.wandb"))) == 1


@pytest.mark.slow
def test_its_tables_have_a_row_per_variant_with_ratios(tmp_path: Path) -> None:
    def works(*overrides: str) -> bool:
        command = [sys.executable, "-m", "tc_sweeps", *overrides, "--cfg", "hydra"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 0

    assert works("hydra/launcher=basic")
    variants = ["basic", "joblib", "plain"]
    if works("hydra/launcher=stacked"):
        variants = ["stacked", *variants]
    short = ["--steps", "4", "--runs-scale", "0.002", "--sample", "2", "--repeats", "1"]
    command = [sys.executable, str(FOLDER / "sweep_throughput.py"), "--variants", *variants, *short]
    settings = ["--settings", "small", "stacks", "split"]
    done = subprocess.run([*command, *settings], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    small, stacks, split = (part.strip() for part in re.split(r"^## \w+$", done.stdout, flags=re.MULTILINE)[1:])

    rows = [row.strip("| ").split(" | ") for row in small.splitlines() if row.startswith("|")]
    assert [row[0] for row in rows[2:]] == variants
    ratio = rows[0].index(f"time / {variants[0]}")
    assert rows[2][ratio] == "1.00"
    assert all(float(row[ratio]) > 0 for row in rows[2:])
    assert re.search(r"\d{4}-\d\d-\d\d, .*torch ", small)
    assert "| 1 | 4 |" in stacks
    assert "| compute | counting |" in split


@pytest.mark.slow
def test_the_overhead_of_a_search_is_measured() -> None:
    command = [sys.executable, str(FOLDER / "search_overhead.py"), "--trials", "2", "--batch", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first.startswith("2 trials: ")
    assert second.endswith(" ms")


@pytest.mark.slow
def test_loading_a_text_is_measured_for_both_tokenizers() -> None:
    command = [sys.executable, str(FOLDER / "text_loading.py"), "--megabytes", "0.2"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("0.2 MB of the sources of Python")
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines()[3:]]
    assert [row[0] for row in rows] == ["words", "bpe"]
    assert all(int(row[4].replace(",", "")) < int(row[3].replace(",", "")) for row in rows), "the libraries are a part"


@pytest.mark.slow
@pytest.mark.parametrize("whole", [[], ["--whole"]])
def test_the_report_is_measured(whole: list[str]) -> None:
    command = [sys.executable, str(FOLDER / "report.py"), "--runs", "4", "12", "--seeds", "2", *whole]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert [line.split(" runs ")[0] for line in lines] == ["4", "12"]
    assert [re.findall(r"details of (\d+) runs", line) for line in lines] == [["4"], ["12"]]
    assert all(re.search(r"[\d,]{9} bytes.* s, \d+ MiB\. $", line) for line in lines)


def test_labels_change_no_count_and_their_cost_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    benchmark = load("labelling")
    for labelled, share, held_out in (("all", 0.5, 14), ("truth", 0.9, 126)):
        corpus = benchmark.labelled_corpus(12, labelled, share, seed=0)
        assert (len(corpus.sentences), len(corpus.held_out), len(corpus.truth)) == (14, held_out, 14 + held_out)
        model = benchmark.sharp_stack([corpus])
        [row] = benchmark.counter_of([corpus]).evaluate(model).rows
        [blank] = benchmark.counter_of([replace(corpus, truth=None, held_out=None)]).evaluate(model).rows
        assert row["artifacts/count"] == blank["artifacts/count"] > 0
        assert row["generalization/count"] + row["hallucination/count"] > 0
        assert "hallucination/count" not in blank
    monkeypatch.setattr(sys, "argv", ["labelling.py", "--seconds", "0", "--sizes", "12", "--stacks", "1", "2"])
    threads = torch.get_num_threads()
    benchmark.main()
    torch.set_num_threads(threads)
    rows = capsys.readouterr().out.splitlines()
    assert [row.split(" | ")[1:4] for row in rows[2:-1]] == [
        [stack, *world] for stack in "12" for world in (["closed", "14"], ["open", "14"], ["open", "126"])
    ]
    assert rows[-1].startswith("greatest ratio ")


def test_effective_ranks_have_a_row_for_each_data_set(capsys: pytest.CaptureFixture[str]) -> None:
    load("effective_rank").main(["--triples", "0", "--worlds", "1"])
    rows = capsys.readouterr().out.splitlines()
    assert rows[2].startswith("| claim_c: latent, 2 classes | 150 | 16 |")
    assert rows[3].endswith("minutes for 550 on two cores")


def test_what_spectra_cost_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    short = ["--settings", "12x2", "--repeats", "1", "--steps", "20"]
    monkeypatch.setattr(sys, "argv", ["spectra", *short])
    load("spectra").main()
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| 12 ")]
    assert [row[:2] for row in rows] == [["12", "2"]]
    assert all(float(row[4]) > 0 for row in rows)
