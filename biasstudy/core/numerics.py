"""The numerics of a run: precision, device, threads; part of every stage key."""

import contextlib
import ctypes
import re
from dataclasses import dataclass
from typing import Any

import torch

from .checks import checked, unknown

# malloc.h: free memory to keep at the end of the heap; blocks outside it
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


@dataclass(frozen=True)
class Numerics:
    """How numbers are computed: part of every stage key and a column of the table, not of the
    experiment.

    precision   float64, float32, bf16 (float32 weights, bfloat16 arithmetic), or auto (bf16 where
                the device computes it, else float32); resolved when built
    device      cpu, cuda, or auto (cuda where there is one); resolved when built
    threads     CPU threads of one process; parallelism is over experiments
    compile     torch.compile the networks
    """

    precision: str = "float32"
    device: str = "cpu"
    threads: int = 1
    compile: bool = False

    def __post_init__(self) -> None:
        for name, kind in (
            ("precision", str),
            ("device", str),
            ("threads", int),
            ("compile", bool),
        ):
            checked(name, getattr(self, name), kind)
        for name, known in (
            ("precision", ("float64", "float32", "bf16", "auto")),
            ("device", ("cpu", "cuda", "auto")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(unknown(name, getattr(self, name), known))
        if self.threads < 1:
            raise ValueError(f"threads must be at least 1; got {self.threads}")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError(
                "device is 'cuda', but torch finds no CUDA device here; use cpu or auto"
            )
        if self.device == "auto":
            object.__setattr__(self, "device", "cuda" if torch.cuda.is_available() else "cpu")
        if self.precision == "auto":
            object.__setattr__(
                self, "precision", "bf16" if computes_bf16(self.device) else "float32"
            )

    @classmethod
    def elsewhere(cls, device: str, **others: Any) -> "Numerics":
        """Numerics of other machines, whose device this one need not have."""
        for name, value, known in (
            ("device", device, "cuda or cpu"),
            ("precision", others.get("precision"), "float64, float32 or bf16"),
        ):
            if value == "auto":
                raise ValueError(
                    f"{name} is 'auto', but it is other machines that compute; say {known}"
                )
        numerics = cls(**others, device="cpu" if device == "cuda" else device)
        object.__setattr__(numerics, "device", device)
        return numerics

    @classmethod
    def named(cls, name: str) -> "Numerics":
        """Numerics of any machine from their short name, for records that were written before
        records held the fields.

        name     precision-device-threads, and -compiled where networks were compiled
        raises   ValueError   if it is no such name
        """
        match = re.fullmatch(r"(\w+)-(\w+)-(\d+)(-compiled)?", name)
        if match is None:
            raise ValueError(
                f"numerics {name!r} are no precision-device-threads such as float32-cpu-1"
            )
        precision, device, threads, compiled = match.groups()
        return cls.elsewhere(
            device, precision=precision, threads=int(threads), compile=compiled is not None
        )

    @property
    def dtype(self) -> torch.dtype:
        return torch.float64 if self.precision == "float64" else torch.float32

    @property
    def name(self) -> str:
        """Short text for tables and folder names."""
        return f"{self.precision}-{self.device}-{self.threads}" + (
            "-compiled" if self.compile else ""
        )

    def apply(self) -> None:
        """Set the process to these numerics."""
        keep_freed_memory()
        torch.set_num_threads(self.threads)
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = self.device == "cuda"

    def autocast(self) -> contextlib.AbstractContextManager:
        return (
            torch.autocast(self.device, torch.bfloat16)
            if self.precision == "bf16"
            else contextlib.nullcontext()
        )


def keep_freed_memory() -> None:
    """Let this process keep the memory it frees, where its C library is glibc; elsewhere nothing
    happens.

    By default every step of a fit gives its largest tensors back to the kernel and has them filled
    with zeros again: small-cnn predicts 2.5 times, lenet fits 1.5 times faster without. No number
    changes.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


def computes_bf16(device: str) -> bool:
    """Whether a device multiplies bfloat16 numbers itself; where it must imitate that, float32 is
    faster."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
