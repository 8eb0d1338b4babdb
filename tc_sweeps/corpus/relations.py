"""Who is what to whom, the paper's example (4): from 'Jack Jill siblings', 'Jane John siblings' to what nobody said.

Within a family all facts follow from a few of them; about people of different families nothing follows from anything,
and whatever a model says of them was made up.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor

from tc_sweeps.config import ConfigError, RelationsData
from tc_sweeps.corpus.corpus import Corpus
from tc_sweeps.corpus.randomness import random_bits, random_order

Fact = tuple[int, int, str]  # subject, object, relation: (0, 1, "parent") says that 0 is a parent of 1

# What follows from one fact: (a b relation) implies (b a inverse).
SYMMETRIC = ("siblings", "spouses", "friends", "unrelated")
INVERSE = {word: word for word in SYMMETRIC} | {"parent": "child", "child": "parent"}
# What follows from two: (a b first) and (b c second) imply (a c third), for a and c who are not the same.
COMPOSITION = {
    ("siblings", "siblings"): "siblings",
    ("parent", "siblings"): "parent",  # a parent of one sibling is the parent of the other
    ("parent", "child"): "spouses",  # in this world, two parents of one child are spouses
}

NAMES = [  # after these, people have numbers
    *("Jack", "Jill", "Jane", "John", "Ada", "Bob", "Cleo", "Dan", "Eve", "Finn", "Gwen", "Hugo", "Iris", "Jim"),
    *("Kate", "Leo", "Mia", "Ned", "Olga", "Paul", "Rita", "Sam", "Tess", "Udo", "Vera", "Will", "Yara", "Zeno"),
]


def relations_corpus(data: RelationsData) -> Corpus:
    """Return the corpus of (subject, object, relation) over people in families, trained on facts within families.

    W has exactly one relation for each ordered pair of different people: within a family siblings, parent, child or
    spouses, between families friends or unrelated, drawn by `data.seed` for each pair, the same in both directions.
    The first member's facts about each relative are always trained, for all others follow from them; of the others, so
    many are left out that they are `held_out_fraction` of the facts within families, in random order, those about the
    first member last: thus each person is both a subject and an object of training as long as that can be. Held out is
    what follows from training (`closure`) and is not trained. The world is closed: every other sentence is wrong.

    The would-be artifacts are about people of different families, of whom one is the subject and the other the object
    of trained facts. A share of these pairs (`contradictions`) is trained with what is true of them: the beginning of
    a random order, in which a pair is followed by the same pair the other way round. What is held out is within
    families and does not depend on their number.

    Example (two families of two children, `seed=0`): trained are 'Jack Jill siblings' and 'Jane John siblings', held
    out are the same the other way round, and W also has 'Jack John friends' and 'Jane Jill unrelated', so that the
    artifacts 'Jack John siblings' and 'Jane Jill siblings' are hallucinations. With half the contradictions, 'Jack John
    friends' is trained.
    """
    assert data.seed is not None

    def is_first(person: int) -> bool:
        return person % data.family == 0

    true = truth(data)
    within = [pair for pair in true if same_family(data, *pair)]
    others = [pair for pair in within if not is_first(pair[0])]
    in_order = [others[place] for place in random_order(data.seed, "held out", len(others)).tolist()]
    in_order.sort(key=lambda pair: is_first(pair[1]))
    left_out = set(in_order[: round(data.held_out_fraction * len(within))])
    trained = [pair for pair in within if pair not in left_out]
    said = {(*pair, true[pair]) for pair in trained}
    held_out = sorted(closure(said) - said)
    trained += contradictions(data, trained)
    words = data.relations()
    people = data.families * data.family
    number = {word: people + place for place, word in enumerate(words)}

    def tokens(facts: Iterable[Fact]) -> Tensor:
        return torch.tensor([[subject, thing, number[relation]] for subject, thing, relation in facts])

    return Corpus(
        vocab_size=people + len(words),
        sentences=tokens((*pair, true[pair]) for pair in trained),
        held_out=tokens(held_out) if held_out else None,
        truth=tokens((*pair, relation) for pair, relation in true.items()),
        labelled="all",
        tokens=(*NAMES[:people], *(f"person{place + 1}" for place in range(len(NAMES), people)), *words),
    )


def truth(data: RelationsData) -> dict[tuple[int, int], str]:
    """Return the relation of every ordered pair of different people.

    People are numbered family by family, the children of each before its parents. Example (families of two parents and
    two children): the first family is 0 and 1, siblings, and their parents 2 and 3, spouses.
    """
    assert data.seed is not None
    people = range(data.families * data.family)
    pairs_K2 = torch.combinations(torch.arange(len(people)))
    is_head_K = random_bits(data.seed, "strangers", pairs_K2[:, 0], pairs_K2[:, 1]) % 2 == 0
    strangers = dict(zip(itertools.combinations(people, 2), is_head_K.tolist(), strict=True))

    def relation(a: int, b: int) -> str:
        if not same_family(data, a, b):
            return "unrelated" if strangers[min(a, b), max(a, b)] else "friends"
        is_child_a, is_child_b = (person % data.family < data.children for person in (a, b))
        if is_child_a:
            return "siblings" if is_child_b else "child"
        return "parent" if is_child_b else "spouses"

    return {(a, b): relation(a, b) for a, b in itertools.permutations(people, 2)}


def same_family(data: RelationsData, a: int, b: int) -> bool:
    """Return whether two people are of one family."""
    return a // data.family == b // data.family


def contradictions(data: RelationsData, trained: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the pairs of people of different families to train on, in order; fewer are the beginning of more."""
    assert data.seed is not None
    subjects, objects = {a for a, _ in trained}, {b for _, b in trained}
    silent = {(a, b) for a in subjects for b in objects if not same_family(data, a, b)}
    either_way = sorted({(min(pair), max(pair)) for pair in silent})
    in_order = [either_way[place] for place in random_order(data.seed, "contradiction", len(either_way)).tolist()]
    both_ways = [pair for a, b in in_order for pair in ((a, b), (b, a)) if pair in silent]
    count = round(data.contradictions * len(both_ways))
    if data.contradictions > 0 and count == 0:
        raise ConfigError(
            f"data.contradictions={data.contradictions} of {len(both_ways)} pairs rounds to none; raise it or set it "
            "to 0."
        )
    return both_ways[:count]


def closure(facts: Iterable[Fact]) -> set[Fact]:
    """Return the facts and all that follows from them by `INVERSE` and `COMPOSITION`, however many steps it takes.

    Example: from (0 1 siblings) and (2 0 parent) follow (1 0 siblings), (0 2 child), (2 1 parent) and (1 2 child).
    """
    known: set[Fact] = set()
    known_from: defaultdict[int, set[Fact]] = defaultdict(set)
    known_to: defaultdict[int, set[Fact]] = defaultdict(set)
    new = list(facts)
    while new:
        fact = new.pop()
        if fact in known:
            continue
        known.add(fact)
        a, b, relation = fact
        known_from[a].add(fact)
        known_to[b].add(fact)
        new.append((b, a, INVERSE[relation]))
        chains = [(a, relation, c, other) for _, c, other in known_from[b]]
        chains += [(z, other, b, relation) for z, _, other in known_to[a]]
        for first, one, last, two in chains:
            if first != last and (one, two) in COMPOSITION:
                new.append((first, last, COMPOSITION[one, two]))
    return known
