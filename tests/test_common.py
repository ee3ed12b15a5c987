"""common.py against cases worked by hand and against slow loops that are plainly right.

The slow loops take one row at a time and add up the lecture's sums term by term. They
are compared on random batches that hold everything a rollout can hold: terminated and
truncated episodes, both at once, several episodes in a column, reset rows in between,
an episode cut off by the border of the batch.
"""

import math
from collections import namedtuple

import numpy as np
import pytest

from common import (
    explained_variance,
    generalized_advantages,
    n_step_returns,
    normalize,
    normalize_each_step,
    rewards_to_go,
)

SEEDS = range(60)
Batch = namedtuple("Batch", "rewards values terminated done valid")


def random_batch(seed):
    """What Gymnasium's vector environments give: after each end comes a reset row."""
    rng = np.random.default_rng(seed)
    T, N = rng.integers(1, 16), rng.integers(1, 4)
    rewards, values = rng.normal(size=(T, N)), rng.normal(size=(T + 1, N))
    terminated, done = np.zeros((2, T, N), dtype=bool)
    valid = np.ones((T, N), dtype=bool)
    for i in range(N):
        after_an_end = rng.random() < 0.3  # the rollout before may have ended with one
        for t in range(T):
            if after_an_end:
                valid[t, i], rewards[t, i], after_an_end = False, 0.0, False
                continue
            terminated[t, i] = rng.random() < 0.15
            truncated = rng.random() < 0.15
            done[t, i] = after_an_end = terminated[t, i] or truncated
    return Batch(rewards, values, terminated, done, valid)


def episodes(batch):
    """(column, first row, row after the last) of each piece of an episode."""
    T, N = batch.rewards.shape
    for i in range(N):
        start = None
        for t in range(T):
            if batch.valid[t, i] and start is None:
                start = t
            if start is not None and (batch.done[t, i] or t == T - 1):
                yield i, start, t + 1
                start = None


def slow_n_step_return(batch, t, i, gamma, n):
    """r_t + γ r_{t+1} + ..., stopped after n rewards, at an end or at the border."""
    total, k = 0.0, 0
    while True:
        total += gamma**k * batch.rewards[t + k, i]
        k += 1
        if batch.terminated[t + k - 1, i]:
            return total
        if k == n or batch.done[t + k - 1, i] or t + k == len(batch.rewards):
            return total + gamma**k * batch.values[t + k, i]


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


# Rewards 1, 2 and values 8, 6, 4: the episode has three possible ends after row 1.
ENDS = {
    "the border of the batch": (NO, NO),
    "a time limit": (NO, YES),
    "a terminal state": (YES, YES),  # also where the time limit is reached in it
}


def batch_of_two(end):
    terminated, done = ENDS[end]
    return (
        column(1.0, 2.0),
        column(8.0, 6.0, 4.0),
        column(NO, terminated),
        column(NO, done),
    )


@pytest.mark.parametrize(
    "end, n, expected",
    [
        ("the border of the batch", 1, [1 + 0.5 * 6, 2 + 0.5 * 4]),
        ("a time limit", 1, [1 + 0.5 * 6, 2 + 0.5 * 4]),
        ("a terminal state", 1, [1 + 0.5 * 6, 2]),
        ("the border of the batch", 2, [1 + 0.5 * 2 + 0.25 * 4, 2 + 0.5 * 4]),
        ("a time limit", 2, [1 + 0.5 * 2 + 0.25 * 4, 2 + 0.5 * 4]),
        ("a terminal state", 2, [1 + 0.5 * 2, 2]),
        ("the border of the batch", math.inf, [1 + 0.5 * 2 + 0.25 * 4, 2 + 0.5 * 4]),
        ("a time limit", math.inf, [1 + 0.5 * 2 + 0.25 * 4, 2 + 0.5 * 4]),
        ("a terminal state", math.inf, [1 + 0.5 * 2, 2]),
    ],
)
def test_n_step_returns_by_hand(end, n, expected):
    returns = n_step_returns(*batch_of_two(end), gamma=0.5, n=n)
    assert returns[:, 0].tolist() == expected


@pytest.mark.parametrize(
    "end, expected",
    [  # δ_0 = 1 + 3 - 8 = -4; δ_1 = 2 + 2 - 6 = -2, or 2 - 6 = -4 at a terminal state
        ("the border of the batch", [-4 + 0.25 * -2, -2]),
        ("a time limit", [-4 + 0.25 * -2, -2]),
        ("a terminal state", [-4 + 0.25 * -4, -4]),
    ],
)
def test_generalized_advantages_by_hand(end, expected):
    advantages = generalized_advantages(*batch_of_two(end), gamma=0.5, lam=0.5)
    assert advantages[:, 0].tolist() == expected


def test_after_an_end_nothing_flows_back_by_hand():
    """Row 0 ends an episode by its time limit, row 1 is the reset, row 2 the next one.

    V(s_1) = 6 is the value of the last observation, which the reset row still shows.
    """
    rewards, values = column(1.0, 0.0, 2.0), column(8.0, 6.0, 100.0, 4.0)
    terminated, done = column(NO, NO, NO), column(YES, NO, NO)
    batch = rewards, values, terminated, done
    assert rewards_to_go(rewards, done, 0.5)[0, 0] == 1
    assert n_step_returns(*batch, 0.5, math.inf)[0, 0] == 1 + 0.5 * 6
    assert n_step_returns(*batch, 0.5, 2)[0, 0] == 1 + 0.5 * 6
    assert generalized_advantages(*batch, 0.5, 0.5)[0, 0] == 1 + 0.5 * 6 - 8


# Random batches against the slow loops. Only valid rows are compared: the others are
# resets, and their results mean nothing.


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("gamma", [0.0, 0.9, 1.0])
def test_rewards_to_go_adds_up_the_rewards_to_the_end_of_the_episode(seed, gamma):
    batch = random_batch(seed)
    returns = rewards_to_go(batch.rewards, batch.done, gamma)
    for i, first, end in episodes(batch):
        for t in range(first, end):
            terms = [gamma ** (k - t) * batch.rewards[k, i] for k in range(t, end)]
            assert returns[t, i] == pytest.approx(sum(terms), abs=1e-10)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("n", [1, 2, 3, 5, 100, math.inf])
def test_n_step_returns_are_what_a_slow_loop_adds_up(seed, n):
    batch = random_batch(seed)
    returns = n_step_returns(*data(batch), 0.9, n)
    for t, i in np.argwhere(batch.valid):
        expected = slow_n_step_return(batch, t, i, 0.9, n)
        assert returns[t, i] == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("seed", SEEDS)
def test_one_step_returns_and_lambda_0_are_temporal_differences(seed):
    batch = random_batch(seed)
    following = np.where(batch.terminated, 0.0, batch.values[1:])
    td_target = batch.rewards + 0.9 * following
    returns = n_step_returns(*data(batch), 0.9, 1)
    np.testing.assert_allclose(returns, td_target)
    advantages = generalized_advantages(*data(batch), 0.9, 0.0)
    np.testing.assert_allclose(advantages, td_target - batch.values[:-1])


@pytest.mark.parametrize("seed", SEEDS)
def test_endless_returns_and_lambda_1_are_monte_carlo(seed):
    """The discounted rewards of the piece, and V of where it was cut, if it was cut."""
    batch = random_batch(seed)
    returns = n_step_returns(*data(batch), 0.9, math.inf)
    advantages = generalized_advantages(*data(batch), 0.9, 1.0)
    for i, first, end in episodes(batch):
        cut = not batch.terminated[end - 1, i]
        for t in range(first, end):
            monte_carlo = cut * 0.9 ** (end - t) * batch.values[end, i]
            monte_carlo += sum(
                0.9 ** (k - t) * batch.rewards[k, i] for k in range(t, end)
            )
            advantage = monte_carlo - batch.values[t, i]
            assert returns[t, i] == pytest.approx(monte_carlo, abs=1e-10)
            assert advantages[t, i] == pytest.approx(advantage, abs=1e-10)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("lam", [0.0, 0.3, 0.95, 1.0])
def test_generalized_advantages_blend_the_n_step_advantages(seed, lam):
    """(1-λ) (Â^(1) + λ Â^(2) + λ² Â^(3) + ...), where the last one gets what is left.

    With K steps to the end of the piece, Â^(n) is the same for all n >= K, and their
    weights (1-λ) (λ^{K-1} + λ^K + ...) add up to λ^{K-1}.
    """
    batch = random_batch(seed)
    advantages = generalized_advantages(*data(batch), 0.9, lam)
    for i, first, end in episodes(batch):
        for t in range(first, end):
            blend, K = 0.0, end - t
            for n in range(1, K + 1):
                weight = lam ** (n - 1) * (1 - lam if n < K else 1)
                return_n = slow_n_step_return(batch, t, i, 0.9, n)
                blend += weight * (return_n - batch.values[t, i])
            assert advantages[t, i] == pytest.approx(blend, abs=1e-10)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_batch_gives_what_its_trajectories_give_one_by_one(seed):
    batch = random_batch(seed)
    returns = rewards_to_go(batch.rewards, batch.done, 0.9)
    n_step = n_step_returns(*data(batch), 0.9, 3)
    advantages = generalized_advantages(*data(batch), 0.9, 0.8)
    for i, first, end in episodes(batch):
        rows, column = slice(first, end), slice(i, i + 1)
        rewards = batch.rewards[rows, column]
        values = batch.values[first : end + 1, column]
        terminated, done = batch.terminated[rows, column], batch.done[rows, column]
        alone = rewards, values, terminated, done
        one_by_one = {
            "rewards_to_go": (returns, rewards_to_go(rewards, done, 0.9)),
            "n_step": (n_step, n_step_returns(*alone, 0.9, 3)),
            "gae": (advantages, generalized_advantages(*alone, 0.9, 0.8)),
        }
        for name, (together, single) in one_by_one.items():
            np.testing.assert_allclose(together[rows, column], single, err_msg=name)


@pytest.mark.parametrize("seed", SEEDS)
def test_valid_rows_do_not_depend_on_what_stands_in_reset_rows(seed):
    """Rewards and flags of reset rows are garbage here, and nothing else changes.

    Their values stay: V of a reset row is V of the last observation before it.
    """
    batch = random_batch(seed)
    rng = np.random.default_rng(seed)
    resets = ~batch.valid
    garbage = batch._replace(
        rewards=np.where(resets, 1e6 * rng.normal(size=resets.shape), batch.rewards),
        terminated=np.where(resets, rng.random(resets.shape) < 0.5, batch.terminated),
        done=np.where(resets, rng.random(resets.shape) < 0.5, batch.done),
    )

    def valid_rows(batch):
        results = [
            rewards_to_go(batch.rewards, batch.done, 0.9),
            n_step_returns(*data(batch), 0.9, 3),
            n_step_returns(*data(batch), 0.9, math.inf),
            generalized_advantages(*data(batch), 0.9, 0.95),
        ]
        return [result[batch.valid].tolist() for result in results]

    assert valid_rows(garbage) == valid_rows(batch)


def gae(rewards, values, terminated, done):
    return generalized_advantages(rewards, values, terminated, done, 0.9, 0.95)


def three_steps(rewards, values, terminated, done):
    return n_step_returns(rewards, values, terminated, done, 0.9, 3)


def to_go(rewards, values, terminated, done):
    return rewards_to_go(rewards, done, 0.9)


@pytest.mark.parametrize("function", [to_go, three_steps, gae])
def test_not_even_nan_in_a_reset_row_reaches_a_valid_row(function):
    batch = column(1.0, math.nan, 2.0), np.ones((4, 1)), *[column(YES, NO, NO)] * 2
    result = function(*batch)
    assert np.isnan(result[1, 0])
    assert np.isfinite(result[[0, 2]]).all()


def test_random_batches_hold_every_case_that_the_tests_above_are_about():
    batches = [random_batch(seed) for seed in SEEDS]
    pieces = [list(episodes(batch)) for batch in batches]
    assert any((b.done & ~b.terminated).any() for b in batches)  # truncated
    assert any(b.terminated.any() for b in batches)
    assert any((~b.valid[0]).any() for b in batches)  # begins with a reset row
    assert any((~b.valid[-1]).any() for b in batches)  # ends with one
    assert any(b.done[-1].any() for b in batches)  # an end in the last row
    assert any((b.valid & ~b.done)[-1].any() for b in batches)  # the border cuts
    assert any(len(p) > 2 * b.rewards.shape[1] for p, b in zip(pieces, batches))
    assert any(len(b.rewards) == 1 for b in batches)


def test_the_arguments_stay_as_they_were():
    batch = random_batch(3)
    before = [array.copy() for array in batch]
    rewards_to_go(batch.rewards, batch.done, 0.9)
    n_step_returns(*data(batch), 0.9, 2)
    generalized_advantages(*data(batch), 0.9, 0.95)
    valid = np.ones_like(batch.done)
    normalize(batch.rewards, valid)
    normalize_each_step(batch.rewards, valid)
    explained_variance(batch.values, batch.values)
    for array, copy in zip(batch, before):
        np.testing.assert_array_equal(array, copy)


# normalize and explained_variance


def test_normalize_gives_mean_0_and_standard_deviation_1_in_any_shape():
    for shape in [(7,), (3, 4), (2, 3, 4)]:
        x = 5 + 3 * np.random.default_rng(0).normal(size=shape)
        y = normalize(x, np.ones(shape, dtype=bool))
        assert y.shape == shape
        assert y.mean() == pytest.approx(0, abs=1e-9)
        assert y.std() == pytest.approx(1, abs=1e-6)
        np.testing.assert_allclose(y, (x - x.mean()) / x.std(), rtol=1e-6)


def test_normalize_by_hand():
    np.testing.assert_allclose(normalize([1, 3], [True, True]), [-1, 1], rtol=1e-6)
    np.testing.assert_allclose(
        normalize([0, 0, 0, 4], [True] * 4), np.array([-1, -1, -1, 3]) / 3**0.5
    )


def test_normalize_counts_valid_elements_alone():
    x, valid = np.array([[1.0, 50.0], [3.0, -7.0]]), np.array([[True, False]] * 2)
    np.testing.assert_allclose(normalize(x, valid)[valid], [-1, 1], rtol=1e-6)
    x[~valid] = np.nan
    np.testing.assert_allclose(normalize(x, valid)[valid], [-1, 1], rtol=1e-6)


def test_normalize_is_safe_where_nothing_varies():
    assert normalize([5.0], [True]).tolist() == [0.0]
    every = np.ones((2, 2), dtype=bool)
    assert normalize([[7, 7], [7, 7]], every).tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert normalize([], np.array([], dtype=bool)).tolist() == []
    assert normalize([[1.0]], [[False]]).tolist() == [[1.0]]
    assert normalize(np.zeros((0, 3)), np.zeros((0, 3), dtype=bool)).shape == (0, 3)


def test_normalize_each_step_by_hand():
    """At t = 0 the mean is 4, at t = 1 that of the two that are left, at t = 2 of one.

    Deviations: 1, -2, 1; 3, -3; 0. Their mean is 0, their standard deviation 2.
    """
    x = [[5.0, 2.0, 5.0], [9.0, 3.0, 1e6], [8.0, 1e6, 1e6]]
    valid = np.array([[1, 1, 1], [1, 1, 0], [1, 0, 0]], dtype=bool)
    found = normalize_each_step(x, valid)
    assert found.shape == (3, 3)
    np.testing.assert_allclose(found[valid], [0.5, -1, 0.5, 1.5, -1.5, 0], rtol=1e-6)


def test_normalize_each_step_leaves_nothing_of_what_the_time_step_decides():
    """Returns under a time limit, the same in each trajectory: nothing to prefer."""
    returns = (0.1 * np.arange(500.0, 0.0, -1.0))[:, None]
    for N in range(2, 20):
        same = returns.repeat(N, axis=1)
        valid = np.ones_like(same, dtype=bool)
        assert not normalize_each_step(same, valid).any()  # of no rounding error either
        assert normalize(same, valid).std() == pytest.approx(1)


def test_normalize_each_step_subtracts_a_baseline_if_that_leaves_less_variance():
    """Returns 1, 5 at t = 0 and 4, 4 at t = 1: -2, 2, 0, 0 without their means.

    The first baseline, -2, 2, -1, 1 without its means, leaves 0, 0, 1, -1, which varies
    less. The second leaves -4, 4, 0, 0 and the third 2, -2, 0, 0, which don't.
    """
    returns, valid = [[1.0, 5.0], [4.0, 4.0]], np.ones((2, 2), dtype=bool)
    root = 2**0.5
    for baseline, expected in [
        ([[0.0, 4.0], [0.0, 2.0]], [[0, 0], [root, -root]]),
        ([[4.0, 0.0], [0.0, 0.0]], [[-root, root], [0, 0]]),
        ([[0.0, 8.0], [7.0, 7.0]], [[-root, root], [0, 0]]),
    ]:
        found = normalize_each_step(returns, valid, baseline)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_normalize_each_step_no_baseline_tells_apart_trajectories_that_agree():
    returns, valid = np.full((4, 3), 0.1), np.ones((4, 3), dtype=bool)
    baseline = np.random.default_rng(0).normal(size=(4, 3))
    assert not normalize_each_step(returns, valid, baseline).any()


def test_normalize_each_step_of_one_trajectory_keeps_the_mean_of_all_its_steps():
    x, valid = [[1.0], [3.0], [9.0]], np.array([[True], [True], [False]])
    np.testing.assert_allclose(normalize_each_step(x, valid)[:2, 0], [-1, 1], rtol=1e-6)


def test_explained_variance_of_a_perfect_a_constant_and_a_worse_critic():
    target = np.array([1.0, 2.0, 3.0, 6.0])
    assert explained_variance(target, target) == 1
    assert explained_variance(np.full(4, 9.0), target) == 0
    assert explained_variance(-target, target) == pytest.approx(1 - 4)  # Var[2 target]
    assert explained_variance(target / 2, target) == pytest.approx(0.75)


def test_explained_variance_does_not_count_a_constant_error():
    """It is about variance: a critic that is off by 10 everywhere still gets 1."""
    target = np.array([[1.0, 2.0], [3.0, 6.0]])
    assert explained_variance(target + 10, target) == pytest.approx(1)


def test_explained_variance_is_0_where_the_target_does_not_vary():
    assert explained_variance([1.0, 2.0], [3.0, 3.0]) == 0
    assert explained_variance([1.0], [2.0]) == 0
    assert explained_variance([], []) == 0


# Wrong arguments. T = 3, N = 2; each case replaces one array by one that doesn't fit.

RIGHT = {"rewards": (3, 2), "values": (4, 2), "terminated": (3, 2), "done": (3, 2)}
WRONG = [
    ("rewards", (3,)),
    ("rewards", (2, 2)),
    ("rewards", (3, 2, 1)),
    ("values", (3, 2)),
    ("values", (5, 2)),
    ("values", (4, 1)),
    ("values", (4,)),
    ("terminated", (3, 1)),
    ("terminated", (4, 2)),
    ("done", (2, 3)),
    ("done", (1, 2)),
]


def call(function, rewards, values, terminated, done):
    """The function on these arrays, as far as it takes them."""
    if function is rewards_to_go:
        return rewards_to_go(rewards, done, 0.9)
    return function(rewards, values, terminated, done, 0.9, 1)  # n or λ is 1


@pytest.mark.parametrize(
    "function, name, shape",
    [
        (function, name, shape)
        for function in (rewards_to_go, n_step_returns, generalized_advantages)
        for name, shape in WRONG
        if function is not rewards_to_go or name in ("rewards", "done")
    ],
)
def test_shapes_that_do_not_fit_raise_value_error(function, name, shape):
    arrays = {name: np.zeros(shape) for name, shape in RIGHT.items()}
    assert call(function, **arrays).shape == (3, 2)  # these fit
    with pytest.raises(ValueError, match="shape|must be"):
        call(function, **arrays | {name: np.zeros(shape)})


def test_explained_variance_of_two_shapes_raises_value_error():
    with pytest.raises(ValueError, match="shapes differ"):
        explained_variance(np.zeros((3, 1)), np.zeros(3))  # would broadcast to (3, 3)


@pytest.mark.parametrize("n", [0, -1, 0.5, 2.5, math.nan, -math.inf])
def test_n_that_is_no_whole_number_of_steps_raises_value_error(n):
    with pytest.raises(ValueError, match="n must be"):
        n_step_returns(*data(random_batch(0)), 0.9, n)


def test_n_may_be_a_whole_float_as_the_command_line_gives_it():
    batch = random_batch(1)
    whole, floating = (n_step_returns(*data(batch), 0.9, n) for n in (3, 3.0))
    assert whole.tolist() == floating.tolist()
