"""One training loop for every fit.

`train` calls step(0), step(1), ... step(n_steps - 1) and keeps checkpoints. A step takes everything
random from its number: `Batches(...)(i)` and `noise(..., seed, i)`. So a checkpoint is the tensors
and i, with no state of any random number generator, and a fit that was killed and resumed equals
one that ran in one go.
"""

import functools
import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from .context import Context
from .noise import generator_for
from .places import write_synced, writing

log = logging.getLogger("biasstudy")


class MovingAverage(AveragedModel):
    """The moving average of a network's weights, with a short memory at first: after n steps the
    decay is at most (1 + n) / (10 + n). Its number of steps stays on the host, which so never waits
    for the device."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__(network)
        self.decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        n = self.n_averaged
        weight = 1 - ((1 + n) / (10 + n)).clamp(max=self.decay) if n else torch.ones(())
        torch._foreach_lerp_(
            list(self.module.parameters()), list(model.parameters()), float(weight)
        )
        for average, new in zip(self.module.buffers(), model.buffers(), strict=True):
            average.copy_(new)
        self.n_averaged += 1


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Let the next step of an optimiser have this rate, times the `share` of a group of
    parameters."""
    for group in optimizer.param_groups:
        value = rate * group.get("share", 1.0)
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(value)
        else:
            group["lr"] = value


class Batches:
    """Which of n images optimiser step i sees: shuffled passes over all of them, cut into batches.

    batches(i) -> (size,) int64 on the device; depends on (n, size, seed, i) only.
    """

    def __init__(self, n: int, size: int, seed: int, context: Context) -> None:
        self.n, self.size, self.seed, self.context = n, size, seed, context
        self._shuffled = functools.lru_cache(maxsize=2)(self._shuffle)

    def _shuffle(self, epoch: int) -> Tensor:
        return self.context.tensor(
            torch.randperm(self.n, generator=generator_for(self.seed, "epoch", epoch))
        )

    def __call__(self, i: int) -> Tensor:
        low, high, parts = i * self.size, (i + 1) * self.size, []
        while low < high:
            epoch, offset = divmod(low, self.n)
            take = min(self.n - offset, high - low)
            parts.append(self._shuffled(epoch)[offset : offset + take])
            low += take
        return torch.cat(parts)


def cosine(i: int, n_steps: int, rise: float = 0.05) -> float:
    """Factor of the learning rate at step i: a linear rise over the first 5 %, then half a cosine
    down to 0."""
    first = max(1, round(rise * n_steps))
    if i < first:
        return (i + 1) / first
    return 0.5 * (1 + np.cos(np.pi * (i - first) / max(1, n_steps - first)))


def train(
    state: Mapping[str, Any], step: Callable[[int], None], n_steps: int, context: Context
) -> None:
    """Call step(i) for every i, resuming after the last checkpoint of this fit.

    state     modules and optimisers by name: everything that step changes
    step      one optimiser step; all its randomness comes from i
    """
    first = _restore(state, context)
    saved = time.monotonic()
    for i in range(first, n_steps):
        step(i)
        if context.progress:
            context.progress(i + 1, n_steps)
        if context.folder and time.monotonic() - saved >= context.every and i + 1 < n_steps:
            _save(state, i + 1, context)
            saved = time.monotonic()


def _tensors(state: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    for name, part in state.items():
        if isinstance(part, torch.optim.Optimizer):
            for index, slots in part.state_dict()["state"].items():
                yield from (
                    (f"{name}/{index}/{slot}", torch.as_tensor(value))
                    for slot, value in slots.items()
                )
        else:
            yield from ((f"{name}/{key}", value) for key, value in part.state_dict().items())


def _save(state: Mapping[str, Any], i: int, context: Context) -> None:
    assert context.folder
    tensors = {name: value.contiguous().clone() for name, value in _tensors(state)}
    data = save_tensors({**tensors, "step": torch.tensor(i)})
    partial = context.folder / f"partial-{os.getpid()}"
    try:
        with writing("a checkpoint", context.folder):
            context.folder.mkdir(parents=True, exist_ok=True)
            write_synced(partial, hashlib.sha256(data).digest() + data)
            os.replace(partial, context.folder / "checkpoint")
    finally:
        partial.unlink(missing_ok=True)


def _restore(state: Mapping[str, Any], context: Context) -> int:
    """Put the last checkpoint into the state; the step to go on from."""
    path = context.folder and context.folder / "checkpoint"
    if not path or not path.exists():
        return 0
    stored = path.read_bytes()
    if hashlib.sha256(stored[32:]).digest() != stored[:32]:
        log.warning("a checkpoint is damaged; its fit starts over")
        return 0
    tensors = load_tensors(stored[32:])
    for name, part in state.items():
        part_state = {
            key.removeprefix(f"{name}/"): value
            for key, value in tensors.items()
            if key.startswith(f"{name}/")
        }
        if isinstance(part, torch.optim.Optimizer):
            slots: dict[int, dict[str, Tensor]] = {}
            for key, value in part_state.items():
                index, slot = key.split("/")
                slots.setdefault(int(index), {})[slot] = value
            part.load_state_dict(
                {"state": slots, "param_groups": part.state_dict()["param_groups"]}
            )
        else:
            part.load_state_dict(part_state)
    return int(tensors["step"])
