"""Suites: gymnasium environments with LIBERO's observation and action interface.

A suite is a module with SUITE, TASKS (each with `name`, `instruction`, `horizon`), `task_id_of`,
`instruction_of`, `other_instruction_of` (the same task with another object), `make_env`,
`sim_state_size`, N_INIT_STATES, OBJECT_NAMES, CAMERAS, CONTROL_HZ, WORKSPACE and JOINTS.
"""

from types import ModuleType

from traces.errors import UnknownName

SUITES = ("tabletop",)


def load_suite(name: str) -> ModuleType:
    """Import a suite; its renderer comes with it.

    Raises:
        UnknownName: there is no such suite.
        UserError: there is no GL library to render with.
    """
    if name not in SUITES:
        raise UnknownName("suite", name, SUITES)
    from engine.envs import tabletop

    return tabletop
