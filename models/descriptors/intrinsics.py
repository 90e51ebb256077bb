"""A symmetric filter of one row, in vector instructions that numba's own loops do not reach."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16
"""Number of float32 values in one vector."""
UNROLLED = 4
"""Number of vectors that are summed together, so that no sum waits for the one before."""
ALIGNMENT = LANES * UNROLLED
"""Widths of filtered rows are multiples of this number of values."""

_INDEX = ir.IntType(64)
_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_BROADCAST = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)


def _filter_row(
    _context: Any, target: Any, start: Any, source: Any, places: Any, taps: Any, width: Any
) -> Any:
    arrays = [(one.layout, one.dtype) for one in (target, source, places, taps)]
    if arrays != [("C", types.float32)] * 2 + [("C", types.int64), ("C", types.float32)]:
        return None

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        into, values, offsets, weights = (
            context.make_array(signature.args[which])(context, builder, args[which])
            for which in (0, 2, 3, 4)
        )
        (count,) = cgutils.unpack_tuple(builder, weights.shape)
        zero, one, step = (ir.Constant(_INDEX, value) for value in (0, 1, ALIGNMENT))
        multiply_add = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_VECTOR, [_VECTOR] * 3), f"llvm.fmuladd.v{LANES}f32"
        )

        def element(array: Any, at: Any) -> Any:
            return builder.load(builder.gep(array.data, [at]))

        def lanes(array: Any, at: Any, which: int) -> Any:
            place = builder.add(at, ir.Constant(_INDEX, which * LANES))
            return builder.bitcast(builder.gep(array.data, [place]), _VECTOR.as_pointer())

        def load(at: Any, which: int) -> Any:
            return builder.load(lanes(values, at, which), align=4)

        def weight(at: Any) -> Any:
            undefined = ir.Constant(_VECTOR, ir.Undefined)
            first = builder.insert_element(undefined, element(weights, at), ir.IntType(32)(0))
            return builder.shuffle_vector(first, undefined, _BROADCAST)

        sums = [cgutils.alloca_once(builder, _VECTOR) for _ in range(UNROLLED)]
        with cgutils.for_range_slice(builder, zero, args[5], step) as (column, _):
            centre = builder.add(column, element(offsets, zero))
            for which, total in enumerate(sums):
                builder.store(builder.fmul(weight(zero), load(centre, which)), total)
            with cgutils.for_range_slice(builder, one, count, one) as (tap, _):
                after = builder.shl(tap, one)
                before = builder.sub(after, one)
                left, right = (builder.add(column, element(offsets, at)) for at in (before, after))
                factor = weight(tap)
                for which, total in enumerate(sums):
                    pair = builder.fadd(load(left, which), load(right, which))
                    added = builder.call(multiply_add, [factor, pair, builder.load(total)])
                    builder.store(added, total)
            out = builder.add(column, args[1])
            for which, total in enumerate(sums):
                builder.store(builder.load(total), lanes(into, out, which), align=4)
        return context.get_dummy_value()

    return types.void(target, start, source, places, taps, width), generate


filter_row: Any = intrinsic(_filter_row)
"""`filter_row(target, start, source, places, taps, width)`: a symmetric filter, in float32.

Writes `target[start + x]` = `taps[0] * source[places[0] + x]` + the sum over i of
`taps[i] * (source[places[2i - 1] + x] + source[places[2i] + x])` for x from 0 to `width`, a
multiple of ALIGNMENT. All arrays are one-dimensional, and `places` is int64: neighbouring places
filter along a row, places in other rows across them.
"""
