"""Config keys that belong to the identity of a run."""

import json

import hypothesis.strategies as st
import ml_collections
from hypothesis import given

from rfxray.config.identity import decays_otherwise, identity_of
from rfxray.config.load import check_config
from rfxray.config.schema import defaults

changed = st.sampled_from(
    [
        "seed=1",
        "batch_size=16",
        "data.split=validation",
        "data.weights=2.0",
        "data.closed_vocabulary_negatives=false",
        "model.width=64",
        "model.depth=3",
        "model.dtype=bfloat16",
        "objective.prediction=v",
        "objective.shift=2.0",
        "objective.drop_each=0.1",
        "optim.learning_rate=1.0",
        "optim.schedule=cosine",
        "optim.warmup=3",
        "ema_sigmas=0.1",
    ]
)
free = st.sampled_from(
    [
        "steps=50",
        "data.dirs=elsewhere",
        "data.make=x",
        "data.threads=9",
        "data.workers=1",
        "data.prefetch=9",
        "data.tolerate=3",
        "mesh.fsdp=4",
        "mesh.tensor=2",
        "model.attention=xla",
        "model.remat=full",
        "model.unroll=2",
        "accumulate=2",
        "skip.factor=9.0",
        "log_every=9",
        "checkpoint_every=9",
        "checkpoint_keep=9",
        "ema_every=9",
        "watchdog.seconds=9.0",
        "profile.first=1",
        "evaluators.validation_loss.every=3",
        "evaluators.validation_loss.batches=3",
        "evaluators.sample_grid.n=3",
        "evaluators.sample_grid.solver=euler",
    ]
)


@given(st.lists(free, max_size=5), st.none() | changed)
def test_identity_is_every_key_that_is_not_runtime(make_config, runtime, other):
    before = identity_of(make_config(), "data")
    after = identity_of(make_config(*runtime, *([other] if other else [])), "data")
    differ = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    allowed = {other.partition("=")[0]} if other else set()
    if other == "optim.schedule=cosine":
        allowed.add("steps")  # the shape of a cosine depends on its last step
    assert differ == allowed
    assert json.loads(json.dumps(after)) == after


def test_evaluators_are_not_identity(make_config):
    before = identity_of(make_config(), "data")
    other = ml_collections.ConfigDict(make_config())
    with other.unlocked():
        other.evaluators = ml_collections.ConfigDict()
    assert identity_of(check_config(other), "data") == before


def test_kinds_and_optimizer_of_every_part_are_identity():
    identity = identity_of(check_config(defaults(parts={"critic": "radit"})), "data")
    assert identity["model.kind"] == identity["parts.critic.model.kind"] == "radit"
    assert identity["objective.kind"] == "flow_matching"
    assert identity["parts.critic.optim.learning_rate"] == 3e-4
    assert "parts.critic.model.remat" not in identity
    assert "steps" not in identity
    config = defaults(parts={"critic": "radit"})
    config.parts.critic.optim.schedule = "cosine"
    assert identity_of(check_config(config), "data")["steps"] == config.steps


def test_steps_may_change_until_the_learning_rate_decays(make_config):
    def other(steps, step, *keys):
        wsd = ("optim.schedule=wsd", "optim.decay=20", "steps=100")
        return decays_otherwise(make_config(*wsd, *keys), steps, step)

    # Step 81 is the last one at the peak learning rate; step 82 is the first below it.
    assert not other(100, 100)
    assert not other(200, 81)
    assert other(200, 82)
    assert not other(50, 31)
    assert other(50, 32)
    assert not other(200, 100, "optim.schedule=constant")


def test_decay_of_a_part_fixes_the_steps_too():
    config = defaults(parts={"critic": "radit"})
    config.steps = 100
    config.parts.critic.optim.schedule, config.parts.critic.optim.decay = "wsd", 20
    config = check_config(config)
    assert not decays_otherwise(config, 200, 81)
    assert decays_otherwise(config, 200, 82)


def test_identity_depends_on_the_data_fingerprint(make_config):
    assert identity_of(make_config(), "one") != identity_of(make_config(), "two")
