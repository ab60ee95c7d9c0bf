"""Which GL library MuJoCo renders with. Call `choose_backend` before `mujoco` is imported."""

import ctypes.util
import os
from pathlib import Path

from traces.errors import UserError

LIBRARY_OF = {"egl": "EGL", "osmesa": "OSMesa", "glfw": "GL"}


def choose_backend() -> str:
    """Set and return MUJOCO_GL: the user's own choice, else EGL on a GPU, else OSMesa, else EGL.

    Raises:
        UserError: no library that can render is installed; names the package to install.
    """
    chosen = os.environ.get("MUJOCO_GL", "").lower()
    if chosen and chosen not in LIBRARY_OF:
        raise UserError(f"MUJOCO_GL={chosen!r} cannot render here; use egl or osmesa, or unset it")
    if not chosen:
        order = ("egl", "osmesa") if _has_gpu() else ("osmesa", "egl")
        chosen = next((name for name in order if _installed(name)), "")
    if not chosen or not _installed(chosen):
        library = LIBRARY_OF.get(chosen, "OSMesa")
        raise UserError(
            f"no GL library to render with (looked for lib{library}); "
            "install one: apt-get install libosmesa6 (software) or libegl1 (GPU)"
        )
    os.environ["MUJOCO_GL"] = chosen
    os.environ.setdefault("PYOPENGL_PLATFORM", chosen)
    return chosen


def _installed(backend: str) -> bool:
    return ctypes.util.find_library(LIBRARY_OF[backend]) is not None


def _has_gpu() -> bool:
    return Path("/dev/nvidia0").exists() or Path("/dev/dri/renderD128").exists()
