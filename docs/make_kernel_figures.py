"""Makes what is generated in kernels.md: `python -m docs.make_kernel_figures` draws paged_decode.svg and compiles every
shipped kernel for the table of its resources. Needs triton, and no GPU."""

from itertools import groupby
from pathlib import Path

import triton

from engine.kernels.ahead_of_time import Resources, compile_all, shipped
from engine.kernels.kernel_config import ARCHITECTURES, KernelConfig

FOLDER = Path(__file__).parent
PICTURE, PAGE = FOLDER / "paged_decode.svg", FOLDER / "kernels.md"
START, END = "<!-- resources: made by docs/make_kernel_figures.py -->", "<!-- end of resources -->"


def main() -> None:
    """Write the picture, and the table between its two marks."""
    PICTURE.write_text(picture(), encoding="utf-8")
    before, rest = PAGE.read_text(encoding="utf-8").split(START)
    after = rest.split(END)[1]
    PAGE.write_text(f"{before}{START}\n\n{table()}\n\n{END}{after}", encoding="utf-8")


def table() -> str:
    """One Markdown row a configuration, its architectures side by side."""
    configs = {config.name: config for config in shipped()}
    rows = [f"Compiled by triton {triton.__version__}.", ""]
    rows += [f"| kernel | {' | '.join(f'sm_{architecture}' for architecture in ARCHITECTURES)} |"]
    rows += ["|---" * (len(ARCHITECTURES) + 1) + "|"]
    found = sorted(compile_all(), key=lambda one: (_row_name(one), one.architecture))
    for name, group in groupby(found, key=_row_name):
        cells = {one.architecture: _cell(one, configs[one.name]) for one in group}
        rows.append(f"| {name} | {' | '.join(cells.get(architecture, '') for architecture in ARCHITECTURES)} |")
    return "\n".join(rows)


def _row_name(found: Resources) -> str:
    return found.name.replace(f"sm_{found.architecture} ", "")


def _cell(found: Resources, config: KernelConfig) -> str:
    """`168 · 72 KB · 4 × 3`: registers a thread, shared memory a program, warps x stages."""
    return f"{found.registers} · {found.shared_bytes / 1000:.0f} KB · {config.num_warps} × {config.num_stages}"


# The batch in the picture: tiles of context of each sequence, a target of chunks, and KV heads.
TILES, TARGET, KV_HEADS = (10, 4, 1, 0), 5, 2
COLOURS = ("#4269d0", "#3ca951", "#efb118", "#9498a0")
WIDTH, HEIGHT, LEFT, CELL = 880, 560, 150, 44


def picture() -> str:
    """Paged decode from contexts to results: chunks, programs, the block table of one tile, the merge."""
    parts = [*_contexts(), *_programs(), *_blocks(), *_results()]
    style = "text{font:13px sans-serif;fill:#333}.b{font-weight:bold}.s{font-size:11px}.m{text-anchor:middle}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="Paged decode attention">\n<style>{style}</style>\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _chunks() -> list[tuple[int, int, int]]:
    """(sequence, first tile, tiles) of each chunk, as the kernel counts them out."""
    length = max(-(-sum(TILES) // TARGET), 1)
    chunks = []
    for sequence, tiles in enumerate(TILES):
        count = max(-(-tiles // length), 1)
        each = -(-tiles // count)
        chunks += [(sequence, start * each, min(each, tiles - start * each)) for start in range(count)]
    return chunks


def _text(x: float, y: float, words: str, kind: str = "") -> str:
    return f'<text x="{x}" y="{y}" class="{kind}">{words}</text>'


def _box(x: float, y: float, width: float, height: float, fill: str) -> str:
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="3" fill="{fill}" stroke="#fff"/>'


def _arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    return (
        f'<path d="M{x1} {y1}L{x2} {y2}" stroke="#777" fill="none"/>'
        f'<path d="M{x2 - 4} {y2 - 6}L{x2} {y2}L{x2 + 4} {y2 - 6}" stroke="#777" fill="none"/>'
    )


def _contexts() -> list[str]:
    """Each sequence's cached tokens as tiles; a gap parts two chunks."""
    parts = [
        _text(16, 24, "1  Contexts, cut into chunks of about equal length: on the device, anew in every step", "b")
    ]
    for sequence, tiles in enumerate(TILES):
        parts.append(_text(16, 54 + 28 * sequence, f"sequence {'ABCD'[sequence]}"))
        if not tiles:
            parts.append(
                _text(LEFT, 54 + 28 * sequence, "no context (padding of the batch): an empty chunk, zeros", "s")
            )
    for sequence, start, tiles in _chunks():
        for tile in range(start, start + tiles):
            inset = 3 if tile == start else 0
            x = LEFT + tile * CELL + inset
            parts.append(_box(x, 40 + 28 * sequence, CELL - inset, 20, COLOURS[sequence]))
    return parts


def _programs() -> list[str]:
    """One program a chunk and KV head, in the order of the launch grid."""
    top, chunks = 190, _chunks()
    grid = (len(TILES) + TARGET) * KV_HEADS
    parts = [_text(16, top, "2  One program a chunk and KV head; the grid depends on the batch size alone", "b")]
    width = (WIDTH - LEFT - 16) / grid
    for place in range(grid):
        unit, head = divmod(place, KV_HEADS)
        used = unit < len(chunks)
        x = LEFT + place * width
        parts.append(_box(x, top + 14, width - 2, 34, COLOURS[chunks[unit][0]] if used else "#eee"))
        words = f"{'ABCD'[chunks[unit][0]]} h{head}" if used else "exit"
        parts.append(_text(x + width / 2 - 1, top + 36, words, "s m"))
    parts.append(_text(16, top + 36, "programs"))
    return parts


def _blocks() -> list[str]:
    """The block table turns a tile of consecutive tokens into rows of blocks that lie anywhere."""
    top, owned = 290, (7, 2, 12, 5)
    parts = [_text(16, top, "3  A tile's tokens are found through the block table, one tile ahead of their use", "b")]
    parts += [_text(16, top + 32, "one tile of A"), _text(16, top + 92, "KV cache, blocks")]
    width = (WIDTH - LEFT - 16) / 14
    for place, block in enumerate(owned):
        x = LEFT + (2 + 2.5 * place) * width
        parts += [
            _box(x, top + 14, width * 1.6, 26, COLOURS[0]),
            _text(x + width * 0.8, top + 31, f"block {block}", "s m"),
        ]
        parts.append(_arrow(x + width * 0.8, top + 42, LEFT + (block + 0.5) * width, top + 74))
    for block in range(14):
        fill = COLOURS[0] if block in owned else COLOURS[1] if block in (1, 9) else "#ddd"
        parts.append(_box(LEFT + block * width, top + 76, width - 2, 26, fill))
        parts.append(_text(LEFT + (block + 0.5) * width - 1, top + 93, str(block), "s m"))
    return parts


def _results() -> list[str]:
    """What a program does with its tiles, and how chunks of one sequence come together."""
    top = 440
    steps = (
        "queries of the heads that share the KV head, as rows padded to 16: q",
        "for each tile, loaded two tiles ahead by asynchronous 16-byte copies:",
        "    scores = q kᵀ · scale;  online softmax in base 2 (running maximum and sum);  result += weights · v",
        "one chunk: write the result.  several: write result and log-sum-exp; count; the last one to finish merges:",
        "    out = Σ 2^(lseᵢ - max) resultᵢ / Σ 2^(lseᵢ - max), and sets the counter back to 0",
    )
    parts = [_text(16, top, "4  Inside a program", "b")]
    return parts + [_text(40 if line[0] == " " else 16, top + 22 + 20 * row, line) for row, line in enumerate(steps)]


if __name__ == "__main__":
    main()
