"""What the two paged attention kernels share: a tile of cached keys or values, one step of online softmax.

A tile is TILE consecutive tokens of one sequence for one KV head, whatever the block size: each row is found through
the block table. The block ids of a tile are loaded one tile ahead, so that the addresses of its keys and values never
wait for memory. Rows beyond the context repeat its last token: they touch no memory that the sequence does not own,
need no mask, and cannot bring a NaN into `0 * value`.
"""

from engine.kernels.triton_language import jit, tl


@jit
def tokens_of(tile, last, TILE: tl.constexpr, WHOLE: tl.constexpr):
    """Places of a tile's tokens in their sequence, [TILE]; those after `last` become it, unless the tile is WHOLE."""
    tokens = tile * TILE + tl.arange(0, TILE)
    if not WHOLE:
        tokens = tl.minimum(tokens, last)
    return tokens.to(tl.uint32)  # a division by a power of two is then one shift


@jit
def find_blocks(table_ptr, tile, last, BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr, WHOLE: tl.constexpr):
    """Block ids of a tile's tokens, [TILE], or one where a block holds every tile that touches it."""
    if BLOCK_SIZE % TILE == 0:
        places = tile // (BLOCK_SIZE // TILE)
    elif WHOLE and TILE % BLOCK_SIZE == 0:
        places = tile * (TILE // BLOCK_SIZE) + tl.arange(0, TILE) // BLOCK_SIZE
    else:
        places = tokens_of(tile, last, TILE, WHOLE) // BLOCK_SIZE
    return tl.load(table_ptr + places)


@jit
def tile_offsets(
    blocks, tile, last, STRIDE: tl.constexpr, BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr, WHOLE: tl.constexpr,
    INDEX: tl.constexpr,
):  # fmt: skip
    """Offsets of a tile's tokens from the start of the cache, [TILE] of type INDEX; STRIDE: elements a token."""
    if WHOLE and TILE % BLOCK_SIZE == 0:
        inner = tl.arange(0, TILE) % BLOCK_SIZE
    else:
        inner = tokens_of(tile, last, TILE, WHOLE) % BLOCK_SIZE
    return blocks.to(INDEX) * (BLOCK_SIZE * STRIDE) + inner.to(INDEX) * STRIDE


@jit
def load_tile(cache_ptr, offsets, HEAD_DIM: tl.constexpr, DIM: tl.constexpr):
    """Rows of a cache, [TILE, DIM]; columns beyond HEAD_DIM are 0."""
    columns = tl.arange(0, DIM)
    pointers = cache_ptr + offsets[:, None] + columns[None, :]
    return tl.load(pointers) if HEAD_DIM == DIM else tl.load(pointers, mask=columns[None, :] < HEAD_DIM, other=0.0)


@jit
def widen(cached, COMPUTE: tl.constexpr):
    """A loaded tile in the type of the matrix products; bytes are e4m3 for a device that cannot convert it."""
    if cached.dtype == tl.uint8:
        bits = cached.to(tl.uint16)
        # Sign to the top, exponent and mantissa beside it: a float16 that is 2^8 too small, subnormals included.
        half = (((bits & 0x80) << 8) | ((bits & 0x7F) << 7)).to(tl.float16, bitcast=True)
        wide = (half * 256.0).to(COMPUTE)
    else:
        wide = cached.to(COMPUTE)
    return wide


@jit
def narrow_queries(q, scale, IS_FP8: tl.constexpr, COMPUTE: tl.constexpr):
    """Queries in the type of the products, [rows, DIM], and the factor of each row's scores, [rows].

    e4m3 widens to float16 in half the instructions that bfloat16 takes; queries fit it once each row is divided by its
    largest value.
    """
    largest = tl.full([q.shape[0]], 1.0, tl.float32)
    if IS_FP8:
        largest = tl.maximum(tl.max(tl.abs(q.to(tl.float32)), 1), 1e-30)
        q = q.to(tl.float32) / largest[:, None]
    return q.to(COMPUTE), largest * scale


@jit
def attend(maximum, total, summed, q, k, v, scale, visible, MASKED: tl.constexpr, PRECISION: tl.constexpr):
    """One step of online softmax in base 2 over the keys k and values v: the new (maximum, total, summed).

    maximum, total: [rows]; summed: [rows, DIM], the values weighted; scale: [rows], factor of the scores, log2(e)
    within; visible: which keys a row sees, looked at where MASKED.
    """
    scores = tl.dot(q, tl.trans(k), input_precision=PRECISION)
    if MASKED:
        scores = tl.where(visible, scores, float("-inf"))
    grown = tl.maximum(maximum, tl.max(scores, 1) * scale)
    weights = tl.exp2(scores * scale[:, None] - grown[:, None])
    shrink = tl.exp2(maximum - grown)
    total = total * shrink + tl.sum(weights, 1)
    summed = tl.dot(weights.to(v.dtype), v, summed * shrink[:, None], input_precision=PRECISION)
    return grown, total, summed


@jit
def attend_tiles(
    maximum, total, summed, q, k_ptr, v_ptr, table_ptr, scales, positions, start, end, last,
    STRIDE: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr, WINDOW: tl.constexpr, TILE: tl.constexpr,
    WHOLE: tl.constexpr, COMPUTE: tl.constexpr, PRECISION: tl.constexpr, INDEX: tl.constexpr,
):  # fmt: skip
    """`attend` over the tiles start <= tile < end: the new (maximum, total, summed).

    positions: of the rows' queries, [rows], or [1] if they have one; last: the last of them. WHOLE: every row sees all
    keys of these tiles.
    """
    blocks = find_blocks(table_ptr, tl.minimum(start, last // TILE), last, BLOCK_SIZE, TILE, WHOLE)
    for tile in tl.range(start, end):
        offsets = tile_offsets(blocks, tile, last, STRIDE, BLOCK_SIZE, TILE, WHOLE, INDEX)
        blocks = find_blocks(table_ptr, tl.minimum(tile + 1, end - 1), last, BLOCK_SIZE, TILE, WHOLE)
        k = widen(load_tile(k_ptr, offsets, HEAD_DIM, q.shape[1]), COMPUTE)
        v = widen(load_tile(v_ptr, offsets, HEAD_DIM, q.shape[1]), COMPUTE)
        keys = (tile * TILE + tl.arange(0, TILE))[None, :]
        visible = keys <= positions[:, None]
        if WINDOW > 0:
            visible &= keys > positions[:, None] - WINDOW
        maximum, total, summed = attend(maximum, total, summed, q, k, v, scales, visible, not WHOLE, PRECISION)
    return maximum, total, summed


@jit
def nothing_attended(q):
    """(maximum, total, summed) before the first key; the maximum is finite: infinity less infinity is no number."""
    maximum = tl.full([q.shape[0]], -1e30, tl.float32)
    return maximum, tl.zeros([q.shape[0]], tl.float32), tl.zeros(q.shape, tl.float32)
