"""Puts the scripts on the path, as they stand beside this folder; one torch thread."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
torch.set_num_threads(1)
