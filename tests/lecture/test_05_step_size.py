"""C7 and C20: how long a step Δ_k = α_k ĝ_k of the policy gradient may be.

The problem is the corridor of measured.py, with π_θ(right) = σ(θ). J(θ) is a hill,
computed exactly: -11.6 on top at θ = 0.35, and on either side a cliff down to -50,
where no episode gets through before the horizon. Here everything starts on the slope,
at θ = -1.5 and J = -22.3.
"""

import numpy as np
import pytest
from measured import SLOPE, TOP, J, K, learn, walk_corridor
from torch.optim import SGD, Adam

import actor_critic
import ppo_clip
import ppo_kl
import vpg_baseline

ALPHA = 0.3
BARE = {ppo_clip: "--clip-epsilon inf", ppo_kl: "--beta 0"}


def test_the_hill_has_its_top_where_these_tests_say(report):
    thetas = np.arange(-8, 8, 0.05)
    assert thetas[np.argmax(J(thetas))] == pytest.approx(TOP)
    assert J(TOP) == pytest.approx(-11.6, abs=0.05)
    assert J(SLOPE) == pytest.approx(-22.3, abs=0.05)
    assert J(-8) < -49.9 and J(8) < -49.7
    report(C7_J_at_the_top=J(TOP), C7_J_at_the_start=J(SLOPE))


def test_walks_through_the_corridor_earn_J_on_average():
    for theta in SLOPE, TOP, 2.0:
        rollout = walk_corridor(theta, np.random.default_rng(0), m=20_000)
        returns = (rollout.rewards * rollout.valid).sum(axis=0)
        error = returns.std() / np.sqrt(len(returns))
        assert abs(returns.mean() - J(theta)) < 4 * error


# Seeds 0 to 9: J = -50.0 after the first step, and at most -49.9 ever after.
def test_C7_one_step_that_is_too_large_collapses_the_policy_for_good():
    for seed in range(3):
        thetas = learn(actor_critic, K * ALPHA, seed, iterations=12)
        assert J(thetas[1:]).max() < -48
        # At θ_k the ratio is 1, nothing is clipped, and the KL has no gradient (C13).
        # What the PPOs hold back is the sum of many steps.
        for script in ppo_clip, ppo_kl:
            one = learn(script, K * ALPHA, seed, iterations=1, flags="--epochs 1")
            assert one[1] == pytest.approx(thetas[1], rel=1e-5)


# Seeds 0 to 9: -46.7 to -41.7 with the bare ratio; after four batches -17.8 to -11.6
# with the clip and -12.5 to -11.6 with the penalty, and never below -22.6.
@pytest.mark.parametrize("script", [ppo_clip, ppo_kl])
def test_C7_K_steps_on_one_batch_collapse_with_the_bare_ratio_only(script):
    assert J(learn(script, ALPHA, 0, 1, BARE[script])[1]) < -38
    performance = J(learn(script, ALPHA, seed=0, iterations=4))
    assert min(performance) > -26
    assert performance[-1] > J(SLOPE) + 3


@pytest.mark.slow
def test_C7_the_same_on_ten_seeds(report):
    kinds = {
        "one_step": (actor_critic, K * ALPHA, ""),
        "bare": (ppo_clip, ALPHA, BARE[ppo_clip]),
        "clip": (ppo_clip, ALPHA, ""),
        "penalty": (ppo_kl, ALPHA, ""),
    }
    runs = {}
    for name, (script, alpha, flags) in kinds.items():
        thetas = [learn(script, alpha, seed, 8, flags) for seed in range(10)]
        runs[name] = J(np.array(thetas))
        first_and_last = np.sort(runs[name][:, [1, -1]], axis=0)[[0, -1]].T
        ranges = [f"{low:.1f} to {high:.1f}" for low, high in first_and_last]
        report(**{f"C7_{name}": ranges})
    report(C7_K=K, C7_alpha=ALPHA)
    assert runs["one_step"][:, 1:].max() < -48
    assert runs["bare"][:, 1].max() < -38
    for name in "clip", "penalty":
        assert runs[name][:, 1].mean() > J(SLOPE) + 3
        assert (runs[name][:, -1] > -15).sum() >= 8
        assert runs[name].min() > -38


# C20, with the vanilla policy gradient of vpg_baseline.py
PLAIN = SGD, ""
NORMALISED = "--normalize-advantages"
HELPED = [(SGD, NORMALISED), (Adam, ""), (Adam, NORMALISED)]


def vanilla(kind, alpha, seed, iterations, **settings):
    """θ_0, θ_1, ...; kind is an optimiser and flags."""
    optimizer, flags = kind
    return learn(vpg_baseline, alpha, seed, iterations, flags, optimizer, **settings)


def result(kind, scale, alpha, seed):
    """Mean J of the last five of 25 updates, with rewards × scale."""
    thetas = vanilla(kind, alpha, seed, iterations=25, m=16, scale=scale)
    return J(thetas[-5:]).mean()


@pytest.mark.parametrize("kind", [PLAIN, *HELPED])
def test_C20_only_the_step_of_plain_SGD_grows_with_the_scale_of_the_rewards(kind):
    steps = [np.diff(vanilla(kind, 0.01, 0, 1, scale=scale)) for scale in (1, 100)]
    small, large = np.concatenate(steps)
    assert large / small == pytest.approx(100 if kind == PLAIN else 1, rel=1e-3)
    if kind[0] is Adam:  # as long as α, whatever the gradient
        assert abs(small) == pytest.approx(0.01, rel=1e-3)


# Seeds 0 to 9. Too slow: -22.0 to -21.9. Right: -12.6 to -11.9. Collapsed: -50.0.
def test_C20_with_plain_SGD_another_scale_of_rewards_needs_another_alpha():
    small, large = 1e-4, 1e-2
    assert result(PLAIN, 1, small, seed=0) < -21  # too slow: still where it began
    assert result(PLAIN, 1, large, seed=0) > -15
    assert result(PLAIN, 100, small, seed=0) > -15
    assert result(PLAIN, 100, large, seed=0) < -45


# Seeds 0 to 9: -12.8 to -11.6 with α = 0.1, -50.0 to -39.5 with α = 10.
@pytest.mark.parametrize("kind", HELPED)
def test_C20_with_Adam_or_normalised_advantages_one_alpha_serves_both_scales(kind):
    assert result(kind, 1, 0.1, seed=0) > -15
    assert result(kind, 100, 0.1, seed=0) > -15
    assert result(kind, 1, 10.0, seed=0) < -30  # neither saves too large a step


def test_C20_the_right_step_size_at_one_theta_is_wrong_at_another(report):
    # ĝ of 1000 trajectories, far down the slope and further up; the best α along each
    alphas, best, gradients = np.logspace(-3, 1, 81), {}, {}
    for theta in -4.0, SLOPE:
        start, end = vanilla(PLAIN, 1.0, 0, iterations=1, theta=theta, m=1000)
        gradients[theta] = end - start
        heights = J(theta + alphas * gradients[theta])
        best[theta] = alphas[np.argmax(heights)]
        assert max(heights) == pytest.approx(J(TOP), abs=0.1)
    report(C20_best_alpha=[*best.values()])
    assert best[-4.0] > 4 * best[SLOPE]
    # the α that leads from -4 to the top throws the other off the cliff
    assert J(SLOPE + best[-4.0] * gradients[SLOPE]) < -48
    # and the other's leaves the one at -4 far down the slope
    assert J(-4.0 + best[SLOPE] * gradients[-4.0]) < -40


@pytest.mark.slow
def test_C20_the_step_sizes_that_work(report):
    """The whole table: six step sizes, two scales of rewards, three seeds."""
    alphas = [1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0]
    names = ["sgd", "sgd_normalised", "adam", "adam_normalised"]
    report(C20_step_sizes=alphas)
    for name, kind in zip(names, [PLAIN, *HELPED]):
        works = []
        for scale in 1, 100:
            rows = [[result(kind, scale, a, seed) for seed in range(3)] for a in alphas]
            works.append([a for a, row in zip(alphas, rows) if min(row) > -15])
        report(**{f"C20_{name}": works})
        if kind == PLAIN:
            assert max(works[1]) < min(works[0])
        else:
            assert works[1] == works[0] != []
        assert 10.0 not in works[0]
