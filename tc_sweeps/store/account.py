"""Which server of Weights & Biases is meant, and whether there is a key for it; nothing is asked over the network."""

from __future__ import annotations

import os
import threading

REMEDY = "`wandb login` stores one, or set WANDB_API_KEY"


def server() -> str:
    """Return the address of the server that W&B would upload to."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # W&B reports on its own use: nobody asked for that
    import wandb

    # Before the surroundings: WANDB_MODE=offline is how nodes without network train.
    settings = wandb.Settings(mode="online", silent=True, quiet=True, disable_git=True)
    return str(wandb.setup(settings).settings.base_url)


def problem(server: str) -> str | None:
    """Return why W&B cannot log in to the server, as the beginning of a sentence; None where it has a key."""
    import wandb

    try:
        if wandb.login(prompt=False, verify=False):
            return None
        return f"W&B has no API key for {server}"
    except wandb.errors.Error as error:
        return str(error).rstrip(".")


def leave(seconds: float = 5.0) -> None:
    """End W&B's own process on this machine, and wait for it, though not for ever.

    A request that was given up may break the line on which the process would hear that it should end. It ends with its
    parent in any case, which W&B would let wait for it.
    """
    import wandb

    ending = threading.Thread(target=wandb.teardown, daemon=True)
    ending.start()
    ending.join(seconds)
