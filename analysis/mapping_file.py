"""A small file that a person wrote, YAML, TOML or JSON, which is one mapping."""

import json
import tomllib
from pathlib import Path

from traces.errors import MissingFile, UserError

READERS = {".yaml": "YAML", ".yml": "YAML", ".toml": "TOML", ".json": "JSON"}


def read_mapping(path: Path | str) -> dict[str, object]:
    """Read a mapping; YAML scalars stay the text they are, so that `on` is a word.

    Raises:
        MissingFile: there is no such file.
        UserError: its name ends in none of `READERS`, it cannot be read, or holds no mapping.
    """
    path = Path(path).expanduser()
    kind = READERS.get(path.suffix.lower())
    if kind is None:
        raise UserError(f"{path}: expected a file that ends in {', '.join(READERS)}")
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise MissingFile(path) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    try:
        content = _parsed(kind, text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not {kind}: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(f"{path}: expected names with what belongs to each, `name: [...]`")
    return content


def _parsed(kind: str, text: str) -> object:
    if kind == "TOML":
        return tomllib.loads(text)
    if kind == "JSON":
        return json.loads(text)
    import yaml

    try:
        return yaml.load(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        raise ValueError(error) from None
