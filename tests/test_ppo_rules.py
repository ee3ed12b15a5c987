"""What update() reports, row by row; the bounds of β, whose rule is C18."""

import copy

import numpy as np
import pytest
import torch
from support import (
    WHOLE,
    all_values,
    call_update,
    each_action_space,
    every_script,
    networks,
    plain_args,
    random_rollout,
    slow_entropy,
    slow_kl,
    slow_rewards_to_go,
    slow_targets,
)

import ppo_clip
import ppo_kl
import reinforce

EPSILON, BETA = 0.1, 3.0


@every_script
@each_action_space
def test_update_reports_what_it_has_made_of_the_whole_batch(script, space):
    """Over the valid rows: KL with the old policy first, entropy, losses.

    The critic's fit alone is from before, and so are the targets. The minibatches are
    smaller than the batch, and the policy is far from uniform: KL is not symmetric.
    """
    torch.manual_seed(0)
    rollout = random_rollout(script, space, T=12, N=4)
    old_policy, b = networks(script, space)
    policy, critic = copy.deepcopy(old_policy), copy.deepcopy(b)
    changes = {"epochs": 3, "minibatch_size": 9, "max_grad_norm": 0.5}
    changes |= {"advantage": "gae", "clip_epsilon": EPSILON, "beta": BETA}
    args = plain_args(script, rollout, **changes)
    pair = policy, critic
    optimizers = [torch.optim.SGD(network.parameters(), lr=0.3) for network in pair]
    metrics = call_update(script, args, *pair, *optimizers, rollout)
    old_v, new_v = all_values(b, rollout), all_values(critic, rollout)
    if script in WHOLE:
        targets = slow_rewards_to_go(rollout, 0.9)
    else:
        targets = slow_targets(rollout, old_v, 0.9, lam=0.95)
    rows, targets = tuple(zip(*targets)), np.array(list(targets.values()))
    obs, actions = torch.tensor(rollout.obs[rows]), torch.tensor(rollout.actions[rows])
    with torch.no_grad():
        old, new = old_policy.distribution(obs), policy.distribution(obs)
        log_probs = new.log_prob(actions).numpy()
        ratios = np.exp(log_probs - old.log_prob(actions).numpy())
        kl, reverse_kl = slow_kl(old, new).numpy(), slow_kl(new, old).numpy()
        entropy = slow_entropy(new).numpy()
    advantages = targets - (0 if script is reinforce else old_v[rows])
    clipped = abs(ratios - 1) > EPSILON
    gains = log_probs * advantages
    if script is ppo_kl:
        gains = ratios * advantages - BETA * kl
    if script is ppo_clip:
        bounded = np.clip(ratios, 1 - EPSILON, 1 + EPSILON)
        gains = np.minimum(ratios * advantages, bounded * advantages)
    expected = {"train/kl": kl.mean(), "train/entropy": entropy.mean()}
    expected["train/policy_loss"] = -gains.mean()
    if script in WHOLE:
        expected["train/policy_loss"] = -gains.sum() / 4
    if script is not reinforce:
        unexplained = np.var(targets - old_v[rows])
        expected["train/value_loss"] = np.mean((targets - new_v[rows]) ** 2)
        expected["train/explained_variance"] = 1 - unexplained / np.var(targets)
        old_loss = np.mean((targets - old_v[rows]) ** 2)
        assert abs(old_loss / expected["train/value_loss"] - 1) > 0.01
    if script is ppo_clip:
        expected["train/clip_fraction"] = clipped.mean()
        assert 0 < clipped.mean() < 1
        assert (ratios < 1 - EPSILON).any() and (ratios > 1 + EPSILON).any()
    if script is ppo_kl:
        expected["train/beta"] = BETA
    assert metrics == pytest.approx(expected, rel=1e-4)
    assert kl.mean() > 1e-3 and abs(reverse_kl.mean() / kl.mean() - 1) > 1e-3


def test_beta_stays_finite_and_positive_and_comes_back():
    """Without bounds it would be infinite at last, or 0 for ever."""
    assert ppo_kl.adapt_beta(1e6, 1.0, 0.01) == 1e6
    assert ppo_kl.adapt_beta(1e6, 0.0, 0.01) == 5e5
    assert ppo_kl.adapt_beta(1e-6, 0.0, 0.01) == 1e-6
    assert ppo_kl.adapt_beta(1e-6, 1.0, 0.01) == 2e-6
