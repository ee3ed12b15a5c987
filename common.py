"""Returns and advantages, the quantities that the lecture's estimators are made of.

Arrays are NumPy; row t, column i is step t in environment i.

    rewards     (T, N)      r_t, the reward of action a_t
    values      (T + 1, N)  V(s_t); the last row is the state after the last action
    terminated  (T, N)      s_{t+1} is terminal, so V(s_{t+1}) = 0
    done        (T, N)      terminated, or truncated by a time limit: the next row
                            belongs to another episode

A column may hold several episodes. Gymnasium's vector environments reset an environment
in the step after its episode ends. That row is no transition: mask the result there.
The other rows do not depend on it.
"""

import numpy as np


def rewards_to_go(rewards, done, gamma):
    """G_t = r_t + γ r_{t+1} + γ² r_{t+2} + ... to the end of the episode.

    rewards and done are (T, N); the result is (T, N). The episodes must be complete:
    rewards after the last row count as 0.
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

    n = 1 is the TD target; n = math.inf is the Monte Carlo return of an episode that
    terminates within the batch. Where the episode or the batch ends earlier, the sum
    ends there, and bootstraps with V of the state reached, which is 0 if terminal.

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
        # R̂_t^(k+1) = r_t + γ R̂_{t+1}^(k)
        following = np.concatenate([returns[1:], values[-1:]])
        returns = rewards + gamma * np.where(done, bootstrap, following)
    return returns


def generalized_advantages(rewards, values, terminated, done, gamma, lam):
    """Â_t = δ_t + γλ δ_{t+1} + (γλ)² δ_{t+2} + ..., δ_t = r_t + γ V(s_{t+1}) - V(s_t).

    Generalized advantage estimation (Schulman et al. 2016, eq. 16), a λ-weighted blend
    of all n-step advantages: λ = 0 is Â^(1), λ = 1 is Â^(∞), like n = math.inf.

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

    x, valid and the result have the same shape. If all elements are equal, they become
    0, and so does a single one.
    """
    x = np.asarray(x, dtype=np.float64)
    counted = x[np.asarray(valid, dtype=bool)]
    return (x - counted.mean()) / (counted.std() + 1e-8) if counted.size else x


def explained_variance(prediction, target):
    """1 - Var[target - prediction] / Var[target] over all elements.

    1 is a perfect critic, up to a constant error; 0 is no better than a constant, below
    0 is worse. 0 if the target does not vary. Raises ValueError if the shapes differ.
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
