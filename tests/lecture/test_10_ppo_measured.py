"""C17, C18, C19: what PPO does to a batch, measured on real runs on CartPole-v1.

    L_θk(θ)    = Ê[ r_t(θ) Â_t ]
    L^CLIP(θ)  = Ê[ min(r_t(θ) Â_t, clip(r_t(θ), 1-ε, 1+ε) Â_t) ]

C17: along the line from θ_k through θ_{k+1}. C18: β from a hundredth and from a hundred
times its default. C19: many steps on a batch against one.
"""

import math
from unittest.mock import patch

import numpy as np
import pytest
import torch
from measured import SHORT, along_the_update, updates

import actor_critic
import ppo_clip
import ppo_kl
import reinforce
import vpg_baseline

ALPHAS = np.linspace(-0.5, 3, 71)
RUNS = [(0, 1)]  # seed, number of updates k
RUNS += [pytest.param(seed, 10, marks=pytest.mark.slow) for seed in range(3)]


# Seeds 0 to 9, updates 1 and 10: the top is at α = 0.85 to 1.55. At α = 1 there is 0.81
# to 1.00 of it; at α = 3 at most 0.43, and mostly less than nothing.
@pytest.mark.parametrize("seed, k", RUNS)
def test_C17_the_clipped_objective_turns_down_past_an_update(seed, k, tmp_path, report):
    flags = f"--seed {seed} {SHORT}"
    args, seen = updates(ppo_clip, flags, tmp_path / "run", iterations=k)
    tops = []
    for *update, _ in seen[0], seen[-1]:
        unclipped, clipped, kl = along_the_update(args, *update, ALPHAS)
        here, there = np.argmin(abs(ALPHAS)), np.argmin(abs(ALPHAS - 1))
        # at θ_k they are one, in value and slope; elsewhere one bounds the other
        assert unclipped[here] == pytest.approx(clipped[here], abs=1e-6)
        slopes = [(x[here + 1] - x[here - 1]) / 0.1 for x in (unclipped, clipped)]
        assert slopes[0] == pytest.approx(slopes[1], rel=0.05) and slopes[0] > 0
        assert (clipped <= unclipped + 1e-6).all()
        assert kl[here] == pytest.approx(0, abs=1e-6) and kl[there] > 0.001
        # the clipped one has its top near the update, the unclipped one far beyond
        tops.append(ALPHAS[clipped.argmax()])
        assert 0.5 < tops[-1] < 2
        assert clipped[there] > 0.7 * clipped.max()
        assert clipped[-1] < 0.7 * clipped.max()
        assert unclipped[-1] > unclipped[there]
    if k == 10:
        report(C17_top_of_the_clipped_objective_at=tops)


def betas_and_kls(beta, run_dir, **limit):
    """β_k and D̄_KL(θ_{k+1}‖θ_k) / δ of every iteration of a run from β_0 on."""
    flags = f"--beta {beta} --total-steps 40000 {SHORT}"
    args, seen = updates(ppo_kl, flags, run_dir, **limit)
    kl = np.array([metrics["train/kl"] for *_, metrics in seen]) / args.target_kl
    return np.array([metrics["train/beta"] for *_, metrics in seen]), kl


def test_C18_beta_is_doubled_from_15_delta_on_and_halved_up_to_delta_over_15():
    low, high = 1 / 1.5, 1.5  # the boundaries belong to the rule
    factors = {9: 2, high: 2, math.nextafter(high, 0): 1, 1: 1}
    factors |= {math.nextafter(low, 1): 1, low: 0.5, 0: 0.5}
    for kl, factor in factors.items():
        for beta in 0.25, 1.0, 40.0:
            assert ppo_kl.adapt_beta(beta, kl * 0.5, target_kl=0.5) == factor * beta


def test_C18_a_beta_that_holds_the_policy_too_tight_is_halved_every_time(tmp_path):
    beta, kl = betas_and_kls(100.0, tmp_path / "run", iterations=3)
    assert (kl < 1 / 1.5).all()
    assert (beta == 100 / 2.0 ** np.arange(3)).all()


# Seeds 0 to 9: the KL reaches the band, or jumps over it, in iteration 8 at the latest;
# then the median of β is 0.16 to 0.78; 0.10 to 0.40 of all iterations violate the
# constraint.
@pytest.mark.slow
@pytest.mark.parametrize("beta_0", [0.01, 100.0])
def test_C18_beta_adapts_fast_and_most_keep_the_constraint(beta_0, tmp_path, report):
    beta, kl = betas_and_kls(beta_0, tmp_path / "run")
    violated, large = kl >= 1.5, kl > 1 / 1.5
    adapted = np.argmin(violated) if beta_0 < 1 else np.argmax(large)
    report(C18_iterations_to_the_band=adapted + 1)
    report(C18_share_that_violates=violated.mean())
    assert adapted <= 10
    assert (large & ~violated).any()
    assert violated.any() and violated.mean() < 0.5
    assert 0.02 < np.median(beta[10:25]) < 2  # from either side to the same size


def policy_steps_per_batch(script, run_dir):
    """How many steps Adam takes on the policy in each update of a short run."""
    steps, update = [0], script.update

    def watched(args, policy, *others):
        metrics = update(args, policy, *others)
        adam = next(x for x in others if isinstance(x, torch.optim.Adam))
        steps.append(adam.state[next(policy.parameters())]["step"].item())
        return metrics

    with patch.object(script, "update", watched):
        script.train(script.parse_args(["--total-steps", "4096", "--run-dir", run_dir]))
    return np.diff(steps).astype(int)


@pytest.mark.parametrize("script", [reinforce, vpg_baseline, actor_critic])
def test_C19_the_policy_gradient_throws_a_batch_away_after_one_step(script, tmp_path):
    steps = policy_steps_per_batch(script, f"{tmp_path}/run")
    assert len(steps) >= 2 and set(steps) == {1}


@pytest.mark.parametrize("script", [ppo_kl, ppo_clip])
def test_C19_PPO_takes_many_steps_on_each_batch(script, tmp_path, report):
    # 2048 rows make 8 minibatches, and 7 if some are reset rows; 5 epochs
    steps = policy_steps_per_batch(script, f"{tmp_path}/run")
    report(C19_steps_on_a_batch=max(steps))
    assert len(steps) >= 2 and set(steps) <= {35, 40}


STEPS = 20_000


def returns(script, run_dir, flags=""):
    """Mean of the last 20 episodes of STEPS environment steps, for three seeds."""
    means = []
    for seed in range(3):
        run = f"{flags} --seed {seed} --total-steps {STEPS} --run-dir"
        folder = run_dir / f"{script.__name__}{flags}{seed}"
        _, history = script.train(script.parse_args([*run.split(), str(folder)]))
        means.append(np.mean([x for _, x in history[-20:]]))
    return np.round(means).astype(int)


# Seeds 0 to 9: 200 to 490 by many steps; 33 to 44 by one; vpg_baseline 100 to 191;
# actor_critic 494 to 500.
@pytest.mark.slow
def test_C19_many_steps_on_a_batch_or_small_batches_come_further(tmp_path, report):
    for script in ppo_kl, ppo_clip:  # the same PPO, batches, critic and step size
        many = returns(script, tmp_path)
        one = returns(script, tmp_path, "--epochs 1 --minibatch-size 1000000")
        report(**{f"C19_{script.__name__}": many})
        report(**{f"C19_{script.__name__}_one_step": one})
        assert (many > one + 100).all()
    # The actor-critic's batches are an eighth of the size, and so it takes eight steps
    # where PPO collects one batch.
    vanilla = returns(vpg_baseline, tmp_path)
    actor = returns(actor_critic, tmp_path)
    report(C19_vpg_baseline=vanilla, C19_actor_critic=actor)
    report(C19_environment_steps=STEPS)
    assert (actor > vanilla + 150).all()
