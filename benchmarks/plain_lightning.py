"""One run as it is written today: plain PyTorch Lightning, automatic optimization, one model per process, W&B offline.

The baseline of `sweep_throughput.py`; it imports nothing from tc_sweeps. The same toy transformer (causal, residual, no
layer norm, no biases, no positions) learns random functional triples with loss (1) of the paper, full batch, AdamW, and
its artifacts are counted by an eager softmax over all V^2 contexts. A sweep is a shell loop:

    for seed in 0 1 2; do python plain_lightning.py --seed $seed --sentences 200; done

Letters: `B` sentence, `L` position, `D` width, `H` head, `C` context, `V` vocabulary.
"""

from __future__ import annotations

import argparse
import json
import logging
import warnings

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import WandbLogger
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset


class PlainTransformer(pl.LightningModule):
    """One layer of causal attention with a residual connection, between an embedding and an unembedding."""

    triples: Tensor

    def __init__(
        self, *, vocab_size: int, width: int, heads: int, learning_rate: float, threshold: float, triples: Tensor
    ) -> None:
        super().__init__()
        self.vocab_size, self.heads = vocab_size, heads
        self.learning_rate, self.threshold = learning_rate, threshold
        self.embedding = nn.Embedding(vocab_size, width)
        self.query, self.key, self.value, self.output = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.unembedding = nn.Linear(width, vocab_size, bias=False)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=width**-0.5)
        self.register_buffer("triples", triples)

    def forward(self, tokens_BL: Tensor) -> Tensor:
        """Return the logits of the next token after every position, [B, L, V]."""
        state_BLD = self.embedding(tokens_BL)
        query, key, value = (
            project(state_BLD).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        mixed_BHLX = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        logits_BLV: Tensor = self.unembedding(state_BLD + self.output(mixed_BHLX.transpose(1, 2).flatten(2)))
        return logits_BLV

    def loss(self, sentences_BL: Tensor) -> Tensor:
        """Return loss (1), in nats per sentence: the sum over positions, the mean over sentences."""
        logits_BLV = self(sentences_BL[:, :-1])
        return F.cross_entropy(logits_BLV.flatten(0, 1), sentences_BL[:, 1:].flatten(), reduction="sum") / len(
            sentences_BL
        )

    def training_step(self, sentences_BL: Tensor) -> Tensor:
        """Return the loss of one optimizer step."""
        return self.loss(sentences_BL)

    def validation_step(self, contexts_CL: Tensor) -> None:
        """Count the artifacts among all contexts and log them beside the loss and the accuracy."""
        logits_CV = self(contexts_CL)[:, -1]
        context_B = self.triples[:, 0] * self.vocab_size + self.triples[:, 1]
        right_B = logits_CV[context_B].argmax(dim=1) == self.triples[:, 2]
        is_artifact_CV = torch.softmax(logits_CV, dim=1) > self.threshold
        is_artifact_CV[context_B, self.triples[:, 2]] = False
        count = is_artifact_CV.sum().float()
        self.log_dict(
            {
                "train/loss": self.loss(self.triples),
                "train/accuracy": right_B.float().mean(),
                "artifacts/count": count,
                "artifacts/per_ngram": count / len(self.triples),
            }
        )

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return AdamW without decay."""
        return torch.optim.AdamW(self.parameters(), lr=self.learning_rate, weight_decay=0.0)


class Repeated(Dataset[Tensor]):
    """One batch, handed out a number of times."""

    def __init__(self, batch: Tensor, times: int) -> None:
        self.batch, self.times = batch, times

    def __len__(self) -> int:
        return self.times

    def __getitem__(self, index: int) -> Tensor:
        return self.batch


def all_contexts(vocab_size: int) -> Tensor:
    """Return all pairs of tokens, [V^2, 2]; the pair (a, b) stands at a * V + b."""
    return torch.cartesian_prod(torch.arange(vocab_size), torch.arange(vocab_size))


def random_triples(sentences: int, vocab_size: int) -> Tensor:
    """Return triples with distinct random contexts and one random completion each, [N, 3]."""
    contexts = all_contexts(vocab_size)[torch.randperm(vocab_size**2)[:sentences]]
    return torch.cat([contexts, torch.randint(vocab_size, (sentences, 1))], dim=1)


def main() -> None:
    """Train one model and print its final numbers as one line of JSON."""
    parser = argparse.ArgumentParser(description="Train one toy transformer with plain PyTorch Lightning.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sentences", type=int, default=500)
    parser.add_argument("--vocab-size", type=int, default=100)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--evaluations", type=int, default=20)
    parser.add_argument("--learning-rate", type=float, default=1e-2)
    parser.add_argument("--threshold", type=float, default=0.5)
    asked = parser.parse_args()
    interval, rest = divmod(asked.steps, asked.evaluations)
    if rest:
        parser.error(f"--steps {asked.steps} is not a multiple of --evaluations {asked.evaluations}.")

    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")  # the data lie on the device
    torch.manual_seed(asked.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    triples = random_triples(asked.sentences, asked.vocab_size).to(device)
    model = PlainTransformer(
        vocab_size=asked.vocab_size,
        width=asked.width,
        heads=asked.heads,
        learning_rate=asked.learning_rate,
        threshold=asked.threshold,
        triples=triples,
    )
    logger = WandbLogger(project="plain", name=f"sentences{asked.sentences}-seed{asked.seed}", offline=True)
    logger.log_hyperparams(vars(asked))
    # An epoch is what lies between two evaluations: with an epoch per pass over the data, which is one step here,
    # Lightning would spend more on epochs than on steps.
    trainer = pl.Trainer(
        devices=1,
        max_epochs=asked.evaluations,
        logger=logger,
        log_every_n_steps=interval,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(
        model,
        DataLoader(Repeated(triples, interval), batch_size=None),
        DataLoader(Repeated(all_contexts(asked.vocab_size).to(device), 1), batch_size=None),
    )
    print(json.dumps({name: float(value) for name, value in trainer.callback_metrics.items()}))


if __name__ == "__main__":
    main()
