"""Compiled kernels that train a chain of Linear layers from its initial weights to its last step, without returning to Python.

A small model spends its time on launching operations. Here a whole epoch is one call: one model's weights, optimizer state and
activations stay in the cache of one core, the matrix products run at the machine's peak through register tiles, and the
optimizer updates a few rows of weights at a time, while their gradient is still in the first-level cache. Models
follow one another, so a run is bit for bit the same in any pack and at any place in it.

Storage is padded so that no kernel needs a remainder: widths to whole vectors (`lanes`), rows to `ROWS`. Padding holds zeros or
is never read. A layer is a row of `layers`: [inputs, outputs, padded inputs, padded outputs, weight offset, bias offset,
activation, dropout index or -1]; its weights are stored as (inputs, outputs), the transpose of torch's, in a flat array with
all the others.

Everything compiled is in this one file: numba's disk cache watches only the file of the function that it caches.
"""

# Types in compiled code are numba's to infer.
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import math
from typing import Any

import llvmlite.binding  # type: ignore[import-untyped]
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

BATCH = 64
"""Examples that `predict` takes at a time."""
ROWS = 8
"""Rows are padded to a multiple of this, the tallest tile."""
_DEPTH = 128
"""Depth of a block of a matrix product: a panel of so many rows stays in the first-level cache."""
BLOCK = 2048
"""Numbers in the block of a gradient that is computed and used at once."""

IDENTITY, RELU, TANH, SIGMOID = range(4)
CROSS_ENTROPY, SQUARED_ERROR = range(2)
SGD, NESTEROV, ADAM, ADAMW = range(4)

IN, OUT, IN_PADDED, OUT_PADDED, WEIGHT, BIAS, ACTIVATION, DROPOUT = range(8)
LEARNING_RATE, MOMENTUM, DECAY, BETA1, BETA2, EPSILON, SMOOTHING = range(7)

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
        self.fma = cgutils.get_or_insert_function(
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

    def relu(self, value: Any) -> Any:
        """Zero what is not positive; NaN stays NaN."""
        zero = ir.Constant(self.vector, None)
        return self.builder.select(self.builder.fcmp_ordered("<=", value, zero), zero, value)

    def broadcast(self, scalar: Any) -> Any:
        undefined = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, ir.IntType(32)(0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), None)
        return self.builder.shuffle_vector(first, undefined, zeros)


def _make_tile(rows: int, vectors: int) -> Any:
    """Return a function that computes c = s + a b in registers, for blocks a (rows, depth) and b (depth, vectors * lanes).

    The tile's signature: (a, offset, row stride, column stride; b, offset, row stride; c, offset, row stride; depth; s, offset,
    row stride; whether s is added; whether a ReLU follows). `a` may be strided either way, so it may be a transpose; the rows of
    the others are contiguous. With s = c it accumulates, with a row stride of 0 it adds a bias.
    """

    @intrinsic
    def tile(_typing, a, a_at, a_row, a_column, b, b_at, b_row, c, c_at, c_row, depth, s, s_at, s_row, add, relu):
        at = types.intp
        signature = types.void(a, at, at, at, b, at, at, c, at, at, at, s, at, at, types.boolean, types.boolean)

        def codegen(context, builder, _signature, args):
            a_in, a_at, a_row, a_column, b_in, b_at, b_row, c_in, c_at, c_row, depth, s_in, s_at, s_row, add, relu = (
                args
            )
            emit = _Emitter(builder, context.get_value_type(a.dtype), a.dtype.bitwidth)
            a_data, b_data, c_data, s_data = (
                emit.at(context.make_array(kind)(context, builder, value).data, offset)
                for kind, value, offset in ((a, a_in, a_at), (b, b_in, b_at), (c, c_in, c_at), (s, s_in, s_at))
            )
            index = ir.IntType(64)
            c_rows = [emit.at(c_data, builder.mul(c_row, index(i))) for i in range(rows)]
            s_rows = [emit.at(s_data, builder.mul(s_row, index(i))) for i in range(rows)]
            sums = [[cgutils.alloca_once(builder, emit.vector) for _ in range(vectors)] for _ in range(rows)]
            with builder.if_else(add) as (given, nothing):
                with given:
                    for i in range(rows):
                        for j in range(vectors):
                            builder.store(emit.load(s_rows[i], j), sums[i][j])
                with nothing:
                    for row in sums:
                        for register in row:
                            builder.store(ir.Constant(emit.vector, None), register)
            with cgutils.for_range(builder, depth, intp=index) as loop:
                b_line = emit.at(b_data, builder.mul(loop.index, b_row))
                right = [emit.load(b_line, j) for j in range(vectors)]
                a_line = emit.at(a_data, builder.mul(loop.index, a_column))
                for i in range(rows):
                    left = emit.broadcast(builder.load(emit.at(a_line, builder.mul(a_row, index(i)))))
                    for j in range(vectors):
                        builder.store(builder.call(emit.fma, [left, right[j], builder.load(sums[i][j])]), sums[i][j])
            with builder.if_then(relu):
                for row in sums:
                    for register in row:
                        builder.store(emit.relu(builder.load(register)), register)
            for i in range(rows):
                for j in range(vectors):
                    emit.store(builder.load(sums[i][j]), c_rows[i], j)
            return context.get_dummy_value()

        return signature, codegen

    return tile


_WIDE_ROWS, _WIDE_VECTORS = _WIDE
_wide_tile = _make_tile(_WIDE_ROWS, _WIDE_VECTORS)
_middle_tile = _make_tile(ROWS, 2)
_narrow_tile = _make_tile(ROWS, 1)


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
    return p * _two_to_the(k)  # type: ignore[call-arg]


@_part
def _panel(a, a_at, a_row, a_column, b, b_at, b_row, c, c_at, c_row, rows, columns, depth, s, s_at, s_row, add, relu):
    """c = s + a b for one block of the depth, by the widest tiles that fit; `columns` is in whole vectors."""
    vector = VECTOR_BYTES // c.itemsize
    column = 0
    while column < columns:
        left = (columns - column) // vector
        if left >= _WIDE_VECTORS:
            for row in range(0, rows, _WIDE_ROWS):
                _wide_tile(
                    a, a_at + row * a_row, a_row, a_column, b, b_at + column, b_row,
                    c, c_at + row * c_row + column, c_row, depth, s, s_at + row * s_row + column, s_row, add, relu,
                )  # fmt: skip
            column += _WIDE_VECTORS * vector
        elif left >= 2:
            for row in range(0, rows, ROWS):
                _middle_tile(
                    a, a_at + row * a_row, a_row, a_column, b, b_at + column, b_row,
                    c, c_at + row * c_row + column, c_row, depth, s, s_at + row * s_row + column, s_row, add, relu,
                )  # fmt: skip
            column += 2 * vector
        else:
            for row in range(0, rows, ROWS):
                _narrow_tile(
                    a, a_at + row * a_row, a_row, a_column, b, b_at + column, b_row,
                    c, c_at + row * c_row + column, c_row, depth, s, s_at + row * s_row + column, s_row, add, relu,
                )  # fmt: skip
            column += vector


@_part
def _product(a, a_at, a_row, a_column, b, b_at, b_row, c, c_row, rows, columns, depth, s, s_at, add, relu):
    """c = a b, plus the row of s from s_at on if `add`, through a ReLU if `relu`; shapes (rows, depth), (depth, columns)."""
    zero = np.int64(0)  # typed: a literal would compile the function once more
    s_row = zero
    for start in range(0, depth, _DEPTH):
        _panel(
            a, a_at + start * a_column, a_row, a_column, b, b_at + start * b_row, b_row, c, zero, c_row,
            rows, columns, min(_DEPTH, depth - start), s, s_at, s_row, add, relu and start + _DEPTH >= depth,
        )  # fmt: skip
        s, s_at, s_row, add = c, zero, c_row, True


@_part
def _mix(x):
    """workers.dropout's hash, on one unsigned 32-bit number."""
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
    """Apply inverted dropout to activations and derivatives alike, with the mask of workers.dropout.keep_mask."""
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


@_part
def _affine(inputs, in_row, outputs, weights, layer, rows):
    """outputs = inputs W + b for a padded batch of so many rows, through a ReLU if that is the activation."""
    padded, bias = layer[OUT_PADDED], layer[BIAS]
    zero, one = np.int64(0), np.int64(1)
    _product(
        inputs, zero, in_row, one, weights, layer[WEIGHT], padded, outputs, padded, rows, padded, layer[IN],
        weights, max(bias, zero), bias >= zero, layer[ACTIVATION] == RELU,
    )  # fmt: skip


@_part
def _cross_entropy_slope(z, layer, targets, factors, batch, smoothing, constants, turned):
    """Turn logits into the gradient of the weighted mean loss, in place; padding becomes zero.

    Works on the transpose, (classes, batch), where every loop runs over examples and so over whole vectors.
    """
    classes, padded, zero = layer[OUT], layer[OUT_PADDED], constants[5] - constants[5]
    lines = z[: batch * padded].reshape(batch, padded)
    columns = turned[: classes * batch].reshape(classes, batch)
    largest, total = turned[classes * batch :][:batch], turned[(classes + 1) * batch :][:batch]
    for row in range(batch):
        for c in range(classes):
            columns[c, row] = lines[row, c]
    for row in range(batch):
        largest[row] = columns[0, row]
        total[row] = zero
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
        for c in range(classes):
            lines[row, c] = columns[c, row]
        for c in range(classes, padded):
            lines[row, c] = zero
        lines[row, int(targets[row])] -= factors[row] * (constants[5] - smoothing)


@_part
def _squared_error_slope(z, layer, targets, factors, batch):
    """Turn predictions into the gradient of the weighted mean squared error, in place; padding becomes zero."""
    padded = layer[OUT_PADDED]
    for row in range(batch):
        line = z[row * padded : (row + 1) * padded]
        error = line[0] - targets[row]
        for c in range(1, padded):
            line[c] = error - error
        line[0] = (error + error) * factors[row]


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
def _transpose(weights, layer, out):
    """Write a layer's weights as (outputs, padded inputs), in blocks of eight rows."""
    rows, padded = layer[IN_PADDED], layer[OUT_PADDED]
    source = weights[layer[WEIGHT] : layer[WEIGHT] + rows * padded].reshape(rows // ROWS, ROWS, padded)
    target = out[: layer[OUT] * rows].reshape(layer[OUT], rows // ROWS, ROWS)
    for block in range(rows // ROWS):
        for column in range(layer[OUT]):
            for i in range(ROWS):
                target[column, block, i] = source[block, i, column]


@_part
def _backward(delta, weights, layer, transposed, behind, rows):
    """behind = delta W^T: the gradient with respect to the layer's inputs."""
    width, padded = layer[IN_PADDED], layer[OUT_PADDED]
    _transpose(weights, layer, transposed)
    zero, one, none = np.int64(0), np.int64(1), np.bool_(False)
    _product(
        delta,
        zero,
        padded,
        one,
        transposed,
        zero,
        width,
        behind,
        width,
        rows,
        width,
        layer[OUT],
        delta,
        zero,
        none,
        none,
    )


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


@_part
def _column_sums(lines, out):
    """Sum the rows, four at a time to shorten the chain of additions."""
    rows, columns = lines.shape
    for c in range(columns):
        out[c] = lines[0, c]
    whole = 1 + (rows - 1) // 4 * 4
    for row in range(1, whole, 4):
        for c in range(columns):
            out[c] += (lines[row, c] + lines[row + 1, c]) + (lines[row + 2, c] + lines[row + 3, c])
    for row in range(whole, rows):
        for c in range(columns):
            out[c] += lines[row, c]


@_part
def _step_layer(inputs, delta, batch, layer, rule, w, first, second, g, hyper, rates):
    """Gradient and update of one layer, a block of rows at a time, from its inputs and its outputs' gradient."""
    in_row, padded = layer[IN_PADDED], layer[OUT_PADDED]
    zero, one, none = np.int64(0), np.int64(1), np.bool_(False)
    most = max(ROWS, BLOCK // padded // ROWS * ROWS)
    for row in range(0, in_row, most):
        rows = min(most, in_row - row)
        _product(inputs, row, one, in_row, delta, zero, padded, g, padded, rows, padded, batch, g, zero, none, none)
        _update(rule, w, first, second, g, layer[WEIGHT] + row * padded, rows * padded, hyper, rates)
    if layer[BIAS] >= 0:
        _column_sums(delta[: batch * padded].reshape(batch, padded), g)
        _update(rule, w, first, second, g, layer[BIAS], padded, hyper, rates)


@_part
def _gather(x, targets, weights, order, batch, inputs, in_row, y, factors):
    """Copy the rows of one batch, their targets, and their weights over the batch size."""
    share = factors.dtype.type(1.0 / batch)
    for row in range(batch):
        example = order[row]
        line, source = inputs[row * in_row : (row + 1) * in_row], x[example]
        for column in range(len(source)):
            line[column] = source[column]
        y[row] = targets[example]
        factors[row] = share
    if len(weights):
        for row in range(batch):
            factors[row] *= weights[order[row]]


@_entry
def train(
    x, targets, weights, orders, batch_size, layers, drops, keys, loss, rule, hyper, rates, constants,
    w, first, second, acts, slopes, deltas, transposed, g, y, factors, hashed,
):  # fmt: skip
    """Take the optimizer steps of the epochs whose example orders are the rows of `orders`, on one model, in place.

    Shapes: x (n, inputs), targets (n,) as numbers of the same type, weights (n,) or (0,), orders (epochs, m), layers (L, 8),
    drops (dropouts, 2) with threshold and scale, keys (steps, dropouts), rates (steps, 5). Parameters `w` and both moments are
    flat; acts and slopes (L + 1, widest batch), deltas (2, widest batch); hashed as dropout.hash_positions; the rest is scratch.
    """
    last = len(layers) - 1
    step = 0
    for epoch in range(orders.shape[0]):
        for begin in range(0, orders.shape[1], batch_size):
            batch = min(batch_size, orders.shape[1] - begin)
            rows = (batch + ROWS - 1) // ROWS * ROWS
            _gather(x, targets, weights, orders[epoch, begin:], batch, acts[0], layers[0, IN_PADDED], y, factors)
            for at in range(last + 1):
                layer = layers[at]
                _affine(acts[at], layer[IN_PADDED], acts[at + 1], w, layer, rows)
                if at < last:
                    _activate(layer[ACTIVATION], acts[at + 1], slopes[at + 1], rows * layer[OUT_PADDED], constants)
                    drop = layer[DROPOUT]
                    if drop >= 0:
                        _drop(acts[at + 1], slopes[at + 1], layer, batch, drops[drop], keys[step, drop], hashed)
            delta = acts[last + 1]
            if loss == CROSS_ENTROPY:
                _cross_entropy_slope(delta, layers[last], y, factors, batch, hyper[SMOOTHING], constants, transposed)
            else:
                _squared_error_slope(delta, layers[last], y, factors, batch)
            for at in range(last, -1, -1):
                layer = layers[at]
                behind = deltas[at % 2]
                if at > 0:
                    _backward(delta, w, layer, transposed, behind, rows)
                    before = layers[at - 1]
                    scale = constants[5] if before[DROPOUT] < 0 else w.dtype.type(drops[before[DROPOUT], 1])
                    _through(before[ACTIVATION], behind, acts[at], slopes[at], rows * before[OUT_PADDED], scale)
                _step_layer(acts[at], delta, batch, layer, rule, w, first, second, g, hyper, rates[step])
                delta = behind
            step += 1


@_entry
def predict(x, layers, constants, w, acts, slopes, out):
    """Write the outputs of one model in evaluation mode, (rows of x, outputs), a scratch batch at a time."""
    last = len(layers) - 1
    width, classes = layers[last, OUT_PADDED], layers[last, OUT]
    for begin in range(0, len(x), BATCH):
        batch = min(BATCH, len(x) - begin)
        rows = (batch + ROWS - 1) // ROWS * ROWS
        for row in range(batch):
            for column in range(x.shape[1]):
                acts[0, row * layers[0, IN_PADDED] + column] = x[begin + row, column]
        for at in range(last + 1):
            layer = layers[at]
            _affine(acts[at], layer[IN_PADDED], acts[at + 1], w, layer, rows)
            if at < last:
                _activate(layer[ACTIVATION], acts[at + 1], slopes[at + 1], rows * layer[OUT_PADDED], constants)
        for row in range(batch):
            for column in range(classes):
                out[begin + row, column] = acts[last + 1, row * width + column]
