"""CPU instructions that numba does not expose."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

AHEAD = 2048
"""Prefetch distance in bytes."""
READ, KEEP, DATA = 0, 3, 1
LANES = 32
"""Number of products that `dot` adds at a time."""


def _ctpop(_context: Any, word: Any) -> Any:
    def generate(_target: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.uint64(word), generate


def _prefetch(_context: Any, array: Any, row: Any, column: Any) -> Any:
    def generate(target: Any, builder: Any, signature: Any, args: Any) -> Any:
        element = _address(target, builder, signature.args[0], args[0], args[1:])
        address = builder.gep(element, [ir.IntType(64)(AHEAD)])
        number = ir.IntType(32)
        form = ir.FunctionType(ir.VoidType(), [element.type, number, number, number])
        llvm = cgutils.get_or_insert_function(builder.module, form, "llvm.prefetch.p0i8")
        builder.call(llvm, [address, number(READ), number(KEEP), number(DATA)])
        return target.get_dummy_value()

    return types.void(array, row, column), generate


def _dot(_context: Any, codes: Any, row: Any, queries: Any, query: Any, stop: Any) -> Any:
    kinds = [(array.layout, array.dtype) for array in (codes, queries)]
    if kinds != [("C", types.int8), ("C", types.int16)]:
        return None
    number = ir.IntType(32)
    products, sums = ir.VectorType(number, LANES), ir.VectorType(number, LANES // 2)
    even, odd = (
        ir.Constant(ir.VectorType(number, LANES // 2), list(range(first, LANES, 2)))
        for first in (0, 1)
    )

    def generate(target: Any, builder: Any, signature: Any, args: Any) -> Any:
        zero, step = (target.get_constant(types.intp, value) for value in (0, LANES))
        starts = [
            _address(target, builder, signature.args[at], args[at], (args[at + 1], zero))
            for at in (0, 2)
        ]

        def lanes(which: int, at: Any, bits: int) -> Any:
            kind = ir.VectorType(ir.IntType(bits), LANES).as_pointer()
            place = builder.gep(starts[which], [builder.mul(at, at.type(bits // 8))])
            return builder.sext(builder.load(builder.bitcast(place, kind), align=1), products)

        total = cgutils.alloca_once_value(builder, ir.Constant(sums, None))
        with cgutils.for_range_slice(builder, zero, args[4], step) as (at, _):
            # LLVM turns adding products of pairs into one instruction (`vpmaddwd`).
            pairs = builder.mul(lanes(0, at, 8), lanes(1, at, 16))
            added = builder.add(
                builder.shuffle_vector(pairs, pairs, even),
                builder.shuffle_vector(pairs, pairs, odd),
            )
            builder.store(builder.add(builder.load(total), added), total)
        form = ir.FunctionType(number, [sums])
        name = f"llvm.vector.reduce.add.v{LANES // 2}i32"
        llvm = cgutils.get_or_insert_function(builder.module, form, name)
        return builder.call(llvm, [builder.load(total)])

    return types.int32(codes, row, queries, query, stop), generate


def _address(target: Any, builder: Any, kind: Any, value: Any, place: Any) -> Any:
    """Address of an array's element, as a pointer to bytes."""
    array = target.make_array(kind)(target, builder, value)
    shape, strides = (cgutils.unpack_tuple(builder, one) for one in (array.shape, array.strides))
    element = cgutils.get_item_pointer2(
        target, builder, array.data, shape, strides, kind.layout, place
    )
    return builder.bitcast(element, ir.IntType(8).as_pointer())


popcount: Any = intrinsic(_ctpop)
"""Number of set bits of a uint64."""

prefetch: Any = intrinsic(_prefetch)
"""`prefetch(array, row, column)`: prefetch the cache line AHEAD bytes after that element.

Hardware prefetchers stop at a page of 4 kB, so a scan that computes about as long as it reads would
wait for memory at every page. Addresses after the array's end are ignored.
"""

dot: Any = intrinsic(_dot)
"""`dot(codes, row, queries, query, stop)`: the int32 dot product of an int8 row and an int16 row.

The arrays (n, d) and (v, d) are C-ordered; columns before `stop`, a multiple of LANES, count.
Numba's own loop would fill only half of each register.
"""
