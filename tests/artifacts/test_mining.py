"""What is mined: the contexts where a model is surest, by brute force over all of them."""

from __future__ import annotations

import itertools

import pytest
import torch

from tc_sweeps.artifacts import Counter
from tests.artifacts.worlds import MODELS, random_world, sharp_model

V = 9


@pytest.mark.parametrize("contexts", ["all", "typed"])
@pytest.mark.parametrize("shape", MODELS)
@pytest.mark.parametrize("unsupported", [False, True])
def test_the_surest_contexts_outside_the_data_and_the_judges_half(shape, contexts, unsupported):
    corpora = [random_world(V, size, 3, seed=size) for size in (12, 20)]
    model = sharp_model(corpora, shape, seed=1, sharpness=1.5, unsupported=unsupported)
    counter = Counter(corpora, order=3, threshold=0.5, contexts=contexts, memory_mib=1, device=torch.device("cpu"))
    taught = torch.zeros(2, 4, 2, dtype=torch.int64)
    free = []
    for m, corpus in enumerate(corpora):
        places = corpus.places(3, contexts)
        seen = {tuple(s[:2]) for s in corpus.sentences.tolist()}
        everything = itertools.product(*(tokens.tolist() for tokens in places))
        free.append([c for c in everything if c not in seen and not corpus.judged(torch.tensor([c])).item()])
        taught[m] = torch.tensor([*free[m][:3], free[m][-1]])  # of which the last ones are not taught yet
    found = counter.surest(model, 5, taught_MKm=taught, length_M=torch.tensor([3, 2]))
    assert found.shape == (2, 5, 2)
    for m, length in ((0, 3), (1, 2)):
        doubles = model.member(m).double()
        p = doubles.probabilities(torch.tensor(free[m][length:])).amax(1)
        wanted = [free[m][length:][place] for place in p.argsort(descending=True)[:5]]
        assert [tuple(context) for context in found[m].tolist()] == wanted


def test_contexts_that_are_equally_sure_come_in_their_order():
    corpus = random_world(V, 12, 3, seed=0)
    model = sharp_model([corpus], "attention", seed=1, sharpness=0.0)
    counter = Counter([corpus], order=3, threshold=0.5, contexts="all", memory_mib=1, device=torch.device("cpu"))
    none = torch.zeros(1, 1, 2, dtype=torch.int64)
    found = counter.surest(model, 40, taught_MKm=none, length_M=torch.tensor([0]))[0].tolist()
    seen = {tuple(s[:2]) for s in corpus.sentences.tolist()}
    free = [c for c in itertools.product(range(V), repeat=2) if c not in seen]
    free = [c for c in free if not corpus.judged(torch.tensor([c])).item()]
    assert [tuple(c) for c in found][: len(free)] == free[:40]
