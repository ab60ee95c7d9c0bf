"""What made a recording: the versions of packages, and the commit of the checkout it ran from."""

import importlib.metadata
import subprocess
from pathlib import Path

PACKAGES = ("vla-trace", "lerobot", "torch", "transformers", "mujoco", "numpy", "h5py")
GIT_SECONDS = 10.0


def package_versions() -> dict[str, str]:
    """Version of each package that can move a byte of a recording."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def versions() -> dict[str, object]:
    """The attribute `versions` of a trace: packages, and `git` as in `checkout`."""
    return package_versions() | {"git": checkout()}


def checkout(file: Path | str = __file__) -> dict[str, object] | None:
    """The commit that a source file belongs to.

    Args:
        file: a file of the package.

    Returns:
        `commit`, and `dirty`: whether a tracked file differs from it. None where the file is not
        under version control (an installed package, even inside another project), or without git.
    """
    file = Path(file).resolve()
    if _git(file.parent, "ls-files", "--error-unmatch", file.name) is None:
        return None
    commit = _git(file.parent, "rev-parse", "--verify", "HEAD")
    changed = _git(file.parent, "status", "--porcelain", "--untracked-files=no")
    if commit is None or changed is None:
        return None
    return {"commit": commit, "dirty": bool(changed)}


def _git(folder: Path, *words: str) -> str | None:
    """What git prints; None when it fails or is not there. It takes no lock of the repository."""
    command = ["git", "--no-optional-locks", "-C", str(folder), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=GIT_SECONDS)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
