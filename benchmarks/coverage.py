"""How often the 95 % intervals of estimated numbers of artifacts hold, and how wide they are.

    OMP_NUM_THREADS=1 python benchmarks/coverage.py

Small models are trained (one has its weights set), their artifacts counted exactly, and estimated again and again with
other draws by the counter that runs use. Told are the share of intervals that hold the exact count, their mean half
width and the root mean square error as shares of it, and how many times as many contexts a uniform draw would need for
the same error (`gain`). At least 93.5 % of the intervals must hold.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from tc_sweeps.artifacts import Counter
from tc_sweeps.artifacts.sampling import SampledCounter
from tc_sweeps.config import Sampling, resolve
from tc_sweeps.corpus import Corpus, build_corpus
from tc_sweeps.model import ToyTransformer
from tc_sweeps.model.objectives import loss
from tc_sweeps.model.prefixes import full_batch, stack_batches

LEAST = 0.935
ENOUGH = 1000  # replicates, to say that a share is less than that
CPU = torch.device("cpu")
STACK = 25  # copies of a model with draws of their own that are estimated together
METHODS = {
    "uniform": Sampling(method="uniform"),
    "stratified": Sampling(method="stratified"),
    "importance": Sampling(method="importance"),
    "uniform, 10 %": Sampling(method="uniform", relative_error=0.1),
    "importance, 10 %": Sampling(method="importance", relative_error=0.1),
}


@dataclass(frozen=True)
class Setting:
    """A model, its data, and what is an artifact."""

    name: str
    vocab_size: int
    sentences: int | None
    threshold: float
    world: Mapping[str, object] = field(default_factory=dict)  # other keys of the data than random n-grams have
    order: int = 3
    layers: int = 1
    contexts: int = 1000
    steps: int = 200  # of training; 0: sure of token 0 after contexts that end on an even token, and of nothing else

    @property
    def looks(self) -> bool:
        """Whether some of the contexts are enough for a tenth to either side."""
        return self.threshold <= 0.5 and self.steps == 200


GRAMMAR = {"name": "grammar", "subjects": 15, "verbs": 15, "objects": 15}

SETTINGS = (
    Setting("common", 60, 180, 0.5),
    Setting("few tokens seen", 90, 40, 0.5),
    Setting("several a context", 60, 180, 0.1),
    Setting("few", 90, 400, 0.5, steps=50),
    Setting("rare", 90, 400, 0.5, steps=40),
    Setting("rare, more drawn", 150, 700, 0.5, steps=45, contexts=5000),
    Setting("very rare", 90, 400, 0.9, steps=54),
    Setting("rare, several a context", 90, 400, 0.3, steps=30),
    Setting("4-grams", 22, 150, 0.5, order=4, layers=2),
    Setting("4-grams, rare", 22, 150, 0.9, order=4, layers=2, steps=40),
    Setting("grammar", 75, 200, 0.5, GRAMMAR),
    Setting("grammar, rare", 75, 200, 0.9, GRAMMAR, steps=50),
    Setting("100 contexts", 60, 180, 0.9, contexts=100),
    # The contexts of the piece that one is drawn from differ more than pieces do.
    Setting("every other", 60, 60, 0.5, contexts=1740, steps=0),
)


def trained(setting: Setting) -> tuple[ToyTransformer, Corpus]:
    """Return a model that has been trained for a while, or one that is sure after every other token."""
    data = {"num_sentences": setting.sentences, "order": setting.order} | dict(setting.world)
    if not setting.world:
        data["vocab_size"] = setting.vocab_size
    config = resolve({"data": data, "model": {"width": 16, "layers": setting.layers}})
    corpus = build_corpus(config.data)
    assert corpus.vocab_size == setting.vocab_size
    model = ToyTransformer(config.model, vocab_size=setting.vocab_size, max_length=setting.order - 1, seeds=[0])
    if setting.steps == 0:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
            model.get_parameter("embedding")[0, ::2, 0] = 5
            model.get_parameter("unembedding")[0, 0, 0] = 5
    batch = stack_batches([full_batch(corpus, "all")])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(setting.steps):
        optimizer.zero_grad()
        loss(model.logits(batch.prefixes), batch.targets).sum().backward()
        optimizer.step()
    return model, corpus


def copies(model: ToyTransformer, count: int) -> ToyTransformer:
    """Return a stack of copies of one model."""
    stack = model.member(0)
    stack._parameters = {
        name: nn.Parameter(p.detach().expand(count, *p.shape[1:]).contiguous()) for name, p in model.named_parameters()
    }
    return stack


def estimates(
    model: ToyTransformer, corpus: Corpus, setting: Setting, sampling: Sampling, replicates: int
) -> torch.Tensor:
    """Return count, low and high of replicates that differ in their draws alone, [replicates, 3]."""
    sampling = Sampling(method=sampling.method, contexts=setting.contexts, relative_error=sampling.relative_error)
    counter = SampledCounter(
        [corpus] * STACK, sampling=sampling, seeds=range(STACK), **asked(setting), memory_mib=256, device=CPU
    )
    stack, rows = copies(model, STACK), []
    for begin in range(0, replicates, STACK):
        counter.seed_M = torch.arange(begin, begin + STACK)
        rows += counter.evaluate(stack).rows
    names = ("artifacts/count", "artifacts/count_low", "artifacts/count_high")
    return torch.tensor([[row[name] for name in names] for row in rows], dtype=torch.float64)


def seconds_of_many_contexts() -> float:
    """Return how much of a processor one estimate takes for V = 1,000 and n = 4, as a run makes it by default."""
    config = resolve({"data": {"vocab_size": 1000, "order": 4}})
    corpus = build_corpus(config.data)
    model = ToyTransformer(config.model, vocab_size=1000, max_length=3, seeds=[0])
    counter = SampledCounter(
        [corpus], sampling=Sampling(), seeds=[0], order=4, threshold=0.5, contexts="all", memory_mib=256, device=CPU
    )
    counter.evaluate(model)  # what is made once
    began = time.process_time()
    counter.evaluate(model)
    return time.process_time() - began


def asked(setting: Setting) -> dict[str, object]:
    """Return what is counted in a setting, as arguments of a counter."""
    return {"order": setting.order, "threshold": setting.threshold, "contexts": "all"}


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--replicates", type=int, default=ENOUGH, help="estimates of each row of the table")
    parser.add_argument("--settings", nargs="+", default=[s.name for s in SETTINGS], help="names of settings")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| setting | artifacts | of contexts | drawn | method | coverage | half width | error | gain | ms |")
    print("| --- | ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |")
    least = 1.0
    for setting in SETTINGS:
        if setting.name not in options.settings:
            continue
        model, corpus = trained(setting)
        exact = Counter([corpus], **asked(setting), memory_mib=256, device=CPU).evaluate(model)  # type: ignore[arg-type]
        count = exact.rows[0]["artifacts/count"]
        assert count
        of_uniform = 0.0
        for name, sampling in METHODS.items():
            if sampling.relative_error is not None and not setting.looks:
                continue
            began = time.process_time()
            told = estimates(model, corpus, setting, sampling, options.replicates)
            milliseconds = 1e3 * (time.process_time() - began) / len(told)
            estimate, low, high = told.unbind(1)
            coverage = float(((low <= count) & (count <= high)).double().mean())
            squared = float((estimate - count).square().mean())
            of_uniform = of_uniform or squared
            gain = f"{of_uniform / squared:.2f}" if squared else ""
            least = min(least, coverage)
            contexts, half_width = setting.vocab_size ** (setting.order - 1), float((high - low).mean()) / 2
            print(
                f"| {setting.name} | {count:,} | {contexts:,} | {setting.contexts:,} | {name} | {coverage:.1%} | "
                f"{half_width / count:.1%} | {squared**0.5 / count:.1%} | {gain} | "
                f"{milliseconds:.1f} |",
                flush=True,
            )
    print(f"least coverage {least:.1%}, limit {LEAST:.1%}")
    print(f"V = 1,000, n = 4: {Sampling().contexts:,} of 10^9 contexts in {seconds_of_many_contexts():.1f} s")
    if least < LEAST and options.replicates >= ENOUGH:
        raise SystemExit("Some intervals hold too seldom.")


if __name__ == "__main__":
    main()
