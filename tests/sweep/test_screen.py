"""What a launch draws: bars and log lines that do not run into each other, from several processes."""

from __future__ import annotations

import logging
import multiprocessing
import os
import re
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from tc_sweeps.sweep.screen import Screen, Sender, listen
from tests.terminal import Terminal


def _work(pipe: Connection, name: str, dies: bool) -> None:
    sender = Sender(pipe)
    logging.root.handlers = [sender]
    logging.root.setLevel(logging.INFO)
    sender.show(0, name, 5, 5, "")
    try:
        raise ZeroDivisionError("by accident")
    except ZeroDivisionError:
        logging.getLogger("tc_sweeps.worker").exception("%s failed", name)
    sender.clear(0)
    if dies:
        os._exit(1)
    sender.fail(OSError(f"{name} ended"))


def test_what_workers_log_and_what_ends_them_arrives(caplog: pytest.LogCaptureFixture) -> None:
    context = multiprocessing.get_context("fork")
    pipes, processes = [], []
    for name, dies in (("first", False), ("second", True)):
        ours, theirs = context.Pipe(duplex=False)
        processes.append(context.Process(target=_work, args=(theirs, name, dies)))
        processes[-1].start()
        theirs.close()
        pipes.append(ours)
    with caplog.at_level(logging.INFO), Screen() as screen:
        errors = listen(pipes, screen)
    for process in processes:
        process.join()
    assert sorted(record.getMessage().splitlines()[0] for record in caplog.records) == ["first failed", "second failed"]
    assert "ZeroDivisionError: by accident" in caplog.text
    assert [str(error) for error in errors] == ["first ended"]


@pytest.mark.slow
def test_log_lines_and_bars_of_two_workers_keep_apart(tmp_path: Path) -> None:
    sweep = [
        "sweep=s",
        "data.vocab_size=12",
        "data.num_sentences=30",
        "model.width=8,16,24",
        "seed=0,1",
        "tracking=none",
    ]
    command = [sys.executable, "-m", "tc_sweeps", "-m", *sweep, "training.steps=600", "hydra.launcher.workers=2"]
    with Terminal(command, tmp_path, env=os.environ) as terminal:
        assert terminal.end() == 0, terminal.lines
        lines, written = terminal.lines, terminal.written.decode()
    assert re.search(r"stack \d/3: +\d+% \|.*steps/s, \d\d:\d\d left, 0 of 2 runs done", written)
    logged = [line for line in lines if re.match(r"\[\d\d:\d\d:\d\d\] ", line)]
    patterns = ["6 runs, 6 to train$", r"Stacks: 3, of up to 2 runs\. Workers: 2\.$"]
    patterns += [r"stack \d/3: 2 runs in [\d.]+ s, [\d,]+ member-steps per second$"] * 3
    for line, pattern in zip(logged, patterns, strict=True):
        assert re.search(pattern, line), lines
    assert not [line for line in lines if "|" in line], "A bar was left behind."
