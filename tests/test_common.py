"""common.py against cases worked by hand and against slow loops that are plainly right.

They are compared on random batches that hold all that a rollout can hold: terminated
and truncated episodes, both at once, several in a column, reset rows in between, an
episode cut off by the border of the batch.
"""

import math
from collections import namedtuple

import numpy as np
import pytest
from support import random_rollout, slow_targets

import actor_critic
from common import (
    explained_variance,
    generalized_advantages,
    n_step_returns,
    normalize,
    rewards_to_go,
)

Batch = namedtuple("Batch", "rewards values terminated done valid")


def random_batch(seed):
    rng = np.random.default_rng(seed)
    T, N = rng.integers(1, 16), rng.integers(1, 4)
    rollout = random_rollout(actor_critic, seed=seed, T=T, N=N)
    values = rng.normal(size=(T + 1, N))
    flags = rollout.terminated, rollout.done, rollout.valid
    return Batch(rollout.rewards, values, *flags)


BATCHES = [random_batch(seed) for seed in range(60)]


def data(batch):
    """What n_step_returns and generalized_advantages take, in their order."""
    return batch.rewards, batch.values, batch.terminated, batch.done


def column(*numbers):
    """One environment's numbers as a (T, 1) array."""
    return np.array(numbers)[:, None]


NO, YES = False, True

# Cases worked by hand. γ = 1/2 and λ = 1/2 keep every number exact.


def test_rewards_to_go_by_hand():
    """Two episodes in one column, and a second column that the border cuts off."""
    rewards = np.array([[1.0, 8.0], [2.0, 4.0], [4.0, 2.0]])
    done = np.array([[NO, NO], [YES, NO], [NO, NO]])
    returns = rewards_to_go(rewards, done, gamma=0.5)
    assert returns.tolist() == [[2.0, 10.5], [2.0, 5.0], [4.0, 2.0]]


# Rewards 1, 2 and values 8, 6, 4; n = 1, n = 2 and more, λ = 1/2 with
# δ_0 = 1 + 3 - 8 = -4; δ_1 = 2 + 2 - 6 = -2, or 2 - 6 = -4 at a terminal state
CUT = [1 + 0.5 * 6, 2 + 0.5 * 4], [1 + 0.5 * 2 + 0.25 * 4, 2 + 0.5 * 4], [-4.5, -2]
TERMINAL = [1 + 0.5 * 6, 2], [1 + 0.5 * 2, 2], [-4 + 0.25 * -4, -4]


def test_the_three_ends_of_an_episode_by_hand():
    """The border of the batch, a time limit, a terminal state."""
    for terminated, done in (NO, NO), (NO, YES), (YES, YES):
        one_step, longer, advantages = TERMINAL if terminated else CUT
        batch = column(1.0, 2.0), column(8.0, 6.0, 4.0)
        batch += column(NO, terminated), column(NO, done)
        assert n_step_returns(*batch, gamma=0.5, n=1)[:, 0].tolist() == one_step
        for n in 2, 3, math.inf:
            assert n_step_returns(*batch, gamma=0.5, n=n)[:, 0].tolist() == longer
        found = generalized_advantages(*batch, gamma=0.5, lam=0.5)
        assert found[:, 0].tolist() == advantages


# Random batches against the slow loops. Only valid rows are compared: the others are
# resets, and their results mean nothing.


def check(found, expected):
    for row, number in expected.items():
        assert found[row] == pytest.approx(number, abs=1e-10)


def test_rewards_to_go_and_n_step_returns_are_what_a_slow_loop_adds_up():
    for batch in BATCHES:
        for gamma in 0.0, 0.9, 1.0:
            returns = rewards_to_go(batch.rewards, batch.done, gamma)
            check(returns, slow_targets(batch, 0 * batch.values, gamma))
        for n in 1, 2, 3, 5, 100, math.inf:
            returns = n_step_returns(*data(batch), 0.9, n)
            check(returns, slow_targets(batch, batch.values, 0.9, n))


@pytest.mark.parametrize("lam", [0.0, 0.3, 0.95, 1.0])
def test_generalized_advantages_blend_the_n_step_advantages(lam):
    """(1-λ) (Â^(1) + λ Â^(2) + ...), where the last one gets what is left."""
    for batch in BATCHES:
        targets = generalized_advantages(*data(batch), 0.9, lam) + batch.values[:-1]
        check(targets, slow_targets(batch, batch.values, 0.9, lam=lam))


def results(batch):
    """All three functions on a batch."""
    return [
        rewards_to_go(batch.rewards, batch.done, 0.9),
        n_step_returns(*data(batch), 0.9, 3),
        n_step_returns(*data(batch), 0.9, math.inf),
        generalized_advantages(*data(batch), 0.9, 0.95),
    ]


def test_valid_rows_do_not_depend_on_what_stands_in_reset_rows():
    """But on their values: V of a reset row is V of the last observation before it."""
    rng = np.random.default_rng(0)
    for batch in BATCHES:
        resets, shape = ~batch.valid, batch.valid.shape
        garbage = batch._replace(
            rewards=np.where(resets, np.nan, batch.rewards),
            terminated=np.where(resets, rng.random(shape) < 0.5, batch.terminated),
            done=np.where(resets, rng.random(shape) < 0.5, batch.done),
        )
        for one, other in zip(results(garbage), results(batch)):
            np.testing.assert_array_equal(one[batch.valid], other[batch.valid])


def test_the_arguments_stay_as_they_were():
    batch = random_batch(3)
    before = [array.copy() for array in batch]
    results(batch)
    normalize(batch.rewards, batch.valid)
    explained_variance(batch.values, batch.values)
    for array, copy in zip(batch, before):
        np.testing.assert_array_equal(array, copy)


def test_float32_arrays_and_lists_give_float64_results():
    """Long sums of rewards are added up in double precision."""
    batch = random_batch(3)
    single = Batch(*(a.astype(np.float32) if a.dtype == float else a for a in batch))
    lists = Batch(*(array.tolist() for array in batch))
    for converted in single, lists:
        for found, expected in zip(results(converted), results(batch)):
            assert found.dtype == np.float64
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    ones = np.ones((10_000, 1), np.float32) / 3
    total = rewards_to_go(ones, np.zeros_like(ones), 1.0)[0, 0]
    assert total == pytest.approx(10_000 * float(ones[0, 0]), rel=1e-12)
    double = single.rewards.astype(float)
    found, expected = (normalize(x, batch.valid) for x in (single.rewards, double))
    np.testing.assert_array_equal(found, expected)


# normalize and explained_variance


def test_normalize_gives_mean_0_and_standard_deviation_1_over_the_valid_elements():
    x, expected = np.array([0, 0, 0, 4]), np.array([-1, -1, -1, 3]) / 3**0.5
    for shape in (4,), (2, 2), (1, 4, 1):
        found = normalize(x.reshape(shape), np.ones(shape, dtype=bool))
        np.testing.assert_allclose(found, expected.reshape(shape))
    valid = np.array([True, False, True])
    for other in 50.0, np.nan:
        found = normalize([1.0, other, 3.0], valid)[valid]
        np.testing.assert_allclose(found, [-1, 1], rtol=1e-6)


def test_normalize_is_safe_where_nothing_varies():
    assert normalize([5.0], [True]).tolist() == [0.0]
    every = np.ones((2, 2), dtype=bool)
    assert normalize([[7, 7], [7, 7]], every).tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert normalize([[1.0]], [[False]]).tolist() == [[1.0]]
    assert normalize(np.zeros((0, 3)), np.zeros((0, 3), dtype=bool)).shape == (0, 3)


def test_explained_variance_of_a_perfect_a_constant_and_a_worse_critic():
    target = np.array([1.0, 2.0, 3.0, 6.0])
    assert explained_variance(target, target) == 1
    assert explained_variance(np.full(4, 9.0), target) == 0
    assert explained_variance(-target, target) == pytest.approx(1 - 4)  # Var[2 target]
    assert explained_variance(target / 2, target) == pytest.approx(0.75)
    # it is about variance: a critic that is off by 10 everywhere still gets 1
    square = target.reshape(2, 2)
    assert explained_variance(square + 10, square) == pytest.approx(1)
    # 0 where the target does not vary
    for prediction, constant in ([1.0, 2.0], [3.0, 3.0]), ([1.0], [2.0]), ([], []):
        assert explained_variance(prediction, constant) == 0


# Wrong arguments


def test_shapes_that_do_not_fit_raise_value_error():
    """With T = 3 and N = 2, one array at a time."""
    fit = {"rewards": (3, 2), "values": (4, 2), "terminated": (3, 2), "done": (3, 2)}
    wrong = [("rewards", (3,)), ("rewards", (3, 2, 1)), ("done", (2, 3))]
    wrong += [("values", (3, 2)), ("values", (4, 1)), ("terminated", (3, 1))]
    arrays = {name: np.zeros(shape) for name, shape in fit.items()}
    for function in n_step_returns, generalized_advantages:
        assert function(*arrays.values(), 0.9, 1).shape == (3, 2)
        for name, shape in wrong:
            with pytest.raises(ValueError, match="shape|must be"):
                function(*(arrays | {name: np.zeros(shape)}).values(), 0.9, 1)
    with pytest.raises(ValueError, match="shape"):
        rewards_to_go(arrays["rewards"], np.zeros((2, 3)), 0.9)
    with pytest.raises(ValueError, match="shapes differ"):
        explained_variance(np.zeros((3, 1)), np.zeros(3))  # would broadcast to (3, 3)


def test_n_must_be_a_whole_number_of_steps_and_may_be_a_float():
    batch = data(random_batch(1))
    for n in 0, -1, 0.5, 2.5, math.nan, -math.inf:
        with pytest.raises(ValueError, match="n must be"):
            n_step_returns(*batch, 0.9, n)
    whole, floating = (n_step_returns(*batch, 0.9, n) for n in (3, 3.0))
    assert whole.tolist() == floating.tolist()
