"""Reptile and FOMAML written out slowly in float64 NumPy, to hold the compiled learner against.

A two-layer classifier with hand-written gradients, one Python loop for each line of the paper's
algorithms. Shares no code with the package.
"""

import copy

import numpy as np


class DenseNet:
    """logits = tanh(x·W1 + b1)·W2 + b2; the loss is summed over the batch."""

    def __init__(self, weights):
        self.weights = [np.array(w, np.float64) for w in weights]

    def logits(self, x):
        w1, b1, w2, b2 = self.weights
        return np.tanh(x @ w1 + b1) @ w2 + b2

    def gradients(self, x, labels):
        w1, b1, w2, b2 = self.weights
        hidden = np.tanh(x @ w1 + b1)
        logits = hidden @ w2 + b2
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        d_logits = exponentials / exponentials.sum(axis=1, keepdims=True)
        d_logits[np.arange(len(labels)), labels] -= 1.0
        d_hidden = (d_logits @ w2.T) * (1 - hidden**2)
        return [x.T @ d_hidden, d_hidden.sum(0), hidden.T @ d_logits, d_logits.sum(0)]


class Sgd:
    def __init__(self, learning_rate):
        self.learning_rate = learning_rate

    def step(self, weights, gradients):
        return [w - self.learning_rate * g for w, g in zip(weights, gradients, strict=True)]


class Adam:
    """Slots and step count live as long as the object does: they are never reset."""

    def __init__(self, learning_rate, beta_1=0.0, beta_2=0.999, epsilon=1e-8):
        self.learning_rate, self.beta_1, self.beta_2 = learning_rate, beta_1, beta_2
        self.epsilon = epsilon
        self.t, self.m, self.v = 0, None, None

    def step(self, weights, gradients):
        if self.m is None:
            self.m = [np.zeros_like(w) for w in weights]
            self.v = [np.zeros_like(w) for w in weights]
        self.t += 1
        new = []
        for i, (w, g) in enumerate(zip(weights, gradients, strict=True)):
            self.m[i] = self.beta_1 * self.m[i] + (1 - self.beta_1) * g
            self.v[i] = self.beta_2 * self.v[i] + (1 - self.beta_2) * g * g
            rate = self.learning_rate * np.sqrt(1 - self.beta_2**self.t) / (1 - self.beta_1**self.t)
            new.append(w - rate * self.m[i] / (np.sqrt(self.v[i]) + self.epsilon))
        return new


class RmsProp:
    """As Keras has it, ε inside the root; the slot lives as long as the object does."""

    def __init__(self, learning_rate, rho=0.9, epsilon=1e-8):
        self.learning_rate, self.rho, self.epsilon = learning_rate, rho, epsilon
        self.v = None

    def step(self, weights, gradients):
        if self.v is None:
            self.v = [np.zeros_like(w) for w in weights]
        pairs = zip(self.v, gradients, strict=True)
        self.v = [self.rho * v + (1 - self.rho) * g * g for v, g in pairs]
        return [
            w - self.learning_rate * g / np.sqrt(v + self.epsilon)
            for w, g, v in zip(weights, gradients, self.v, strict=True)
        ]


def inner_steps(net, optimizer, examples, indices, labels, weight_decay):
    """Take a step a mini-batch; returns the weights before the last step."""
    before_last = net.weights
    for rows, y in zip(indices, labels, strict=True):
        before_last = net.weights
        net.weights = [weight_decay * w for w in net.weights]
        gradients = net.gradients(examples[rows].astype(np.float64), y)
        net.weights = optimizer.step(net.weights, gradients)
    return before_last


def meta_iteration(weights, optimizer, examples, tasks, meta_step, algorithm, weight_decay=1.0):
    """φ ← φ + ε · mean_i d_i; `tasks` is a list of (indices, labels), each a list of steps."""
    total = [np.zeros_like(w) for w in weights]
    for indices, labels in tasks:
        net = DenseNet(weights)
        before_last = inner_steps(net, optimizer, examples, indices, labels, weight_decay)
        start = weights if algorithm == "reptile" else before_last
        total = [t + (a - s) for t, a, s in zip(total, net.weights, start, strict=True)]
    return [w + meta_step * t / len(tasks) for w, t in zip(weights, total, strict=True)]


def parallel_meta_iteration(
    weights, optimizer, examples, tasks, meta_step, algorithm, weight_decay=1.0
):
    """Like `meta_iteration`, but every task starts from the same slots, which are then averaged."""
    directions, ends = [], []
    for task in tasks:
        own = copy.deepcopy(optimizer)
        moved = meta_iteration(weights, own, examples, [task], 1.0, algorithm, weight_decay)
        directions.append([m - w for m, w in zip(moved, weights, strict=True)])
        ends.append(own)
    for name, value in vars(ends[0]).items():
        if isinstance(value, list):
            slots = [vars(end)[name] for end in ends]
            value = [sum(each) / len(tasks) for each in zip(*slots, strict=True)]
        setattr(optimizer, name, value)
    mean = [sum(each) / len(tasks) for each in zip(*directions, strict=True)]
    return [w + meta_step * d for w, d in zip(weights, mean, strict=True)]
