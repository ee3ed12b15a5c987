"""Command lines at random: each runs, or ends with one line that names the flag."""

import shutil
import tempfile

import faulty  # noqa: F401  registers Faulty-v0
import pytest
import torch
from runs import SCRIPTS, run

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies

NONSENSE = ["", "x", "-1", "nan", "1e999", "0x1", "1,5", "--", "None", "é", "-0", "[1]"]
NUMBERS = {  # flag: values that are fine, values at the border
    "--num-envs": (["1", "2", "3"], ["0", "1e1", "16385"]),
    "--max-episode-steps": (["1", "7", "1000000000000"], ["0", "2.5"]),
    "--seed": (["0", "1", "4294967295"], ["4294967296", "1.0"]),
    "--eval-episodes": (["1", "3"], ["0", "16385"]),
    "--checkpoint-every": (["1", "5", "1000000000000"], ["0"]),
    "--gamma": (["0", "1", "0.5"], ["1.1", "-1e-9"]),
    "--learning-rate": (["0", "1e-3", "1"], ["inf", "1e300", "-1e-9"]),
    "--hidden-sizes": (["1", "4", "8"], ["0", "16385"]),
    "--max-grad-norm": (["0", "0.5", "1e9", "inf"], ["-0.5"]),
    "--initial-variance": (["1e-6", "1", "1e6"], ["0", "inf"]),
    "--entropy-coefficient": (["0", "0.01", "10"], ["inf", "1e300"]),
}
WHOLE = {
    "--weight": (["trajectory", "reward-to-go"], ["both"]),
    "--optimizer": (["adam", "sgd"], ["rmsprop"]),
}
BASELINE = {
    "--baseline-epochs": (["1", "3"], ["0"]),
    "--baseline-learning-rate": (["0", "1e-3"], ["inf", "-1"]),
}
PARTIAL = {
    "--rollout-steps": (["2", "20", "150"], ["1", "0", "1000000000000"]),
    "--gae-lambda": (["0", "0.95", "1"], ["1.01"]),
}
PPO = {"--epochs": (["1", "3"], ["0"]), "--minibatch-size": (["1", "64"], ["0"])}
OWN = {
    "reinforce": WHOLE,
    "vpg_baseline": WHOLE | BASELINE,
    "actor_critic": PARTIAL
    | {
        "--critic-epochs": (["1", "3"], ["0"]),
        "--n-steps": (["1", "3", "1000"], ["0", "1.5", "inf"]),
    },
    "ppo_kl": PARTIAL
    | PPO
    | {
        "--beta": (["0", "1", "1e6"], ["inf"]),
        "--target-kl": (["0", "0.01", "100"], ["inf"]),
    },
    "ppo_clip": PARTIAL | PPO | {"--clip-epsilon": (["0", "0.2", "5"], ["inf"])},
}
TEXTS = {
    "--env-kwargs": (["{}", '{"fault": "one_step"}'], ["{", "[]", "1", '{"a": 1}']),
    "--vectorization": (["auto", "sync"], ["fast"]),
    "--device": (["cpu"], ["tpu"]),
    "--env": (["Faulty-v0"], ["Faulty-v1", "nowhere:Faulty-v0"]),
}
SWITCHES = [
    "--anneal-learning-rate",
    "--normalize-observations",
    "--normalize-rewards",
    "--normalize-advantages",
]


@st.composite
def command_lines(draw, script):
    """The flags of a short run, some of them at a border or nonsense."""
    flags = NUMBERS | TEXTS | OWN[script.__name__]
    words = ["--env", "Faulty-v0", "--total-steps", "400", "--num-envs", "2"]
    words += ["--eval-episodes", "2", "--hidden-sizes", "4"]
    if script in SCRIPTS[2:]:
        words += ["--rollout-steps", "20"]
    for flag in draw(st.lists(st.sampled_from(sorted(flags)), max_size=4, unique=True)):
        fine, border = flags[flag]
        kinds = [fine, fine, fine, border, NONSENSE]
        words += [flag, draw(st.sampled_from(draw(st.sampled_from(kinds))))]
    for switch in draw(st.lists(st.sampled_from(SWITCHES), max_size=2, unique=True)):
        words.append(draw(st.sampled_from([switch, f"--no-{switch[2:]}"])))
    return words


def runs_or_says_why(script, words):
    folder = tempfile.mkdtemp()
    try:
        status, message = run(script, *words, "--run-dir", folder)
        assert status in (0, 2)
        if status == 2:
            named = [word for word in words if word.startswith("--")]
            flag = any(f"{name}:" in message or f"{name} " in message for name in named)
            environment = "cannot make" in message or "unrecognized" in message
            number = "Try a lower --learning-rate" in message
            assert flag or environment or number, message
        else:
            saved = torch.load(f"{folder}/checkpoint.pt", weights_only=True)
            assert saved["state"]["iteration"] > 0 and saved["state"]["steps"] >= 400
            parameters = saved["parts"]["policy"].values()
            assert all(bool(p.isfinite().all()) for p in parameters)
    finally:
        shutil.rmtree(folder)
    return status


def campaign(script, examples):
    """Runs that many command lines; returns how many of them ran to their end."""
    results = []

    @hypothesis.settings(
        max_examples=examples, deadline=None, derandomize=True, database=None
    )
    @hypothesis.given(words=command_lines(script))
    def try_it(words):
        results.append(runs_or_says_why(script, words))

    try_it()
    return len(results), results.count(0)


@pytest.mark.parametrize("script", [SCRIPTS[1], SCRIPTS[4]], ids=lambda s: s.__name__)
def test_command_lines_run_or_end_with_one_line_that_names_the_flag(script):
    tried, ran = campaign(script, examples=12)
    assert tried >= 12 and ran > 0


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.__name__)
def test_five_hundred_command_lines(script, record_property):
    tried, ran = campaign(script, examples=120)
    record_property("command_lines", tried)
    record_property("ran", ran)
    assert tried >= 100 and 10 < ran < tried
