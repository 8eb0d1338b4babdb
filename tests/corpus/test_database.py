"""The companion's 3 x 5 x 4 database, as a data tensor."""

from __future__ import annotations

import numpy as np
import pytest
import torch


def dense(database) -> np.ndarray:
    V = database.corpus.vocab_size
    contexts = torch.cartesian_prod(torch.arange(V), torch.arange(V))
    return database.corpus.tensor(3).fibers(contexts).view(V, V, V).numpy()


def test_the_tensor_of_the_database_is_3_by_5_by_4_with_eight_ones(database):
    whole = dense(database)
    table = whole[np.ix_(*(database.numbers(place) for place in range(3)))]
    assert table.shape == (3, 5, 4)
    assert (table == 1).sum() == 8
    assert (table == 0).sum() == 60 - 8
    assert whole.sum() == 8, "nothing lies outside predicates x subjects x objects"


@pytest.mark.parametrize("predicate", ["born_in", "lives_in", "currency"])
def test_the_rank_of_a_function_is_the_size_of_its_range(database, predicate):
    matrix = dense(database)[database.corpus.tokens.index(predicate)]
    range_of_function = {obj for name, _, obj in database.facts if name == predicate}
    assert np.linalg.matrix_rank(matrix) == len(range_of_function) == 2


def test_every_context_of_the_database_has_one_completion(database):
    tensor = database.corpus.tensor(3)
    assert len(tensor.contexts_Cn) == len(tensor.ngrams_Gn) == 8
    assert tensor.entropy() == 0


def test_typed_places_of_the_database_are_its_predicates_and_subjects(database):
    predicates, subjects = database.corpus.places(3, "typed")
    assert predicates.tolist() == sorted(database.numbers(0))
    assert subjects.tolist() == sorted(database.numbers(1))
