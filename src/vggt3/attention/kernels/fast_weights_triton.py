"""The fast weights in Triton: gradient sums and read, and the backward of both.

Letters of one token and head: g = k W0, u = k W2, D = v W1ᵀ, σ = sigmoid(g), a = g σ = SiLU(g),
a' = σ (1 + g (1 − σ)), a'' = σ (1 − σ) (2 + g (1 − 2σ)); e0, e1, e2 are the token's rates.

The sums are G0 = Σ kᵀ(e0 P), G1 = Σ (e1 R)ᵀv, G2 = Σ kᵀ(e2 Q) with P = D u a', R = a u, Q = D a:
column n of W0 and W2 and row n of W1 meet only hidden unit n, so a program owns one block of hidden
units and some tokens, and reads k, v and the rates once. Given cotangents C of the three sums,
the loss is Σ e0 A0·P + e1 A1·R + e2 A2·Q with A0 = k C0, A1 = v C1ᵀ, A2 = k C2, hence

    dg = e0 A0 D u a'' + (e1 A1 u + e2 A2 D) a'     de0 = A0·P,  de1 = A1·R,  de2 = A2·Q
    du = e0 A0 D a' + e1 A1 a                       dk = dg W0ᵀ + du W2ᵀ + e0 P C0ᵀ + e2 Q C2ᵀ
    dD = e0 A0 u a' + e2 A2 a                       dv = dD W1 + e1 R C1
    dW0 = Σ kᵀdg,  dW1 = Σ dDᵀv,  dW2 = Σ kᵀdu      (sums over tokens, again)

The read f(q) = R W1 has, with D of its output's cotangent, dq = (D u a') W0ᵀ + (D a) W2ᵀ; the
gradients of its weights are the sums with v = the cotangent and rates 1.

Tensors of tokens come by strides (batch, head, token), rows of d contiguous; weights are
[B·H, d, h] or [B·H, h, d], contiguous, in the dtype of the tokens, which is that of every product's
operands; products and sums accumulate in fp32.
"""

# Blocks and pointers have no Python types.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def slopes(g):
    """SiLU, its slope and its curvature."""
    sigma = tl.sigmoid(g)
    rest = sigma * (1.0 - sigma)
    return g * sigma, sigma + g * rest, rest * (2.0 + g * (1.0 - 2.0 * sigma))


@triton.jit
def added(total, x, y, how: tl.constexpr):
    """total + x y in fp32, of operands of y's dtype."""
    x = x.to(y.dtype)
    if how == "widened":  # the same product, for the interpreter, which has none of bf16
        return tl.dot(x.to(tl.float32), y.to(tl.float32), acc=total, input_precision="ieee")
    return tl.dot(x, y, acc=total, input_precision=how)


@triton.jit
def product(x, y, how: tl.constexpr):
    """x y in fp32, of operands of y's dtype."""
    return added(tl.zeros([x.shape[0], y.shape[1]], tl.float32), x, y, how)


@triton.jit
def at_head(tensor, row, heads, by_batch, by_head):
    """Where a head's tokens begin."""
    return tensor + (row // heads).to(tl.int64) * by_batch + (row % heads).to(tl.int64) * by_head


@triton.jit
def tokens_of(start, by_token, here, live, width: tl.constexpr):
    """The tile [T, d] of the tokens ``here``; 0 where there is none."""
    place = here.to(tl.int64)[:, None] * by_token + tl.arange(0, width)[None, :]
    return tl.load(start + place, mask=live[:, None], other=0.0)


@triton.jit
def tall(weight, row, unit, hidden, width: tl.constexpr, block: tl.constexpr):
    """Columns [d, block] from ``unit`` on of a head's matrix [d, h]."""
    start = weight + row.to(tl.int64) * width * hidden + unit
    return tl.load(start + tl.arange(0, width)[:, None] * hidden + tl.arange(0, block)[None, :])


@triton.jit
def flat(weight, row, unit, hidden, width: tl.constexpr, block: tl.constexpr):
    """Rows [block, d] from ``unit`` on of a head's matrix [h, d]."""
    start = weight + row.to(tl.int64) * width * hidden + unit * width
    return tl.load(start + tl.arange(0, block)[:, None] * width + tl.arange(0, width)[None, :])


@triton.jit
def keep_tall(sums, slot, unit, hidden, value, width: tl.constexpr, block: tl.constexpr):
    """Write columns [d, block] of a matrix [d, h]."""
    start = sums + slot * width * hidden + unit
    place = tl.arange(0, width)[:, None] * hidden + tl.arange(0, block)[None, :]
    tl.store(start + place, value)


@triton.jit
def keep_flat(sums, slot, unit, hidden, value, width: tl.constexpr, block: tl.constexpr):
    """Write rows [block, d] of a matrix [h, d]."""
    start = sums + slot * width * hidden + unit * width
    place = tl.arange(0, block)[:, None] * width + tl.arange(0, width)[None, :]
    tl.store(start + place, value)


@triton.jit
def rates_of(rates, by_token, by_matrix, here, live):
    """The three rates of the tokens ``here`` as columns [T, 1]; 0 where there is none."""
    place = rates + here.to(tl.int64) * by_token
    e0 = tl.load(place, mask=live, other=0.0)
    e1 = tl.load(place + by_matrix, mask=live, other=0.0)
    e2 = tl.load(place + 2 * by_matrix, mask=live, other=0.0)
    return e0[:, None], e1[:, None], e2[:, None]


@triton.jit
def sums(
    k, v, rates, w0, w1, w2, s0, s1, s2, heads, count, hidden, share,
    kb, kh, kn, vb, vh, vn, rb, rh, rn, rm,
    width: tl.constexpr, block: tl.constexpr, tile: tl.constexpr, how: tl.constexpr,
):  # fmt: skip
    """Partial G0, G1, G2 [S, B·H, ...] of ``share`` tokens each and one block of hidden units.

    Hidden units are rows: what the second products multiply then stays in registers.
    """
    unit, part, row = tl.program_id(0) * block, tl.program_id(1), tl.program_id(2)
    gate = tl.trans(tall(w0, row, unit, hidden, width, block))  # [block, d]
    up = tl.trans(tall(w2, row, unit, hidden, width, block))
    back = flat(w1, row, unit, hidden, width, block)
    k, v = at_head(k, row, heads, kb, kh), at_head(v, row, heads, vb, vh)
    rates = at_head(rates, row, heads, rb, rh)
    g0 = tl.zeros([block, width], tl.float32)
    g1 = tl.zeros([block, width], tl.float32)
    g2 = tl.zeros([block, width], tl.float32)
    for first in range(part * share, tl.minimum((part + 1) * share, count), tile):
        here = first + tl.arange(0, tile)
        live = here < count
        key = tokens_of(k, kn, here, live, width)
        value = tokens_of(v, vn, here, live, width)
        e0, e1, e2 = rates_of(rates, rn, rm, here, live)
        turned = tl.trans(key)
        a, slope, _ = slopes(product(gate, turned, how))  # [block, T]
        u, d = product(up, turned, how), product(back, tl.trans(value), how)
        g0 = added(g0, (tl.trans(e0) * d * u * slope).to(key.dtype), key, how)
        g1 = added(g1, (tl.trans(e1) * a * u).to(value.dtype), value, how)
        g2 = added(g2, (tl.trans(e2) * d * a).to(key.dtype), key, how)
    slot = part.to(tl.int64) * tl.num_programs(2) + row
    keep_tall(s0, slot, unit, hidden, tl.trans(g0), width, block)
    keep_flat(s1, slot, unit, hidden, g1, width, block)
    keep_tall(s2, slot, unit, hidden, tl.trans(g2), width, block)


@triton.jit
def read(
    q, w0, w1, w2, out, heads, count, hidden, qb, qh, qn, ob, oh, on,
    width: tl.constexpr, block: tl.constexpr, tile: tl.constexpr, how: tl.constexpr,
):  # fmt: skip
    """f(q) of one tile of tokens."""
    here = tl.program_id(0) * tile + tl.arange(0, tile)
    row, live = tl.program_id(1), here < count
    query = tokens_of(at_head(q, row, heads, qb, qh), qn, here, live, width)
    total = tl.zeros([tile, width], tl.float32)
    for unit in range(0, hidden, block):
        a, _, _ = slopes(product(query, tall(w0, row, unit, hidden, width, block), how))
        u = product(query, tall(w2, row, unit, hidden, width, block), how)
        total = added(total, a * u, flat(w1, row, unit, hidden, width, block), how)
    place = here.to(tl.int64)[:, None] * on + tl.arange(0, width)[None, :]
    out = at_head(out, row, heads, ob, oh) + place
    tl.store(out, total.to(out.dtype.element_ty), mask=live[:, None])


@triton.jit
def read_to_tokens(
    q, pull, w0, w1, w2, dq, heads, count, hidden, qb, qh, qn, pb, ph, pn, db, dh, dn,
    width: tl.constexpr, block: tl.constexpr, tile: tl.constexpr, how: tl.constexpr,
):  # fmt: skip
    """dq of one tile of tokens, ``pull`` being the output's cotangent."""
    here = tl.program_id(0) * tile + tl.arange(0, tile)
    row, live = tl.program_id(1), here < count
    query = tokens_of(at_head(q, row, heads, qb, qh), qn, here, live, width)
    given = tokens_of(at_head(pull, row, heads, pb, ph), pn, here, live, width)
    total = tl.zeros([tile, width], tl.float32)
    for unit in range(0, hidden, block):
        gate = tall(w0, row, unit, hidden, width, block)
        up = tall(w2, row, unit, hidden, width, block)
        a, slope, _ = slopes(product(query, gate, how))
        u = product(query, up, how)
        d = product(given, tl.trans(flat(w1, row, unit, hidden, width, block)), how)
        total = added(total, d * u * slope, tl.trans(gate), how)
        total = added(total, d * a, tl.trans(up), how)
    place = here.to(tl.int64)[:, None] * dn + tl.arange(0, width)[None, :]
    dq = at_head(dq, row, heads, db, dh) + place
    tl.store(dq, total.to(dq.dtype.element_ty), mask=live[:, None])


@triton.jit
def sums_to_weights(
    k, v, rates, w0, w1, w2, c0, c1, c2, s0, s1, s2, heads, count, hidden, share,
    kb, kh, kn, vb, vh, vn, rb, rh, rn, rm,
    width: tl.constexpr, block: tl.constexpr, tile: tl.constexpr, how: tl.constexpr,
):  # fmt: skip
    """Partial dW0, dW1, dW2 [S, B·H, ...], as ``sums``."""
    unit, part, row = tl.program_id(0) * block, tl.program_id(1), tl.program_id(2)
    gate = tall(w0, row, unit, hidden, width, block)
    up = tall(w2, row, unit, hidden, width, block)
    back = tl.trans(flat(w1, row, unit, hidden, width, block))
    pull0 = tall(c0, row, unit, hidden, width, block)
    pull1 = tl.trans(flat(c1, row, unit, hidden, width, block))
    pull2 = tall(c2, row, unit, hidden, width, block)
    k, v = at_head(k, row, heads, kb, kh), at_head(v, row, heads, vb, vh)
    rates = at_head(rates, row, heads, rb, rh)
    d0 = tl.zeros([width, block], tl.float32)
    d1 = tl.zeros([block, width], tl.float32)
    d2 = tl.zeros([width, block], tl.float32)
    for first in range(part * share, tl.minimum((part + 1) * share, count), tile):
        here = first + tl.arange(0, tile)
        live = here < count
        key = tokens_of(k, kn, here, live, width)
        value = tokens_of(v, vn, here, live, width)
        e0, e1, e2 = rates_of(rates, rn, rm, here, live)
        a, slope, curve = slopes(product(key, gate, how))
        u, d = product(key, up, how), product(value, back, how)
        a0 = e0 * product(key, pull0, how)
        a1 = e1 * product(value, pull1, how)
        a2 = e2 * product(key, pull2, how)
        turned = tl.trans(key)
        dg = a0 * d * u * curve + (a1 * u + a2 * d) * slope
        d0 = added(d0, turned, dg.to(key.dtype), how)
        dd = (a0 * u * slope + a2 * a).to(value.dtype)
        d1 = added(d1, tl.trans(dd), value, how)
        d2 = added(d2, turned, (a0 * d * slope + a1 * a).to(key.dtype), how)
    slot = part.to(tl.int64) * tl.num_programs(2) + row
    keep_tall(s0, slot, unit, hidden, d0, width, block)
    keep_flat(s1, slot, unit, hidden, d1, width, block)
    keep_tall(s2, slot, unit, hidden, d2, width, block)


@triton.jit
def sums_to_tokens(
    k, v, rates, w0, w1, w2, c0, c1, c2, dk, dv, de, heads, count, hidden,
    kb, kh, kn, vb, vh, vn, rb, rh, rn, rm, dkb, dkh, dkn, dvb, dvh, dvn, eb, eh, en, em,
    width: tl.constexpr, block: tl.constexpr, tile: tl.constexpr, how: tl.constexpr,
):  # fmt: skip
    """dk, dv and the rates' gradients of one tile of tokens."""
    here = tl.program_id(0) * tile + tl.arange(0, tile)
    row, live = tl.program_id(1), here < count
    key = tokens_of(at_head(k, row, heads, kb, kh), kn, here, live, width)
    value = tokens_of(at_head(v, row, heads, vb, vh), vn, here, live, width)
    e0, e1, e2 = rates_of(at_head(rates, row, heads, rb, rh), rn, rm, here, live)
    key_total = tl.zeros([tile, width], tl.float32)
    value_total = tl.zeros([tile, width], tl.float32)
    de0 = tl.zeros([tile], tl.float32)
    de1, de2 = de0, de0
    for unit in range(0, hidden, block):
        gate = tall(w0, row, unit, hidden, width, block)
        up = tall(w2, row, unit, hidden, width, block)
        out = flat(w1, row, unit, hidden, width, block)
        pull0 = tall(c0, row, unit, hidden, width, block)
        pull1 = flat(c1, row, unit, hidden, width, block)
        pull2 = tall(c2, row, unit, hidden, width, block)
        a, slope, curve = slopes(product(key, gate, how))
        u, d = product(key, up, how), product(value, tl.trans(out), how)
        a0, a2 = product(key, pull0, how), product(key, pull2, how)
        a1 = product(value, tl.trans(pull1), how)
        p, r, s = d * u * slope, a * u, d * a
        de0 += tl.sum(a0 * p, 1)
        de1 += tl.sum(a1 * r, 1)
        de2 += tl.sum(a2 * s, 1)
        a0, a1, a2 = e0 * a0, e1 * a1, e2 * a2
        dg = a0 * d * u * curve + (a1 * u + a2 * d) * slope
        key_total = added(key_total, dg, tl.trans(gate), how)
        key_total = added(key_total, a0 * d * slope + a1 * a, tl.trans(up), how)
        key_total = added(key_total, e0 * p, tl.trans(pull0), how)
        key_total = added(key_total, e2 * s, tl.trans(pull2), how)
        value_total = added(value_total, a0 * u * slope + a2 * a, out, how)
        value_total = added(value_total, e1 * r, pull1, how)
    tokens, lanes = here.to(tl.int64), tl.arange(0, width)[None, :]
    dk = at_head(dk, row, heads, dkb, dkh) + tokens[:, None] * dkn + lanes
    dv = at_head(dv, row, heads, dvb, dvh) + tokens[:, None] * dvn + lanes
    de = at_head(de, row, heads, eb, eh) + tokens * en
    tl.store(dk, key_total.to(dk.dtype.element_ty), mask=live[:, None])
    tl.store(dv, value_total.to(dv.dtype.element_ty), mask=live[:, None])
    tl.store(de, de0, mask=live)
    tl.store(de + em, de1, mask=live)
    tl.store(de + 2 * em, de2, mask=live)
