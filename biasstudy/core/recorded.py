"""Functions recorded as CUDA graphs: a small network does not wait for its kernels to be launched
one by one."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

# calls of a function before it is recorded: libraries choose their kernels in them, optimisers
# begin their state
WARM = 3


class Recorded:
    """A function of tensors that runs on a CUDA device as one graph, recorded after WARM calls and
    replayed from then on.

    A small network waits for its kernels to be launched one by one; a graph is launched at once.
    What the function does beside its inputs (weights, images of the pool) must stay where it is;
    whatever is random must come in as an input.

    *inputs  tensors on the device; other values are part of what is recorded: a graph for each, and
             for each shape
    returns  what the function returns, copied
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.calls = function, Counter[Any]()
        self.graphs: dict[Any, tuple[torch.cuda.CUDAGraph, Sequence[Any], Any]] = {}

    def __call__(self, *inputs: Any) -> Any:
        key = tuple(
            (value.shape, value.dtype) if isinstance(value, Tensor) else value for value in inputs
        )
        self.calls[key] += 1
        if self.calls[key] <= WARM:
            return self._aside(inputs)
        if key not in self.graphs:
            self._record(
                key, [value.clone() if isinstance(value, Tensor) else value for value in inputs]
            )
        graph, places, output = self.graphs[key]
        for place, value in zip(places, inputs, strict=True):
            if isinstance(value, Tensor):
                place.copy_(value)
        graph.replay()
        return output.clone() if isinstance(output, Tensor) else output

    def _aside(self, inputs: Sequence[Any]) -> Any:
        """Called as it is, but on a stream of its own, as recording demands of the calls before
        it."""
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            output = self.function(*inputs)
        torch.cuda.current_stream().wait_stream(aside)
        return output

    def _record(self, key: Any, mine: Sequence[Any]) -> None:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = self.function(*mine)
        self.graphs[key] = graph, mine, output
