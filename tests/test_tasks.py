"""How tasks and mini-batches are drawn: counted, not looked at, over many shapes and seeds."""

import dataclasses

import numpy as np
import pytest
from helpers import evaluation_tasks, tiny_config, training_tasks, vector_dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from supervised_reptile.config import paper_config
from supervised_reptile.keras_api.array_tasks import evaluation_tasks_of_arrays, tasks_of_arrays
from supervised_reptile.tasks import mini_batches, random_stream, sample_task

SEEDS = st.integers(0, 2**32 - 1)
COUNTS = st.integers(1, 30)


def rng_of(seed):
    return np.random.default_rng(seed)


def same(a, b):
    """Whether two (nested) tuples of arrays are equal; None is equal to None."""
    if a is None or b is None:
        return a is b
    if isinstance(a, tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a.shape == b.shape and np.array_equal(a, b)


# ---------------------------------------------------------------------------- mini-batches


@given(SEEDS, COUNTS, COUNTS, st.integers(0, 12))
def test_dealt_examples_are_used_equally_often_at_every_moment(seed, examples, batch, steps):
    """Any prefix of what is dealt holds each example floor or ceil times: passes, in order."""
    dealt = mini_batches(rng_of(seed), examples, batch, steps, replacement=False)
    assert (dealt.shape, dealt.dtype) == ((steps, batch), np.int32)
    counts = np.cumsum(dealt.ravel()[:, None] == np.arange(examples), axis=0)
    so_far = np.arange(1, dealt.size + 1)
    np.testing.assert_array_equal(counts.sum(axis=1), so_far)
    np.testing.assert_array_equal(counts.min(axis=1), so_far // examples)
    np.testing.assert_array_equal(counts.max(axis=1), -(-so_far // examples))


def test_second_batch_straddles_two_passes():
    # 25 examples, batch 15: 10 that are left of the first pass, 5 of the reshuffled second.
    dealt = mini_batches(rng_of(0), 25, 15, 5, replacement=False)
    assert dealt.shape == (5, 15)
    first, second = set(dealt[0]), dealt[1]
    assert len(first) == 15
    assert first.isdisjoint(second[:10])
    assert first | set(second[:10]) == set(range(25))
    rest = [*second[10:], *dealt[2], *dealt[3][:5]]
    assert sorted(rest) == list(range(25))


def test_each_pass_is_shuffled_anew():
    passes = mini_batches(rng_of(0), 40, 40, 5, replacement=False)
    assert len({tuple(p) for p in passes}) == 5
    # Steps, not passes: dealing k batches does not go k times through the examples.
    assert mini_batches(rng_of(0), 40, 4, 3, replacement=False).shape == (3, 4)


def test_batch_larger_than_the_task_straddles_passes():
    dealt = mini_batches(rng_of(1), 4, 10, 2, replacement=False)
    for row in dealt:  # two and a half passes each
        assert sorted(np.bincount(row, minlength=4)) == [2, 2, 3, 3]
    np.testing.assert_array_equal(np.bincount(dealt.ravel()), [5, 5, 5, 5])


@given(SEEDS, st.data())
def test_with_replacement_examples_are_distinct_within_a_batch(seed, data):
    examples = data.draw(COUNTS)
    batch = data.draw(st.integers(1, examples))
    steps = data.draw(st.integers(0, 12))
    drawn = mini_batches(rng_of(seed), examples, batch, steps, replacement=True)
    assert (drawn.shape, drawn.dtype) == ((steps, batch), np.int32)
    for row in drawn:
        assert len(set(row)) == batch
        assert set(row) <= set(range(examples))


def test_with_replacement_every_batch_is_a_fresh_draw():
    drawn = mini_batches(rng_of(0), 10, 5, 4000, replacement=True)
    # Two batches in a row would share nothing if they were dealt; drawn afresh, 2.5 on average
    # (hypergeometric, variance 25/36).
    shared = [len(set(a) & set(b)) for a, b in zip(drawn[::2], drawn[1::2], strict=True)]
    assert abs(np.mean(shared) - 2.5) < 6 * np.sqrt(25 / 36 / len(shared))
    counts = np.bincount(drawn.ravel(), minlength=10)
    assert abs(counts - 2000).max() < 6 * np.sqrt(4000 * 0.25)


@given(SEEDS, COUNTS, COUNTS)
def test_with_replacement_refuses_a_batch_larger_than_the_task(seed, examples, more):
    with pytest.raises(ValueError, match=rf"batch={examples + more}, num_examples={examples}$"):
        mini_batches(rng_of(seed), examples, examples + more, 3, replacement=True)


# ------------------------------------------------------------------------------------ tasks


@settings(deadline=None)
@given(SEEDS, st.data())
def test_a_task_is_distinct_images_of_distinct_classes(seed, data):
    examples, extra = data.draw(st.integers(1, 9)), data.draw(st.integers(0, 5))
    dataset = vector_dataset(examples=examples, extra=extra, size=1)
    split = data.draw(st.sampled_from(["train", "test"]))
    classes = data.draw(st.integers(1, len(dataset.splits[split])))
    shots = data.draw(st.integers(1, examples))
    rows = sample_task(rng_of(seed), dataset, split, classes, shots)
    assert (rows.shape, rows.dtype) == ((classes, shots), np.int32)
    assert len(set(rows.ravel())) == classes * shots
    owners = np.searchsorted(dataset.class_offsets, rows, side="right") - 1
    assert (owners == owners[:, :1]).all()  # a row of the task is one class …
    assert len(set(owners[:, 0])) == classes  # … another one each
    assert set(owners[:, 0]) <= set(dataset.splits[split])


def test_every_image_of_a_ragged_class_can_be_drawn():
    dataset = vector_dataset(examples=2, extra=3, size=1)
    rng = rng_of(0)
    seen = set()
    for _ in range(200):
        seen.update(sample_task(rng, dataset, "train", 8, 2).ravel())
    assert seen == set(range(dataset.class_offsets[8]))
    # The whole of the smaller classes fits, and one more does not.
    with pytest.raises(ValueError, match="larger sample"):
        sample_task(rng, dataset, "train", 8, 3)
    with pytest.raises(ValueError, match="larger sample"):
        sample_task(rng, dataset, "train", 9, 1)


def chi_square(counts):
    """Statistic of counts that should be equal."""
    expected = np.mean(counts)
    return np.sum((counts - expected) ** 2) / expected


def test_classes_labels_and_images_are_drawn_uniformly():
    dataset = vector_dataset(examples=5, extra=4, size=1)  # classes 1, 3, 5, 7 are larger
    tasks, classes, shots = 4000, 3, 2
    by_class, by_label = np.zeros(8, int), np.zeros((8, classes), int)
    by_image = np.zeros(len(dataset.images), int)
    rng = rng_of(12)
    for _ in range(tasks):
        rows = sample_task(rng, dataset, "train", classes, shots)
        owners = np.searchsorted(dataset.class_offsets, rows[:, 0], side="right") - 1
        by_class[owners] += 1
        by_label[owners, range(classes)] += 1
        np.add.at(by_image, rows.ravel(), 1)

    def bound(degrees):  # met by chance but once in ten million
        return stats.chi2.isf(1e-7, degrees)

    # Draws without replacement vary less than multinomial ones, so the bound is on the safe side.
    assert chi_square(by_class) < bound(7)
    for label in range(classes):
        assert chi_square(by_label[:, label]) < bound(7)
    for c in range(8):
        images = by_image[slice(*dataset.class_offsets[c : c + 2])]
        assert chi_square(images) < bound(len(images) - 1)
    # What the bounds are there to catch: a draw in proportion to the images of a class, or one
    # that leaves out the last class.
    sizes = dataset.class_sizes("train")
    assert chi_square(tasks * classes * sizes / sizes.sum()) > 5 * bound(7)
    assert chi_square(tasks * classes * np.array([*[1 / 7] * 7, 0])) > 5 * bound(7)


# ---------------------------------------------------------------------------- training tasks


def dealt_as_asked(indices, examples, replacement):
    """Whether a task's mini-batches [steps, batch] are dealt out or drawn with replacement."""
    if replacement:
        return all(len(set(row)) == len(row) for row in indices)
    counts = np.unique(indices, return_counts=True)[1]
    return counts.max(initial=0) == -(-indices.size // examples)


def labels_agree_with_classes(dataset, indices, labels):
    """Whether examples of a task have the same label exactly when they have the same class."""
    owners = np.searchsorted(dataset.class_offsets, indices.ravel(), side="right") - 1
    pairs = set(zip(owners.tolist(), labels.ravel().tolist(), strict=True))
    return len(pairs) == len({o for o, _ in pairs}) == len({label for _, label in pairs})


@settings(deadline=None, max_examples=50)
@given(SEEDS, st.booleans(), st.sampled_from([None, "shared", 1, 2, 3]), st.data())
def test_training_tasks(seed, replacement, tail, data):
    classes = data.draw(st.integers(2, 8))
    train_shots = data.draw(st.integers(4, 8))
    separate = tail if isinstance(tail, int) else None
    room = classes * (train_shots - (separate or 0))
    config = tiny_config(
        classes=classes,
        train_shots=train_shots,
        inner_batch=data.draw(st.integers(1, room if replacement else 2 * room)),
        inner_iters=data.draw(st.integers(1, 5)),
        meta_batch=data.draw(st.integers(1, 3)),
        replacement=replacement,
        algorithm="fomaml" if tail else "reptile",
        foml_tail=separate,
    )
    dataset = vector_dataset(classes=12, extra=3, size=1)
    tasks = training_tasks(rng_of(seed), dataset, config)
    meta_batch, batch = config.meta.meta_batch, config.inner.inner_batch
    k = config.inner.inner_iters
    parts = [tasks.steps] + ([] if tasks.last is None else [tasks.last])
    assert all(a.dtype == np.int32 for part in parts for a in part)
    assert (tasks.last is None) == (separate is None)
    # A separate tail comes apart from the other steps.
    head = k if separate is None else k - 1
    assert tasks.steps.indices.shape == tasks.steps.labels.shape == (meta_batch, head, batch)
    if separate is not None:
        size = classes * separate
        assert tasks.last.indices.shape == tasks.last.labels.shape == (meta_batch, 1, size)
    for i in range(meta_batch):
        indices = np.concatenate([part.indices[i].ravel() for part in parts])
        labels = np.concatenate([part.labels[i].ravel() for part in parts])
        assert labels_agree_with_classes(dataset, indices, labels)
        owners = np.searchsorted(dataset.class_offsets, indices, side="right") - 1
        assert set(owners) <= set(dataset.splits["train"])
        assert set(labels) <= set(range(classes))
        assert len(set(indices)) <= classes * train_shots
        if separate is not None:
            head_images, tail_images = tasks.steps.indices[i], tasks.last.indices[i, 0]
            assert set(head_images.ravel()).isdisjoint(tail_images)
            assert len(set(tail_images)) == classes * separate
            np.testing.assert_array_equal(
                np.bincount(tasks.last.labels[i, 0]), [separate] * classes
            )
        # The last batch of a shared tail is dealt on from where the others ended.
        rows = tasks.steps.indices[i] if separate else indices.reshape(k, batch)
        assert dealt_as_asked(rows, room, replacement)


def test_a_shared_tail_is_the_tail_of_the_very_same_deal():
    dataset = vector_dataset()
    reptile = training_tasks(random_stream(0, "training", 4), dataset, tiny_config())
    fomaml = training_tasks(
        random_stream(0, "training", 4), dataset, tiny_config(algorithm="fomaml")
    )
    for name in ("indices", "labels"):
        np.testing.assert_array_equal(getattr(reptile.steps, name), getattr(fomaml.steps, name))
    assert fomaml.last is None


def test_tasks_of_your_own_arrays():
    rng = rng_of(0)
    inputs = rng.normal(size=(3, 8, 2)).astype(np.float32)
    targets = np.stack([inputs.sum(-1), inputs[..., 0]], axis=-1)  # tells which input it belongs to
    table, tasks = tasks_of_arrays(rng, inputs, targets, batch=5, steps=4)
    assert tasks.last is None and tasks.steps.indices.dtype == np.int32
    assert tasks.steps.indices.shape == (3, 4, 5) and tasks.steps.labels.shape == (3, 4, 5, 2)
    picked = table[tasks.steps.indices]
    np.testing.assert_array_equal(picked.sum(-1), tasks.steps.labels[..., 0])
    np.testing.assert_array_equal(picked[..., 0], tasks.steps.labels[..., 1])
    for i in range(3):
        rows = tasks.steps.indices[i]
        assert set(rows.ravel()) == set(range(8 * i, 8 * i + 8))  # 20 places, 8 examples
        assert dealt_as_asked(rows, 8, False)

    queries = rng.normal(size=(3, 6, 2)).astype(np.float32)
    table, held_out = evaluation_tasks_of_arrays(rng, inputs, targets, queries, batch=8, steps=2)
    np.testing.assert_array_equal(table[held_out.queries], queries)
    np.testing.assert_array_equal(table[held_out.support], inputs)
    np.testing.assert_array_equal(
        table[held_out.steps.indices].sum(-1), held_out.steps.labels[..., 0]
    )
    with pytest.raises(ValueError, match=r"as many tasks. Received: shapes \[\(3, 8, 2\)"):
        tasks_of_arrays(rng, inputs, targets[:, 1:], batch=5, steps=4)


def test_training_uses_train_shots_and_evaluation_uses_shots():
    """The trap: `shots` where `train_shots` was meant."""
    dataset = vector_dataset()
    config = tiny_config(shots=2, train_shots=7, inner_batch=21, inner_iters=1, meta_batch=1)
    steps = training_tasks(rng_of(0), dataset, config).steps
    assert len(set(steps.indices.ravel())) == 3 * 7
    np.testing.assert_array_equal(np.bincount(steps.labels.ravel()), [7, 7, 7])
    held_out = evaluation_tasks(0, "evaluation", dataset, "test", config, range(1))
    assert held_out.support.shape == (1, 3 * 2)
    # 0 stands for `shots`.
    config = tiny_config(shots=2, train_shots=0, inner_batch=6, inner_iters=1, meta_batch=1)
    steps = training_tasks(rng_of(0), dataset, config).steps
    np.testing.assert_array_equal(np.bincount(steps.labels.ravel()), [2, 2, 2])


def test_the_tasks_of_a_meta_batch_differ():
    steps = training_tasks(rng_of(0), vector_dataset(), tiny_config(meta_batch=20)).steps
    assert len({tuple(sorted(set(task.ravel()))) for task in steps.indices}) > 15


# -------------------------------------------------------------------------- evaluation tasks


@settings(deadline=None, max_examples=50)
@given(SEEDS, st.booleans(), st.data())
def test_evaluation_tasks(seed, replacement, data):
    classes, shots = data.draw(st.integers(2, 4)), data.draw(st.integers(1, 7))
    most = classes * shots * (1 if replacement else 2)
    config = tiny_config(
        classes=classes,
        shots=shots,
        train_shots=1,
        inner_batch=1,
        eval_batch=data.draw(st.integers(1, most)),
        eval_iters=data.draw(st.integers(0, 5)),
        replacement=replacement,
    )
    dataset = vector_dataset(extra=2, size=1)
    split = data.draw(st.sampled_from(["train", "test"]))
    count = data.draw(st.integers(1, 4))
    tasks = evaluation_tasks(seed, "evaluation", dataset, split, config, range(7, 7 + count))
    shape = (count, config.eval.eval_iters, config.eval.eval_batch)
    assert tasks.steps.indices.shape == tasks.steps.labels.shape == shape
    assert tasks.support.shape == (count, classes * shots)
    assert tasks.queries.shape == (count, classes)
    for i in range(count):
        support, queries = set(tasks.support[i].tolist()), tasks.queries[i].tolist()
        assert len(support) == classes * shots
        assert support.isdisjoint(queries)
        # Fine-tuning sees the support and nothing else.
        assert set(tasks.steps.indices[i].ravel().tolist()) <= support
        assert dealt_as_asked(tasks.steps.indices[i], len(support), replacement)
        # A query a class, and its label is its place: the same as the support's labels.
        place = np.repeat(np.arange(classes), shots)
        indices = np.concatenate([tasks.steps.indices[i].ravel(), tasks.support[i], queries])
        labels = np.concatenate([tasks.steps.labels[i].ravel(), place, np.arange(classes)])
        assert labels_agree_with_classes(dataset, indices, labels)
        owners = np.searchsorted(dataset.class_offsets, queries, side="right") - 1
        assert len(set(owners)) == classes
        assert set(owners) <= set(dataset.splits[split])


def test_which_image_is_held_out_is_random():
    """Not always the last image of a class in the data set's order."""
    config = tiny_config(shots=7, train_shots=1, inner_batch=1)
    tasks = evaluation_tasks(0, "evaluation", vector_dataset(), "test", config, range(300))
    places = tasks.queries % 8  # all classes have 8 images
    counts = np.bincount(places.ravel(), minlength=8)
    assert chi_square(counts) < stats.chi2.isf(1e-7, 7)


@given(SEEDS, st.integers(1, 6), st.integers(0, 50))
@settings(deadline=None, max_examples=30)
def test_an_evaluation_task_is_the_same_however_it_is_grouped(seed, group, first):
    config, dataset = tiny_config(), vector_dataset(size=1)

    def draw(positions):
        return evaluation_tasks(seed, "evaluation", dataset, "test", config, positions)

    whole = draw(range(first, first + 6))
    for start in range(0, 6, group):
        part = draw(range(first + start, first + min(start + group, 6)))
        rows = slice(start, start + group)
        assert same(tuple(part.steps), tuple(a[rows] for a in whole.steps))
        np.testing.assert_array_equal(part.support, whole.support[rows])
        np.testing.assert_array_equal(part.queries, whole.queries[rows])


# ---------------------------------------------------------------------------------- streams


@given(SEEDS, st.sampled_from(["training", "curve", "evaluation"]), st.integers(0, 10**6))
def test_a_place_in_a_stream_always_gives_the_same_numbers(seed, stream, position):
    a, b = (random_stream(seed, stream, position).integers(2**62, size=4) for _ in range(2))
    np.testing.assert_array_equal(a, b)


def test_places_streams_and_seeds_are_independent():
    # A training position is an iteration, an evaluation position is a split and a task.
    positions = {"training": [(i,) for i in range(6)]}
    positions["curve"] = positions["evaluation"] = [(s, i) for s in (0, 1) for i in range(3)]
    numbers = [
        tuple(random_stream(seed, stream, *position).integers(2**62, size=2))
        for seed in (0, 1, 2, 2**32 - 1)
        for stream, places in positions.items()
        for position in places
    ]
    assert len(set(numbers)) == len(numbers) == 4 * 3 * 6
    with pytest.raises(KeyError):
        random_stream(0, "tasks", 0)


def test_tasks_depend_on_seed_stream_split_and_position():
    config, dataset = tiny_config(), vector_dataset(size=1)
    # Two splits of the same classes: only the name of the split tells the tasks apart.
    ids = dataset.splits["train"]
    twins = {"a": ids[::2], "b": ids[1::2]}
    dataset = dataclasses.replace(dataset, splits=twins)

    def places(seed, stream, split, position):
        positions = range(position, position + 1)
        tasks = evaluation_tasks(seed, stream, dataset, split, config, positions)
        # Relative to the split, so that its classes do not tell.
        owners = np.searchsorted(dataset.class_offsets, tasks.queries[0], side="right") - 1
        within = tasks.support[0] - np.repeat(dataset.class_offsets[owners], config.task.shots)
        return (*np.searchsorted(twins[split], owners), *within)

    base = (3, "evaluation", "a", 5)
    assert places(*base) == places(*base)
    for other in (
        (4, "evaluation", "a", 5),
        (3, "curve", "a", 5),
        (3, "evaluation", "b", 5),
        (3, "evaluation", "a", 6),
    ):
        assert places(*other) != places(*base), other

    def draw(seed, iteration):
        rng = random_stream(seed, "training", iteration)
        return training_tasks(rng, dataset, config, split="a")

    assert same(draw(0, 1), draw(0, 1))
    assert not same(draw(0, 1), draw(0, 2))
    assert not same(draw(0, 1), draw(1, 1))


def test_the_papers_tasks_have_the_papers_shapes():
    """Table 3, 5-way: 5 tasks of 5 steps of 10 drawings; evaluation: 50 steps of 5."""
    config = paper_config("glyphs", classes=5, shots=1)
    dataset = vector_dataset(examples=20, classes=15, size=1)
    steps = training_tasks(rng_of(0), dataset, config).steps
    assert steps.indices.shape == (5, 5, 10)
    # 5 · 10 is the whole of a training task, so that each drawing is seen exactly once.
    assert all(len(set(task.ravel())) == 50 for task in steps.indices)
    tasks = evaluation_tasks(0, "evaluation", dataset, "test", config, range(2))
    assert tasks.steps.indices.shape == (2, 50, 5)
    assert tasks.support.shape == tasks.queries.shape == (2, 5)


def test_the_tail_of_arrays_is_seen_whole_and_last():
    rng = np.random.default_rng(0)
    x, y = np.arange(10).reshape(2, 5, 1), np.arange(10).reshape(2, 5)
    tail = 100 + np.arange(6).reshape(2, 3, 1), 100 + np.arange(6).reshape(2, 3)
    table, tasks = tasks_of_arrays(rng, x, y, batch=4, steps=3, tail=tail)
    assert tasks.steps.indices.shape == (2, 2, 4)  # the third step is the tail
    np.testing.assert_array_equal(table[tasks.steps.indices][..., 0], tasks.steps.labels)
    np.testing.assert_array_equal(table[tasks.last.indices][:, 0, :, 0], tail[1])
    np.testing.assert_array_equal(tasks.last.labels[:, 0], tail[1])
    with pytest.raises(ValueError, match="tail must be inputs and as many targets"):
        tasks_of_arrays(rng, x, y, batch=4, steps=3, tail=(tail[0], tail[1][:, 1:]))
