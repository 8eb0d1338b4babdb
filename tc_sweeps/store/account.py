"""Which server of Weights & Biases is meant, and whether there is a key for it; nothing is asked over the network."""

from __future__ import annotations

import os

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
