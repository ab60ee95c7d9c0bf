"""Where the files of a policy are, and the hash that names its weights; needs no torch."""

import hashlib
from pathlib import Path

EMBEDDED = "smolvla-tabletop"
EMBEDDED_FOLDER = Path(__file__).with_name("smolvla_tabletop")
WEIGHTS = "model.safetensors"


def policy_folder(name: str) -> Path:
    """The folder that a policy's name stands for; it need not exist."""
    return EMBEDDED_FOLDER if name == EMBEDDED else Path(name).expanduser()


def weights_sha256(folder: Path) -> str | None:
    """SHA-256 of the weights file, read piece by piece; None where there is none."""
    try:
        with (folder / WEIGHTS).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (FileNotFoundError, NotADirectoryError):
        return None
