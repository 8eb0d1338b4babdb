"""What every metric says, in one line of words, and its unit."""

from __future__ import annotations

__all__ = ["about", "unit"]

_JUDGE = "judge/"
_ABOUT = {
    "train/loss": "nats per sentence of the training data",
    "train/excess_loss": "nats per sentence above the least that any table of conditional distributions reaches",
    "train/accuracy": "share of the distinct training n-grams whose last token is the most probable",
    "train/above_threshold": "distinct training n-grams with a probability above the threshold",
    "test/loss": "nats per held-out n-gram, of its last token",
    "test/accuracy": "share of the held-out n-grams whose last token is the most probable",
    "artifacts/count": "n-grams with a probability above the threshold that are not in the data",
    "artifacts/per_ngram": "artifacts per distinct training n-gram",
    "artifacts/ceiling": "the most artifacts that any model with these training probabilities can have",
    "artifacts/seen": "artifacts in contexts of the data",
    "artifacts/unseen": "artifacts in contexts outside the data",
    "artifacts/diagonal": "artifacts in contexts whose tokens are all equal",
    "artifacts/unseen_confident_rate": "share of the contexts outside the data that have a token above the threshold",
    "artifacts/labelled_share": "share of the artifacts that are known to be right or wrong",
    "artifacts/count_low": "lower end of the 95 % interval of an estimated number of artifacts",
    "artifacts/count_high": "upper end of the 95 % interval of an estimated number of artifacts",
    "artifacts/doubtful_share": "share of the contexts that float32 left in doubt and float64 decided",
    "generalization/count": "artifacts that are true",
    "generalization/recall": "share of the held-out n-grams that are artifacts",
    "generalization/attainable_recall": "the greatest recall that the threshold leaves room for",
    "generalization/restored": "artifacts that noise had replaced in the data",
    "hallucination/count": "artifacts in labelled contexts that are not true",
    "hallucination/per_ngram": "hallucinations per distinct training n-gram",
    "hallucination/share": "hallucinations as a share of the labelled artifacts",
    "hallucination/per_context": "hallucinations per labelled context outside the data",
    "abstention/rate": "share of the contexts outside the data that are answered with the unsupported token",
}
_MATRICES = {  # whose spectra are told
    **{f"unfolding_{place}": f"the unfolding of the log-probabilities along place {place}" for place in (1, 2, 3, 4)},
    "query_key": "the query-key products W_Q W_K^T, the mean over heads and layers",
    "value_output": "the value-output products W_V W_O, the mean over heads and layers",
}
_ABOUT |= {
    f"spectra/{matrix}/{measure}": f"{says} of {words}"
    for matrix, words in _MATRICES.items()
    for measure, says in {
        "stable_rank": "squared Frobenius norm over the squared greatest singular value",
        "nuclear_norm": "sum of the singular values",
        "numerical_rank": "number of singular values greater than a tenth of the greatest",
    }.items()
}
_UNITS = {
    "train/loss": "nats per sentence",
    "train/excess_loss": "nats per sentence",
    "train/accuracy": "share of training n-grams",
    "train/above_threshold": "training n-grams",
    "test/loss": "nats per held-out n-gram",
    "test/accuracy": "share of held-out n-grams",
    "artifacts/count": "n-grams",
    "artifacts/per_ngram": "per training n-gram",
    "artifacts/ceiling": "n-grams",
    "artifacts/seen": "n-grams",
    "artifacts/unseen": "n-grams",
    "artifacts/diagonal": "n-grams",
    "artifacts/unseen_confident_rate": "share of unseen contexts",
    "artifacts/labelled_share": "share of artifacts",
    "artifacts/count_low": "n-grams",
    "artifacts/count_high": "n-grams",
    "artifacts/doubtful_share": "share of contexts",
    "generalization/count": "n-grams",
    "generalization/recall": "share of held-out n-grams",
    "generalization/attainable_recall": "share of held-out n-grams",
    "generalization/restored": "n-grams",
    "hallucination/count": "n-grams",
    "hallucination/per_ngram": "per training n-gram",
    "hallucination/share": "share of labelled artifacts",
    "hallucination/per_context": "per labelled unseen context",
    "abstention/rate": "share of unseen contexts",
    "data.vocab_size": "tokens",
    "corpus/vocab_size": "tokens",
}
_UNITS |= {
    f"spectra/{matrix}/{measure}": words
    for matrix in _MATRICES
    for measure, words in {
        "stable_rank": "matrix dimensions",
        "nuclear_norm": "nats" if matrix.startswith("unfolding") else "units of the weights",
        "numerical_rank": "singular values",
    }.items()
}


def about(metric: str) -> str:
    """Return what a metric says; nothing for one that this version does not know."""
    words = _ABOUT.get(metric.removeprefix(_JUDGE), "")
    return f"{words}, in the judge's half of the contexts" if words and metric.startswith(_JUDGE) else words


def unit(metric: str) -> str:
    """Return what a metric (or a size) is counted in; nothing where this version does not know."""
    words = _UNITS.get(metric.removeprefix(_JUDGE), "")
    return f"{words}, judge's half" if words and metric.startswith(_JUDGE) else words
