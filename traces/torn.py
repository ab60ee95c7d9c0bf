"""Read an unfinished file: chunks that a killed writer was writing again, or that were cut off.

Beyond the end of a file HDF5 reads zeros, and zeros have the checksum zero: in a file that was cut
off, or copied in part, they would pass for values.  So it is looked where each chunk ends.

A column's last chunk is rewritten in place whenever rows are added to it.  A process that is killed
there leaves the new bytes up to some page of memory and the old ones after it, the old checksum
among them.  The old chunk held its rows and then zeros, and zeros add nothing to the checksum: so
it is found out which rows the checksum vouches for, and the others are taken to be unwritten.
"""

from __future__ import annotations

import os
from functools import cached_property

import h5py
import numpy as np
from h5py import h5d, h5z

CHECKSUM_BYTES = 4
MODULUS = 2**16 - 1


class GrowingDataset(h5py.Dataset):
    """A dataset of an unfinished file: torn chunks have the rows which they had before."""

    def __getitem__(self, args: object) -> np.ndarray:
        """Read as any dataset; OSError where a chunk is cut off, or damaged rather than torn."""
        self._refuse_cut_off(args)
        try:
            return super().__getitem__(args)
        except OSError:
            if not self.shape or not self.chunks:
                raise
            start, stop = 0, len(self)
            if isinstance(args, slice):
                start, stop, _ = slice(args.start, args.stop).indices(stop)
                args = slice(None, None, args.step)
            return self._mended(start, stop)[args]

    def _refuse_cut_off(self, args: object) -> None:
        """Raise OSError when some of the rows asked for lie beyond the end of the file."""
        if not self.shape or not len(self._cut_off):
            return
        first = args[0] if isinstance(args, tuple) and args else args
        rows = np.atleast_1d(np.arange(len(self))[first])
        if np.isin(rows // self._step, self._cut_off).any():
            raise OSError("the file is cut off; vla-trace repair saves what is left of it")

    @property
    def _step(self) -> int:
        """Rows that lie together: those of a chunk, or all."""
        return self.chunks[0] if self.chunks else max(1, len(self))

    @cached_property
    def _cut_off(self) -> np.ndarray:
        """Chunks, counted along the first axis, which the file does not have to their end."""
        n_bytes, found, last = os.fstat(self.file.id.get_vfd_handle()).st_size, [], -1

        def look(chunk: h5d.StoreInfo) -> None:
            nonlocal last
            last = chunk.chunk_offset[0] // self.chunks[0]
            if chunk.byte_offset + chunk.size > n_bytes:
                found.append(last)

        if not self.chunks:
            ends = (self.id.get_offset() or 0) + self.id.get_storage_size()
            return np.zeros(int(ends > n_bytes), np.int64)
        try:
            self.id.chunk_iter(look)
        except (OSError, RuntimeError):  # where the others are is not known any more
            found += range(last + 1, -(-len(self) // self.chunks[0]))
        return np.array(found, np.int64)

    def _mended(self, start: int, stop: int) -> np.ndarray:
        """Return rows [start, stop), the torn chunk among them mended."""
        step, found = self.chunks[0], []
        for first in range(start - start % step, stop, step):
            rows = slice(max(start, first), min(stop, first + step))
            try:
                found.append(super().__getitem__(rows))
            except OSError as error:
                chunk = self._vouched_for(first)
                if chunk is None:
                    raise error
                found.append(chunk[rows.start - first : rows.stop - first])
        return np.concatenate(found) if found else super().__getitem__(slice(0, 0))

    def _vouched_for(self, first: int) -> np.ndarray | None:
        """Return the chunk that begins with row `first`, zeros after the rows to be trusted."""
        creation = self.id.get_create_plist()
        filters = [creation.get_filter(i)[0] for i in range(creation.get_nfilters())]
        if filters != [h5z.FILTER_FLETCHER32] or self.chunks[1:] != self.shape[1:]:
            return None
        _, raw = self.id.read_direct_chunk((first, *(0 for _ in self.shape[1:])))
        n_rows = rows_vouched_for(raw, self.chunks[0])
        if n_rows is None:
            return None
        chunk = np.frombuffer(raw[:-CHECKSUM_BYTES], self.dtype).reshape(self.chunks).copy()
        chunk[n_rows:] = np.zeros((), self.dtype)
        return chunk


def rows_vouched_for(raw: bytes, rows: int) -> int | None:
    """Return how many rows, followed by zeros, have the checksum at the end of a chunk.

    Args:
        raw: a chunk as stored: its rows and their Fletcher32 checksum as HDF5 computes it, with
            two sums modulo 65535 over big-endian 16-bit words (zero only where all words are).
        rows: of which each has the same number of bytes.

    Returns:
        The largest such number below `rows`; None when there is none.
    """
    values = np.frombuffer(raw[:-CHECKSUM_BYTES], np.uint8).astype(np.int64)
    place = np.arange(len(values)) // 2
    values *= np.where(np.arange(len(values)) % 2, 1, 256)
    weight = ((len(values) + 1) // 2 - place) % MODULUS
    sums = [np.cumsum(part.reshape(rows, -1).sum(axis=1)) for part in (values, values * weight)]
    stored = int.from_bytes(raw[-CHECKSUM_BYTES:], "little")
    wanted = stored & 0xFFFF, stored >> 16
    fits = np.logical_and(*(s % MODULUS == w % MODULUS for s, w in zip(sums, wanted, strict=True)))
    found = np.flatnonzero(fits[:-1])
    if len(found):
        return int(found[-1]) + 1
    return 0 if stored == 0 else None
