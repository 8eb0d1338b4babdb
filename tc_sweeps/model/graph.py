"""An optimizer step captured as a CUDA graph: replayed at the cost of one launch, and used only where it is right."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

__all__ = ["captured", "checked", "disagreement"]

log = logging.getLogger(__name__)

# Of the change that a step makes, in norm. float32 gradients agree with float64 to 1e-5; a compiled step that was once
# silently wrong was 5e-3 off. A gradient that is 0 but for rounding, like that of the biases of keys, is held against
# the largest. The first updates of AdamW are little more than signs, so that such a gradient moves weights at random.
MOMENT_TOLERANCE = 1e-3
SHARE_OF_LARGEST = 1e-5
WEIGHT_TOLERANCE = 0.2

Step = Callable[[], None]


def captured(step: Step, restore: Step) -> Step:
    """Return a replay of `step`; it is run a few times to warm up, with `restore` after each."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
            restore()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def checked(
    step: Step,
    *,
    changed: Sequence[Tensor],
    state: Mapping[str, Tensor],
    exact: Mapping[str, Tensor],
    capture: Callable[[Step, Step], Step] = captured,
) -> Step:
    """Return the captured step if its result is that of `exact`, else `step` itself, and say so.

    `changed` are all tensors that a step changes in place; they are as before on return. `state` are those of them with
    a value after one step in `exact`.
    """
    saved = [tensor.detach().clone() for tensor in changed]
    before = {name: tensor.clone() for name, tensor in state.items()}

    @torch.no_grad()
    def restore() -> None:
        for tensor, value in zip(changed, saved, strict=True):
            tensor.copy_(value)

    try:
        replay = capture(step, restore)
        replay()
        reason = disagreement(before, state, exact)
    except torch.OutOfMemoryError:  # a smaller stack may be captured
        restore()
        raise
    except RuntimeError as error:  # what PyTorch raises for an operation that cannot be captured
        reason = str(error)
    restore()
    if reason is None:
        return replay
    log.warning("Training goes on without a CUDA graph, more slowly: %s", reason)
    return step


def disagreement(before: Mapping[str, Tensor], found: Mapping[str, Tensor], exact: Mapping[str, Tensor]) -> str | None:
    """Return in words where a step's change is not the exact one, None if it is everywhere."""
    change = {name: float((value - before[name]).norm()) for name, value in exact.items()}
    apart = {name: float((found[name].double() - value).norm()) for name, value in exact.items()}
    for kind in ("mean.", "square."):
        names = [name for name in exact if name.startswith(kind)]
        largest = max(change[name] for name in names)
        for name in names:
            if not apart[name] <= MOMENT_TOLERANCE * change[name] + SHARE_OF_LARGEST * largest:
                return f"the captured step changes {name} by {apart[name]:.3g} other than float64 does."
    names = [name for name in exact if "." not in name]
    wrong, wanted = (math.hypot(*(of[name] for name in names)) for of in (apart, change))
    if not wrong <= WEIGHT_TOLERANCE * wanted:
        return f"the captured step changes the weights by {wrong:.3g} other than float64 does, of {wanted:.3g}."
    return None
