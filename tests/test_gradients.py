"""The gradients that the five scripts follow, each found in a second way.

update() is called on random rollouts. What it leaves in .grad is the gradient of the
loss, and its negative the gradient ĝ of the lecture. That is compared with a loop over
single rows. The networks are the scripts' own, in double precision; advantages are
32-bit floats there, so equal means equal to about 1e-7. The gradients of PPO's later
steps, away from θ_k, are in lecture/test_11_ppo_objectives.py.
"""

import copy
import math

import numpy as np
import pytest
import torch
from support import (
    PPOS,
    WHOLE,
    all_values,
    call_update,
    checkpoint,
    each,
    each_action_space,
    every_script,
    networks,
    plain_args,
    random_rollout,
    short_args,
    slow_entropy,
    slow_rewards_to_go,
    slow_targets,
)
from torch.nn.utils import parameters_to_vector, vector_to_parameters

import actor_critic
import ppo_clip
import ppo_kl
import reinforce
import vpg_baseline

SEEDS = range(3)
seeds = pytest.mark.parametrize("seed", SEEDS)


def ascent(network):
    """ĝ as one vector: minus the gradient of the loss."""
    return -torch.cat([parameter.grad.flatten() for parameter in network.parameters()])


def gradients(script, policy, critic, rollout, lr=0.0, **changes):
    """What update() with SGD leaves as the networks' gradients, the last step's."""
    optimizers = [torch.optim.SGD(net.parameters(), lr) for net in (policy, critic)]
    args = plain_args(script, rollout, **changes)
    call_update(script, args, policy, critic, *optimizers, rollout)
    return [ascent(policy)] + ([] if script is reinforce else [ascent(critic)])


def gradient_of(scalar, network):
    """The gradient of a scalar as one vector, by torch.autograd."""
    parameters = list(network.parameters())
    grads = torch.autograd.grad(scalar, parameters, materialize_grads=True)
    return torch.cat([grad.flatten() for grad in grads])


def slow_policy_gradient(policy, rollout, weights, count):
    """Σ ∇ log π_θ(a_t|s_t) × its weight over the rows (t, i), divided by count."""
    total = 0.0
    for row, weight in weights.items():
        obs = torch.as_tensor(rollout.obs[row])[None]
        action = torch.as_tensor(rollout.actions[row])[None]
        log_prob = policy.distribution(obs).log_prob(action).sum()
        total += weight * gradient_of(log_prob, policy)
    return total / count


def slow_critic_gradient(critic, rollout, targets):
    """Minus the gradient of the mean of (V(s_t) - R̂_t)² over the rows (t, i)."""
    total = 0.0
    for row, target in targets.items():
        value = critic(torch.as_tensor(rollout.obs[row])[None])[0]
        total -= gradient_of((value - target) ** 2, critic)
    return total / len(targets)


def slow_normalize(weights):
    mean, std = np.mean(list(weights.values())), np.std(list(weights.values()))
    return {row: (weight - mean) / std for row, weight in weights.items()}


def assert_close(one, other):
    torch.testing.assert_close(one, other.detach(), rtol=1e-5, atol=1e-6)


# The first gradient. REINFORCE and VPG: ĝ = (1/m) Σ_i Σ_t ∇ log π_θ(a_t|s_t) weight;
# the others: the mean over the valid rows. At θ = θ_k PPO's ratio is 1 and ∇KL is 0, so
# it is the actor-critic's. The critic goes down the mean of (V(s_t) - target)².

N_STEP, GAE = {"advantage": "n-step"}, {"advantage": "gae", "n_steps": 1}
FIRST_GRADIENTS = [
    (reinforce, {"weight": "reward-to-go"}),
    (reinforce, {"weight": "trajectory"}),
    (vpg_baseline, {}),
    (actor_critic, N_STEP | {"n_steps": 1}),
    (actor_critic, N_STEP | {"n_steps": 3}),
    (actor_critic, N_STEP | {"n_steps": math.inf}),
    (actor_critic, GAE | {"gae_lambda": 0.8}),
    (actor_critic, GAE | {"gae_lambda": 1.0}),
    (ppo_kl, {"gae_lambda": 0.8, "beta": 100.0}),
    (ppo_clip, {"gae_lambda": 0.8}),
]


def targets_of(script, rollout, v, flags):
    """{(t, i): G_t, R(τ) or R̂_t} of the valid rows."""
    if script in WHOLE:
        return slow_rewards_to_go(rollout, 0.9, flags.get("weight", "reward-to-go"))
    if flags.get("advantage") == "n-step":
        return slow_targets(rollout, v, 0.9, n=flags["n_steps"])
    return slow_targets(rollout, v, 0.9, lam=flags["gae_lambda"])


@each_action_space
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("script, flags", FIRST_GRADIENTS)
def test_the_first_gradient_is_the_lectures_sum(script, flags, normalize, space):
    """Nothing is subtracted from REINFORCE's weights, not even their mean.

    The others subtract V from before its re-fit, which is a large step here, and
    however bad it is: at these weights it adds variance.
    """
    flags = flags | {"normalize_advantages": normalize}
    for seed in SEEDS:
        rollout = random_rollout(script, space, seed)
        policy, critic = networks(script, space, seed)
        with torch.no_grad():
            critic.network[-1].weight *= 5
        v = all_values(critic, rollout)
        targets = weights = targets_of(script, rollout, v, flags)
        if script is not reinforce:
            weights = {row: targets[row] - v[row] for row in targets}
            weights = slow_normalize(weights) if normalize else weights
        count = rollout.valid.shape[1] if script in WHOLE else rollout.valid.sum()
        expected = [slow_policy_gradient(policy, rollout, weights, count)]
        expected.append(slow_critic_gradient(critic, rollout, targets))
        found = gradients(script, policy, critic, rollout, lr=0.1, **flags)
        moved = abs(all_values(critic, rollout) - v).max()
        assert (moved > 0.5) == (script is not reinforce)
        for one, other in zip(found, expected):
            assert_close(one, other)
            assert other.norm() > 0.01


@each([vpg_baseline, actor_critic])
def test_the_critic_takes_all_its_steps_towards_the_same_targets(script):
    """R̂ stays what it was before the first step; the policy takes one step alone."""
    rollout = random_rollout(script)
    policy, critic = networks(script)
    slow_critic, v = copy.deepcopy(critic), all_values(critic, rollout)
    targets = targets_of(script, rollout, v, {"gae_lambda": 0.8})
    for _ in range(4):
        step = 0.125 * slow_critic_gradient(slow_critic, rollout, targets)
        moved = parameters_to_vector(slow_critic.parameters()).detach() + step
        vector_to_parameters(moved, slow_critic.parameters())
    start = parameters_to_vector(policy.parameters()).detach()
    flags = {"critic_epochs": 4, "advantage": "gae", "gae_lambda": 0.8}
    gradients(script, policy, critic, rollout, lr=0.125, **flags)
    for found, expected in zip(critic.parameters(), slow_critic.parameters()):
        assert_close(found, expected)
    step = parameters_to_vector(policy.parameters()) - start
    assert_close(step, 0.125 * ascent(policy))
    assert step.norm() > 0.01


# PPO's minibatches


class Recorder(torch.optim.SGD):
    """Stays where it is and keeps the gradient of every step."""

    def __init__(self, network):
        super().__init__(network.parameters(), lr=0.0)
        self.network, self.steps = network, []

    def step(self):
        self.steps.append(ascent(self.network))


@pytest.mark.parametrize("minibatch_size, sizes", [(6, [8, 8, 7]), (24, [23])])
@each(PPOS)
def test_an_epochs_minibatches_are_of_equal_size(script, minibatch_size, sizes):
    """23 rows in minibatches of 6: three, and no remainder of 5 with a step of its own.

    At rest, the mean of an epoch's gradients, each weighted by its rows, is that of the
    batch; so the batch's mean and deviation normalise advantages, not a minibatch's.
    """
    rollout = random_rollout(script, T=8, N=3)
    valid = np.arange(24).reshape(8, 3) > 0
    rollout = rollout._replace(valid=valid)
    for normalize in False, True:
        changes = {"normalize_advantages": normalize}
        policy, critic = networks(script)
        full = gradients(script, policy, critic, rollout, **changes)
        seen = []
        critic.register_forward_hook(lambda _, obs, v, to=seen: to.append(len(v)))
        changes |= {"epochs": 3, "minibatch_size": minibatch_size}
        recorders = [Recorder(policy), Recorder(critic)]
        args = plain_args(script, rollout, **changes)
        call_update(script, args, policy, critic, *recorders, rollout)
        for recorder, expected in zip(recorders, full):
            steps = torch.stack(recorder.steps)
            assert len(steps) == 3 * len(sizes)
            weighted = torch.tensor(sizes)[:, None] / 23 * steps.view(3, len(sizes), -1)
            for epoch in weighted.sum(dim=1):
                assert_close(epoch, expected)
            if len(sizes) > 1:
                assert (steps[0] - steps[len(sizes)]).norm() > 1e-3  # shuffled anew
        assert [size for size in seen if size < 23] == (3 * sizes if sizes[1:] else [])


# Entropy bonus, gradient bound, step


@each_action_space
@every_script
def test_the_entropy_bonus_adds_the_gradient_of_the_entropy(script, space):
    """coefficient × ∇H, with a plus: the bonus makes the policy more random.

    H is summed or averaged over the steps as the objective is, so that a coefficient
    weighs the same in all five: against one step's advantage.
    """
    rollout = random_rollout(script, space)
    obs = torch.as_tensor(rollout.obs[:-1][rollout.valid])
    policy, critic = networks(script, space)
    entropy = slow_entropy(policy.distribution(obs)).mean()
    exact = gradient_of(entropy, policy)
    if script in WHOLE:  # (1/m) Σ_i Σ_t, not a mean over steps
        exact *= rollout.valid.sum().item() / rollout.valid.shape[1]
    without = gradients(script, policy, critic, rollout)[0]
    found = gradients(script, policy, critic, rollout, entropy_coefficient=0.7)[0]
    assert_close(found - without, 0.7 * exact)
    assert exact.norm() > 0.01


@every_script
def test_each_network_moves_by_its_own_gradient_cut_to_the_bound(script):
    """The direction stays; a gradient below the bound, too; earlier ones are gone."""
    rollout = random_rollout(script)

    def moves(bound):
        pair = networks(script)
        if script is reinforce:
            pair[1].requires_grad_(False)
        for network in pair:
            for parameter in network.parameters():
                parameter.grad = torch.full_like(parameter, 1e3)  # of an earlier step
        start = [parameters_to_vector(network.parameters()) for network in pair]
        start = [vector.detach().clone() for vector in start]
        gradients(script, *pair, rollout, lr=0.125, max_grad_norm=bound)
        end = [parameters_to_vector(network.parameters()) for network in pair]
        return [after.detach() - before for before, after in zip(start, end)]

    free = gradients(script, *networks(script), rollout)
    for bound in 0.01, 1000.0, math.inf:
        for gradient, move in zip(free, moves(bound)):
            assert 0.1 < gradient.norm() < 1000
            expected = 0.125 * gradient * min(1.0, bound / gradient.norm())
            torch.testing.assert_close(move, expected, rtol=1e-4, atol=1e-12)


@each(WHOLE)
def test_train_uses_the_optimizer_of_choice(script, tmp_path):
    """For the policy; the critic's is Adam. SGD has no betas."""
    for choice in "sgd", "adam":
        args = short_args(script, tmp_path / choice, optimizer=choice, total_steps=200)
        script.train(args)
        saved = checkpoint(args.run_dir)
        (group,) = saved["optimizer"]["param_groups"]
        assert ("betas" in group) == (choice == "adam")
        if script is vpg_baseline:
            assert "betas" in saved["critic_optimizer"]["param_groups"][0]
