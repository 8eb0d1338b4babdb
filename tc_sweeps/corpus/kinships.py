"""The Alyawarra kinship data: a real world in which nearly every artifact can be labelled.

10,686 facts over 104 people and 25 kinship terms. In (subject, object, relation) order, the paper's own 'Jack John
siblings', 98.8 % of the 104^2 ordered pairs of people have a relation, and each of these exactly one.
"""

from __future__ import annotations

from pathlib import Path

from tc_sweeps.config import KinshipsData, data_file
from tc_sweeps.corpus.corpus import Corpus
from tc_sweeps.corpus.facts import facts_corpus


def kinships_corpus(data: KinshipsData) -> Corpus:
    """Return the kinship facts as (subject, object, relation), a share of the pairs held out.

    Example: with `held_out_fraction=0.1` the model is trained on 9,617 facts such as (person0, person1, term14) and
    asked about 1,069 pairs of people that it has never seen together.
    """
    assert data.order is not None
    assert data.seed is not None
    lines = Path(data_file("kinships.tsv")).read_text(encoding="utf-8").splitlines()
    return facts_corpus(
        [tuple(line.split("\t")) for line in lines],
        order=data.order,
        seed=data.seed,
        held_out_fraction=data.held_out_fraction,
        num_sentences=data.num_sentences,
        contexts="typed",
    )
