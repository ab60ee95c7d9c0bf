"""P values of one family, corrected for their number, many at once; NaN stays NaN.

Holm bounds the chance of a single false find in the whole family; Benjamini and Hochberg bound the
expected share of false finds among the finds.
"""

import numpy as np

from traces.errors import UnknownName

CORRECTIONS = ("holm", "bh", "none")


def corrected(p: np.ndarray, method: str = "holm") -> np.ndarray:
    """Return adjusted p values: those up to q are the finds at level q.

        holm   max_{j <= i} min(1, (m - j + 1) p_(j))       Holm, Scand. J. Stat. 6 (1979) 65
        bh     min_{j >= i} min(1, m p_(j) / j)             J. R. Stat. Soc. B 57 (1995) 289

    with p_(1) <= ... <= p_(m). Of dependent neurons Holm holds always, bh if the dependence is
    positive (Benjamini and Yekutieli, Ann. Stat. 29 (2001) 1165).

    Raises:
        UnknownName: no such method.
    """
    if method not in CORRECTIONS:
        raise UnknownName("correction", method, CORRECTIONS)
    order = np.argsort(p)  # NaN last
    m = int(np.isfinite(p).sum())
    ranked = p[order[:m]]
    found = np.full(len(p), np.nan)
    if method == "holm":
        ranked = np.maximum.accumulate(ranked * np.arange(m, 0, -1))
    elif method == "bh":
        ranked = np.minimum.accumulate((ranked * m / np.arange(1, m + 1))[::-1])[::-1]
    found[order[:m]] = np.minimum(ranked, 1.0)
    return found
