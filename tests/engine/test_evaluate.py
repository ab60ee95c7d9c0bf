from engine.actor import Actor
from engine.envs.tabletop import SUITE, instruction_of
from engine.evaluate import rollouts
from engine.likelihoods.flow_sde import FlowSDE


def test_scenes_and_instructions_are_those_of_the_seeds(loaded):
    """Nine scenes, so two blocks: in order, told what was asked, filmed from start to end."""
    actor = Actor(loaded, FlowSDE(loaded.policy.config.num_steps), 10)
    played = list(
        rollouts(actor, SUITE, 0, range(45, 54), told=lambda text, _: f"{text} quickly", film=True)
    )
    for seed, (plan, record, frames) in zip(range(45, 54), played, strict=True):
        assert plan.scene_seed == record.episode["scene_seed"] == seed
        assert plan.init_state == seed % 50
        assert record.episode["instruction"] == f"{instruction_of(0, seed % 50)} quickly"
        assert len(frames) == len(record.steps["t"]) + 1
        assert frames[0].shape == (256, 256, 3)
