"""Instructions that numba has no spelling of its own for."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

AHEAD = 2048
"""Bytes: what is read so much later is asked for now."""
READ, KEEP, DATA = 0, 3, 1


def _ctpop(_context: Any, word: Any) -> Any:
    def generate(_target: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.uint64(word), generate


def _prefetch(_context: Any, array: Any, row: Any, column: Any) -> Any:
    def generate(target: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind, place = signature.args[0], args[1:]
        made = target.make_array(kind)(target, builder, args[0])
        shape, strides = (cgutils.unpack_tuple(builder, one) for one in (made.shape, made.strides))
        element = cgutils.get_item_pointer2(
            target, builder, made.data, shape, strides, kind.layout, place
        )
        byte = ir.IntType(8).as_pointer()
        address = builder.gep(builder.bitcast(element, byte), [ir.IntType(64)(AHEAD)])
        number = ir.IntType(32)
        form = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        llvm = cgutils.get_or_insert_function(builder.module, form, "llvm.prefetch.p0i8")
        builder.call(llvm, [address, number(READ), number(KEEP), number(DATA)])
        return target.get_dummy_value()

    return types.void(array, row, column), generate


popcount: Any = intrinsic(_ctpop)
"""The set bits of a uint64."""

prefetch: Any = intrinsic(_prefetch)
"""`prefetch(array, row, column)`: ask for the cache line AHEAD bytes behind that element.

A scan that computes about as long as it reads waits for memory by turns without it: processors
foresee no read beyond a page of 4 kB. An address behind the array's end is passed over.
"""
