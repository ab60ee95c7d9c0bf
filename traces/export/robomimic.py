"""LIBERO and robomimic: one HDF5 file, a demonstration an episode, LIBERO's names.

    data/demo_0/actions, states, robot_states, rewards, dones
    data/demo_0/obs/agentview_rgb, eye_in_hand_rgb, ee_pos, ee_ori, ee_states, gripper_states
    data/demo_0/interp/<site>/values, decision        what was recorded inside the policy
    data/demo_0/interp/steps, decisions               columns of the trace without such a name
    vla_trace                                         JSON: the headers of the recordings

Names are those of LIBERO's `scripts/create_dataset.py`. `actions` are as sent to the environment.
LIBERO keeps its pictures upside down; ours are as the policy saw them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from traces.collection import TraceCollection
from traces.errors import UserError
from traces.export.episodes import Episode, episodes, left_out, provenance, shared_cameras

PICTURES = {
    "agentview": "agentview_rgb",
    "wrist": "eye_in_hand_rgb",
    "robot0_eye_in_hand": "eye_in_hand_rgb",
}
"""Camera of a scene to LIBERO's name of its pictures."""

GYM, ROBOSUITE = 2, 1
"""robomimic's `EnvType`."""

NAMED = {"action", "reward", "ee_pos", "gripper"}
"""Columns of steps/ that have a LIBERO name."""


def export(
    traces: TraceCollection, out: Path, *, frames: bool = True, activations: bool = True
) -> list[str]:
    """Write the file and return what is to be said about it.

    Args:
        traces: what to export; widths of actions must agree.
        out: name of the new file.
        frames: with pictures, which must be there for every step.
        activations: with what was recorded inside the policy.

    Raises:
        UserError: pictures were not kept at every step, or actions differ in width.
    """
    widths = {recording.header.A for recording in traces.recordings()}
    if len(widths) > 1:
        raise UserError(f"actions have {sorted(widths)} entries in these files; export them apart")
    cameras = shared_cameras(traces) if frames else []
    total, instructions, without_states = 0, [], 0
    with h5py.File(out, "x", libver=("v110", "v110")) as file:
        file["vla_trace"] = json.dumps(provenance(traces))
        data = file.create_group("data")
        for episode in episodes(traces):
            demo = data.create_group(f"demo_{episode.number}")
            _write_steps(demo, episode)
            for camera in cameras:
                _write(demo, f"obs/{_picture_name(episode, camera)}", episode.pixels(camera))
            without_states += not _write_states(demo, episode)
            _write_inside(demo.create_group("interp"), episode, activations)
            total += len(episode.steps["t"])
            instructions.append(episode.task)
        data.attrs.update(_about(traces, instructions) | {"total": total})
    return left_out(
        ["states"] if without_states else [],
        f"not kept in {without_states} episodes; record with: vla-trace record --keep sim",
    )


def _write_steps(demo: h5py.Group, episode: Episode) -> None:
    """What LIBERO keeps of every step."""
    steps = episode.steps
    n_steps = len(steps["t"])
    ori = axis_angle(steps["ee_quat"])
    dones = np.zeros(n_steps, np.uint8)
    dones[-1:] = 1
    _write(demo, "actions", steps["action"])
    _write(demo, "rewards", steps["reward"])
    _write(demo, "dones", dones)
    robot = np.hstack([steps["gripper"], steps["ee_pos"], steps["ee_quat"]])
    _write(demo, "robot_states", robot)
    _write(demo, "obs/ee_pos", steps["ee_pos"])
    _write(demo, "obs/ee_ori", ori)
    _write(demo, "obs/ee_states", np.hstack([steps["ee_pos"], ori]))
    _write(demo, "obs/gripper_states", steps["gripper"])
    demo.attrs["num_samples"] = n_steps
    for name in ("success", "uid", "pair_key", "scene_seed"):
        demo.attrs[name] = episode.about[name]
    demo.attrs["language_instruction"] = episode.task
    demo.attrs["init_state_id"] = episode.about["init_state"]


def _write_states(demo: h5py.Group, episode: Episode) -> bool:
    """The simulator's states before every step, where they were kept: time, qpos, qvel."""
    states = episode.sim_path()
    if states is None:
        return False
    _write(demo, "states", states[:-1])
    demo.attrs["init_state"] = states[:1].ravel()
    demo.attrs["final_state"] = states[-1:].ravel()
    return True


def _write_inside(group: h5py.Group, episode: Episode, activations: bool) -> None:
    """What only a trace has: activations, and the columns without a LIBERO name."""
    intervention = episode.header.intervention
    group.attrs["recording"] = episode.recording
    group.attrs["intervention"] = "null" if intervention is None else intervention.to_json()
    for name, value in episode.about.items():
        group.attrs[name] = value
    for table, columns in (("steps", episode.steps), ("decisions", episode.decisions)):
        for name, values in columns.items():
            if name not in {"file", "episode", *(NAMED if table == "steps" else ())}:
                _write(group, f"{table}/{name}", values)
    for site in episode.sites if activations else ():
        decisions, values = episode.activation(site.name)
        _write(group, f"{site.name}/decision", decisions)
        _write(group, f"{site.name}/values", values)
        group[site.name].attrs.update(site.to_attributes())


def _write(group: h5py.Group, name: str, values: np.ndarray) -> None:
    if values.dtype.kind == "U":
        values = np.char.encode(values, "utf-8")
    group.create_dataset(name, data=values)


def _picture_name(episode: Episode, camera: str) -> str:
    """LIBERO's name for what the policy calls `camera`."""
    seen_by = str(episode.header.suite.get("cameras", {}).get(camera, camera))
    return PICTURES.get(seen_by, f"{seen_by}_rgb")


def _about(traces: TraceCollection, instructions: Sequence[str]) -> dict[str, object]:
    """The attributes of `data`. LIBERO has one instruction a file; ours may have one a demo."""
    first = traces.recordings()[0].header
    suite = str(first.suite.get("name", ""))
    tasks = sorted(set(traces.episodes("task_name")["task_name"].tolist()))
    told = sorted(set(instructions))
    env = {
        "type": ROBOSUITE if suite.startswith("libero") else GYM,
        "env_name": suite,
        "env_kwargs": {"control_freq": first.suite.get("control_hz")},
    }
    problem = {
        "problem_name": ", ".join(tasks),
        "domain_name": suite,
        "language_instruction": told[0] if len(told) == 1 else "",
        "language_instructions": told,
    }
    return {
        "env_args": json.dumps(env),
        "problem_info": json.dumps(problem),
        "bddl_file_name": "",
        "num_demos": len(instructions),
    }


def axis_angle(quat: np.ndarray) -> np.ndarray:
    """Rotation vectors (T, 3) rad of quaternions (T, 4) xyzw, as robosuite's `quat2axisangle`."""
    w = np.clip(quat[:, 3:], -1.0, 1.0)
    sine = np.sqrt(np.maximum(1.0 - w * w, 0.0))
    scale = 2.0 * np.arccos(w) / np.where(sine > 0, sine, 1.0)
    return np.where(sine > 0, quat[:, :3] * scale, 0.0)
