"""The paper's other experiments and the review's; see docs/experiments.md."""
