"""Damaged traces, each made from one seed: what a disk, a person or an attacker does to a file."""

from __future__ import annotations

import ctypes
import json
import random
import runpy
import struct
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from h5py import h5p

from traces import layout

BUILDERS = runpy.run_path(str(Path(__file__).parents[1] / "traces" / "conftest.py"))
SMALL_CHUNKS = {"E": 2, "T": 16, "D": 8, "R": 16, "B": 64}
BASES = ("closed", "closed", "closed", "partial", "old", "old", "empty", "long")
SIGNATURES = (b"GCOL", b"OHDR", b"TREE", b"HEAP", b"SNOD", b"FRHP", b"FHDB", b"EAHD", b"BTHD")
EXTREMES = (0, 1, 7, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**64 - 1)
JUNK = ("", "\x1b[31m\n", "ÿ" * 300, "../../etc/passwd", "/dev/zero", "null", "[" * 5000, "1e999")
LARGE_BYTES = 1200 * 2**20
LIBRARY = ctypes.PyDLL(h5p.__file__)
LIBRARY.H5_checksum_metadata.restype = ctypes.c_uint32


def make_bases(folder: Path) -> None:
    """Write the sound traces that are damaged, and `partner.h5`, which stays as it is."""
    names = ("write_trace", "make_writer", "make_record")
    trace, writer, record = (BUILDERS[name] for name in names)
    layout.CHUNK_ROWS = SMALL_CHUNKS
    trace(folder / "closed.h5")
    trace(folder / "long.h5", numbers=range(12))
    trace(folder / "empty.h5", numbers=())
    trace(folder / "partner.h5", intervention=None, run_id="partner")
    growing = writer(folder / "growing.h5")
    growing.write_policy(0, 0)
    for number in range(3):
        growing.write_episode(record(number, n_steps=4 + number))
    (folder / "partial.h5").write_bytes(growing.partial.read_bytes())
    growing.close().unlink()
    with h5py.File(folder / "closed.h5") as new, h5py.File(folder / "old.h5", "w") as old:
        old.attrs.update(new.attrs)
        for name in new:
            new.copy(name, old)


def damaged(bases: Path, folder: Path, outside: Path, seed: int) -> tuple[Path, list[str]]:
    """Return the damaged trace of a seed, made in `folder`, and what was done to it.

    Args:
        bases: where `make_bases` wrote.
        folder: an empty one.
        outside: a file that nobody may open, which some traces point to.
        seed: decides everything.
    """
    rng = random.Random(seed)
    base = rng.choice(BASES)
    growing = base == "partial" or rng.random() < 0.1
    path = folder / ("a.h5.partial" if growing and rng.random() < 0.9 else "a.h5")
    path.write_bytes((bases / f"{base}.h5").read_bytes())
    done = [base, path.name]
    for _ in range(0 if base == "partial" else rng.choice((0, 1, 1, 1, 2, 3))):
        act = rng.choice(STRUCTURAL)
        with h5py.File(path, "r+", libver=("earliest", "v110"), locking=False) as file:
            try:
                done.append(" ".join(filter(None, (act.__name__, act(file, rng, outside)))))
            except (KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
                done.append(f"{act.__name__} failed: {error}")  # two that exclude each other
    if len(done) == 2 or rng.random() < 0.3:
        raw = bytearray(path.read_bytes())
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            act = rng.choice(BINARY)
            done.append(" ".join(filter(None, (act.__name__, act(raw, rng)))))
        path.write_bytes(raw)
    return path, done


# Of bytes: nobody looked what they mean.


def flip(raw: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 4, 64))):
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)


def flip_near_a_signature(raw: bytearray, rng: random.Random) -> str:
    signature, start = _structure(raw, rng)
    for _ in range(rng.choice((1, 1, 4))):
        raw[min(len(raw) - 1, start + rng.randrange(64))] ^= 1 << rng.randrange(8)
    return signature


def number_near_a_signature(raw: bytearray, rng: random.Random) -> str:
    signature, start = _structure(raw, rng)
    _put(raw, start + 4 + rng.randrange(60), rng)
    return signature


def number(raw: bytearray, rng: random.Random) -> None:
    _put(raw, rng.randrange(len(raw)), rng)


def heap_object(raw: bytearray, rng: random.Random) -> None:
    """Change index, count or size of an object in a global heap, or of the heap itself."""
    start = rng.choice(_places(raw, b"GCOL") or [0])
    for _ in range(rng.randrange(6)):
        size = int.from_bytes(raw[start + 24 : start + 32], "little")
        start = start + 16 + (size + 7) // 8 * 8 if start + size < len(raw) - 64 else start
    where = start + rng.choice((4, 8, 16, 18, 24, 24, 24))
    struct.pack_into("<Q", raw, min(where, len(raw) - 8), rng.choice((*EXTREMES, 2**64 - 16)))


def header_with_its_checksum(raw: bytearray, rng: random.Random) -> None:
    """Change an object header so that HDF5 finds its checksum right."""
    start = rng.choice(_places(raw, b"OHDR") or [0])
    flags = raw[start + 5]
    body = start + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
    width = 1 << (flags & 3)
    stop = body + width + int.from_bytes(raw[body : body + width], "little")
    if raw[start : start + 4] == b"OHDR" and stop + 4 <= len(raw):
        for _ in range(rng.choice((1, 1, 3))):
            raw[rng.randrange(body + width, stop)] ^= 1 << rng.randrange(8)
        _put(raw, rng.randrange(body + width, stop), rng, rng.choice((0, 1, 2, 4, 8)), stop)
        content = bytes(raw[start:stop])
        checksum = LIBRARY.H5_checksum_metadata(content, ctypes.c_size_t(len(content)), 0)
        struct.pack_into("<I", raw, stop, checksum)


def cut(raw: bytearray, rng: random.Random) -> None:
    del raw[rng.randrange(len(raw)) :]
    raw += b"\0" * rng.choice((0, 0, 0, 4096))


def blank(raw: bytearray, rng: random.Random) -> None:
    start, size = rng.randrange(len(raw)), rng.choice((8, 512, 4096, 65536))
    stop = min(len(raw), start + size)
    raw[start:stop] = rng.choice((bytes(stop - start), rng.randbytes(stop - start)))


def shift(raw: bytearray, rng: random.Random) -> None:
    place, size = rng.randrange(len(raw)), rng.choice((1, 8, 4096))
    if rng.random() < 0.5:
        del raw[place : place + size]
    else:
        raw[place:place] = rng.randbytes(size)


def copy_over(raw: bytearray, rng: random.Random) -> None:
    size = rng.choice((16, 512, 4096))
    source, target = (rng.randrange(max(1, len(raw) - size)) for _ in range(2))
    raw[target : target + size] = raw[source : source + size]


def _places(raw: bytearray, signature: bytes) -> list[int]:
    found, start = [], raw.find(signature)
    while start >= 0:
        found.append(start)
        start = raw.find(signature, start + 4)
    return found


def _structure(raw: bytearray, rng: random.Random) -> tuple[str, int]:
    signature = rng.choice([s for s in SIGNATURES if s in raw] or [b"\x89HDF"])
    return signature.decode("latin-1"), rng.choice(_places(raw, signature) or [0])


def _put(
    raw: bytearray, place: int, rng: random.Random, width: int = 8, stop: int | None = None
) -> None:
    """Write an extreme number of `width` bytes, or a place within the file."""
    number = rng.choice((*EXTREMES, rng.randrange(len(raw))))
    bytes_ = number.to_bytes(8, "little")[:width]
    stop = min(len(raw) if stop is None else stop, place + width)
    raw[place:stop] = bytes_[: max(0, stop - place)]


# Of structure: through h5py, so that HDF5 finds nothing wrong.


def _column(file: h5py.File, rng: random.Random) -> str:
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if hasattr(item, "shape") else None)
    return rng.choice(sorted(names))


def _place(file: h5py.File, rng: random.Random) -> str:
    names: list[str] = []
    file.visit(names.append)
    return rng.choice(sorted(names))


def _attribute(file: h5py.File, rng: random.Random) -> tuple[h5py.Group, str]:
    owner = file if rng.random() < 0.6 else file[_place(file, rng)]
    return owner, rng.choice([*sorted(owner.attrs), "mine"])


def delete(file: h5py.File, rng: random.Random, outside: Path) -> str:
    place = _place(file, rng)
    del file[place]
    return place


def delete_all_columns(file: h5py.File, rng: random.Random, outside: Path) -> str:
    table = rng.choice(sorted(file))
    for name in list(file[table]):
        del file[table][name]
    return table


def rename(file: h5py.File, rng: random.Random, outside: Path) -> str:
    place = _place(file, rng)
    file.move(place, place + rng.choice(("2", "\n", "\x1b[2J", " ", "ÿ", ".h5")))
    return place


def another_type(file: h5py.File, rng: random.Random, outside: Path) -> str:
    place = _column(file, rng)
    shape = file[place].shape
    kinds = ("i1", "u8", "i8", "f2", "f4", ">f8", "?", "S3", "S0", "c16", [("a", "i4")], "V7")
    kind = rng.choice((*kinds, h5py.string_dtype(), h5py.ref_dtype, h5py.vlen_dtype("i4")))
    del file[place]
    file.create_dataset(place, shape, kind if kind != "S0" else "S1")
    return f"{place} {kind}"


def another_shape(file: h5py.File, rng: random.Random, outside: Path) -> str:
    place = _column(file, rng)
    old = file[place]
    n, row = len(old) if old.shape else 1, old.shape[1:]
    shapes = ((), (n,), (0, *row), (n, 0), (n, *row, 1), (1, n, *row), (n + 1, *row), (n, 2, 2))
    shape, dtype = rng.choice(shapes), old.dtype
    del file[place]
    file.create_dataset(place, shape, dtype)
    return f"{place} {shape}"


def absurd_shape(file: h5py.File, rng: random.Random, outside: Path) -> str:
    place = _column(file, rng)
    rows = rng.choice((10**6, 10**8, 2**33, 2**40, 2**62))
    file[place].resize(rows, axis=0)
    return f"{place} {rows}"


def absurd_chunks(file: h5py.File, rng: random.Random, outside: Path) -> str:
    place = _column(file, rng)
    old = file[place]
    row, dtype, rows = old.shape[1:], old.dtype, rng.choice((10**5, 10**7, 10**9))
    packed = rng.choice((None, "gzip", "lzf"))
    chunk = max(1, min(rows, 2**31 // max(1, dtype.itemsize * int(np.prod(row)))))
    del file[place]
    shape = (rng.choice((4, rows)), *row)
    full = (None, *row)
    file.create_dataset(
        place, shape, dtype, maxshape=full, chunks=(chunk, *row), compression=packed
    )
    return f"{place} {rows} {packed}"


def uneven(file: h5py.File, rng: random.Random, outside: Path) -> str:
    place = _column(file, rng)
    rows = max(0, len(file[place]) + rng.choice((-20, -3, -1, 1, 2, 100)))
    file[place].resize(rows, axis=0)
    return f"{place} {rows}"


def values(file: h5py.File, rng: random.Random, outside: Path) -> str:
    place = _column(file, rng)
    column = file[place]
    found = column[...]
    if not found.size:
        return place
    flat = found.reshape(-1)
    chosen = [rng.randrange(len(flat)) for _ in range(rng.choice((1, 1, 3, len(flat))))]
    if found.dtype.kind == "f":
        odd = (np.nan, np.inf, -np.inf, 1e308, -1e308, 1e-320, 0.0)
    elif found.dtype.kind in "iu":
        limits = np.iinfo(found.dtype)
        odd = (limits.min, limits.max, -1 if limits.min else 0, 0, 1, 10**4)
    else:
        odd = (
            (b"", b"\xff\xfe", b"\x1b[2J", b"a/b\n", b"\0\0x")
            if found.dtype.kind == "S"
            else (0, 1)
        )
    with np.errstate(all="ignore"):
        for place_ in chosen:
            flat[place_] = np.array(rng.choice(odd)).astype(found.dtype)
    column[...] = flat.reshape(found.shape)
    return place


def link(file: h5py.File, rng: random.Random, outside: Path) -> str:
    place, other = _place(file, rng), _place(file, rng)
    kinds = (h5py.SoftLink(f"/{other}"), h5py.SoftLink("/"), h5py.ExternalLink(str(outside), "/"))
    target = rng.choice((*kinds, h5py.ExternalLink(str(outside), f"/{place}")))
    if rng.random() < 0.7:
        del file[place]
    else:
        place += "2"
    file[place] = target
    return f"{place} {target}"


def cycle(file: h5py.File, rng: random.Random, outside: Path) -> str:
    place, target = _place(file, rng), rng.choice(("/", _place(file, rng)))
    owner = file[place] if isinstance(file[place], h5py.Group) else file[place].parent
    name = rng.choice(("again", "activations", "frames", "t", "steps"))
    if name in owner:
        del owner[name]
    owner[name] = file.get(target, file)
    return f"{owner.name}/{name} {target}"


def stored_outside(file: h5py.File, rng: random.Random, outside: Path) -> str:
    place = _column(file, rng)
    shape, dtype = file[place].shape, file[place].dtype
    del file[place]
    if rng.random() < 0.5:
        size = h5py.h5f.UNLIMITED if rng.random() < 0.5 else 10**6
        file.create_dataset(place, shape, dtype, external=[(str(outside), 0, size)])
        return f"{place} external"
    layout = h5py.VirtualLayout(shape, dtype)
    layout[...] = h5py.VirtualSource(str(outside), "x", shape)
    file.create_virtual_dataset(place, layout)
    return f"{place} virtual"


def attribute(file: h5py.File, rng: random.Random, outside: Path) -> str:
    owner, name = _attribute(file, rng)
    odd = (
        *(
            rng.choice(JUNK),
            rng.choice(EXTREMES[:-1]),
            -1,
            float("nan"),
            float("inf"),
            10**300 * 1.0,
        ),
        *(np.zeros(0), np.zeros((3, 4)), np.array([b"a", b"\xff"]), b"\xff\xfe", True),
        *(
            h5py.Empty("f8"),
            h5py.Empty("S3"),
            file.ref,
            np.array((1, 2.0), [("a", "i4"), ("b", "f8")]),
        ),
        *(
            json.dumps({"a": [1, None, "x"]}),
            json.dumps([1, 2]),
            '{"name": NaN}',
            '{"name": 1e400}',
        ),
        *('{"name": {"a": 1}}', "true", "3", '"text"', "vlm.1.ffn_act", "D,N,N", "-1,4", "16,0"),
    )
    kept = owner.attrs.get(name)
    if isinstance(kept, str) and kept[:1] == "{" and rng.random() < 0.5:
        told = json.loads(kept)
        key = rng.choice([*told, "name", "operator", "coefficient", "sites"])
        told[key] = rng.choice((None, [], {}, -1, 1e308, "\n", [[]], {"a": []}, "9" * 5000, True))
        owner.attrs[name] = json.dumps(told)
        return f"{owner.name} {name} {key}"
    value = rng.choice(odd)
    owner.attrs[name] = value
    return f"{owner.name} {name} {str(value)[:40]!r}"


def no_attribute(file: h5py.File, rng: random.Random, outside: Path) -> str:
    owner, name = _attribute(file, rng)
    if name in owner.attrs:
        del owner.attrs[name]
    return f"{owner.name} {name}"


def large_attribute(file: h5py.File, rng: random.Random, outside: Path) -> str:
    """Megabytes often, more than a gigabyte now and then."""
    owner, name = _attribute(file, rng)
    size = LARGE_BYTES if rng.random() < 0.03 else rng.choice((2**16, 2**20, 2**25))
    if file.id.get_create_plist().get_version()[0] == 0 and size > 2**15:
        size = 2**15  # old files have none larger than 64 KiB
    if rng.random() < 0.5 and size < LARGE_BYTES:
        owner.attrs[name] = "x" * size
    else:
        owner.attrs.create(name, np.zeros(size // 8))
    return f"{owner.name} {name} {size}"


def many(file: h5py.File, rng: random.Random, outside: Path) -> str:
    kind = rng.choice(("groups", "attributes", "deep", "links"))
    if kind == "deep":
        file["/".join("d" * rng.choice((50, 500)))] = 1
        return kind
    owner = file[rng.choice(("/", "activations", "frames", "steps"))]
    for i in range(rng.choice((100, 1000, 12000))):
        if kind == "groups":
            owner.create_group(f"g{i}")
        elif kind == "attributes":
            owner.attrs.create(f"a{i}", i)
        else:
            owner.id.links.create_soft(b"l%d" % i, b"/")
    return kind


def junk(file: h5py.File, rng: random.Random, outside: Path) -> str:
    place = rng.choice(("mine", "steps/mine", "activations/mine", "frames/mine", "activations/a/b"))
    what = rng.choice((0, "text", np.zeros((0, 4)), h5py.Empty("f4"), np.dtype("f8"), b"\xff"))
    file[place] = what
    return f"{place} {what!r}"


def swap(file: h5py.File, rng: random.Random, outside: Path) -> str:
    a, b = _place(file, rng), _place(file, rng)
    if a.startswith(b) or b.startswith(a):
        return ""
    file.move(a, "swapped")
    file.move(b, a)
    file.move("swapped", b)
    return f"{a} {b}"


def packed(file: h5py.File, rng: random.Random, outside: Path) -> str:
    """Compressed values that are harmless; `absurd_chunks` makes the others."""
    place = _column(file, rng)
    found = file[place][...]
    del file[place]
    if found.size:
        file.create_dataset(place, data=found, chunks=True, compression="gzip", shuffle=True)
    return place


STRUCTURAL: tuple[Callable[[h5py.File, random.Random, Path], str | None], ...] = (
    *(delete, delete_all_columns, rename, another_type, another_shape, absurd_shape),
    *(absurd_chunks, uneven, values, values, link, cycle, stored_outside, attribute, attribute),
    *(no_attribute, large_attribute, many, junk, swap, packed),
)
BINARY: tuple[Callable[[bytearray, random.Random], str | None], ...] = (
    *(flip, flip_near_a_signature, number_near_a_signature, number, heap_object, heap_object),
    *(header_with_its_checksum, header_with_its_checksum, cut, blank, shift, copy_over),
)
