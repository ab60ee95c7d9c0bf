import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.controls import family, null_control, random_clusters
from traces.errors import UserError
from traces.intervention import Intervention, Site


def table(n_neurons: int, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "layer": np.repeat([0, 1], n_neurons).astype(np.int32),
            "neuron": np.tile(np.arange(n_neurons), 2).astype(np.int32),
            "v_norm": rng.lognormal(size=2 * n_neurons).astype(np.float32),
        }
    )


def chosen(*neurons: int, **changes) -> Intervention:
    return Intervention("fast", "overwrite", (Site("vlm", 1, neurons, **changes),), 8.0)


@given(st.integers(0, 1000), st.integers(1, 12))
def test_controls_keep_layer_size_and_dose_and_never_hold_a_chosen_neuron(seed, size):
    cluster = chosen(*range(size))
    for control in random_clusters(table(60), cluster, 3, seed):
        (site,) = control.sites
        assert (site.layer, site.tower, control.coefficient) == (1, "vlm", 8.0)
        assert control.operator == cluster.operator
        assert len(set(site.neurons)) == size
        assert not set(site.neurons) & set(range(size))


def test_norms_are_matched():
    """The mean norm of the controls is the cluster's, far from that of the layer."""
    neurons = table(384)
    norms = neurons.filter(pl.col("layer") == 1)["v_norm"].to_numpy()
    largest = [int(n) for n in np.argsort(norms)[-40::4]]  # ten of the forty largest
    controls = random_clusters(neurons, chosen(*largest), 20, pool=20)
    means = [norms[list(c.sites[0].neurons)].mean() for c in controls]
    assert np.mean(means) == pytest.approx(norms[largest].mean(), rel=0.3)
    assert min(means) > 1.5 * norms.mean()


def test_seeds_repeat_and_differ():
    cluster = chosen(1, 2, 3)
    one, same, other = (
        [c.fingerprint() for c in random_clusters(table(60), cluster, 4, seed)]
        for seed in (0, 0, 1)
    )
    assert one == same
    assert len(set(one) | set(other)) == 8


@pytest.mark.parametrize(
    ("cluster", "words"),
    [(chosen(*range(7)), "too few"), (chosen(1, vector=(0.5,)), "own doses")],
)
def test_what_cannot_be_matched_is_said(cluster, words):
    with pytest.raises(UserError, match=words):
        random_clusters(table(12), cluster, 1)


def test_a_null_control_holds_the_same_neurons_where_nothing_reads_them():
    cluster = chosen(4, 2, 9)
    neurons = table(12).with_columns(reach=pl.col("layer") == 0)
    null = null_control(neurons, cluster)
    assert null.sites == (Site("vlm", 1, (2, 4, 9)),)
    assert (null.operator, null.coefficient) == (cluster.operator, cluster.coefficient)
    assert null.provenance == {"control": "null", "matched_to": family(cluster)}
    assert null_control(neurons.with_columns(reach=pl.lit(True)), cluster) is None


def test_a_family_is_the_same_at_every_dose():
    assert family(chosen(1, 2)) == family(chosen(1, 2).with_coefficient(-3.0))
    assert family(chosen(1, 2)) != family(chosen(1, 3))
