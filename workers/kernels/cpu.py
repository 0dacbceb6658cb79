"""Compiled kernels that train a chain of Linear layers from its initial weights to its last step, without returning to Python.

A small model spends its time on launching operations. Here a whole epoch is one call: one model's weights, optimizer state and
activations stay in the cache of one core, the matrix products run at the machine's peak through register tiles, and the
optimizer updates a few rows of weights at a time, while their gradient is still in the first-level cache. Models
follow one another, so a run is bit for bit the same in any pack and at any place in it.

Activations are stored as (batch, width) and a hidden layer's weights as (inputs, outputs). The last layer is turned round: its
outputs are few, and few columns would leave most of a vector empty. Its weights are (outputs, inputs), as torch's, its
activations (outputs, batch), so that vectors run over examples there, in the loss as well.

Storage is padded so that no kernel needs a remainder: what vectors run over to whole vectors (`lanes`), rows to `ROWS`. Padding
holds zeros or is never read. A layer is a row of `layers`: [inputs, outputs, padded inputs, padded outputs, weight offset, bias
offset, activation, dropout index or -1]; all parameters lie in one flat array.

Everything compiled is in this one file, however long: numba's disk cache watches only the file of the function that it caches,
so kernels that took parts from another file would not be compiled anew when that one changed.
"""

from __future__ import annotations

# Types in compiled code are numba's to infer.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, unreachable, var-annotated"
import math
from typing import Any, NamedTuple

import llvmlite.binding  # type: ignore[import-untyped]
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

BATCH = 64
"""Examples that `predict` takes at a time."""
ROWS = 4
"""Rows are padded to a multiple of this, the shortest tile."""
_DEPTH = 128
"""Depth of a block of a matrix product: a panel of so many rows stays in the first-level cache."""
BLOCK = 2048
"""Numbers in the block of a gradient that is computed and used at once."""

ADD, RECTIFY, GATE = 1, 2, 4
"""How a product becomes a result: s added before, a ReLU after, or zero where s is not positive."""

IDENTITY, RELU, TANH, SIGMOID = range(4)
CROSS_ENTROPY, SQUARED_ERROR = range(2)
SGD, NESTEROV, ADAM, ADAMW = range(4)

IN, OUT, IN_PADDED, OUT_PADDED, WEIGHT, BIAS, ACTIVATION, DROPOUT = range(8)
MOMENTUM, DECAY, BETA1, BETA2, EPSILON, SMOOTHING = range(6)

CPU_NAME = str(llvmlite.binding.get_host_cpu_name())
"""The processor, as LLVM names it."""
_FEATURES = llvmlite.binding.get_host_cpu_features()
VECTOR_BYTES = 64 if _FEATURES.get("avx512f") else 32 if _FEATURES.get("avx2") else 16
_WIDE = (8, 2) if _FEATURES.get("avx2") and VECTOR_BYTES == 32 else (4, 4)


def lanes(dtype: np.dtype[Any]) -> int:
    """Return how many numbers of this type fill a vector register."""
    return VECTOR_BYTES // dtype.itemsize


class _Emitter:
    """Writes the instructions of one register tile."""

    def __init__(self, builder: Any, scalar: Any, bits: int):
        self.builder, self.scalar, self.bits = builder, scalar, bits
        self.lanes = VECTOR_BYTES * 8 // bits
        self.vector = ir.VectorType(scalar, self.lanes)
        self._fma = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(self.vector, [self.vector] * 3), f"llvm.fma.v{self.lanes}f{bits}"
        )

    def at(self, base: Any, offset: Any) -> Any:
        return self.builder.gep(base, [offset])

    def _pointer(self, base: Any, index: int) -> Any:
        shifted = self.at(base, ir.IntType(64)(index * self.lanes))
        return self.builder.bitcast(shifted, self.vector.as_pointer())

    def load(self, base: Any, index: int) -> Any:
        value = self.builder.load(self._pointer(base, index))
        value.align = self.bits // 8
        return value

    def store(self, value: Any, base: Any, index: int) -> None:
        self.builder.store(value, self._pointer(base, index)).align = self.bits // 8

    def fused(self, a: Any, b: Any, c: Any) -> Any:
        """Return a b + c, rounded once."""
        return self.builder.call(self._fma, [a, b, c])

    def gate(self, value: Any, by: Any) -> Any:
        """Return zero where `by` is not positive, the value elsewhere and where `by` is NaN."""
        zero = ir.Constant(self.vector, None)
        return self.builder.select(self.builder.fcmp_ordered("<=", by, zero), zero, value)

    def is_set(self, flags: Any, flag: int) -> Any:
        return self.builder.icmp_signed("!=", self.builder.and_(flags, flags.type(flag)), flags.type(0))

    def interleave(self, a: Any, b: Any, half: int) -> Any:
        """Return the lower (0) or upper (1) halves of two vectors, a number of each in turn."""
        first = half * self.lanes // 2
        order = [first + i // 2 + i % 2 * self.lanes for i in range(self.lanes)]
        return self._shuffle(a, b, order)

    def sum(self, value: Any) -> Any:
        """Return the sum of a vector's numbers, halves onto halves."""
        width = self.lanes
        while width > 1:
            width //= 2
            upper = [(i + width) % self.lanes for i in range(self.lanes)]
            value = self.builder.fadd(value, self._shuffle(value, value, upper))
        return self.builder.extract_element(value, ir.IntType(32)(0))

    def _shuffle(self, a: Any, b: Any, order: list[int]) -> Any:
        return self.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), order))

    def broadcast(self, scalar: Any) -> Any:
        undefined = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, ir.IntType(32)(0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), None)
        return self.builder.shuffle_vector(first, undefined, zeros)


class _Tile:
    """A block of a matrix product in registers: `rows` by `vectors` sums."""

    def __init__(self, emit: _Emitter, rows: int, vectors: int):
        self.emit, self.builder = emit, emit.builder
        self.places = [(i, j) for i in range(rows) for j in range(vectors)]
        self.rows, self.vectors = rows, vectors
        self.sums = {place: cgutils.alloca_once(self.builder, emit.vector) for place in self.places}

    def lines(self, data: Any, stride: Any) -> list[Any]:
        """Return where each row of the tile begins in an array."""
        return [self.emit.at(data, self.builder.mul(stride, ir.IntType(64)(i))) for i in range(self.rows)]

    def start(self, add: Any, lines: list[Any]) -> None:
        """Begin with what is at `lines` if `add` says so, else with zero."""
        with self.builder.if_else(add) as (given, nothing):
            with given:
                for i, j in self.places:
                    self.builder.store(self.emit.load(lines[i], j), self.sums[i, j])
            with nothing:
                for register in self.sums.values():
                    self.builder.store(ir.Constant(self.emit.vector, None), register)

    def accumulate(self, a: Any, a_row: Any, a_column: Any, b: Any, b_row: Any, depth: Any) -> None:
        """Add a b, for blocks a (rows, depth) and b (depth, vectors * lanes)."""
        builder, emit = self.builder, self.emit
        a_lines = self.lines(a, a_row)
        with cgutils.for_range(builder, depth, intp=ir.IntType(64)) as loop:
            b_line = emit.at(b, builder.mul(loop.index, b_row))
            right = [emit.load(b_line, j) for j in range(self.vectors)]
            along = builder.mul(loop.index, a_column)
            for i in range(self.rows):
                left = emit.broadcast(builder.load(emit.at(a_lines[i], along)))
                for j in range(self.vectors):
                    self.put((i, j), emit.fused(left, right[j], self.get((i, j))))

    def get(self, place: tuple[int, int]) -> Any:
        return self.builder.load(self.sums[place])

    def put(self, place: tuple[int, int], value: Any) -> None:
        self.builder.store(value, self.sums[place])


def _make_tile(rows: int, vectors: int) -> Any:
    """Return a function that computes c = s + a b in registers, for blocks a (rows, depth) and b (depth, vectors * lanes).

    The tile's signature: (a, offset, row stride, column stride; b, offset, row stride; c, offset, row stride; depth; s, offset,
    row stride; how s and the product become c). `a` may be strided either way, so it may be a transpose; the rows of the others
    are contiguous. With s = c it accumulates, with a row stride of 0 it adds a bias.
    """

    @intrinsic
    def tile(_typing, a, a_at, a_row, a_column, b, b_at, b_row, c, c_at, c_row, depth, s, s_at, s_row, how):
        at = types.intp
        signature = types.void(a, at, at, at, b, at, at, c, at, at, at, s, at, at, at)

        def codegen(context, builder, _signature, args):
            a_in, a_at, a_row, a_column, b_in, b_at, b_row, c_in, c_at, c_row, depth, s_in, s_at, s_row, how = args
            emit = _Emitter(builder, context.get_value_type(a.dtype), a.dtype.bitwidth)
            a_data, b_data, c_data, s_data = (
                emit.at(context.make_array(kind)(context, builder, value).data, offset)
                for kind, value, offset in ((a, a_in, a_at), (b, b_in, b_at), (c, c_in, c_at), (s, s_in, s_at))
            )
            block = _Tile(emit, rows, vectors)
            s_lines, c_lines = block.lines(s_data, s_row), block.lines(c_data, c_row)
            block.start(emit.is_set(how, ADD), s_lines)
            block.accumulate(a_data, a_row, a_column, b_data, b_row, depth)
            with builder.if_then(emit.is_set(how, RECTIFY)):
                for place in block.places:
                    block.put(place, emit.gate(block.get(place), block.get(place)))
            with builder.if_then(emit.is_set(how, GATE)):
                for i, j in block.places:
                    block.put((i, j), emit.gate(block.get((i, j)), emit.load(s_lines[i], j)))
            for i, j in block.places:
                emit.store(block.get((i, j)), c_lines[i], j)
            return context.get_dummy_value()

        return signature, codegen

    return tile


def _make_descent(rows: int, vectors: int) -> Any:
    """Return a function that takes a step of gradient descent with momentum on a block of weights, whose gradient is a b.

    The gradient never leaves the registers. The signature: (a, offset, row stride, column stride; b, offset, row stride; depth;
    weights, velocities, offset, row stride; rate, momentum, decay; whether the step looks ahead, as Nesterov's does).
    """

    @intrinsic
    def descend(_typing, a, a_at, a_row, a_column, b, b_at, b_row, depth, w, v, at, row, rate, momentum, decay, ahead):
        offset, scalar = types.intp, a.dtype
        signature = types.void(
            a, offset, offset, offset, b, offset, offset, offset, w, v, offset, offset, scalar, scalar, scalar, types.boolean
        )  # fmt: skip

        def codegen(context, builder, _signature, args):
            a_in, a_at, a_row, a_column, b_in, b_at, b_row, depth, w_in, v_in, at, row, rate, momentum, decay, ahead = (
                args
            )
            emit = _Emitter(builder, context.get_value_type(a.dtype), a.dtype.bitwidth)
            a_data, b_data, w_data, v_data = (
                emit.at(context.make_array(kind)(context, builder, value).data, offset)
                for kind, value, offset in ((a, a_in, a_at), (b, b_in, b_at), (w, w_in, at), (v, v_in, at))
            )
            block = _Tile(emit, rows, vectors)
            w_lines, v_lines = block.lines(w_data, row), block.lines(v_data, row)
            block.start(ir.IntType(1)(0), w_lines)
            block.accumulate(a_data, a_row, a_column, b_data, b_row, depth)
            back, keep, shrink = (emit.broadcast(value) for value in (builder.fneg(rate), momentum, decay))
            for i, j in block.places:
                weight = emit.load(w_lines[i], j)
                slope = emit.fused(shrink, weight, block.get((i, j)))
                velocity = emit.fused(keep, emit.load(v_lines[i], j), slope)
                step = builder.select(ahead, emit.fused(keep, velocity, slope), velocity)
                emit.store(velocity, v_lines[i], j)
                emit.store(emit.fused(back, step, weight), w_lines[i], j)
            return context.get_dummy_value()

        return signature, codegen

    return descend


_WIDE_ROWS, _WIDE_VECTORS = _WIDE
_wide_tile = _make_tile(_WIDE_ROWS, _WIDE_VECTORS)
_middle_tile = _make_tile(8, 2)
_tall_tile = _make_tile(16, 1)
_short_tile = _make_tile(ROWS, 1)
_DESCENT_VECTORS = 4 if VECTOR_BYTES == 64 else 2
_wide_descent = _make_descent(ROWS, _DESCENT_VECTORS)
_short_descent = _make_descent(ROWS, 1)


@intrinsic
def _borrowed(_typing, array):
    """Return the same array without its reference count, whose atomic updates cost more than a small layer's arithmetic."""

    def codegen(context, builder, _signature, args):
        view = context.make_array(array)(context, builder, args[0])
        view.meminfo = ir.Constant(view.meminfo.type, None)
        view.parent = ir.Constant(view.parent.type, None)
        return view._getvalue()

    return array(array), codegen


@intrinsic
def _turn_block(_typing, a, a_at, a_row, b, b_at, b_row):
    """Write the transpose of one block of `lanes` by `lanes` numbers of a to b, through registers."""
    signature = types.void(a, types.intp, types.intp, b, types.intp, types.intp)

    def codegen(context, builder, _signature, args):
        a_in, a_at, a_row, b_in, b_at, b_row = args
        emit = _Emitter(builder, context.get_value_type(a.dtype), a.dtype.bitwidth)
        source, target = (
            emit.at(context.make_array(kind)(context, builder, value).data, offset)
            for kind, value, offset in ((a, a_in, a_at), (b, b_in, b_at))
        )
        index, count = ir.IntType(64), emit.lanes
        lines = [emit.load(emit.at(source, builder.mul(a_row, index(i))), 0) for i in range(count)]
        for _ in range(count.bit_length() - 1):  # a perfect shuffle of rows and columns a step
            half = count // 2
            lines = [emit.interleave(lines[i // 2], lines[i // 2 + half], i % 2) for i in range(count)]
        for i, line in enumerate(lines):
            emit.store(line, emit.at(target, builder.mul(b_row, index(i))), 0)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def _copy_line(_typing, a, at, b, to, vectors):
    """Copy whole vectors of a from `at` on to b from `to` on."""
    signature = types.void(a, types.intp, b, types.intp, types.intp)

    def codegen(context, builder, _signature, args):
        emit = _Emitter(builder, context.get_value_type(a.dtype), a.dtype.bitwidth)
        source = emit.at(context.make_array(a)(context, builder, args[0]).data, args[1])
        target = emit.at(context.make_array(b)(context, builder, args[2]).data, args[3])
        with cgutils.for_range(builder, args[4], intp=ir.IntType(64)) as loop:
            shift = builder.mul(loop.index, ir.IntType(64)(emit.lanes))
            emit.store(emit.load(emit.at(source, shift), 0), emit.at(target, shift), 0)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def _sum_rows(_typing, a, at, row, rows, b, to):
    """Write to b the sum of one vector of each row of a, a multiple of four rows; four sums shorten the chain of additions."""
    signature = types.void(a, types.intp, types.intp, types.intp, b, types.intp)

    def codegen(context, builder, _signature, args):
        emit, index = _Emitter(builder, context.get_value_type(a.dtype), a.dtype.bitwidth), ir.IntType(64)
        source = emit.at(context.make_array(a)(context, builder, args[0]).data, args[1])
        target = emit.at(context.make_array(b)(context, builder, args[4]).data, args[5])
        sums = [cgutils.alloca_once_value(builder, ir.Constant(emit.vector, None)) for _ in range(4)]
        with cgutils.for_range(builder, builder.sdiv(args[3], index(4)), intp=index) as loop:
            for i, register in enumerate(sums):
                line = builder.mul(builder.add(builder.mul(loop.index, index(4)), index(i)), args[2])
                builder.store(builder.fadd(builder.load(register), emit.load(emit.at(source, line), 0)), register)
        first, second, third, fourth = (builder.load(register) for register in sums)
        emit.store(builder.fadd(builder.fadd(first, second), builder.fadd(third, fourth)), target, 0)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def _sum_line(_typing, a, at, count):
    """Return the sum of `count` numbers of a from `at` on, a multiple of the lanes."""

    def codegen(context, builder, _signature, args):
        emit = _Emitter(builder, context.get_value_type(a.dtype), a.dtype.bitwidth)
        data = emit.at(context.make_array(a)(context, builder, args[0]).data, args[1])
        index, total = ir.IntType(64), cgutils.alloca_once_value(builder, ir.Constant(emit.vector, None))
        with cgutils.for_range(builder, builder.sdiv(args[2], index(emit.lanes)), intp=index) as loop:
            line = emit.load(emit.at(data, builder.mul(loop.index, index(emit.lanes))), 0)
            builder.store(builder.fadd(builder.load(total), line), total)
        return emit.sum(builder.load(total))

    return a.dtype(a, types.intp, types.intp), codegen


@intrinsic
def _two_to_the(_typing, power):
    """Return 2**power of a whole number held in a float, by writing its exponent bits."""

    def codegen(_context, builder, signature, args):
        bits = signature.args[0].bitwidth
        integer = ir.IntType(bits)
        bias, mantissa = (127, 23) if bits == 32 else (1023, 52)
        exponent = builder.add(builder.fptosi(args[0], integer), integer(bias))
        return builder.bitcast(builder.shl(exponent, integer(mantissa)), args[0].type)

    return power(power), codegen


def _make_exp_constants(dtype: Any) -> tuple[Any, ...]:
    """Return log2(e), ln 2 in two parts, the rounding constant, the smallest argument, then 1/k! for k = 0..13."""
    single = dtype == np.float32
    high = 0.693359375 if single else 6.93147180369123816490e-01
    low = -2.12194440054690583e-4 if single else 1.90821492927058770002e-10
    round_up = 12582912.0 if single else 6755399441055744.0
    head = [1 / math.log(2), high, low, round_up, -87.0 if single else -708.0]
    return tuple(dtype(value) for value in head + [1 / math.factorial(k) for k in range(14)])


_EXP32 = _make_exp_constants(np.float32)
_EXP64 = _make_exp_constants(np.float64)


def exp_constants(dtype: np.dtype[Any]) -> tuple[Any, ...]:
    """Return the constants that the kernels' exponential needs for this type."""
    return _EXP32 if dtype == np.float32 else _EXP64


_part = njit(  # type: ignore[call-overload]
    nogil=True, error_model="numpy", fastmath={"contract"}, no_cfunc_wrapper=True, no_cpython_wrapper=True
)
# Arrays are passed as seven numbers each: what is called for every layer of every step is better not called.
_inlined = njit(  # type: ignore[call-overload]
    nogil=True,
    error_model="numpy",
    fastmath={"contract"},
    no_cfunc_wrapper=True,
    no_cpython_wrapper=True,
    forceinline=True,
)
_entry = njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})


@_part
def _exp(x, c):
    """exp(x) for x <= 0: 2**k times a Taylor polynomial on |r| <= ln(2) / 2. It vectorizes, unlike libm's. NaN stays NaN."""
    x = c[4] if x < c[4] else x
    k = (x * c[0] + c[3]) - c[3]
    r = (x - k * c[1]) - k * c[2]
    p = ((((c[18] * r + c[17]) * r + c[16]) * r + c[15]) * r + c[14]) * r + c[13]
    p = ((((p * r + c[12]) * r + c[11]) * r + c[10]) * r + c[9]) * r + c[8]
    p = ((p * r + c[7]) * r + c[6]) * r + c[5]
    return p * _two_to_the(k)


@_part
def _panel(a, a_at, a_row, a_column, b, b_at, b_row, c, c_at, c_row, rows, columns, depth, s, s_at, s_row, how):
    """c = a b, with s, for one block of the depth, by the widest tiles that fit; `columns` is in whole vectors."""
    vector = VECTOR_BYTES // c.itemsize
    column = 0
    while column < columns:
        left = (columns - column) // vector
        row = 0
        if left >= _WIDE_VECTORS:
            step = _WIDE_VECTORS
            while row + _WIDE_ROWS <= rows:
                _wide_tile(
                    a, a_at + row * a_row, a_row, a_column, b, b_at + column, b_row,
                    c, c_at + row * c_row + column, c_row, depth, s, s_at + row * s_row + column, s_row, how,
                )  # fmt: skip
                row += _WIDE_ROWS
        elif left >= 2:
            step = 2
            while row + 8 <= rows:
                _middle_tile(
                    a, a_at + row * a_row, a_row, a_column, b, b_at + column, b_row,
                    c, c_at + row * c_row + column, c_row, depth, s, s_at + row * s_row + column, s_row, how,
                )  # fmt: skip
                row += 8
        else:
            step = 1
            while row + 16 <= rows:
                _tall_tile(
                    a, a_at + row * a_row, a_row, a_column, b, b_at + column, b_row,
                    c, c_at + row * c_row + column, c_row, depth, s, s_at + row * s_row + column, s_row, how,
                )  # fmt: skip
                row += 16
        while row < rows:
            for at in range(column, column + step * vector, vector):
                _short_tile(
                    a, a_at + row * a_row, a_row, a_column, b, b_at + at, b_row,
                    c, c_at + row * c_row + at, c_row, depth, s, s_at + row * s_row + at, s_row, how,
                )  # fmt: skip
            row += ROWS
        column += step * vector


@_inlined
def _product(a, a_at, a_row, a_column, b, b_at, b_row, c, c_row, rows, columns, depth, s, s_at, s_row, how):
    """c = a b; shapes (rows, depth), (depth, columns). `how` says what s, from s_at on, has to do with it.

    s may be c, to add to what is there; with an s_row of 0 it is one row, added to all. GATE allows no more than a block's depth.
    """
    zero = np.int64(0)  # typed: a literal would compile the function once more
    for start in range(0, depth, _DEPTH):
        ends = start + _DEPTH >= depth
        _panel(
            a, a_at + start * a_column, a_row, a_column, b, b_at + start * b_row, b_row, c, zero, c_row,
            rows, columns, min(_DEPTH, depth - start), s, s_at, s_row, how if ends else how & ADD,
        )  # fmt: skip
        s, s_at, s_row, how = c, zero, c_row, how | ADD


@_part
def _descend(a, a_at, a_row, a_column, b, b_row, depth, rows, columns, w, v, at, row, rate, momentum, decay, ahead):
    """Step on the weights (rows, columns) at `at`, whose gradient is a b; `columns` is in whole vectors."""
    vector = VECTOR_BYTES // w.itemsize
    zero = np.int64(0)
    for i in range(0, rows, ROWS):
        j = zero
        while j + _DESCENT_VECTORS * vector <= columns:
            _wide_descent(
                a, a_at + i * a_row, a_row, a_column, b, j, b_row, depth, w, v, at + i * row + j, row,
                rate, momentum, decay, ahead,
            )  # fmt: skip
            j += _DESCENT_VECTORS * vector
        while j < columns:
            _short_descent(
                a, a_at + i * a_row, a_row, a_column, b, j, b_row, depth, w, v, at + i * row + j, row,
                rate, momentum, decay, ahead,
            )  # fmt: skip
            j += vector


@_part
def _mix(x):
    """workers.randomness.dropout's hash, on one unsigned 32-bit number."""
    x = np.uint32(np.uint32(x ^ np.uint32(x >> np.uint32(16))) * np.uint32(0x7FEB352D))
    x = np.uint32(np.uint32(x ^ np.uint32(x >> np.uint32(15))) * np.uint32(0x846CA68B))
    return np.uint32(x ^ np.uint32(x >> np.uint32(16)))


@_part
def _activate(kind, values, slopes, count, constants):
    """Apply the activation in place and write its derivative to `slopes`; ReLU is done already, and its output tells both."""
    one, two, zero = constants[5], constants[5] + constants[5], constants[5] - constants[5]
    if kind == TANH:
        for i in range(count):
            x = values[i]
            e = _exp(-two * abs(x), constants)
            t = (one - e) / (one + e)
            t = -t if x < zero else t
            values[i] = t
            slopes[i] = one - t * t
    elif kind == SIGMOID:
        for i in range(count):
            x = values[i]
            e = _exp(-abs(x), constants)
            s = one / (one + e)
            s = e * s if x < zero else s
            values[i] = s
            slopes[i] = s * (one - s)
    elif kind == IDENTITY:
        for i in range(count):
            slopes[i] = one


@_part
def _drop(values, slopes, layer, batch, drop, key, hashed):
    """Apply inverted dropout to activations and derivatives alike, with the mask of workers.randomness.dropout.keep_mask."""
    width, padded = layer[OUT], layer[OUT_PADDED]
    threshold, scale = np.uint32(drop[0]), values.dtype.type(drop[1])
    for row in range(batch):
        value, slope = values[row * padded :][:width], slopes[row * padded :][:width]
        position = hashed[row * width :][:width]
        for column in range(width):
            bits = np.uint32(_mix(np.uint32(position[column] ^ key)) & np.uint32(0x7FFFFFFF))
            factor = scale if bits >= threshold else scale - scale
            value[column] *= factor
            if layer[ACTIVATION] != RELU:
                slope[column] *= factor


@_inlined
def _affine(inputs, outputs, weights, layer, rows):
    """outputs = inputs W + b for a padded batch of so many rows, through a ReLU if that is the activation."""
    padded, bias = layer[OUT_PADDED], layer[BIAS]
    zero, one = np.int64(0), np.int64(1)
    _product(
        inputs, zero, layer[IN_PADDED], one, weights, layer[WEIGHT], padded, outputs, padded, rows, padded, layer[IN],
        weights, max(bias, zero), zero, (ADD if bias >= zero else 0) | (RECTIFY if layer[ACTIVATION] == RELU else 0),
    )  # fmt: skip


@_part
def _turn(lines, rows, columns, out):
    """Write the transpose of (rows, columns) as (columns, rows), both in whole vectors."""
    vector = VECTOR_BYTES // out.itemsize
    for row in range(0, rows, vector):
        for column in range(0, columns, vector):
            _turn_block(lines, row * columns + column, columns, out, column * rows + row, rows)


@_inlined
def _affine_last(inputs, outputs, weights, layer, width, turned):
    """outputs = W inputs^T + b, (outputs, width), for a batch whose size in whole vectors is `width`."""
    padded, bias = layer[IN_PADDED], layer[BIAS]
    zero, one = np.int64(0), np.int64(1)
    if bias >= 0:
        for c in range(layer[OUT]):
            outputs[c * width :][:width] = weights[bias + c]
        outputs[layer[OUT] * width : layer[OUT_PADDED] * width] = weights[0] - weights[0]
    _turn(inputs, width, padded, turned)
    _product(
        weights, layer[WEIGHT], padded, one, turned, zero, width, outputs, width, layer[OUT_PADDED], width, layer[IN],
        outputs, zero, width, ADD if bias >= zero else 0,
    )  # fmt: skip


@_part
def _cross_entropy_slope(z, layer, targets, factors, batch, width, smoothing, constants, scratch):
    """Turn logits (classes, width) into the gradient of the weighted mean loss, in place."""
    classes = layer[OUT]
    columns = z[: classes * width].reshape(classes, width)
    largest, total = scratch[:batch], scratch[width:][:batch]
    for row in range(batch):
        largest[row] = columns[0, row]
        total[row] = constants[5] - constants[5]
    for c in range(1, classes):
        for row in range(batch):
            largest[row] = columns[c, row] if columns[c, row] > largest[row] else largest[row]
    for c in range(classes):
        for row in range(batch):
            e = _exp(columns[c, row] - largest[row], constants)
            columns[c, row] = e
            total[row] += e
    share = smoothing / z.dtype.type(classes)
    for row in range(batch):
        total[row] = factors[row] / total[row]
    for c in range(classes):
        for row in range(batch):
            columns[c, row] = columns[c, row] * total[row] - share * factors[row]
    for row in range(batch):
        columns[int(targets[row]), row] -= factors[row] * (constants[5] - smoothing)


@_part
def _squared_error_slope(z, targets, factors, batch):
    """Turn predictions (1, width) into the gradient of the weighted mean squared error, in place."""
    for row in range(batch):
        error = z[row] - targets[row]
        z[row] = (error + error) * factors[row]


@_part
def _blank(z, layer, batch, width):
    """Zero the padding of a gradient (outputs, width): examples past the batch, outputs past the last."""
    zero = z[0] - z[0]
    for c in range(layer[OUT]):
        z[c * width + batch : (c + 1) * width] = zero
    z[layer[OUT] * width : layer[OUT_PADDED] * width] = zero


@_part
def _update(rule, weights, firsts, seconds, g, at, count, hyper, rates):
    """One optimizer step on `count` parameters from `at`, with their gradient at the start of `g`; torch.optim's formulas."""
    w, first, second = weights[at : at + count], firsts[at : at + count], seconds[at : at + count]
    rate, decay = rates[0], hyper[DECAY]
    if rule in (SGD, NESTEROV):
        momentum = hyper[MOMENTUM]
        look_ahead = rule == NESTEROV
        for i in range(count):
            slope = g[i] + decay * w[i]
            velocity = momentum * first[i] + slope
            first[i] = velocity
            w[i] -= rate * (slope + momentum * velocity if look_ahead else velocity)
    else:
        shrink, coupled = (rate * decay, decay - decay) if rule == ADAMW else (decay - decay, decay)
        keep1, keep2, epsilon = hyper[BETA1], hyper[BETA2], hyper[EPSILON]
        new1, new2 = rates[3], rates[4]
        for i in range(count):
            weight = w[i]
            slope = g[i] + coupled * weight
            mean = first[i] * keep1 + new1 * slope
            square = second[i] * keep2 + new2 * slope * slope
            first[i] = mean
            second[i] = square
            w[i] = weight - shrink * weight - rates[1] * mean / (np.sqrt(square) * rates[2] + epsilon)


@_part
def _backward(delta, weights, layer, transposed, behind, rows, gates, how):
    """behind = delta W^T: the gradient with respect to a hidden layer's inputs, gated by them if `how` says so."""
    width, padded = layer[IN_PADDED], layer[OUT_PADDED]
    _turn(weights[layer[WEIGHT] :], width, padded, transposed)
    zero, one = np.int64(0), np.int64(1)
    _product(
        delta, zero, padded, one, transposed, zero, width, behind, width, rows, width, layer[OUT],
        gates, zero, width, how,
    )  # fmt: skip


@_inlined
def _backward_last(delta, weights, layer, behind, rows, width, gates, how):
    """behind = delta^T W: the gradient with respect to the last layer's inputs, gated by them if `how` says so."""
    padded = layer[IN_PADDED]
    zero, one = np.int64(0), np.int64(1)
    _product(
        delta, zero, one, width, weights, layer[WEIGHT], padded, behind, padded, rows, padded, layer[OUT],
        gates, zero, padded, how,
    )  # fmt: skip


@_part
def _through(kind, delta, outputs, slopes, count, scale):
    """Carry a gradient back through the activation (and dropout, which scales by `scale`) that gave these outputs, in place."""
    zero = scale - scale
    if kind == RELU:
        for i in range(count):
            delta[i] = delta[i] * scale if outputs[i] > zero else zero
    else:
        for i in range(count):
            delta[i] *= slopes[i]


@_inlined
def _step_weights(a, a_row, a_column, b, batch, rows, columns, at, rule, w, first, second, g, hyper, rates):
    """Step on the weights (rows, columns) at `at`, whose gradient is a b; shapes (rows, batch), (batch, columns)."""
    zero = np.int64(0)
    if rule in (SGD, NESTEROV):
        _descend(
            a, zero, a_row, a_column, b, columns, batch, rows, columns, w, first, at, columns,
            rates[0], hyper[MOMENTUM], hyper[DECAY], rule == NESTEROV,
        )  # fmt: skip
    else:
        most = max(ROWS, BLOCK // columns // ROWS * ROWS)
        for row in range(0, rows, most):
            tall = min(most, rows - row)
            _product(
                a, row * a_row, a_row, a_column, b, zero, columns, g, columns, tall, columns, batch, g, zero, zero, zero
            )  # fmt: skip
            _update(rule, w, first, second, g, at + row * columns, tall * columns, hyper, rates)


@_inlined
def _step_hidden(inputs, delta, batch, rows, layer, rule, w, first, second, g, hyper, rates):
    """Gradient and update of a hidden layer, from its inputs and its outputs' gradient, both (batch, width)."""
    width, padded, one = layer[IN_PADDED], layer[OUT_PADDED], np.int64(1)
    _step_weights(
        inputs, one, width, delta, batch, width, padded, layer[WEIGHT], rule, w, first, second, g, hyper, rates
    )  # fmt: skip
    if layer[BIAS] >= 0:
        delta[batch * padded : rows * padded] = delta[0] - delta[0]
        for column in range(0, padded, VECTOR_BYTES // g.itemsize):
            _sum_rows(delta, column, padded, rows, g, column)
        _update(rule, w, first, second, g, layer[BIAS], padded, hyper, rates)


@_inlined
def _step_last(inputs, delta, batch, width, layer, rule, w, first, second, g, hyper, rates):
    """Gradient and update of the last layer; delta is (outputs, width), blank in its padding."""
    padded, outputs, one = layer[IN_PADDED], layer[OUT_PADDED], np.int64(1)
    _step_weights(
        delta, width, one, inputs, batch, outputs, padded, layer[WEIGHT], rule, w, first, second, g, hyper, rates
    )  # fmt: skip
    if layer[BIAS] >= 0:
        for c in range(layer[OUT]):
            g[c] = _sum_line(delta, c * width, width)
        _update(rule, w, first, second, g, layer[BIAS], layer[OUT], hyper, rates)


@_part
def _gather(x, targets, weights, order, batch, inputs, y, factors):
    """Copy the rows of one batch and their targets; write their weights (by place, or none) over the batch size."""
    share, width = factors.dtype.type(1.0 / batch), x.shape[1]
    vectors = width // (VECTOR_BYTES // x.itemsize)
    for row in range(batch):
        _copy_line(x, order[row] * width, inputs, row * width, vectors)
        y[row] = targets[order[row]]
        factors[row] = share
    if len(weights):
        for row in range(batch):
            factors[row] *= weights[row]


class Examples(NamedTuple):
    """What is trained on; all of one floating type."""

    inputs: Any
    """(n, padded inputs)"""
    targets: Any
    """(n,)"""


class Epochs(NamedTuple):
    """Which steps are taken."""

    orders: Any
    """(epochs, m) examples in the order in which they are seen."""
    weights: Any
    """(epochs, m) factors on their losses, or (epochs, 0): none."""
    batch_size: int
    keys: Any
    """(steps, dropouts)"""
    rates: Any
    """(steps, 5), as workers.packed.resident makes them."""


class Network(NamedTuple):
    """The chain of layers."""

    layers: Any
    """(L, 8), a row a layer as in the module's docstring."""
    drops: Any
    """(dropouts, 2) threshold and scale."""


class Rule(NamedTuple):
    """How a step is taken."""

    loss: int
    """CROSS_ENTROPY or SQUARED_ERROR."""
    optimizer: int
    """SGD, NESTEROV, ADAM or ADAMW."""
    hyper: Any
    """(6,) by MOMENTUM and the names that follow it."""
    constants: Any
    """As `exp_constants` makes them."""


class Model(NamedTuple):
    """What a training changes; flat, in the network's layout."""

    parameters: Any
    first: Any
    """Velocities, or first moments."""
    second: Any
    """Second moments."""


class Buffers(NamedTuple):
    """Room for one batch; what it holds before and after means nothing, but for `hashed`."""

    acts: Any
    """(L + 1, widest batch)"""
    slopes: Any
    """(L + 1, widest batch)"""
    deltas: Any
    """(2, widest batch)"""
    scratch: Any
    g: Any
    """A block of a gradient."""
    y: Any
    """(batch,) targets."""
    factors: Any
    """(batch,) weights over the batch size."""
    hashed: Any
    """As workers.randomness.dropout.hash_positions makes it."""


@_entry
def train(examples, epochs, network, rule, model, buffers):
    """Take the optimizer steps of the epochs on one model, in place."""
    x, targets, weights = _borrowed(examples.inputs), _borrowed(examples.targets), _borrowed(epochs.weights)
    orders, keys, rates = _borrowed(epochs.orders), _borrowed(epochs.keys), _borrowed(epochs.rates)
    layers, drops, hyper = _borrowed(network.layers), _borrowed(network.drops), _borrowed(rule.hyper)
    w, first, second = _borrowed(model.parameters), _borrowed(model.first), _borrowed(model.second)
    acts, slopes, deltas = _borrowed(buffers.acts), _borrowed(buffers.slopes), _borrowed(buffers.deltas)
    scratch, g, y = _borrowed(buffers.scratch), _borrowed(buffers.g), _borrowed(buffers.y)
    factors, hashed, constants = _borrowed(buffers.factors), _borrowed(buffers.hashed), rule.constants
    batch_size, optimizer = epochs.batch_size, rule.optimizer
    last = len(layers) - 1
    end = layers[last]
    vector = max(ROWS, VECTOR_BYTES // w.itemsize)
    step = 0
    for epoch in range(orders.shape[0]):
        for begin in range(0, orders.shape[1], batch_size):
            batch = min(batch_size, orders.shape[1] - begin)
            rows, width = (batch + ROWS - 1) // ROWS * ROWS, (batch + vector - 1) // vector * vector
            _gather(x, targets, weights[epoch, begin:], orders[epoch, begin:], batch, acts[0], y, factors)
            for at in range(last):
                layer = layers[at]
                _affine(acts[at], acts[at + 1], w, layer, rows)
                _activate(layer[ACTIVATION], acts[at + 1], slopes[at + 1], rows * layer[OUT_PADDED], constants)
                drop = layer[DROPOUT]
                if drop >= 0:
                    _drop(acts[at + 1], slopes[at + 1], layer, batch, drops[drop], keys[step, drop], hashed)
            delta = acts[last + 1]
            _affine_last(acts[last], delta, w, end, width, scratch)
            if rule.loss == CROSS_ENTROPY:
                _cross_entropy_slope(delta, end, y, factors, batch, width, hyper[SMOOTHING], constants, scratch)
            else:
                _squared_error_slope(delta, y, factors, batch)
            _blank(delta, end, batch, width)
            for at in range(last, -1, -1):
                layer = layers[at]
                behind = deltas[at % 2]
                if at > 0:
                    before = layers[at - 1]
                    gated = before[ACTIVATION] == RELU and before[DROPOUT] < 0 and layer[OUT] <= _DEPTH
                    how = GATE if gated else 0
                    if at == last:
                        _backward_last(delta, w, layer, behind, rows, width, acts[at], how)
                    else:
                        _backward(delta, w, layer, scratch, behind, rows, acts[at], how)
                    if not gated:
                        scale = constants[5] if before[DROPOUT] < 0 else w.dtype.type(drops[before[DROPOUT], 1])
                        _through(before[ACTIVATION], behind, acts[at], slopes[at], rows * before[OUT_PADDED], scale)
                if at == last:
                    _step_last(acts[at], delta, batch, width, layer, optimizer, w, first, second, g, hyper, rates[step])
                else:
                    _step_hidden(
                        acts[at], delta, batch, rows, layer, optimizer, w, first, second, g, hyper, rates[step]
                    )
                delta = behind
            step += 1


@_entry
def predict(x, network, constants, parameters, buffers, out):
    """Write the outputs of one model in evaluation mode, (rows of x, outputs), a batch at a time; x is padded as in `train`."""
    x, layers, w = _borrowed(x), _borrowed(network.layers), _borrowed(parameters)
    acts, slopes, scratch = _borrowed(buffers.acts), _borrowed(buffers.slopes), _borrowed(buffers.scratch)
    last, zero = len(layers) - 1, np.int64(0)
    vector = max(ROWS, VECTOR_BYTES // w.itemsize)
    for begin in range(0, len(x), BATCH):
        batch = min(BATCH, len(x) - begin)
        rows, width = (batch + ROWS - 1) // ROWS * ROWS, (batch + vector - 1) // vector * vector
        _copy_line(x, begin * x.shape[1], acts[0], zero, batch * x.shape[1] // (VECTOR_BYTES // w.itemsize))
        for at in range(last):
            layer = layers[at]
            _affine(acts[at], acts[at + 1], w, layer, rows)
            _activate(layer[ACTIVATION], acts[at + 1], slopes[at + 1], rows * layer[OUT_PADDED], constants)
        _affine_last(acts[last], acts[last + 1], w, layers[last], width, scratch)
        for row in range(batch):
            for column in range(layers[last, OUT]):
                out[begin + row, column] = acts[last + 1, column * width + row]


@_entry
def dropout_factors(key, hashed, threshold, scale, factors):
    """Write `scale` where workers.randomness.dropout.keep_mask is True, else 0, for training alone."""
    for i in range(len(factors)):
        bits = np.uint32(_mix(np.uint32(hashed[i] ^ key)) & np.uint32(0x7FFFFFFF))
        factors[i] = scale if bits >= threshold else scale - scale
