"""What every metric says, in one line of words."""

from __future__ import annotations

__all__ = ["about"]

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


def about(metric: str) -> str:
    """Return what a metric says; nothing for one that this version does not know."""
    words = _ABOUT.get(metric.removeprefix(_JUDGE), "")
    return f"{words}, in the judge's half of the contexts" if words and metric.startswith(_JUDGE) else words
