"""Adapt the exported learner to a task; needs this folder and PyTorch, nothing else."""

from pathlib import Path

from learner import Learner
from network import read_safetensors

learner = Learner()

# one task that the learner was not trained on; put your own examples in its place
task = read_safetensors(Path(__file__).parent / "task.safetensors")
adapted = learner.adapt(task["support_inputs"], task["support_targets"])
predicted = adapted.predict(task["query_inputs"])

if learner.facts["classes"]:
    right = (predicted == task["query_targets"]).double().mean()
    print(f"{float(right):.1%} of {len(predicted)} new examples are recognised")
else:
    error = (predicted - task["query_targets"]).square().mean()
    print(f"mean squared error on {len(predicted)} new examples: {float(error):.4g}")
