"""PPO's own rules: the clipped objective, the adaptation of β, the logged KL."""

import copy
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import actor_critic
import ppo_clip
import ppo_kl
import reinforce
import vpg_baseline

WHOLE = [reinforce, vpg_baseline]  # the scripts that take whole trajectories
each_script = pytest.mark.parametrize(
    "script", [*WHOLE, actor_critic, ppo_kl, ppo_clip]
)
each_action_space = pytest.mark.parametrize("space", ["discrete", "box"])


# The clipped objective, the figure of the lecture: ε = 0.2, and r below, inside and
# above the interval from 0.8 to 1.2.


@pytest.mark.parametrize(
    "advantage, ratio, objective, slope",
    [
        (+2.0, 0.0, 0.0, 2.0),
        (+2.0, 0.5, 1.0, 2.0),  # a good action became rarer: back, without a bound
        (+2.0, 1.0, 2.0, 2.0),
        (+2.0, 1.1, 2.2, 2.0),
        (+2.0, 1.5, 2.4, 0.0),  # it is likelier by more than ε: no reason to go on
        (+2.0, 9.0, 2.4, 0.0),
        (-2.0, 0.0, -1.6, 0.0),
        (-2.0, 0.5, -1.6, 0.0),  # a bad action is rarer by more than ε: likewise
        (-2.0, 0.9, -1.8, -2.0),
        (-2.0, 1.0, -2.0, -2.0),
        (-2.0, 1.5, -3.0, -2.0),  # it became likelier: back, without a bound
        (-2.0, 9.0, -18.0, -2.0),
        (0.0, 0.5, 0.0, 0.0),
        (0.0, 1.0, 0.0, 0.0),
        (0.0, 1.5, 0.0, 0.0),
    ],
)
def test_the_clipped_objective_and_its_slope_in_r(advantage, ratio, objective, slope):
    r = torch.tensor([ratio], dtype=torch.float64, requires_grad=True)
    A = torch.tensor([advantage], dtype=torch.float64)
    value = ppo_clip.clipped_surrogate(r, A, 0.2)
    value.sum().backward()
    assert value.item() == pytest.approx(objective, abs=1e-12)
    assert r.grad.item() == pytest.approx(slope, abs=1e-12)
    with torch.no_grad():  # the slope once more, by finite differences
        right, left = (ppo_clip.clipped_surrogate(r + h, A, 0.2) for h in (1e-6, -1e-6))
    assert ((right - left) / 2e-6).item() == pytest.approx(slope, abs=1e-6)


@pytest.mark.parametrize("advantage, corner", [(+2.0, 1.2), (-2.0, 0.8)])
def test_the_clipped_objective_is_continuous_at_its_corner(advantage, corner):
    """At the end of the interval it is still r Â, and from there on it stays."""
    A = torch.tensor([advantage], dtype=torch.float64)
    for r in corner - 1e-9, corner, corner + 1e-9:
        value = ppo_clip.clipped_surrogate(torch.tensor([r]).double(), A, 0.2)
        assert value.item() == pytest.approx(corner * advantage, abs=1e-6)


def test_the_clipped_objective_never_exceeds_the_surrogate():
    """It is a lower bound, equal to r Â where no ratio has left its interval."""
    rng = np.random.default_rng(0)
    for epsilon in 0.0, 0.1, 0.2, 0.9:
        ratio, advantage = np.exp(rng.normal(size=1000)), rng.normal(size=1000)
        arguments = torch.tensor(ratio), torch.tensor(advantage)
        clipped = ppo_clip.clipped_surrogate(*arguments, epsilon).numpy()
        plain = ppo_kl.surrogate(*arguments).numpy()
        np.testing.assert_allclose(plain, ratio * advantage)
        assert (clipped <= plain).all() and (clipped < plain).any()
        inside = abs(ratio - 1) < epsilon
        np.testing.assert_array_equal(clipped[inside], plain[inside])


# The rule for β


@pytest.mark.parametrize("delta", [0.003, 0.01, 0.03, 1.0])
@pytest.mark.parametrize(
    "kl, factor",
    [
        (lambda delta: 0.0, 1 / 2),
        (lambda delta: math.nextafter(delta / 1.5, 0), 1 / 2),
        (lambda delta: delta / 1.5, 1 / 2),  # the boundary belongs to the rule
        (lambda delta: math.nextafter(delta / 1.5, 1), 1),
        (lambda delta: delta, 1),
        (lambda delta: math.nextafter(1.5 * delta, 0), 1),
        (lambda delta: 1.5 * delta, 2),  # and so does this one
        (lambda delta: math.nextafter(1.5 * delta, 9), 2),
        (lambda delta: 100 * delta, 2),
    ],
    ids=["0", "just below δ/1.5", "δ/1.5", "just above δ/1.5", "δ"]
    + ["just below 1.5δ", "1.5δ", "just above 1.5δ", "100δ"],
)
def test_beta_doubles_from_three_halves_of_delta_and_halves_up_to_two_thirds(
    delta, kl, factor
):
    assert ppo_kl.adapt_beta(3.0, kl(delta), delta) == 3.0 * factor


@pytest.mark.parametrize("kl, bound", [(1.0, 1e6), (0.0, 1e-6)])
def test_beta_stays_finite_and_positive_and_comes_back(kl, bound):
    beta = 1.0
    for _ in range(3000):  # without bounds this is infinite, or 0 forever
        beta = ppo_kl.adapt_beta(beta, kl, 0.01)
    assert beta == bound
    back = ppo_kl.adapt_beta(beta, 1.0 - kl, 0.01)
    assert back == (bound / 2 if kl else bound * 2)


# What update() reports


def random_rollout(script, space, seed=0, T=12, N=4):
    """Random rows; every fourth is not valid and far from the others."""
    rng = np.random.default_rng(seed)
    obs, rewards = rng.normal(size=(T + 1, N, 3)), rng.normal(size=(T, N))
    if space == "discrete":
        actions = rng.integers(3, size=(T, N))
    else:
        actions = rng.normal(size=(T, N, 2)).astype(np.float32)
    done, valid = np.zeros((T, N), dtype=bool), np.ones((T, N), dtype=bool)
    if script in WHOLE:  # one trajectory a column, the first of T steps, and the rest
        done[-1, 0] = done[8, 1:] = True
        valid[9:, 1:] = False
    else:  # an end in rows 2, 6, 10, each followed by a reset row
        done[2::4], valid[3::4] = True, False
    obs[:-1][~valid] += 10.0
    obs = obs.astype(np.float32)
    return script.Rollout(obs, actions, rewards, done, done, valid, [], 0)


def updated(script, space, critics=None, **changes):
    """One update by large steps: the rollout, the policy before and after, the scalars.

    The first policy already has its preferences: around the uniform policy, KL would be
    nearly symmetric. A list that is given as critics gets the one before and after.
    """
    torch.manual_seed(0)
    envs = SimpleNamespace(
        single_observation_space=Box(-1, 1, (3,)),
        single_action_space=Discrete(3) if space == "discrete" else Box(-1, 1, (2,)),
    )
    policy = script.Policy(envs, [8], 1.0)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.7 * torch.randn(parameter.shape)
    before, networks = copy.deepcopy(policy), [policy]
    parameters = list(policy.parameters())
    if script is not reinforce:
        networks.append(script.ValueFunction(envs, [8]))
    if script not in WHOLE:
        parameters += networks[1].parameters()
    if critics is not None:
        critics += copy.deepcopy(networks[1]), networks[1]
    optimizer = torch.optim.SGD(parameters, lr=1.0)
    args = script.parse_args([])
    plain = {"num_envs": 4, "epochs": 3, "minibatch_size": 9}  # of 36 valid rows
    plain["max_grad_norm"] = 0.5  # the length of most steps
    vars(args).update(plain | changes)
    rollout = random_rollout(script, space)
    beta = [args.beta] if script is ppo_kl else []
    scalars = script.update(args, *networks, optimizer, rollout, *beta)
    return rollout, before, policy, scalars


def valid_rows(rollout):
    """The observations and actions of the valid rows, one by one."""
    for t, i in np.argwhere(rollout.valid):
        obs = torch.as_tensor(rollout.obs[t, i])[None]
        yield obs, torch.as_tensor(rollout.actions[t, i])[None]


def kl_by_hand(first, second):
    """KL(first‖second) of two distributions over one row's actions."""
    if isinstance(first, torch.distributions.Categorical):
        pairs = zip(first.probs[0].tolist(), second.probs[0].tolist())
        return sum(p * math.log(p / q) for p, q in pairs)
    m, s = first.base_dist.loc[0].tolist(), first.base_dist.scale[0].tolist()
    n, t = second.base_dist.loc[0].tolist(), second.base_dist.scale[0].tolist()
    return sum(
        math.log(t[j] / s[j]) + (s[j] ** 2 + (m[j] - n[j]) ** 2) / (2 * t[j] ** 2) - 0.5
        for j in range(len(m))
    )


@each_script
@each_action_space
def test_the_reported_kl_is_the_mean_over_valid_rows_with_the_old_policy_first(
    script, space
):
    """After all epochs and over the whole batch, although the steps saw minibatches."""
    rollout, before, after, scalars = updated(script, space, epochs=2)
    old_first, new_first = [], []
    with torch.no_grad():
        for obs, _ in valid_rows(rollout):
            old, new = before.distribution(obs), after.distribution(obs)
            old_first.append(kl_by_hand(old, new))
            new_first.append(kl_by_hand(new, old))
    assert scalars["train/kl"] == pytest.approx(np.mean(old_first), rel=1e-3)
    assert scalars["train/kl"] > 1e-3  # far from 0, and from new-first
    assert abs(np.mean(new_first) - np.mean(old_first)) > 0.01 * scalars["train/kl"]


@each_script
@each_action_space
def test_without_a_step_the_reported_kl_is_0_and_never_below(script, space):
    *_, scalars = updated(script, space, max_grad_norm=0.0)
    assert 0 <= scalars["train/kl"] < 1e-6


@each_action_space
def test_the_clip_fraction_is_the_share_of_ratios_outside_one_plus_minus_epsilon(space):
    rollout, before, after, scalars = updated(ppo_clip, space, clip_epsilon=0.1)
    outside = []
    with torch.no_grad():
        for obs, action in valid_rows(rollout):
            new = after.distribution(obs).log_prob(action).item()
            old = before.distribution(obs).log_prob(action).item()
            outside.append(math.exp(new - old) > 1.1 or math.exp(new - old) < 0.9)
    assert 0 < np.mean(outside) < 1
    assert scalars["train/clip_fraction"] == pytest.approx(np.mean(outside))
    *_, scalars = updated(ppo_clip, space, max_grad_norm=0.0)
    assert scalars["train/clip_fraction"] == 0


@each_script
@each_action_space
def test_the_reported_entropy_is_that_of_the_policy_after_the_update(script, space):
    rollout, _, after, scalars = updated(script, space)
    entropies = []
    with torch.no_grad():
        for obs, _ in valid_rows(rollout):
            distribution = after.distribution(obs)
            if space == "discrete":
                p = distribution.probs[0].tolist()
                entropies.append(-sum(x * math.log(x) for x in p))
            else:
                scales = distribution.base_dist.scale[0].tolist()
                e = [0.5 * math.log(2 * math.pi * math.e * s**2) for s in scales]
                entropies.append(sum(e))
    assert scalars["train/entropy"] == pytest.approx(np.mean(entropies), rel=1e-4)


def slow_targets(script, args, rollout, values):
    """{(t, i): what V(s_t) is fitted to}, step by step; all ends here are true ones."""
    targets = {}
    for t, i in np.argwhere(rollout.valid):
        target, weight = (0.0 if script in WHOLE else values[t, i]), 1.0
        for u in range(t, len(rollout.rewards)):
            step = rollout.rewards[u, i]
            if script not in WHOLE:  # δ_u
                following = 0.0 if rollout.done[u, i] else values[u + 1, i]
                step += args.gamma * following - values[u, i]
            target += weight * step
            weight *= args.gamma * (1 if script in WHOLE else args.gae_lambda)
            if rollout.done[u, i]:
                break
        targets[t, i] = target
    return targets


@pytest.mark.parametrize("script", [vpg_baseline, actor_critic, ppo_kl, ppo_clip])
def test_the_reported_fit_is_from_before_the_update_and_the_loss_from_after(script):
    critics = []
    rollout, *_, scalars = updated(script, "discrete", critics)
    with torch.no_grad():
        before, after = (critic(torch.as_tensor(rollout.obs)) for critic in critics)
    args = script.parse_args([])
    targets = slow_targets(script, args, rollout, before.double().numpy())
    rows, targets = tuple(zip(*targets)), np.array(list(targets.values()))
    before, after = before.numpy()[rows], after.numpy()[rows]
    fit = 1 - np.var(targets - before) / np.var(targets)
    assert scalars["train/explained_variance"] == pytest.approx(fit, rel=1e-3)
    loss, loss_before = (np.mean((v - targets) ** 2) for v in (after, before))
    assert scalars["train/value_loss"] == pytest.approx(loss, rel=1e-3)
    assert abs(loss_before - loss) > 0.01 * loss and abs(fit) > 1e-3


# β in a real run


def test_in_training_beta_moves_once_an_iteration_by_the_logged_kl(tmp_path):
    """Read back from TensorBoard: each β follows from the one before it and its KL.

    From β_0 = 64 the KL is far too small at first, so β falls; δ is chosen so that the
    KL is also too large at times, and at times about right.
    """
    flags = "--num-envs 4 --rollout-steps 32 --minibatch-size 32 --total-steps 5120"
    flags += " --epochs 5"
    flags += (
        " --beta 64 --target-kl 0.02 --learning-rate 0.01 --no-anneal-learning-rate"
    )
    run = str(tmp_path / "run")
    args = ppo_kl.parse_args([*flags.split(), "--run-dir", run])
    ppo_kl.train(args)
    events = EventAccumulator(run, size_guidance={"scalars": 0}).Reload()
    betas, kls = (
        [event.value for event in events.Scalars(name)]
        for name in ("train/beta", "train/kl")
    )
    assert len(betas) == len(kls) >= 40
    assert betas[0] == 64
    factors = []
    for beta, kl, following in zip(betas, kls, betas[1:]):
        assert following == ppo_kl.adapt_beta(beta, kl, 0.02)
        factors.append(following / beta)
    assert set(factors) == {0.5, 1.0, 2.0}
    state = torch.load(f"{run}/checkpoint.pt", weights_only=True)["state"]
    assert state["beta"] == ppo_kl.adapt_beta(betas[-1], kls[-1], 0.02)
