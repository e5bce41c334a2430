"""Graphs of ONNX operators, written one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

OPSET = 18
"""Of the operators; the first with sizes of any axes in ``Pad`` and ``ReduceMean``. Runtimes since 2023 have it."""

IR_VERSION = 8  # of the file format, which every runtime with `OPSET` reads


@dataclass
class Graph:
    """Nodes and constants; values are known by their names, which the methods return."""

    nodes: list[Any] = field(default_factory=list)
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)

    def add(self, operator: str, *inputs: str, name: str = "", **attributes: Any) -> str:  # noqa: ANN401 - ONNX's types
        """Add an operator; return its output, called `name` where that is given."""
        return self.add_many(operator, inputs, (name,), **attributes)[0]

    def add_many(
        self,
        operator: str,
        inputs: Sequence[str],
        names: Sequence[str],
        **attributes: Any,  # noqa: ANN401
    ) -> tuple[str, ...]:
        """Add an operator with several outputs; an empty name is replaced by one that is free."""
        from onnx import helper

        outputs = tuple(name or f"{operator.lower()}_{len(self.nodes)}_{at}" for at, name in enumerate(names))
        self.nodes.append(
            helper.make_node(operator, inputs, outputs, name=f"{operator}_{len(self.nodes)}", **attributes)
        )
        return outputs

    def constant(self, values: Any, dtype: Any = np.float32, name: str = "") -> str:  # noqa: ANN401 - what numpy takes
        """Add a constant; equal ones without a name are stored once."""
        array = np.array(values, dtype)
        if not name:
            name = f"constant_{array.dtype}_{'x'.join(map(str, array.shape))}_{'_'.join(map(str, array.ravel()))}"
        self.constants[name] = array
        return name

    def integers(self, *values: int) -> str:
        """Add a vector of int64, as shapes and axes are given."""
        return self.constant(values, np.int64)

    def size(self, value: str, axis: int) -> str:
        """Return the size of an axis, as a vector of one int64."""
        return self.add("Shape", value, start=axis, end=axis + 1)

    def reshape(self, value: str, shape: Sequence[str | int]) -> str:
        """Reshape to sizes that are numbers (0: as it is, -1: the rest) or vectors from `size`."""
        if all(isinstance(size, int) for size in shape):
            return self.add("Reshape", value, self.integers(*(size for size in shape if isinstance(size, int))))
        parts = [self.integers(size) if isinstance(size, int) else size for size in shape]
        return self.add("Reshape", value, self.add("Concat", *parts, axis=0))


def onnx_type(dtype: type[np.generic]) -> int:
    """Return the number of a type, as attributes have it."""
    from onnx import helper

    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
