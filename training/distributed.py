"""The processes of a run: one, or several that `torchrun` starts, which share every step."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.distributed as dist

from rdn_engine.errors import BackendUnavailable

Device = Literal["auto", "cpu", "cuda"]

_PATIENCE = datetime.timedelta(hours=6)  # the other processes wait while the first one evaluates


@dataclass(frozen=True)
class World:
    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def leads(self) -> bool:
        """Whether this process writes the files and the log."""
        return self.rank == 0

    def total(self, values: list[float]) -> list[float]:
        """The sums of the values over all processes.

        Args:
            values: as many in every process.

        Returns:
            The sums, the same in every process.
        """
        if self.size == 1:
            return values
        summed = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(summed)
        return summed.tolist()

    def wait(self) -> None:
        """Returns when every process has called it."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def joined(device: Device) -> Iterator[World]:
    """This process among those that torchrun started; alone without it.

    Args:
        device: `auto` takes a GPU where there is one.

    Yields:
        The world of the run, which ends with the context.

    Raises:
        BackendUnavailable: this process has no GPU of its own where it wants one.
    """
    rank, size, local = (int(os.environ.get(name, default)) for name, default in
                         (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0")))  # fmt: skip
    found = torch.cuda.device_count()
    cuda = device == "cuda" or (device == "auto" and found > 0)
    if cuda and local >= found:
        raise BackendUnavailable(f"process {local} of this machine wants a GPU of its own; torch finds {found}")
    if cuda:
        torch.cuda.set_device(local)
    world = World(rank, size, torch.device("cuda", local) if cuda else torch.device("cpu"))
    if size == 1:
        yield world
        return
    dist.init_process_group("nccl" if cuda else "gloo", timeout=_PATIENCE)
    try:
        yield world
    finally:
        dist.destroy_process_group()
