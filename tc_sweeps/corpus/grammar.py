"""A small grammar, the paper's example (3): from 'mouse eats cheese' and 'mice eat cheese' to 'mouse eat cheese'.

Letters: `S` subject lemma, `F` verb lemma, `N` number (singular, plural), `K` n-gram.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tc_sweeps.config import GrammarData
from tc_sweeps.corpus.corpus import Corpus
from tc_sweeps.corpus.facts import split_facts
from tc_sweeps.corpus.randomness import random_integers

# Singular and plural of each lemma; a world that needs more makes up the rest.
SUBJECTS = [
    *(
        ("mouse", "mice"),
        ("cat", "cats"),
        ("dog", "dogs"),
        ("goose", "geese"),
        ("child", "children"),
        ("bear", "bears"),
    ),
    *(("wolf", "wolves"), ("bird", "birds"), ("man", "men"), ("fox", "foxes"), ("woman", "women"), ("ox", "oxen")),
]
VERBS = [
    *(("eats", "eat"), ("sees", "see"), ("likes", "like"), ("takes", "take")),
    *(("finds", "find"), ("brings", "bring"), ("hides", "hide"), ("wants", "want")),
]
OBJECTS = [
    *("cheese", "fish", "bread", "corn", "meat", "grass", "honey", "milk"),
    *("water", "straw", "wood", "stone", "sand", "wool", "rope", "paper"),
]


def grammar_corpus(data: GrammarData) -> Corpus:
    """Return the corpus of subject, verb and object, trained on sentences that agree in number.

    W has one object for each subject lemma with each verb lemma, drawn by `data.seed`, whatever their numbers: a model
    that completes 'mouse eat' as it has learned for 'mouse eats' is right, as the paper has it. Held out is all that
    disagrees in number, and a share of what agrees. The world is closed: every other sentence is wrong.

    Example (one subject, one verb, one object): trained are 'mouse eats cheese' and 'mice eat cheese', held out are
    'mouse eat cheese' and 'mice eats cheese', and no other sentence of the 5^3 is true.
    """
    assert data.seed is not None
    S, F = data.subjects, data.verbs
    subjects = two_forms(SUBJECTS, S, ("subject{}", "subjects{}"))
    verbs = two_forms(VERBS, F, ("verbs{}", "verb{}"))
    objects = [*OBJECTS, *(f"object{place + 1}" for place in range(len(OBJECTS), data.objects))][: data.objects]

    lemma_pairs = torch.arange(S * F)
    object_SF = random_integers(data.seed, "objects", 0, lemma_pairs, data.objects).view(S, F)
    # Subjects are the tokens 2 * lemma + number, verbs follow them likewise, then objects.
    s, f, subject_number, verb_number = torch.cartesian_prod(*map(torch.arange, (S, F, 2, 2))).T
    truth_K3 = torch.stack([2 * s + subject_number, 2 * S + 2 * f + verb_number, 2 * (S + F) + object_SF[s, f]], dim=1)
    agrees = subject_number == verb_number
    sentences, held_out = split_facts(
        truth_K3[agrees],
        seed=data.seed,
        held_out_fraction=data.held_out_fraction,
        num_sentences=data.num_sentences,
    )
    return Corpus(
        vocab_size=len(subjects) + len(verbs) + len(objects),
        sentences=sentences,
        held_out=torch.cat([truth_K3[~agrees], held_out]),
        truth=truth_K3,
        labelled="all",
        tokens=(*subjects, *verbs, *objects),
    )


def two_forms(known: Sequence[tuple[str, str]], lemmas: int, made_up: tuple[str, str]) -> list[str]:
    """Return singular and plural of so many lemmas, one after the other: those known, then made-up ones by number."""
    more = [tuple(form.format(place + 1) for form in made_up) for place in range(len(known), lemmas)]
    return [form for forms in [*known, *more][:lemmas] for form in forms]
