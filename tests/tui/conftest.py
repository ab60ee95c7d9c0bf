"""The commands are tested on the same small traces as the analysis."""

import importlib.util
from pathlib import Path

_path = Path(__file__).parents[1] / "analysis" / "conftest.py"
_spec = importlib.util.spec_from_file_location("analysis_conftest", _path)
_builders = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_builders)

traces = _builders.traces
paired = _builders.paired
