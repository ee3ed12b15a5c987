"""The gradients that the five scripts follow, each found in a second way.

update() is called on hand-made rollouts, with an optimiser that stays where it is. What
it leaves in .grad is then the gradient of the loss, and its negative the gradient ĝ of
the lecture. That is compared with a loop over single rows, with the exact gradient of a
problem so small that all its trajectories can be listed, and with finite differences of
objectives that are written down here once more.

The networks are the scripts' own, in double precision. The scripts keep advantages as
32-bit floats, so equal means equal to about 1e-7.
"""

import copy
import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

import actor_critic
import ppo_clip
import ppo_kl
import reinforce
import vpg_baseline

WHOLE = [reinforce, vpg_baseline]  # the scripts that take whole trajectories
CRITICS = [actor_critic, ppo_kl, ppo_clip]  # and those that bootstrap with a critic
PPOS = [ppo_kl, ppo_clip]
OBSERVATION, ACTIONS = 3, 3

each_script = pytest.mark.parametrize("script", WHOLE + CRITICS)
seeds = pytest.mark.parametrize("seed", range(3))
each_action_space = pytest.mark.parametrize("space", ["discrete", "box"])


def networks(script, space="discrete", seed=0, observation=OBSERVATION, hidden=(5,)):
    """The script's Policy and ValueFunction in double precision, at random weights."""
    actions = {
        "discrete": Discrete(ACTIONS),
        "box": Box(-1, 1, (2,)),
        "two": Discrete(2),
    }
    envs = SimpleNamespace(
        single_observation_space=Box(-1, 1, (observation,)),
        single_action_space=actions[space],
    )
    kind = getattr(script, "ValueFunction", actor_critic.ValueFunction)

    class DoublePolicy(script.Policy):
        def distribution(self, obs):
            return super().distribution(obs.double())

    class DoubleValueFunction(kind):
        def forward(self, obs):
            return super().forward(obs.double())

    policy = DoublePolicy(envs, hidden, 1.0).double()
    value_function = DoubleValueFunction(envs, hidden).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in [*policy.parameters(), *value_function.parameters()]:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.5 * noise)
    return policy, value_function


def make_rollout(script, obs, actions, rewards, terminated, done, valid):
    obs, rewards = np.asarray(obs, np.float32), np.asarray(rewards, np.float64)
    flags = [np.asarray(flag, dtype=bool) for flag in (terminated, done, valid)]
    return script.Rollout(obs, np.asarray(actions), rewards, *flags, [], 0)


def random_rollout(script, space="discrete", seed=0, T=9, N=3):
    """Random rows with episodes of random length; rows that are not valid hold garbage.

    For the scripts that take whole trajectories, a column's first episode is valid. For
    the others, the row after an end is a reset row, and then the next episode begins.
    """
    rng = np.random.default_rng(seed)
    obs, rewards = rng.normal(size=(T + 1, N, OBSERVATION)), rng.normal(size=(T, N))
    if space == "discrete":
        actions = rng.integers(ACTIONS, size=(T, N))
    else:
        actions = rng.normal(size=(T, N, 2)).astype(np.float32)
    terminated, truncated = rng.random((2, T, N)) < 0.15
    done = terminated | truncated
    valid = np.ones((T, N), dtype=bool)
    if script in WHOLE:
        done[-1] = True
        valid[1:] = np.cumsum(done, axis=0)[:-1] == 0
        T = valid.any(axis=1).sum()  # the longest trajectory's length
        obs, actions, rewards = obs[: T + 1], actions[:T], rewards[:T]
        terminated, done, valid = terminated[:T], done[:T], valid[:T]
    else:
        valid[0, 0] = False  # the rollout before ended with an end here
        for t, i in itertools.product(range(T), range(N)):
            if t > 0:
                valid[t, i] = not (done[t - 1, i] and valid[t - 1, i])
        terminated, done = terminated & valid, done & valid
    rewards[~valid] = 1000.0
    return make_rollout(script, obs, actions, rewards, terminated, done, valid)


def arguments(script, rollout, **changes):
    """The script's flags, with everything off that would alter the plain gradient."""
    args = script.parse_args([])
    plain = {
        "num_envs": rollout.valid.shape[1],
        "gamma": 0.9,
        "max_grad_norm": math.inf,
        "normalize_advantages": False,
        "entropy_coefficient": 0.0,
        "baseline_epochs": 3,
        "critic_epochs": 1,
        "epochs": 1,
        "minibatch_size": rollout.valid.size,
    }
    vars(args).update(plain | changes)
    return args


def call_update(args, script, policy, value_function, optimizer, rollout):
    """update() with the arguments that this script's one takes."""
    before = [policy, value_function] if script is not reinforce else [policy]
    after = [args.beta] if script is ppo_kl else []
    return script.update(args, *before, optimizer, rollout, *after)


def parameters_of(script, policy, value_function):
    """What the script's optimiser moves; vpg_baseline fits b with another one."""
    if script in WHOLE:
        return list(policy.parameters())
    return [*policy.parameters(), *value_function.parameters()]


class KeepsGradients(torch.optim.SGD):
    """SGD that leaves each parameter's last gradient where it was.

    A second step, of another network, has cleared the first one's.
    """

    def __init__(self, parameters, lr):
        super().__init__(parameters, lr)
        self.last = {}

    def step(self):
        super().step()
        for parameter in self.param_groups[0]["params"]:
            if parameter.grad is None:
                parameter.grad = self.last.get(parameter)
            self.last[parameter] = parameter.grad


def ascent(network):
    """ĝ as one vector: minus the gradient of the loss."""
    return -torch.cat([parameter.grad.flatten() for parameter in network.parameters()])


def gradients(script, policy, value_function, rollout, **changes):
    """What update() leaves as the gradient of the policy and of the critic."""
    args = arguments(script, rollout, **changes)
    stay = KeepsGradients(parameters_of(script, policy, value_function), lr=0.0)
    call_update(args, script, policy, value_function, stay, rollout)
    if script is reinforce:
        return ascent(policy), None
    return ascent(policy), ascent(value_function)


def gradient_of(scalar, network):
    """The gradient of a scalar as one vector, by torch.autograd."""
    grads = torch.autograd.grad(scalar, list(network.parameters()))
    return torch.cat([grad.flatten() for grad in grads])


def log_prob_gradient(policy, rollout, t, i):
    """∇ log π_θ(a_t|s_t) of a single row."""
    obs = torch.as_tensor(rollout.obs[t, i])[None]
    action = torch.as_tensor(rollout.actions[t, i])[None]
    return gradient_of(policy.distribution(obs).log_prob(action).sum(), policy)


def value(value_function, rollout, t, i):
    """V(s_t) of a single row, to be differentiated."""
    return value_function(torch.as_tensor(rollout.obs[t, i])[None])[0]


def all_values(value_function, rollout):
    """V(s_t) of all rows, (T + 1, N), as it is now."""
    return value_function(torch.as_tensor(rollout.obs)).detach().numpy()


def assert_equal(one, other):
    torch.testing.assert_close(one, other.detach(), rtol=1e-5, atol=1e-6)


# REINFORCE and VPG: ĝ = (1/m) Σ_i Σ_t ∇ log π_θ(a_t|s_t) (G_t - b(s_t))


def slow_weights(rollout, weight, b, gamma):
    """(t, i): G_t or R(τ), minus b(s_t), for every row of the N trajectories."""
    weights = {}
    for i in range(rollout.valid.shape[1]):
        length = rollout.valid[:, i].sum()
        for t in range(length):
            start = 0 if weight == "trajectory" else t
            weights[t, i] = -b[t, i]
            for k in range(start, length):
                weights[t, i] += gamma ** (k - start) * rollout.rewards[k, i]
    return weights


def slow_policy_gradient(policy, rollout, weights, count):
    """Σ ∇ log π_θ(a_t|s_t) × its weight over the rows (t, i), divided by count."""
    rows = [log_prob_gradient(policy, rollout, *row) * weights[row] for row in weights]
    return sum(rows) / count


def minus_mean_at_each_step(weights):
    """Each row's weight minus the mean of those with the same t; rows are (t, i)."""
    result = {}
    for t, i in weights:
        at_t = [weight for row, weight in weights.items() if row[0] == t]
        result[t, i] = weights[t, i] - sum(at_t) / len(at_t)
    return result


def slow_normalize(weights):
    mean, std = np.mean(list(weights.values())), np.std(list(weights.values()))
    return {row: (weight - mean) / std for row, weight in weights.items()}


@seeds
@each_action_space
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("weight", ["reward-to-go", "trajectory"])
@pytest.mark.parametrize("script", WHOLE)
def test_whole_trajectories_give_the_lectures_sum_over_rows(
    script, weight, normalize, space, seed
):
    rollout = random_rollout(script, space, seed)
    policy, value_function = networks(script, space, seed)
    b = all_values(value_function, rollout)
    weights = slow_weights(rollout, weight, 0 * b if script is reinforce else b, 0.9)
    if normalize:
        weights = minus_mean_at_each_step(weights)
        without = minus_mean_at_each_step(slow_weights(rollout, weight, 0 * b, 0.9))
        if np.var(list(without.values())) <= np.var(list(weights.values())):
            weights = without  # b would add variance
        weights = slow_normalize(weights)
    options = {"weight": weight, "normalize_advantages": normalize}
    found, _ = gradients(script, policy, value_function, rollout, **options)
    m = rollout.valid.shape[1]
    assert_equal(found, slow_policy_gradient(policy, rollout, weights, m))


def test_the_baseline_is_the_one_from_before_its_refit():
    """The gradient with b as it was; with the re-fitted b it would be another one."""
    rollout = random_rollout(vpg_baseline)
    policy, value_function = networks(vpg_baseline)
    before = all_values(value_function, rollout)
    refit = {"baseline_epochs": 50, "baseline_learning_rate": 0.1}
    found, _ = gradients(vpg_baseline, policy, value_function, rollout, **refit)
    after = all_values(value_function, rollout)

    def slow_gradient(b):
        weights = slow_weights(rollout, "reward-to-go", b, 0.9)
        return slow_policy_gradient(policy, rollout, weights, rollout.valid.shape[1])

    assert_equal(found, slow_gradient(before))
    assert (found - slow_gradient(after)).norm() > 0.1 * found.norm()


@pytest.mark.parametrize("weight", ["reward-to-go", "trajectory"])
def test_the_refit_brings_the_baseline_to_the_returns_of_the_valid_rows(weight):
    """One trajectory per state, so that a linear b can fit every return exactly."""
    one_hot = np.eye(OBSERVATION)[[[0, 1], [2, 0], [0, 0]]]  # s_t of two trajectories
    rewards, done = [[1.0, 2.0], [4.0, 1000.0]], [[False, True], [True, False]]
    valid = [[True, True], [True, False]]
    actions = np.zeros((2, 2), dtype=int)
    rollout = make_rollout(vpg_baseline, one_hot, actions, rewards, done, done, valid)
    policy, b = networks(vpg_baseline, hidden=())
    refit = {"baseline_epochs": 500, "baseline_learning_rate": 0.1}
    gradients(vpg_baseline, policy, b, rollout, weight=weight, **refit)
    fitted = b(torch.eye(OBSERVATION)).tolist()
    second = 4.0 if weight == "reward-to-go" else 1 + 0.9 * 4
    assert fitted == pytest.approx([1 + 0.9 * 4, 2.0, second], abs=1e-3)


# The exact expectation. Two states, two actions, at most two steps, γ = 1: every
# trajectory can be listed with its probability, and so can every pair of them. Action 1
# in state 1 is terminal, so some trajectories are shorter than others.

FIRST = [0.25, 0.75]  # P(s_0)
NEXT = np.array([[[0.5, 0.5], [0.125, 0.875]], [[0.75, 0.25], [0.0, 0.0]]])  # P(s'|s,a)
REWARD = np.array([[1.0, -2.0], [0.5, 3.0]])  # r(s, a)


def all_trajectories(probabilities):
    """(probability, states, actions) of every trajectory under π(a|s)."""
    for s0, a0 in itertools.product(range(2), range(2)):
        start = FIRST[s0] * probabilities[s0, a0]
        if (s0, a0) == (1, 1):
            yield start, [s0], [a0]
            continue
        for s1, a1 in itertools.product(range(2), range(2)):
            rest = NEXT[s0, a0, s1] * probabilities[s1, a1]
            yield start * rest, [s0, s1], [a0, a1]


def exact_objective(policy):
    """J(θ) = Σ_τ P(τ|θ) R(τ)."""
    probabilities = policy.distribution(torch.eye(2)).probs.detach().numpy()
    return sum(
        probability * sum(REWARD[s, a] for s, a in zip(states, actions))
        for probability, states, actions in all_trajectories(probabilities)
    )


def finite_differences(function, network, step=1e-5):
    """The gradient of function() in the network's parameters, one after the other."""
    differences = []
    with torch.no_grad():
        for parameter in network.parameters():
            for j in range(parameter.numel()):
                at = parameter.view(-1)[j].item()
                parameter.view(-1)[j] = at + step
                above = function()
                parameter.view(-1)[j] = at - step
                below = function()
                parameter.view(-1)[j] = at
                differences.append((above - below) / (2 * step))
    return torch.tensor(differences, dtype=torch.float64)


def rollout_of_trajectories(script, trajectories):
    """Two rows a column; a trajectory that ends early leaves garbage in its second."""
    T, N = 2, len(trajectories)
    obs, actions = np.zeros((T + 1, N, 2)), np.zeros((T, N), dtype=int)
    rewards, valid = np.full((T, N), 1000.0), np.zeros((T, N), dtype=bool)
    done = np.zeros((T, N), dtype=bool)
    for i, (_, states, chosen) in enumerate(trajectories):
        for t, (s, a) in enumerate(zip(states, chosen)):
            obs[t, i, s], actions[t, i], rewards[t, i] = 1.0, a, REWARD[s, a]
            valid[t, i] = True
        done[len(states) - 1, i] = True
    return make_rollout(script, obs, actions, rewards, done, done, valid)


@pytest.mark.parametrize("weight", ["reward-to-go", "trajectory"])
@pytest.mark.parametrize("script", WHOLE)
def test_the_expected_gradient_over_all_trajectories_is_that_of_the_objective(
    script, weight
):
    """E[ĝ] = ∇J(θ), by listing all batches of m = 2 trajectories.

    The baseline is a random function, re-fitted in each update, and changes nothing.
    """
    policy, value_function = networks(script, "two", seed=1, observation=2, hidden=())
    probabilities = policy.distribution(torch.eye(2)).probs.detach().numpy()
    trajectories = list(all_trajectories(probabilities))
    assert sum(probability for probability, *_ in trajectories) == pytest.approx(1)

    expected = 0.0
    for pair in itertools.product(trajectories, repeat=2):
        rollout = rollout_of_trajectories(script, pair)
        b = copy.deepcopy(value_function)
        options = {"weight": weight, "gamma": 1.0, "baseline_learning_rate": 0.1}
        found, _ = gradients(script, policy, b, rollout, **options)
        expected += pair[0][0] * pair[1][0] * found

    exact = finite_differences(lambda: exact_objective(policy), policy)
    assert exact.norm() > 0.1
    torch.testing.assert_close(expected, exact, rtol=0, atol=1e-6)


# Actor-critic: ĝ = mean over the valid rows of ∇ log π_θ(a_t|s_t) (R̂_t - V(s_t)), and
# the critic goes down the mean of (V(s_t) - R̂_t)².


def slow_targets(rollout, v, gamma, n=math.inf, lam=None):
    """(t, i): R̂_t of every valid row, n-step or weighted by λ, with V as (T + 1, N)."""
    T, N = rollout.valid.shape

    def n_step(t, i, n):
        total, k = 0.0, 0
        while True:
            total += gamma**k * rollout.rewards[t + k, i]
            k += 1
            if rollout.terminated[t + k - 1, i]:
                return total, k
            if k == n or rollout.done[t + k - 1, i] or t + k == T:
                return total + gamma**k * v[t + k, i], k

    targets = {}
    for t, i in itertools.product(range(T), range(N)):
        if rollout.valid[t, i] and lam is None:
            targets[t, i], _ = n_step(t, i, n)
        elif rollout.valid[t, i]:
            _, steps_left = n_step(t, i, math.inf)
            last, _ = n_step(t, i, steps_left)
            targets[t, i] = lam ** (steps_left - 1) * last
            for n in range(1, steps_left):
                targets[t, i] += (1 - lam) * lam ** (n - 1) * n_step(t, i, n)[0]
    return targets


@seeds
@each_action_space
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize(
    "flags, target",
    [
        ({"n_steps": 1}, {"n": 1}),
        ({"n_steps": 3}, {"n": 3}),
        ({"n_steps": 100}, {"n": math.inf}),
        ({"n_steps": None, "gae_lambda": 0.8}, {"lam": 0.8}),
        ({"n_steps": None, "gae_lambda": 0.0}, {"n": 1}),
        ({"n_steps": None, "gae_lambda": 1.0}, {"n": math.inf}),
    ],
    ids=str,
)
def test_the_actor_critic_takes_the_mean_over_valid_rows(
    flags, target, normalize, space, seed
):
    rollout = random_rollout(actor_critic, space, seed)
    policy, critic = networks(actor_critic, space, seed)
    v = all_values(critic, rollout)
    targets = slow_targets(rollout, v, gamma=0.9, **target)
    advantages = {row: targets[row] - v[row] for row in targets}
    if normalize:
        advantages = slow_normalize(advantages)
    B = rollout.valid.sum()
    slow_policy = slow_policy_gradient(policy, rollout, advantages, B)
    slow_critic = 0.0
    for row in targets:
        error = (value(critic, rollout, *row) - targets[row]) ** 2
        slow_critic -= gradient_of(error, critic) / B
    flags = flags | {"normalize_advantages": normalize}
    found = gradients(actor_critic, policy, critic, rollout, **flags)
    assert_equal(found[0], slow_policy)
    assert_equal(found[1], slow_critic)


def test_the_critic_takes_its_steps_one_after_the_other_towards_the_same_targets():
    """R̂ stays what it was before the first step; the policy takes one step alone."""
    rollout = random_rollout(actor_critic)
    policy, critic = networks(actor_critic)
    B, slow_critic = rollout.valid.sum(), copy.deepcopy(critic)
    targets = slow_targets(rollout, all_values(critic, rollout), gamma=0.9, lam=0.8)
    for _ in range(4):
        gradient = 0.0
        for row in targets:
            error = (value(slow_critic, rollout, *row) - targets[row]) ** 2
            gradient += gradient_of(error, slow_critic) / B
        with torch.no_grad():
            vector = torch.nn.utils.parameters_to_vector(slow_critic.parameters())
            moved = vector - 0.125 * gradient
            torch.nn.utils.vector_to_parameters(moved, slow_critic.parameters())
    start = torch.nn.utils.parameters_to_vector(policy.parameters()).detach()
    optimizer = KeepsGradients(parameters_of(actor_critic, policy, critic), lr=0.125)
    args = arguments(actor_critic, rollout, critic_epochs=4, gae_lambda=0.8)
    call_update(args, actor_critic, policy, critic, optimizer, rollout)
    for found, expected in zip(critic.parameters(), slow_critic.parameters()):
        assert_equal(found, expected)
    step = torch.nn.utils.parameters_to_vector(policy.parameters()) - start
    assert_equal(step, 0.125 * ascent(policy))
    assert step.norm() > 0.01


# PPO: at θ = θ_k the ratio is 1 and ∇KL is 0; so the first step is the actor-critic's.


@seeds
@each_action_space
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("script", PPOS)
def test_the_first_gradient_of_ppo_is_the_actor_critics(script, normalize, space, seed):
    rollout = random_rollout(actor_critic, space, seed)
    flags = {"normalize_advantages": normalize, "gae_lambda": 0.8, "beta": 100.0}
    found = gradients(script, *networks(script, space, seed), rollout, **flags)
    plain = networks(actor_critic, space, seed)
    policy, critic = gradients(actor_critic, *plain, rollout, **flags)
    assert policy.norm() > 0.01 and critic.norm() > 0.01
    assert_equal(found[0], policy)
    assert_equal(found[1], critic)


class Recorder(torch.optim.SGD):
    """Stays where it is and keeps the gradient of every step."""

    def __init__(self, policy, value_function):
        super().__init__([*policy.parameters(), *value_function.parameters()], lr=0.0)
        self.networks, self.steps = (policy, value_function), []

    def step(self):
        self.steps.append(torch.cat([ascent(network) for network in self.networks]))


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("script", PPOS)
def test_every_epoch_goes_over_every_row_once_in_another_order(script, normalize):
    """At rest, the mean over an epoch's equal minibatches is the full gradient.

    So it is with normalised advantages, as it is the batch's mean and deviation that
    normalise them, not each minibatch's own.
    """
    changes = {"normalize_advantages": normalize}
    rollout = random_rollout(script, T=8, N=3)
    rollout = rollout._replace(valid=np.ones((8, 3), dtype=bool))
    policy, critic = networks(script)
    full = torch.cat(gradients(script, policy, critic, rollout, **changes))
    recorder = Recorder(policy, critic)
    args = arguments(script, rollout, epochs=3, minibatch_size=6, **changes)
    call_update(args, script, policy, critic, recorder, rollout)
    assert len(recorder.steps) == 3 * 4  # 24 rows make 4 minibatches of 6
    for epoch in range(3):
        minibatches = torch.stack(recorder.steps[4 * epoch : 4 * epoch + 4])
        assert_equal(minibatches.mean(dim=0), full)
    assert (recorder.steps[0] - recorder.steps[4]).norm() > 1e-3  # shuffled anew


# Later steps of PPO: θ has left θ_k, and the objective is no longer the actor-critic's.


class MoveThenStay(torch.optim.SGD):
    """Its first step goes to a given place, its later ones nowhere."""

    def __init__(self, policy, value_function, step):
        super().__init__([*policy.parameters(), *value_function.parameters()], lr=0.0)
        self.displacement = dict(zip(policy.parameters(), step))

    @torch.no_grad()
    def step(self):
        for parameter, displacement in self.displacement.items():
            parameter += displacement
        self.displacement = {}


def move_away(script, space, seed, **flags):
    """Two epochs with one random step between them; the gradient after it is left.

    Returns θ_k's policy, the moved one and, for the valid rows, the observations, the
    actions and the advantages by the slow loop.
    """
    rollout = random_rollout(script, space, seed)
    policy, critic = networks(script, space, seed)
    old, v = copy.deepcopy(policy), all_values(critic, rollout)
    targets = slow_targets(rollout, v, gamma=0.9, lam=0.8)
    advantages = torch.tensor([targets[row] - v[row] for row in targets])
    rows = tuple(zip(*targets))
    generator = torch.Generator().manual_seed(seed)
    shapes = [parameter.shape for parameter in policy.parameters()]
    step = [0.2 * torch.randn(shape, generator=generator) for shape in shapes]
    args = arguments(script, rollout, epochs=2, gae_lambda=0.8, **flags)
    optimizer = MoveThenStay(policy, critic, step)
    call_update(args, script, policy, critic, optimizer, rollout)
    obs, actions = rollout.obs[rows], rollout.actions[rows]
    return old, policy, torch.tensor(obs), torch.tensor(actions), advantages


def slow_ratio(policy, old, obs, actions):
    """π_θ(a|s) / π_θk(a|s), each probability on its own."""
    new_probs = policy.distribution(obs).log_prob(actions).exp()
    return new_probs / old.distribution(obs).log_prob(actions).exp()


@seeds
@each_action_space
def test_the_clipped_gradient_is_that_of_the_objective_by_finite_differences(
    space, seed
):
    epsilon = 0.2
    old, policy, obs, actions, advantages = move_away(
        ppo_clip, space, seed, clip_epsilon=epsilon
    )

    def objective():
        """The mean of min(r, 1+ε) Â where Â > 0, of max(r, 1-ε) Â where Â < 0."""
        terms = []
        ratios = slow_ratio(policy, old, obs, actions).tolist()
        for r, advantage in zip(ratios, advantages.tolist()):
            bound = min(r, 1 + epsilon) if advantage > 0 else max(r, 1 - epsilon)
            terms.append(bound * advantage)
        return np.mean(terms)

    r = slow_ratio(policy, old, obs, actions)
    clipped = torch.where(advantages > 0, r > 1 + epsilon, r < 1 - epsilon)
    assert clipped.any() and not clipped.all()
    exact = finite_differences(objective, policy, step=1e-6)
    torch.testing.assert_close(ascent(policy), exact, rtol=1e-5, atol=1e-6)


def slow_kl(old, new):
    """KL(old‖new), row by row, from its definition or the formula for two Gaussians."""
    if isinstance(old, torch.distributions.Categorical):
        return (old.probs * (old.probs / new.probs).log()).sum(-1)
    (m, s), (n, t) = ((d.base_dist.loc, d.base_dist.scale) for d in (old, new))
    return (torch.log(t / s) + (s**2 + (m - n) ** 2) / (2 * t**2) - 0.5).sum(-1)


@seeds
@each_action_space
@pytest.mark.parametrize("beta", [0.0, 3.0])
def test_the_penalised_gradient_is_that_of_the_objective_by_finite_differences(
    beta, space, seed
):
    """mean r Â - β mean KL(π_k‖π_θ); with the KL the other way round it is another."""
    old, policy, obs, actions, advantages = move_away(ppo_kl, space, seed, beta=beta)

    def objective(old_first=True):
        first, second = (old, policy) if old_first else (policy, old)
        kl = slow_kl(first.distribution(obs), second.distribution(obs))
        ratio = slow_ratio(policy, old, obs, actions)
        return (ratio * advantages - beta * kl).mean().item()

    exact = finite_differences(objective, policy, step=1e-6)
    torch.testing.assert_close(ascent(policy), exact, rtol=1e-5, atol=1e-6)
    other = finite_differences(lambda: objective(old_first=False), policy, step=1e-6)
    assert beta == 0 or (ascent(policy) - other).norm() > 0.01 * exact.norm()


# Policy and critic do not disturb each other.


def one_state_rollout(script, rewards):
    """One-step episodes, all in the same state, with the actions 0, 1, 0, 1, ..."""
    N = len(rewards)
    obs, actions = np.ones((2, N, OBSERVATION)), np.arange(N)[None] % 2
    ends = np.ones((1, N))
    return make_rollout(script, obs, actions, [rewards], ends, ends, ends)


def zero_critic(script):
    """Networks whose critic says 0 everywhere, and could say something else."""
    policy, value_function = networks(script, hidden=())
    with torch.no_grad():
        for parameter in value_function.parameters():
            parameter.zero_()
    return policy, value_function


@pytest.mark.parametrize("script", [vpg_baseline, *CRITICS])
def test_the_value_loss_does_not_reach_the_policy(script):
    """Equal returns are no reason to prefer an action: normalised, all Â are 0.

    The critic says 0 and not 1, so its loss is not 0; the policy must not feel it.
    """
    policy, critic = zero_critic(script)
    rollout = one_state_rollout(script, [1.0, 1.0, 1.0, 1.0])
    flags = {"normalize_advantages": True}
    found = gradients(script, policy, critic, rollout, **flags)
    assert found[0].abs().max() < 1e-12
    assert found[1].norm() > 0.1


@pytest.mark.parametrize("script", [vpg_baseline, *CRITICS])
def test_the_policy_objective_does_not_reach_the_critic(script):
    """Returns of 1 and -1 in one state: V = 0 is the best fit, so its gradient is 0.

    The policy's is not: action 0 earned 1, action 1 earned -1.
    """
    policy, critic = zero_critic(script)
    rollout = one_state_rollout(script, [1.0, -1.0, 1.0, -1.0])
    found = gradients(script, policy, critic, rollout)
    assert found[0].norm() > 0.1
    assert not found[1].any()
    assert not any(parameter.any() for parameter in critic.parameters())


# Entropy bonus, gradient bound, step


@each_action_space
@each_script
def test_the_entropy_bonus_adds_the_gradient_of_the_entropy(script, space):
    """coefficient × ∇H, with a plus: the bonus makes the policy more random.

    H is summed or averaged over the steps as the objective is, so that a coefficient
    weighs the same in all five: against one step's advantage.
    """
    rollout = random_rollout(script, space)
    obs = torch.as_tensor(rollout.obs[:-1][rollout.valid])
    policy, value_function = networks(script, space)

    def entropy():
        """-Σ p log p, or ½ log(2πe σ²) for each dimension, over the valid rows."""
        distribution = policy.distribution(obs)
        if space == "discrete":
            p = distribution.probs
            return -(p * p.log()).sum(-1).mean().item()
        variance = distribution.base_dist.scale**2
        return (0.5 * torch.log(2 * math.pi * math.e * variance)).sum(-1).mean().item()

    exact = finite_differences(entropy, policy)
    fresh = copy.deepcopy(value_function)  # vpg_baseline re-fits the other one
    without, _ = gradients(script, policy, fresh, rollout)
    if script in WHOLE:  # (1/m) Σ_i Σ_t, not a mean over steps
        exact *= rollout.valid.sum().item() / rollout.valid.shape[1]
    flags = {"entropy_coefficient": 0.7}
    found, _ = gradients(script, policy, value_function, rollout, **flags)
    torch.testing.assert_close(found - without, 0.7 * exact, rtol=1e-5, atol=1e-6)
    assert exact.norm() > 0.01


@each_script
def test_the_gradient_norm_of_each_network_is_bounded_on_its_own(script):
    """The direction stays; a gradient below the bound stays altogether."""
    rollout = random_rollout(script)

    def bounded_by(bound):
        policy, critic = networks(script)
        flags = {"max_grad_norm": bound, "baseline_epochs": 1}
        found = gradients(script, policy, critic, rollout, **flags)
        return [gradient for gradient in found if gradient is not None]

    for free, small, large in zip(*map(bounded_by, [math.inf, 0.01, 1000.0])):
        assert 0.01 < free.norm() < 1000
        torch.testing.assert_close(small, 0.01 * free / free.norm(), rtol=1e-3, atol=0)
        torch.testing.assert_close(large, free, rtol=1e-9, atol=1e-12)


@each_script
def test_sgd_moves_the_parameters_by_learning_rate_times_gradient(script):
    rollout = random_rollout(script)
    policy, critic = networks(script)
    start = torch.nn.utils.parameters_to_vector(parameters_of(script, policy, critic))
    args = arguments(script, rollout)
    optimizer = KeepsGradients(parameters_of(script, policy, critic), lr=0.125)
    call_update(args, script, policy, critic, optimizer, rollout)
    moved = torch.nn.utils.parameters_to_vector(parameters_of(script, policy, critic))
    step = ascent(policy)
    if script in CRITICS:
        step = torch.cat([step, ascent(critic)])
    assert step.norm() > 0.1
    torch.testing.assert_close(moved, start + 0.125 * step, rtol=0, atol=1e-12)


@pytest.mark.parametrize("script", WHOLE)
@pytest.mark.parametrize(
    "name, kind", [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam)]
)
def test_train_moves_the_policy_by_the_optimizer_that_was_chosen(
    script, name, kind, tmp_path, monkeypatch
):
    """In each update: SGD by learning rate × gradient, annealed, and Adam otherwise."""
    flags = f"--optimizer {name} --learning-rate 0.125 --total-steps 2000"
    args = script.parse_args([*flags.split(), "--run-dir", str(tmp_path / "run")])
    original, seen = script.update, []

    def watched(args, policy, *rest):
        start = torch.nn.utils.parameters_to_vector(policy.parameters()).detach()
        scalars = original(args, policy, *rest)
        moved = torch.nn.utils.parameters_to_vector(policy.parameters()).detach()
        rate = rest[-2].param_groups[0]["lr"]
        seen.append((type(rest[-2]), rate, moved - start, ascent(policy)))
        return scalars

    monkeypatch.setattr(script, "update", watched)
    script.train(args)
    assert all(issubclass(kind_seen, kind) for kind_seen, *_ in seen)
    assert seen[0][1] == 0.125
    for _, rate, step, gradient in seen:
        assert torch.allclose(step, rate * gradient, atol=1e-6) == (name == "sgd")


@each_script
def test_one_step_along_the_gradient_is_an_improvement(script):
    """A small step lowers the loss that update() reports: the sign is right."""
    rollout = random_rollout(script)
    losses = {}
    for learning_rate in 0.0, 1e-3:
        policy, critic = networks(script)
        parameters = parameters_of(script, policy, critic)
        optimizer = torch.optim.SGD(parameters, lr=learning_rate)
        args = arguments(script, rollout)
        scalars = call_update(args, script, policy, critic, optimizer, rollout)
        losses[learning_rate] = scalars
    assert losses[1e-3]["train/policy_loss"] < losses[0.0]["train/policy_loss"]
    if script in CRITICS:
        assert losses[1e-3]["train/value_loss"] < losses[0.0]["train/value_loss"]
