"""Adapt the exported learner to a task; needs this folder and PyTorch, nothing else."""

from learner import Learner

learner = Learner()

# one task that the learner was not trained on; put your own examples in its place
x, y, x_new, y_new = learner.example()
adapted = learner.adapt(x, y)
predicted = adapted.predict(x_new)

if adapted.labels is None:
    error = (predicted - y_new).square().mean()
    print(f"mean squared error on {len(predicted)} new examples: {float(error):.4g}")
else:
    right = sum(bool(predicted[k] == y_new[k]) for k in range(len(y_new))) / len(y_new)
    print(f"{right:.1%} of {len(predicted)} new examples are recognised")
