"""A member of a stack trains bit for bit as it does alone, whatever happens to the others (CPU, float32)."""

from __future__ import annotations

import pytest
import torch

from tc_sweeps.config import resolve
from tc_sweeps.corpus import build_corpus
from tc_sweeps.model import CorpusModule, StackModule, build_model, loss, loss_floor
from tc_sweeps.model.prefixes import Batch, full_batch

pytestmark = pytest.mark.filterwarnings("ignore:.*(run with no optimizer|num_workers|LeafSpec|`GPU` available).*")

STEPS = 60
EVERYTHING = {"layers": 2, "mlp_width": 12, "positions": True, "layer_norm": True, "biases": True}
CP = {"name": "cp", "rank": 7}

# Eight members that differ in all that may differ inside a stack: seed, corpus and its size, rate, decay.
MEMBERS = [
    {"seed": 0, "num_sentences": 50, "learning_rate": 1e-2, "weight_decay": 0.0},
    {"seed": 1, "num_sentences": 9, "learning_rate": 3e-3, "weight_decay": 0.1},
    {"seed": 2, "num_sentences": 81, "learning_rate": 2e-2, "weight_decay": 0.01},
    {"seed": 2, "num_sentences": 23, "learning_rate": 2e-2, "weight_decay": 0.01},
    {"seed": 3, "num_sentences": 1, "learning_rate": 1e-2, "weight_decay": 0.0},
    {"seed": 4, "num_sentences": 64, "learning_rate": 1e-3, "weight_decay": 1.0},
    {"seed": 5, "num_sentences": 37, "learning_rate": 1e-2, "weight_decay": 0.0},
    {"seed": 6, "num_sentences": 50, "learning_rate": 5e-2, "weight_decay": 0.0},
]

ROOMY = {"vocab_size": 12}  # contexts that are not in the data

SHAPES = {
    "the paper's": {},
    "two layers": {"model": {"layers": 2}},
    "tied": {"model": {"tied": True, "init_scale": 3.0}},
    "odd widths": {"model": {"width": 13, "heads": 3, "qk_width": 5, "vo_width": 3, "mlp_width": 7}},
    "everything": {"model": EVERYTHING},
    "last position": {"objective": {"positions": "last"}},
    "clipping and schedule": {"training": {"clip_norm": 0.3, "schedule": "cosine", "warmup_steps": 10}},
    "minibatch": {"training": {"batch_size": 16}},
    "minibatch, everything": {"model": EVERYTHING, "training": {"batch_size": 7}},
    "minibatch, last position": {"objective": {"positions": "last"}, "training": {"batch_size": 7}},
    "abstention": {"data": ROOMY, "objective": {"outside": {"method": "unsupported", "share": 0.5}}},
    "penalty, smoothing, replay": {
        "data": ROOMY,
        "objective": {"outside": {"method": "unlikelihood"}, "label_smoothing": 0.1, "replay": 0.3},
    },
    "abstention in minibatches": {
        "data": ROOMY | {"num_sentences": 50},  # the share of a minibatch depends on it
        "objective": {"outside": {"method": "unsupported"}},
        "training": {"batch_size": 8},
    },
    "order 2": {"data": {"order": 2, "vocab_size": 90, "num_sentences": 60}},
    "order 4": {"data": {"order": 4, "sampler": "uniform", "num_sentences": 56}},
    "CP": {"model": CP},
    "CP, order 4, last position": {
        "model": CP,
        "data": {"order": 4, "sampler": "uniform", "num_sentences": 56},
        "objective": {"positions": "last"},
    },
    "CP, abstention in minibatches": {
        "model": CP,
        "data": ROOMY | {"num_sentences": 50},
        "objective": {"outside": {"method": "unsupported"}},
        "training": {"batch_size": 8},
    },
}


def configs(shape: dict, members=range(8), **training):
    made = []
    for member in (MEMBERS[m] for m in members):
        shared = {"steps": STEPS, "evaluations": 3, **shape.get("training", {})}
        own = {name: member[name] for name in ("learning_rate", "weight_decay")}
        made.append(
            resolve(
                {
                    "seed": member["seed"],
                    "data": {"vocab_size": 9, "num_sentences": member["num_sentences"], **shape.get("data", {})},
                    "model": CP if shape.get("model") == CP else {"width": 16, "heads": 2, **shape.get("model", {})},
                    "objective": shape.get("objective", {}),
                    "training": shared | own | training,
                }
            )
        )
    return made


def weights(module, member: int) -> dict[str, torch.Tensor]:
    return {name: value[member].detach().clone() for name, value in module.model.named_parameters()}


def assert_same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert torch.equal(found[name], value), f"{name} is apart by {(found[name] - value).abs().max()}"


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_stacked_equals_solo_in_float64_but_for_rounding(fit, shape):
    """Independence itself: padding, masks and randomness are right when rounding is out of the picture."""
    eight = configs(shape)
    stack_of_eight = fit(eight, precision=torch.float64)
    stack_of_three = fit(eight[1:4], precision=torch.float64)
    for member in (1, 3, 4):
        solo = weights(fit([eight[member]], precision=torch.float64), 0)
        for stack, place in [(stack_of_eight, member), (stack_of_three, member - 1)][: 2 if member < 4 else 1]:
            found = weights(stack, place)
            for name, value in solo.items():
                torch.testing.assert_close(found[name], value, rtol=1e-7, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")
        name, before = initial(eight[member])
        assert (solo[name] - before).abs().max() > 1e-3


def initial(config) -> tuple[str, torch.Tensor]:
    """Return the name of a model's first parameter, and what it begins with."""
    corpus = build_corpus(config.data)
    model = build_model(config.model, vocab_size=corpus.vocab_size, max_length=corpus.order - 1, seeds=[config.seed])
    name, value = next(model.named_parameters())
    return name, value[0].detach()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_stacked_equals_solo_bit_for_bit_in_a_bucket(fit, shape):
    """Members of one bucket have the same shapes alone and together, whatever else differs, and so the same bits."""
    eight = configs(shape)
    if "num_sentences" not in shape.get("data", {}):
        for place, config in enumerate(eight):
            config.data.num_sentences = 50 + place % 3
    rows = {batch.prefixes.wanted_MR.shape[1] for batch in map(batch_of, eight) if isinstance(batch, Batch)}
    assert len(rows) <= 1
    stack_of_eight = fit(eight)
    stack_of_three = fit(eight[1:4])
    for member in range(8):
        solo = weights(fit([eight[member]]), 0)
        assert_same(weights(stack_of_eight, member), solo)
        if member in (1, 2, 3):
            assert_same(weights(stack_of_three, member - 1), solo)


def batch_of(config):
    return CorpusModule([build_corpus(config.data)], [config]).batch


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_members_place_and_neighbours_leave_its_weights_alone_bit_for_bit(fit, shape):
    """With shapes and places in memory unchanged, not one bit depends on the seeds and rates of the others."""
    eight = configs(shape)
    others = configs(shape)
    for member in (0, 2, 4, 5, 6, 7):
        others[member].seed += 100
        others[member].training.learning_rate *= 2
        others[member].training.weight_decay += 0.1
    first, second = fit(eight), fit(others)
    for member in (1, 3):
        assert_same(weights(second, member), weights(first, member))
    name, _ = initial(eight[0])
    assert not torch.equal(weights(first, 0)[name], weights(second, 0)[name])


@pytest.mark.parametrize("training", [{}, {"batch_size": 16}, {"clip_norm": 1.0}], ids=str)
def test_a_member_whose_loss_is_not_finite_is_recorded_and_takes_nobody_with_it(fit, training):
    shape = {"training": training, "model": {"mlp_width": 8}}
    healthy, broken = configs(shape, members=(0, 1, 2)), configs(shape, members=(0, 1, 2))
    broken[1].training.learning_rate = 1e9
    without, together = fit(healthy), fit(broken)
    failed_step = int(together.failed_step_M[1])
    assert 0 < failed_step < STEPS
    assert together.failed_step_M.tolist() == [-1, failed_step, -1]
    assert together.active_M.tolist() == [True, False, True]
    assert without.failed_step_M.tolist() == [-1, -1, -1]
    for member in (0, 2):
        assert_same(weights(together, member), weights(without, member))


def test_a_failed_member_stays_where_its_loss_was_not_finite(fit):
    shape = {"model": {"mlp_width": 8}}
    broken = configs(shape, members=(0, 1, 2), learning_rate=1e9)
    long = fit(broken)
    failed = long.failed_step_M.tolist()
    assert all(0 < step < STEPS for step in failed)
    short = configs(shape, members=(0, 1, 2), learning_rate=1e9, steps=max(failed), evaluations=1)
    stopped = fit(short)  # the last step that any of them makes, for it is made before the loss is looked at
    for member in range(3):
        assert_same(weights(long, member), weights(stopped, member))


def test_a_member_is_put_to_sleep_by_its_flag(fit):
    """What the callback does at an evaluation: a member that is done no longer moves, the others go on."""
    shape = {}
    eight = configs(shape, members=(0, 1, 2))
    module = StackModule(fit(configs(shape, members=(0, 1, 2), steps=20, evaluations=1)).model, eight)
    module.active_M[1] = False
    before = [weights(module, member) for member in range(3)]
    module.on_fit_start()
    batch = CorpusModule([build_corpus(config.data) for config in eight], eight).batch
    for _ in range(5):
        module._optimize(module._rows(batch))
    assert_same(weights(module, 1), before[1])
    for member in (0, 2):
        assert not torch.equal(weights(module, member)["embedding"], before[member]["embedding"])
    assert module.failed_step_M.tolist() == [-1, -1, -1]


def test_training_reaches_the_floor_of_the_loss(fit):
    """The whole path at work: a small functional corpus is fitted, up to what a model without positions cannot."""
    config = resolve(
        {
            "data": {"vocab_size": 20, "num_sentences": 30},
            "objective": {"positions": "last"},
            "training": {"steps": 400, "evaluations": 2, "learning_rate": 2e-2},
        }
    )
    corpus = build_corpus(config.data)
    module, batch = fit([config], [corpus]), full_batch(corpus, "last")
    found = loss(module.model.logits(batch.prefixes), batch.targets).item()
    assert loss_floor(corpus, "last") == 0
    assert found < 0.02


def test_blocks_of_steps_make_the_same_weights_as_one_block(fit):
    one = fit(configs({}, members=(0,), steps=40, evaluations=1))
    many = fit(configs({}, members=(0,), steps=40, evaluations=7))
    assert_same(weights(many, 0), weights(one, 0))
    assert many.blocks == [0, 6, 11, 17, 23, 29, 34, 40]


# --------------------------------------------------------------------------------------------- starting in the middle


RESUMED = {"the paper's": {}, "everything, schedule": {"model": EVERYTHING, **SHAPES["clipping and schedule"]},
           "minibatch": {"training": {"batch_size": 16}}, "CP": {"model": CP}}  # fmt: skip


@pytest.mark.parametrize("shape", RESUMED.values(), ids=RESUMED)
def test_a_stack_that_starts_in_the_middle_ends_with_the_same_bits(fit, shape):
    """20 + 20 steps are 40, for the stack and for a member taken out of it at half time."""
    stack = configs(shape, members=(0, 2, 5), steps=40, evaluations=4)
    for place, config in enumerate(stack):
        config.data.num_sentences = 50 + place
    whole = fit(stack).state()
    half = {name: value.clone() for name, value in fit(stack, evaluations=2).state().items()}
    assert not torch.equal(half[initial(stack[0])[0]], whole[initial(stack[0])[0]])
    resumed = fit(stack, state=half, evaluations_made=2)
    assert_same(resumed.state(), whole)
    assert int(resumed.steps_made) == 40
    for m in range(3):
        alone = fit([stack[m]], state={name: value[m : m + 1] for name, value in half.items()}, evaluations_made=2)
        assert_same(alone.state(), {name: value[m : m + 1] for name, value in whole.items()})


def test_the_state_names_every_parameter_and_both_its_moments(fit):
    module = fit(configs({}, members=(0, 1), steps=2, evaluations=1))
    names = [name for name, _ in module.model.named_parameters()]
    state = module.state()
    assert list(state) == [*names, *(f"mean.{name}" for name in names), *(f"square.{name}" for name in names)]
    for name in names:
        assert state[name].shape == state[f"mean.{name}"].shape == state[f"square.{name}"].shape
        assert (state[f"square.{name}"] >= 0).all()
        assert not torch.equal(state[f"mean.{name}"], state[name])
