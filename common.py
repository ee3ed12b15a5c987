"""Returns and advantages: the quantities that the lecture's estimators are built from.

Arrays are NumPy, time-major: row t, column i is step t in copy i of the environment.

    rewards     (T, N)      r_t, what action a_t earned
    values      (T + 1, N)  V(s_t); the last row is the state after the last action
    terminated  (T, N)      action a_t led to a true end, where V(s_{t+1}) = 0
    done        (T, N)      terminated, or truncated by a time limit: the next row is of
                            another episode, so nothing may flow back from it

A column may hold several episodes. Gymnasium's vector environments reset an environment
on the step after its episode's end; that extra row is not a transition, and whatever
stands here for it must be masked by the caller. Rows of real steps never depend on it.
"""

import numpy as np


def rewards_to_go(rewards, done, gamma):
    """G_t = r_t + γ r_{t+1} + γ² r_{t+2} + ... up to the end of the episode.

    rewards and done are (T, N); the result is (T, N). An episode that the border of the
    batch cuts off gets the rewards that the batch holds: give whole trajectories.
    Raises ValueError if the shapes differ.
    """
    rewards, done = _checked(rewards, done)
    returns = np.empty_like(rewards)
    following = np.zeros(rewards.shape[1])  # G_{t+1}
    for t in reversed(range(len(rewards))):
        following = rewards[t] + gamma * np.where(done[t], 0.0, following)
        returns[t] = following
    return returns


def n_step_returns(rewards, values, terminated, done, gamma, n):
    """R̂_t^(n) = r_t + γ r_{t+1} + ... + γ^{n-1} r_{t+n-1} + γ^n V(s_{t+n}).

    n = 1 is the TD target and n = math.inf the Monte Carlo return. Where the episode or
    the batch ends before n rewards are in, the sum stops there and bootstraps with V of
    the state reached: 0 if it is terminal, V(s_{t+1}) if a time limit cut the episode.

    rewards, terminated and done are (T, N), values (T + 1, N); the result is (T, N).
    Raises ValueError on other shapes and if n is not a whole number >= 1 or math.inf.
    """
    rewards, done, terminated = _checked(rewards, done, terminated)
    values = _checked_values(values, rewards)
    if not (n >= 1 and (n == np.inf or n == int(n))):
        raise ValueError(f"n must be a whole number >= 1 or math.inf, not {n}")
    bootstrap = np.where(terminated, 0.0, values[1:])
    returns = rewards + gamma * bootstrap  # R̂^(1)
    for _ in range(1, int(min(n, len(rewards)))):
        # R̂_t^(k+1) = r_t + γ R̂_{t+1}^(k): the same sum, begun one step later
        following = np.concatenate([returns[1:], values[-1:]])
        returns = rewards + gamma * np.where(done, bootstrap, following)
    return returns


def generalized_advantages(rewards, values, terminated, done, gamma, lam):
    """Â_t = δ_t + γλ δ_{t+1} + (γλ)² δ_{t+2} + ..., δ_t = r_t + γ V(s_{t+1}) - V(s_t).

    Generalized advantage estimation (Schulman et al. 2016, eq. 16), a λ-weighted blend
    of all the n-step advantages: λ = 0 is Â^(1) (TD), λ = 1 is Â^(∞) (Monte Carlo).

    rewards, terminated and done are (T, N), values (T + 1, N); the result is (T, N).
    Raises ValueError on other shapes.
    """
    rewards, done, terminated = _checked(rewards, done, terminated)
    values = _checked_values(values, rewards)
    delta = rewards + gamma * np.where(terminated, 0.0, values[1:]) - values[:-1]
    advantages = np.empty_like(delta)
    following = np.zeros(rewards.shape[1])  # Â_{t+1}
    for t in reversed(range(len(rewards))):
        following = delta[t] + gamma * lam * np.where(done[t], 0.0, following)
        advantages[t] = following
    return advantages


def normalize(x, valid):
    """x shifted to mean 0 and scaled to standard deviation 1 over its valid elements.

    x and valid are of one shape, as is the result; elements not valid don't count.
    Safe for one element and for equal ones: they become 0, but for rounding.
    """
    x = np.asarray(x, dtype=np.float64)
    counted = x[np.asarray(valid, dtype=bool)]
    return (x - counted.mean()) / (counted.std() + 1e-8) if counted.size else x


def normalize_each_step(returns, valid, baseline=None):
    """normalize() of returns minus their mean over the trajectories at the same t.

    All are (T, N) of N whole trajectories, from t = 0 on. The mean at t is a baseline
    that sees nothing but the time: it takes out what t alone decides. Where all agree,
    all becomes 0; so does what the last trajectory does on its own. N = 1 would leave
    nothing at all: there it is normalize() alone.

    A baseline is subtracted as well, if returns vary less with it: one that can't tell
    these trajectories apart would add its own noise to them.
    """

    def minus_mean(x):
        # equal float32 numbers have exactly their mean in float64: nothing is left
        x = np.asarray(x, dtype=np.float32).astype(np.float64)
        many = x.shape[1] > 1
        return x - x.mean(axis=1, keepdims=True, where=valid) if many else x

    returns = minus_mean(returns)
    if baseline is not None:
        advantages = returns - minus_mean(baseline)
        if advantages[valid].var() < returns[valid].var():
            returns = advantages
    return normalize(returns, valid)


def explained_variance(prediction, target):
    """1 - Var[target - prediction] / Var[target] over all elements; both of one shape.

    1 is a perfect critic, 0 one that is no better than a constant, below 0 a worse one.
    0 if the target doesn't vary. Raises ValueError if the shapes differ.
    """
    prediction, target = np.asarray(prediction), np.asarray(target)
    if prediction.shape != target.shape:
        raise ValueError(f"shapes differ: {prediction.shape} and {target.shape}")
    variance = np.var(target) if target.size else 0.0
    return float(1 - np.var(target - prediction) / variance) if variance else 0.0


def _checked(rewards, *flags):
    """rewards as float64 and flags as bool, all of one shape (T, N)."""
    rewards = np.asarray(rewards, dtype=np.float64)
    flags = [np.asarray(flag, dtype=bool) for flag in flags]
    if rewards.ndim != 2 or any(flag.shape != rewards.shape for flag in flags):
        shapes = [rewards.shape, *(flag.shape for flag in flags)]
        raise ValueError(f"rewards and flags must share one shape (T, N), not {shapes}")
    return rewards, *flags


def _checked_values(values, rewards):
    """values as float64, one row longer than rewards."""
    values = np.asarray(values, dtype=np.float64)
    if values.shape != (len(rewards) + 1, rewards.shape[1]):
        raise ValueError(
            f"values must be (T + 1, N) for rewards {rewards.shape}, not {values.shape}"
        )
    return values
