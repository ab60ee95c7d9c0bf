"""Clusters as the YAML dictionaries of Haon et al. (arXiv:2509.00328), there and back.

A file names clusters; a neuron is its flat index, layer * d_ff + neuron, with d_ff the units of a
feed-forward block. Both published forms are read, the first is written:

    up_10: {38526: [up, Up, UP], 40653: [higher, ward]}
    high_cluster: [38526, 40653]
"""

import re
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from analysis.clusters import Place, place_named, places_of, rows_of, sites_of
from analysis.mapping_file import read_mapping
from traces.errors import UnknownName, UserError
from traces.intervention import Intervention

Dictionary = Mapping[int, tuple[str, ...]]
"""Flat index -> the tokens written beside it."""

WRITTEN_TOKENS = 10


def read_dictionaries(path: Path | str) -> dict[str, Dictionary]:
    """Read every cluster of a file.

    Raises:
        UserError: it is no such file.
    """
    return {name: _dictionary(path, name, given) for name, given in read_mapping(path).items()}


def read_cluster(
    path: Path | str, name: str, table: pl.DataFrame, *, alpha: float, checkpoint_sha256: str
) -> Intervention:
    """Read one cluster as an overwrite with alpha.

    Args:
        path: the YAML file.
        name: which of its clusters; "" for the only one.
        table: neuron table of the policy it is for.
        alpha: coefficient of the overwrite.
        checkpoint_sha256: hash of the weights the table was made from.

    Raises:
        UnknownName: the file has no such cluster.
        UserError: it is no such file, or names neurons that the policy does not have.
    """
    dictionaries = read_dictionaries(path)
    if not name and len(dictionaries) == 1:
        (name,) = dictionaries
    if not name and dictionaries:
        raise UserError(f"{path} has the clusters {', '.join(dictionaries)}; choose one: --name")
    if name not in dictionaries:
        raise UnknownName(f"cluster of {path}", name, dictionaries)
    if not dictionaries[name]:
        raise UserError(f"{path}: the cluster '{name}' is empty")
    places = [_place(table, name, flat) for flat in dictionaries[name]]
    return Intervention(
        name=name,
        operator="overwrite",
        sites=sites_of(places),
        coefficient=alpha,
        provenance={
            "method": "imported",
            "file": Path(path).name,
            "checkpoint_sha256": checkpoint_sha256,
            "size": len(places),
            "neurons": [place_named(place) for place in places],
        },
    )


def strangers(table: pl.DataFrame, path: Path | str, cluster: Intervention) -> int:
    """How many neurons share no token with what their file says of them.

    A file of another model names neurons that exist here too, and mean something else.
    """
    width = _width(table)
    told = read_dictionaries(path)[cluster.name]
    places = places_of(cluster)
    spelled = rows_of(table, places).get_column("top_tokens").to_list()
    count = 0
    for (layer, neuron), tokens in zip(places, spelled, strict=True):
        words = {token.strip() for token in told[layer * width + neuron]}
        count += bool(words) and not words & {token.strip() for token in tokens}
    return count


def written(table: pl.DataFrame, cluster: Intervention) -> str:
    """Return a cluster as YAML: flat indices, with the first tokens of each."""
    import yaml

    width = _width(table)
    rows = rows_of(table, places_of(cluster)).select("layer", "neuron", "top_tokens").rows()
    neurons = {
        layer * width + neuron: [token.strip() for token in tokens[:WRITTEN_TOKENS]]
        for layer, neuron, tokens in rows
    }
    return yaml.safe_dump(
        {cluster.name: neurons},
        allow_unicode=True,
        sort_keys=False,
        default_flow_style=None,
        width=1000,
    )


def _dictionary(path: Path | str, name: str, given: object) -> Dictionary:
    if isinstance(given, list):
        given = {flat: [] for flat in map(str, given)}
    if not isinstance(given, dict):
        raise UserError(f"{path}: '{name}' should be {{flat index: [tokens]}} or [flat index, ...]")
    neurons = {}
    for flat, tokens in given.items():
        if not re.fullmatch(r"\d{1,30}", str(flat), re.ASCII):
            raise UserError(f"{path}: '{name}' holds {flat[:20]!r}, which is no flat index")
        neurons[int(flat)] = tuple(map(str, tokens)) if isinstance(tokens, list) else (str(tokens),)
    return neurons


def _place(table: pl.DataFrame, name: str, flat: int) -> Place:
    width = _width(table)
    layers = table.get_column("layer").max() + 1
    if flat >= layers * width:
        raise UserError(
            f"'{name}' holds the flat index {flat}; this policy has {layers} layers of {width} "
            f"neurons, 0 to {layers * width - 1}"
        )
    return divmod(flat, width)


def _width(table: pl.DataFrame) -> int:
    return table.get_column("neuron").max() + 1
