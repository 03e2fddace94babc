"""One training loop for every fit, and the numerics it runs in.

`train` calls step(0), step(1), ... step(n_steps - 1) and keeps checkpoints. A step takes everything random from its
number: `Batches(...)(i)` and `noise(..., seed, i)`. So a checkpoint is the tensors and i, with no state of any random
number generator, and a fit that was killed and resumed equals one that ran in one go.

Letters: B batch, N images, C H W channels and pixels, Z size of the latent.
"""

import contextlib
import ctypes
import functools
import hashlib
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from .registry import checked, seed_for

log = logging.getLogger("biasstudy")

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h: free memory to keep at the end of the heap; blocks outside it
CHUNK = 256  # images whose noise is drawn together; part of the definition of every sample
WARM = 3     # calls of a function before it is recorded: libraries choose their kernels in them, optimisers begin their state


@dataclass(frozen=True)
class Numerics:
    """How numbers are computed: part of every stage key and a column of the table, not of the experiment.

    precision   float64, float32, bf16 (float32 weights, bfloat16 arithmetic), or auto (bf16 where the device computes it,
                else float32); resolved when built
    device      cpu, cuda, or auto (cuda where there is one); resolved when built
    threads     CPU threads of one process; parallelism is over experiments
    compile     torch.compile the networks
    """

    precision: str = "float32"
    device: str = "cpu"
    threads: int = 1
    compile: bool = False

    def __post_init__(self) -> None:
        for name, kind in (("precision", str), ("device", str), ("threads", int), ("compile", bool)):
            checked(name, getattr(self, name), kind)
        if self.precision not in ("float64", "float32", "bf16", "auto"):
            raise ValueError(f"unknown precision {self.precision!r}; known: float64, float32, bf16, auto")
        if self.device not in ("cpu", "cuda", "auto"):
            raise ValueError(f"unknown device {self.device!r}; known: cpu, cuda, auto")
        if self.threads < 1:
            raise ValueError(f"threads must be at least 1; got {self.threads}")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("device is 'cuda', but torch finds no CUDA device here; use cpu or auto")
        if self.device == "auto":
            object.__setattr__(self, "device", "cuda" if torch.cuda.is_available() else "cpu")
        if self.precision == "auto":
            object.__setattr__(self, "precision", "bf16" if computes_bf16(self.device) else "float32")

    @classmethod
    def elsewhere(cls, device: str, **others: Any) -> "Numerics":
        """Numerics of other machines, whose device this one need not have."""
        for name, value, known in (("device", device, "cuda or cpu"),
                                   ("precision", others.get("precision"), "float64, float32 or bf16")):
            if value == "auto":
                raise ValueError(f"{name} is 'auto', but it is other machines that compute; say {known}")
        numerics = cls(**others, device="cpu" if device == "cuda" else device)
        object.__setattr__(numerics, "device", device)
        return numerics

    @property
    def dtype(self) -> torch.dtype:
        return torch.float64 if self.precision == "float64" else torch.float32

    @property
    def name(self) -> str:
        """Short text for tables and folder names."""
        return f"{self.precision}-{self.device}-{self.threads}" + ("-compiled" if self.compile else "")

    def apply(self) -> None:
        """Set the process to these numerics."""
        keep_freed_memory()
        torch.set_num_threads(self.threads)
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = self.device == "cuda"

    def autocast(self) -> contextlib.AbstractContextManager:
        return torch.autocast(self.device, torch.bfloat16) if self.precision == "bf16" else contextlib.nullcontext()


def keep_freed_memory() -> None:
    """Let this process keep the memory it frees, where its C library is glibc; elsewhere nothing happens.

    By default every step of a fit gives its largest tensors back to the kernel and has them filled with zeros again: small-cnn
    predicts 2.5 times, lenet fits 1.5 times faster without. No number changes.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):       # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


def computes_bf16(device: str) -> bool:
    """Whether a device multiplies bfloat16 numbers itself; where it must imitate that, float32 is faster."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


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
        module = module.to(self.numerics.device, self.numerics.dtype).to(memory_format=torch.channels_last)
        if self.numerics.compile:
            module.compile()  # in place: the names of the weights stay what they are
        return module

    @contextlib.contextmanager
    def initial(self, *names: Any) -> Iterator[None]:
        """Inside, networks are built in the dtype of these numerics, their weights drawn from the stream with this name.

        (In float32 the last bits of drawn weights differ between kinds of CPU; float64 training must not start there.)
        """
        before = torch.get_default_dtype()
        torch.set_default_dtype(self.numerics.dtype)
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed_for(*names))
                yield
        finally:
            torch.set_default_dtype(before)

    def pixels(self, images: np.ndarray | Tensor) -> Tensor:
        """uint8 images 0..255 as numbers -1..1 on the device, channels last; (B, C, H, W)."""
        tensor = torch.as_tensor(images).to(self.numerics.device)
        return tensor.to(self.numerics.dtype).div_(127.5).sub_(1).contiguous(memory_format=torch.channels_last)

    def tensor(self, values: np.ndarray | Tensor) -> Tensor:
        """An array on the device, its dtype kept; the host does not wait until it is there."""
        tensor = torch.as_tensor(values)
        return tensor if self.numerics.device == "cpu" else tensor.pin_memory().to(self.numerics.device, non_blocking=True)

    def optimizer(self, kind: Callable[..., torch.optim.Optimizer], parameters: Any, rate: float,
                  **others: Any) -> torch.optim.Optimizer:
        """An optimiser; on CUDA with all that changes in a step on the device, so that its step can be recorded."""
        if self.numerics.device == "cpu":
            return kind(parameters, lr=rate, **others)
        counted = {} if kind is torch.optim.SGD else {"capturable": True}      # SGD does not count its steps
        made = kind(parameters, lr=rate, **{**others, **counted, "fused": True})
        for group in made.param_groups:
            group["lr"] = torch.tensor(rate, device=self.numerics.device)
        return made

    def recorded(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function itself; on CUDA as `Recorded`."""
        return function if self.numerics.device == "cpu" else Recorded(function)


class Recorded:
    """A function of tensors that runs on a CUDA device as one graph, recorded after WARM calls and replayed from then on.

    A small network waits for its kernels to be launched one by one; a graph is launched at once. What the function does
    beside its inputs (weights, images of the pool) must stay where it is; whatever is random must come in as an input.

    *inputs  tensors on the device; other values are part of what is recorded: a graph for each, and for each shape
    returns  what the function returns, copied
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.calls = function, Counter[Any]()
        self.graphs: dict[Any, tuple[torch.cuda.CUDAGraph, Sequence[Any], Any]] = {}

    def __call__(self, *inputs: Any) -> Any:
        key = tuple((x.shape, x.dtype) if isinstance(x, Tensor) else x for x in inputs)
        self.calls[key] += 1
        if self.calls[key] <= WARM:
            return self._aside(inputs)
        if key not in self.graphs:
            self._record(key, [x.clone() if isinstance(x, Tensor) else x for x in inputs])
        graph, mine, out = self.graphs[key]
        for place, x in zip(mine, inputs, strict=True):
            if isinstance(x, Tensor):
                place.copy_(x)
        graph.replay()
        return out.clone() if isinstance(out, Tensor) else out

    def _aside(self, inputs: Sequence[Any]) -> Any:
        """Called as it is, but on a stream of its own, as recording demands of the calls before it."""
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            out = self.function(*inputs)
        torch.cuda.current_stream().wait_stream(aside)
        return out

    def _record(self, key: Any, mine: Sequence[Any]) -> None:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = self.function(*mine)
        self.graphs[key] = graph, mine, out


class MovingAverage(AveragedModel):
    """The moving average of a network's weights, with a short memory at first: after n steps the decay is at most
    (1 + n) / (10 + n). Its number of steps stays on the host, which so never waits for the device."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__(network)
        self.decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        n = self.n_averaged
        weight = 1 - ((1 + n) / (10 + n)).clamp(max=self.decay) if n else torch.ones(())
        torch._foreach_lerp_(list(self.module.parameters()), list(model.parameters()), float(weight))
        for mine, new in zip(self.module.buffers(), model.buffers(), strict=True):
            mine.copy_(new)
        self.n_averaged += 1


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Let the next step of an optimiser have this rate, times the `share` of a group of parameters."""
    for group in optimizer.param_groups:
        value = rate * group.get("share", 1.0)
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(value)
        else:
            group["lr"] = value


def to_uint8(pixels: Tensor) -> np.ndarray:
    """Numbers -1..1 as uint8 images 0..255, rounded; (B, C, H, W)."""
    return pixels.float().add(1).mul(127.5).round_().clamp_(0, 255).to(torch.uint8).contiguous().cpu().numpy()


def scaled(x: Tensor, size: int) -> Tensor:
    """Square images at another side: bicubic interpolation with antialiasing; (B, C, any, any) to (B, C, size, size)."""
    return x if x.shape[2] == size else F.interpolate(x, size=(size, size), mode="bicubic", antialias=True)


def generator_for(*names: Any) -> torch.Generator:
    """A CPU random number generator for the stream with this name."""
    return torch.Generator().manual_seed(seed_for(*names))


def noise(shape: tuple[int, ...], context: Context, *names: Any) -> Tensor:
    """Standard normal numbers of the stream with this name, drawn on the CPU so that all devices see the same.

    In float32 torch draws them with vector instructions, whose last bits differ between kinds of CPU; in float64 not.
    """
    return context.tensor(torch.randn(shape, generator=generator_for(*names), dtype=context.numerics.dtype))


def noise_of_images(first_index: int, n: int, shape: tuple[int, ...], seed: int, context: Context) -> Tensor:
    """Noise of images first_index ... first_index + n - 1; that of image i depends on (seed, i) only; (n, *shape)."""
    chunks = range(first_index // CHUNK, -(-(first_index + n) // CHUNK))
    dtype = context.numerics.dtype
    drawn = [torch.randn((CHUNK, *shape), generator=generator_for(seed, "images", c), dtype=dtype) for c in chunks]
    start = first_index % CHUNK
    return context.tensor(torch.cat(drawn)[start: start + n])


def uniform_of_images(first_index: int, n: int, seed: int) -> np.ndarray:
    """One uniform number in [0, 1) for each of n images; that of image i depends on (seed, i) only."""
    chunks = range(first_index // CHUNK, -(-(first_index + n) // CHUNK))
    drawn = torch.cat([torch.rand(CHUNK, generator=generator_for(seed, "pick", c), dtype=torch.float64) for c in chunks])
    start = first_index % CHUNK
    return drawn[start: start + n].numpy()


class Batches:
    """Which of n images optimiser step i sees: shuffled passes over all of them, cut into batches.

    batches(i) -> (size,) int64 on the device; depends on (n, size, seed, i) only.
    """

    def __init__(self, n: int, size: int, seed: int, context: Context) -> None:
        self.n, self.size, self.seed, self.context = n, size, seed, context
        self._shuffled = functools.lru_cache(maxsize=2)(self._shuffle)

    def _shuffle(self, epoch: int) -> Tensor:
        return self.context.tensor(torch.randperm(self.n, generator=generator_for(self.seed, "epoch", epoch)))

    def __call__(self, i: int) -> Tensor:
        low, high, parts = i * self.size, (i + 1) * self.size, []
        while low < high:
            epoch, offset = divmod(low, self.n)
            take = min(self.n - offset, high - low)
            parts.append(self._shuffled(epoch)[offset: offset + take])
            low += take
        return torch.cat(parts)


def cosine(i: int, n_steps: int, rise: float = 0.05) -> float:
    """Factor of the learning rate at step i: a linear rise over the first 5 %, then half a cosine down to 0."""
    first = max(1, round(rise * n_steps))
    if i < first:
        return (i + 1) / first
    return 0.5 * (1 + np.cos(np.pi * (i - first) / max(1, n_steps - first)))


def train(state: Mapping[str, Any], step: Callable[[int], None], n_steps: int, context: Context) -> None:
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
                yield from ((f"{name}/{index}/{slot}", torch.as_tensor(value)) for slot, value in slots.items())
        else:
            yield from ((f"{name}/{key}", value) for key, value in part.state_dict().items())


def _save(state: Mapping[str, Any], i: int, context: Context) -> None:
    assert context.folder
    tensors = {name: value.contiguous().clone() for name, value in _tensors(state)}
    data = save_tensors({**tensors, "step": torch.tensor(i)})
    partial = context.folder / f"partial-{os.getpid()}"
    try:
        context.folder.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as file:
            file.write(hashlib.sha256(data).digest() + data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, context.folder / "checkpoint")
    except OSError as error:
        reason = f"{error.strerror or error}; free space there, or set BIASSTUDY_RUNS"
        raise OSError(f"cannot write a checkpoint to {context.folder}: {reason}") from error
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
        mine = {key.removeprefix(f"{name}/"): value for key, value in tensors.items() if key.startswith(f"{name}/")}
        if isinstance(part, torch.optim.Optimizer):
            slots: dict[int, dict[str, Tensor]] = {}
            for key, value in mine.items():
                index, slot = key.split("/")
                slots.setdefault(int(index), {})[slot] = value
            part.load_state_dict({"state": slots, "param_groups": part.state_dict()["param_groups"]})
        else:
            part.load_state_dict(mine)
    return int(tensors["step"])
