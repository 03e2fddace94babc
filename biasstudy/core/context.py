"""What a fit may know beside its inputs: numerics, the folder of its checkpoints, who watches; and
pixels as numbers.

Letters: B batch, N images, C H W channels and pixels.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from .numerics import Numerics
from .recorded import Recorded
from .seeds import seed_for


@dataclass(frozen=True)
class Context:
    """What a fit may know beside its inputs; nothing here but the numerics can change a result.

    folder     where checkpoints of this fit go; None: none are kept
    every      seconds between checkpoints
    progress   called with (step, n_steps)
    """

    numerics: Numerics = Numerics()
    folder: Path | None = None
    every: float = 60.0
    progress: Callable[[int, int], None] | None = None

    def place(self, module: nn.Module) -> nn.Module:
        """The network on the device, in the dtype of these numerics, channels last."""
        module = module.to(self.numerics.device, self.numerics.dtype).to(
            memory_format=torch.channels_last
        )
        if self.numerics.compile:
            module.compile()  # in place: the names of the weights stay what they are
        return module

    @contextlib.contextmanager
    def initial(self, *names: Any, learned: bool = True) -> Iterator[None]:
        """Inside, networks are built in the dtype of these numerics, their weights drawn from the
        stream with this name.

        (In float32 the last bits of drawn weights differ between kinds of CPU; float64 training
        must not start there.)

        learned   all their weights will be learned
        raises    MemoryError   while they are built, where the device cannot hold learned weights:
                                a system that promises more than it has would end the process later
        """
        counted = self._counted() if learned else contextlib.nullcontext()
        before = torch.get_default_dtype()
        torch.set_default_dtype(self.numerics.dtype)
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed_for(*names))
                with counted:
                    yield
        finally:
            torch.set_default_dtype(before)

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        """Inside, MemoryError as soon as networks have more weights than can be learned here."""
        most, total = device_memory(self.numerics.device), 0

        def count(module: nn.Module, name: str, weight: Tensor | None) -> None:
            nonlocal total
            total += 0 if weight is None else weight.nbytes
            if LEARNING * total > most:
                raise MemoryError(f"{LEARNING * total / 1e9:.0f} GB for the weights alone")

        hook = register_module_parameter_registration_hook(count)
        try:
            yield
        finally:
            hook.remove()

    def pixels(self, images: np.ndarray | Tensor) -> Tensor:
        """uint8 images 0..255 as numbers -1..1 on the device, channels last; (B, C, H, W)."""
        tensor = torch.as_tensor(images).to(self.numerics.device)
        return (
            tensor.to(self.numerics.dtype)
            .div_(127.5)
            .sub_(1)
            .contiguous(memory_format=torch.channels_last)
        )

    def tensor(self, values: np.ndarray | Tensor) -> Tensor:
        """An array on the device, its dtype kept; the host does not wait until it is there."""
        tensor = torch.as_tensor(values)
        return (
            tensor
            if self.numerics.device == "cpu"
            else tensor.pin_memory().to(self.numerics.device, non_blocking=True)
        )

    def optimizer(
        self,
        algorithm: Callable[..., torch.optim.Optimizer],
        parameters: Any,
        rate: float,
        **others: Any,
    ) -> torch.optim.Optimizer:
        """An optimiser; on CUDA with all that changes in a step on the device, so that its step can
        be recorded."""
        if self.numerics.device == "cpu":
            return algorithm(parameters, lr=rate, **others)
        # SGD does not count its steps
        counted = {} if algorithm is torch.optim.SGD else {"capturable": True}
        optimizer = algorithm(parameters, lr=rate, **{**others, **counted, "fused": True})
        for group in optimizer.param_groups:
            group["lr"] = torch.tensor(rate, device=self.numerics.device)
        return optimizer

    def recorded(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function itself; on CUDA as `Recorded`."""
        return function if self.numerics.device == "cpu" else Recorded(function)


LEARNING = 4  # times their size that learned weights need: gradients and Adam's two moments


def device_memory(device: str) -> float:
    """Bytes that a device has in all; infinite where the system does not say."""
    if device == "cuda":
        return torch.cuda.get_device_properties(0).total_memory
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not POSIX
        return float("inf")


def to_uint8(pixels: Tensor) -> np.ndarray:
    """Numbers -1..1 as uint8 images 0..255, rounded; (B, C, H, W)."""
    return (
        pixels.float()
        .add(1)
        .mul(127.5)
        .round_()
        .clamp_(0, 255)
        .to(torch.uint8)
        .contiguous()
        .cpu()
        .numpy()
    )


def scaled(x: Tensor, size: int) -> Tensor:
    """Square images at another side: bicubic interpolation with antialiasing; (B, C, any, any) to
    (B, C, size, size)."""
    return (
        x
        if x.shape[2] == size
        else F.interpolate(x, size=(size, size), mode="bicubic", antialias=True)
    )
