"""What lower precision and skipped tiles could bring to a count of trained models: rows in doubt, time, tiles.

    python -m tc_sweeps sweep=low data.vocab_size=512 data.num_sentences=2560 tracking=none training.evaluations=1
    python benchmarks/screening.py outputs/low

For every finished run in a sweep's folder, from 20,000 of its contexts:

- the share of rows that the certified margin of a precision leaves in doubt at .5, .7, .9 and .99: bfloat16 factors
  (with sums in float32), two bfloat16 for each factor (`artifacts.engine=flex`), float32 (`chunked`);
- the time of the product of matrices alone on this machine, in float32 and in bfloat16, one thread;
- the share of tiles, 128 contexts by 64 tokens with both sorted by length, in which no logit can be the greatest of its
  row, by |h| |u| (`length`) or by h c + |h| r where c is the centre of a tile's tokens and r how far the furthest is
  from it (`centre`, of tokens that k-means put together); and of tiles in which no exponential can be 2^-24 of the sum
  of its row. Each row is given its greatest logit and its sum beforehand, which a kernel only comes to know.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import torch
from torch import Tensor

import tc_sweeps
from tc_sweeps.artifacts.counter import in_float64
from tc_sweeps.artifacts.flex import Halves, flex_margin
from tc_sweeps.artifacts.screen import Margin, Operand, margin_of

THRESHOLDS = (0.5, 0.7, 0.9, 0.99)
ROWS, TOKENS = 128, 64  # of a tile


def in_doubt(margin: Margin, log_top_1C: Tensor) -> float:
    """Return the share of rows whose answer at some threshold is in doubt."""
    sure_1C = torch.ones_like(log_top_1C, dtype=torch.bool)
    for threshold in THRESHOLDS:
        sure_1C &= margin.is_sure(log_top_1C, threshold)
    return 1 - sure_1C.double().mean().item()


def margins(hidden_1CD: Tensor, matrix_1DV: Tensor) -> dict[str, Margin]:
    """Return the margin of each precision; a single bfloat16 leaves out what the other would hold."""
    width, vocab_size = matrix_1DV.shape[1:]
    hidden, tokens = Halves(hidden_1CD, dim=-1), Halves(matrix_1DV.mT, dim=-1)
    logits_1CV = hidden_1CD @ matrix_1DV
    double = flex_margin(
        hidden,
        tokens,
        logits_1CV.logsumexp(-1),
        logits_1CV.amax(-1),
        width=width,
        vocab_size=vocab_size,
        deepest=math.log(2),
    )
    lost_1C, lost_1V = hidden.of_second + hidden.of_left, tokens.of_second + tokens.of_left
    single_1C = 2 * (lost_1C * tokens.of_first.amax() + hidden.length * lost_1V.amax())
    return {
        "bfloat16": Margin(single_1C + double.odds_MC, double.share_MC),
        "two bfloat16": double,
        "float32": margin_of(hidden_1CD, Operand.of(matrix_1DV), math.log(2)),
    }


def product_seconds(hidden_CD: Tensor, matrix_DV: Tensor) -> float:
    """Return the least time of a product of matrices in memory that is taken once."""
    room_CV = torch.empty(len(hidden_CD), matrix_DV.shape[1], dtype=hidden_CD.dtype)
    least = math.inf
    for _ in range(30):
        began = time.perf_counter()
        torch.matmul(hidden_CD, matrix_DV, out=room_CV)
        least = min(least, time.perf_counter() - began)
    return least


def clustered(token_VD: Tensor) -> Tensor:
    """Return an order of tokens in which those that are near to each other mostly stand together: by k-means."""
    centre_KD = token_VD[:: len(token_VD) // (len(token_VD) // TOKENS)].clone()
    for _ in range(30):
        nearest_V = torch.cdist(token_VD, centre_KD).argmin(1)
        for k in nearest_V.unique().tolist():
            centre_KD[k] = token_VD[nearest_V == k].mean(0)
    return nearest_V.argsort(stable=True)


def skipped(hidden_CD: Tensor, matrix_DV: Tensor, *, by: str) -> tuple[float, float]:
    """Return the shares of tiles that could not hold a greatest logit, and not a power that changes a sum."""
    hidden_CD = hidden_CD[hidden_CD.norm(dim=1).argsort()]
    hidden_CD = hidden_CD[: len(hidden_CD) // ROWS * ROWS]
    token_VD = matrix_DV.T[matrix_DV.norm(dim=0).argsort(descending=True)]
    if by == "centre":
        token_VD = token_VD[clustered(token_VD)]
    greatest_C = (hidden_CD @ matrix_DV).amax(1)
    log_sum_C = torch.logsumexp(hidden_CD @ matrix_DV, dim=1)
    room_CT = []
    for tile_TD in token_VD.split(TOKENS):
        centre_D = tile_TD.mean(0) if by == "centre" else torch.zeros_like(tile_TD[0])
        radius = (tile_TD - centre_D).norm(dim=1).amax()
        room_CT.append(hidden_CD @ centre_D + hidden_CD.norm(dim=1) * radius)
    most_CT = torch.stack(room_CT, dim=1)
    of_greatest_CT = most_CT < greatest_C[:, None]
    of_sums_CT = most_CT < (log_sum_C - 24 * math.log(2))[:, None]
    tiles = [flag_CT.unflatten(0, (-1, ROWS)).all(1).double().mean().item() for flag_CT in (of_greatest_CT, of_sums_CT)]
    return tiles[0], tiles[1]


def main() -> None:
    """Print what is found for each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path)
    torch.set_num_threads(1)
    for weights in sorted(parser.parse_args().sweep.glob("*/model.safetensors")):
        run = tc_sweeps.load_run(weights.parent)
        model, V = in_float64(run.model), run.corpus.vocab_size
        generator = torch.Generator().manual_seed(0)
        context_1Cm = torch.randint(V, (1, 20_000, 2), generator=generator)
        hidden_1CD, matrix_1DV = model.last_hidden(context_1Cm), model.unembedding_matrix()
        log_top_1C = torch.log_softmax(hidden_1CD @ matrix_1DV, dim=-1).amax(-1)
        print(f"V = {V}, width {matrix_1DV.shape[1]}")
        for name, margin in margins(hidden_1CD, matrix_1DV).items():
            print(f"  in doubt by {name}: {100 * in_doubt(margin, log_top_1C):.2f} %")
        taken = {
            dtype: product_seconds(hidden_1CD[0, : 2**21 // V].to(dtype), matrix_1DV[0].to(dtype))
            for dtype in (torch.float32, torch.bfloat16)
        }
        print("  product of 2^21 logits, ms:", ", ".join(f"{str(k)[6:]} {1e3 * v:.2f}" for k, v in taken.items()))
        length_V = matrix_1DV[0].norm(dim=0)
        loose = hidden_1CD[0].norm(dim=1) * length_V.amax() / (hidden_1CD @ matrix_1DV)[0].amax(1)
        print(
            f"  lengths of tokens: {length_V.amax():.1f} at most, {length_V.median():.1f} in the middle; "
            f"|h| |u| over the greatest logit: {loose.median():.1f}"
        )
        for by in ("length", "centre"):
            greatest, sums = skipped(hidden_1CD[0], matrix_1DV[0], by=by)
            print(f"  tiles skipped by {by}: {100 * greatest:.1f} % for the greatest, {100 * sums:.1f} % for the sum")


if __name__ == "__main__":
    main()
